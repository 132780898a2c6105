"""TensorBoard's writer, of which no failure reaches the training."""

import contextlib
import logging
import threading
from typing import Any

from seq2seq.run.directory import RunDir

log = logging.getLogger(__name__)

EVENTS = "tensorboard"
# TensorBoard's class that writes to the disk.
_THREAD = "_AsyncWriterThread"


class Board:
    """Events of a run for TensorBoard; the first failure is one warning and the end of them.

    Args:
        run: Its `tensorboard/` takes them.
        update: Where training stands. Later events, of a killed process, are hidden.
        wanted: False makes every call do nothing.
    """

    def __init__(self, run: RunDir, update: int, *, wanted: bool) -> None:
        self._writer: Any = None
        self._hook = threading.excepthook
        if not wanted:
            return
        threading.excepthook = self._quiet
        try:
            self._writer = _open_writer(run, update)
        except Exception as error:  # no package, no space, a file in its way
            self._give_up(error)

    @property
    def on(self) -> bool:
        """Whether events are still taken."""
        return self._writer is not None

    def add(self, kind: str, *args: Any, **kwargs: Any) -> None:
        """Call the writer's `add_...`."""
        self._do(f"add_{kind}", *args, **kwargs)

    def flush(self) -> None:
        """Bring events to disk."""
        self._do("flush")

    def close(self) -> None:
        """End all output."""
        self._do("close")
        self._writer = None
        if threading.excepthook == self._quiet:
            threading.excepthook = self._hook

    def _do(self, method: str, *args: Any, **kwargs: Any) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*args, **kwargs)
        except Exception as error:  # watching must not end a run of days
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        log.warning("TensorBoard gets no more of this run: %s", error or type(error).__name__)
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):  # it has failed before
                writer.close()

    def _quiet(self, args: threading.ExceptHookArgs) -> None:
        """Leave out the traceback of its thread: the writer raises the same error to us."""
        if type(args.thread).__name__ != _THREAD:
            self._hook(args)


def _open_writer(run: RunDir, update: int) -> Any:
    from torch.utils.tensorboard.writer import SummaryWriter

    # TensorBoard reads event files in the order of their names: the second of their beginning,
    # host, process. A clock that was set back, or two starts in a second, would put them in
    # disorder, so those of earlier processes are numbered.
    for number, path in enumerate(sorted(run.path(EVENTS).glob("events.out.tfevents.*"))):
        name = f"events.out.tfevents.{number:010d}"
        if path.name != name:
            run.rename(f"{EVENTS}/{path.name}", f"{EVENTS}/{name}")
    # purge_step hides what a killed run had logged after its last checkpoint; step 0 is the config.
    return SummaryWriter(str(run.path(EVENTS)), purge_step=update + 1 if update else 0)
