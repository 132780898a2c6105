"""The lock of a run: one process at a time may change it."""

import fcntl
import os
import socket
import time
from pathlib import Path

from seq2seq.run import writing
from seq2seq.run.errors import RunDirError
from seq2seq.run.writing import explained

_OWNER_WRITES = 0.2
"""Seconds in which whoever has just taken a lock will have written who it is."""


class RunLock:
    """A locked file that says who has it; free the moment its owner dies, forked children or not.

    Args:
        path: The file; it stays when the lock is released.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock until it is released or the process ends.

        Raises:
            RunDirError: another process has it.
        """
        with explained(self.path):
            descriptor = writing.open_lock(self.path)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock would outlive its owner
        except OSError:
            owner = _owner(descriptor)
            os.close(descriptor)
            what = f"in use by {owner}"
            raise RunDirError(self.path.parent, what, "Wait for it, or stop it first.") from None
        self._descriptor = descriptor  # closing any descriptor of the file would drop the lock
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        owner = f"pid {os.getpid()} on {socket.gethostname()} since {started}"
        with explained(self.path):
            writing.rewrite(descriptor, owner.encode())

    def release(self) -> None:
        """Release the lock before the process ends."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _owner(descriptor: int) -> str:
    """Return what a lock file says of its owner, who may have taken it a moment ago."""
    time.sleep(_OWNER_WRITES)
    return os.pread(descriptor, 500, 0).decode("utf-8", "replace") or "another process"
