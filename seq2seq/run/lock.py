"""The lock of a run: only one process at a time may change it."""

import contextlib
import logging
import os
import socket
import time
from pathlib import Path

from seq2seq.run import writing
from seq2seq.run.errors import RunDirError
from seq2seq.run.writing import explained

log = logging.getLogger(__name__)

_OWNER_WRITES = 0.2
"""Seconds after which a new owner will have written its name."""
_LOCKED_BYTE = " "
"""The first byte of a lock file, which is unreadable on Windows while locked."""


class RunLock:
    """A locked file that names its owner; the system releases it when the owner dies.

    The file is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock until it is released or the process ends.

        Raises:
            RunDirError: another process holds it.
        """
        with explained(self.path):
            descriptor = writing.open_lock(self.path)
        if not _lock(descriptor, self.path):
            owner = _owner(descriptor)  # waits, and so outlasts an `is_locked` elsewhere
            if not _lock(descriptor, self.path):
                os.close(descriptor)
                what = f"in use by {owner}"
                raise RunDirError(self.path.parent, what, "Wait for it, or stop it first.")
        self._descriptor = descriptor
        if hasattr(os, "register_at_fork"):  # a child that keeps it open would hold the lock
            os.register_at_fork(after_in_child=self.release)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        owner = f"{_LOCKED_BYTE}pid {os.getpid()} on {socket.gethostname()} since {started}"
        with explained(self.path):
            writing.rewrite(descriptor, owner.encode())

    def release(self) -> None:
        """Release the lock before the process ends."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(path: Path) -> bool:
    """Return whether a process holds a lock file; False where that cannot be found out."""
    from filelock import lock_descriptor

    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return not lock_descriptor(descriptor, blocking=False)
        finally:
            os.close(descriptor)
    return False


def _lock(descriptor: int, path: Path) -> bool:
    """Try to lock an open file; return False if another process has. Without lock support, warn."""
    from filelock import lock_descriptor  # takes 0.1 s, and only training needs it

    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError as error:
        what = error.strerror or str(error)
        log.warning("%s cannot be locked (%s): let no second process train here", path, what)
        return True


def _owner(descriptor: int) -> str:
    """Return the owner written in a lock file, waiting in case it was taken a moment ago."""
    time.sleep(_OWNER_WRITES)
    os.lseek(descriptor, len(_LOCKED_BYTE), os.SEEK_SET)
    return os.read(descriptor, 500).decode("utf-8", "replace") or "another process"
