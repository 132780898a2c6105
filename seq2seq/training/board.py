"""A wrapper of TensorBoard's writers whose failures never reach training.

TensorBoard colours lines by run, so the lines of a chart are written as runs of their own below the
run: `train`, `validation`, `encoder`, ...; texts, images and hyperparameters are the run's.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from seq2seq.run.directory import RunDir
from seq2seq.training.layout import description, line_of

log = logging.getLogger(__name__)

EVENTS = "tensorboard"
_FILES = "events.out.tfevents."
# TensorBoard's thread class that writes to disk.
_THREAD = "_AsyncWriterThread"


class Board:
    """Writes TensorBoard events of a run; the first failure gives a warning and turns all off.

    Events later than `update`, written by a killed process, are hidden. Unless `wanted`, every call
    does nothing.
    """

    def __init__(self, run: RunDir, update: int, *, wanted: bool) -> None:
        self._run, self._update = run, update
        self._writers: dict[str, Any] = {}  # by line; "" is the run
        self.on = wanted  # whether events are still written
        self._hook = threading.excepthook
        if not wanted:
            return
        threading.excepthook = self._quiet
        # The lines of earlier processes, whose later events are to be hidden.
        earlier = {path.parent.name for path in run.path(EVENTS).glob(f"*/{_FILES}*")}
        self._try(lambda: [self._writer(line) for line in ("", *sorted(earlier))])

    def add(self, kind: str, *args: Any) -> None:
        """Call the writer's `add_...`."""
        self._try(lambda: getattr(self._writer(""), f"add_{kind}")(*args))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Add a point to a line of a chart, with a description of the chart."""

        def write() -> None:
            from torch.utils.tensorboard.summary import scalar

            summary = scalar(tag, value)
            summary.value[0].metadata.summary_description = description(tag)
            self._writer(line_of(tag)).file_writer.add_summary(summary, step)

        self._try(write)

    def hyperparameters(
        self, values: Mapping[str, Any], scores: dict[str, float], step: int
    ) -> None:
        """Add the hyperparameters of the run and its final scores.

        torch's `add_hparams` writes a list of the columns, too, and TensorBoard shows those of the
        first run that it finds; without such a list it shows the columns of all runs.
        """

        def write() -> None:
            from torch.utils.tensorboard.summary import hparams

            _, *session = hparams(dict(values), scores)
            for summary in session:
                self._writer("").file_writer.add_summary(summary, step)
            for tag, value in scores.items():
                self._writer("").add_scalar(tag, value, step)

        self._try(write)

    def flush(self) -> None:
        """Flush events to disk."""
        self._try(lambda: [writer.flush() for writer in self._writers.values()])

    def close(self) -> None:
        """Close the writers."""
        self._try(lambda: [writer.close() for writer in self._writers.values()])
        self._writers, self.on = {}, False
        if threading.excepthook == self._quiet:
            threading.excepthook = self._hook

    def _writer(self, line: str) -> Any:
        """Return the writer of a line; open it at its first use."""
        if line not in self._writers:
            self._writers[line] = _open_writer(self._run, f"{EVENTS}/{line}", self._update)
        return self._writers[line]

    def _try(self, action: Callable[[], object]) -> None:
        if not self.on:
            return
        try:
            action()
        except Exception as error:  # package missing, disk full: must not end a run of days
            log.warning("TensorBoard gets no more of this run: %s", error or type(error).__name__)
            writers, self._writers, self.on = self._writers, {}, False
            for writer in writers.values():
                with contextlib.suppress(Exception):  # it may have failed
                    writer.close()

    def _quiet(self, args: threading.ExceptHookArgs) -> None:
        """Hide tracebacks of TensorBoard's thread: the writer raises the same error here."""
        if type(args.thread).__name__ != _THREAD:
            self._hook(args)


def _open_writer(run: RunDir, directory: str, update: int) -> Any:
    from torch.utils.tensorboard.writer import SummaryWriter

    # TensorBoard reads event files in the order of their names: start time in seconds, host,
    # process. A clock set back, or two starts within a second, would give the wrong order, so the
    # files of earlier processes are renamed to numbers.
    directory = directory.rstrip("/")
    for number, path in enumerate(sorted(run.path(directory).glob(f"{_FILES}*"))):
        name = f"{_FILES}{number:010d}"
        if path.name != name:
            run.rename(f"{directory}/{path.name}", f"{directory}/{name}")
    # purge_step hides what a killed run logged after its last checkpoint; step 0 is the config.
    return SummaryWriter(str(run.path(directory)), purge_step=update + 1 if update else 0)
