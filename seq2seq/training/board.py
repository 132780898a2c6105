"""A wrapper of TensorBoard's writer whose failures never reach training."""

import contextlib
import logging
import threading
from typing import Any

from seq2seq.run.directory import RunDir

log = logging.getLogger(__name__)

EVENTS = "tensorboard"
# TensorBoard's thread class that writes to disk.
_THREAD = "_AsyncWriterThread"


class Board:
    """Writes TensorBoard events of a run; the first failure gives a warning and turns it off.

    Args:
        run: The run; events go to its `tensorboard/`.
        update: The current update. Later events, written by a killed process, are hidden.
        wanted: If False, every call does nothing.
    """

    def __init__(self, run: RunDir, update: int, *, wanted: bool) -> None:
        self._writer: Any = None
        self._hook = threading.excepthook
        if not wanted:
            return
        threading.excepthook = self._quiet
        try:
            self._writer = _open_writer(run, update)
        except Exception as error:  # package missing, disk full, a file in the way
            self._give_up(error)

    @property
    def on(self) -> bool:
        """Whether events are still written."""
        return self._writer is not None

    def add(self, kind: str, *args: Any, **kwargs: Any) -> None:
        """Call the writer's `add_...`."""
        self._do(f"add_{kind}", *args, **kwargs)

    def flush(self) -> None:
        """Flush events to disk."""
        self._do("flush")

    def close(self) -> None:
        """Close the writer."""
        self._do("close")
        self._writer = None
        if threading.excepthook == self._quiet:
            threading.excepthook = self._hook

    def _do(self, method: str, *args: Any, **kwargs: Any) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*args, **kwargs)
        except Exception as error:  # logging must not end a run of days
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        log.warning("TensorBoard gets no more of this run: %s", error or type(error).__name__)
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):  # it has already failed
                writer.close()

    def _quiet(self, args: threading.ExceptHookArgs) -> None:
        """Hide tracebacks of TensorBoard's thread: the writer raises the same error here."""
        if type(args.thread).__name__ != _THREAD:
            self._hook(args)


def _open_writer(run: RunDir, update: int) -> Any:
    from torch.utils.tensorboard.writer import SummaryWriter

    # TensorBoard reads event files in the order of their names: start time in seconds, host,
    # process. A clock set back, or two starts within a second, would give the wrong order, so the
    # files of earlier processes are renamed to numbers.
    for number, path in enumerate(sorted(run.path(EVENTS).glob("events.out.tfevents.*"))):
        name = f"events.out.tfevents.{number:010d}"
        if path.name != name:
            run.rename(f"{EVENTS}/{path.name}", f"{EVENTS}/{name}")
    # purge_step hides what a killed run logged after its last checkpoint; step 0 is the config.
    return SummaryWriter(str(run.path(EVENTS)), purge_step=update + 1 if update else 0)
