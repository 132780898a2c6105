"""All operations that change the disk; no other module has any.

Thin on purpose: each is a single call of `os`, so that tests can make it fail, kill the process
before, during and after it, and check that no call was missed.
"""

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from seq2seq.run.errors import PlatformError

_BUFFER = 1 << 20
_CREATE = os.O_CREAT | getattr(os, "O_BINARY", 0)  # otherwise Windows writes "\n" as "\r\n"


class _RawFile(io.RawIOBase):
    """An open descriptor whose writes are `os.write`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: object) -> int:
        return os.write(self._descriptor, data)  # type: ignore[arg-type]

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._descriptor)


@contextlib.contextmanager
def new_file(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Create a file that must not exist; it is synced to disk when the block ends."""
    raw = _RawFile(os.open(path, os.O_WRONLY | _CREATE | os.O_EXCL, mode))
    try:
        buffered = io.BufferedWriter(raw, _BUFFER)
        yield buffered
        buffered.flush()
        os.fsync(raw.fileno())  # if this fails, the file is lost: never retried
    except BaseException:
        with contextlib.suppress(OSError):  # report the first error
            raw.close()
        raise
    raw.close()  # may also fail: then the file is not committed


def write_new(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Create a file with these bytes and sync it to disk."""
    with new_file(path, mode) as file:
        file.write(data)


def append(path: Path, data: bytes) -> int:
    """Append to a file and return its size. Not synced: a checkpoint records the valid size."""
    descriptor = os.open(path, os.O_WRONLY | _CREATE | os.O_APPEND, 0o666)
    try:
        _write_all(descriptor, data)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def open_lock(path: Path) -> int:
    """Open or create a lock file; return its descriptor."""
    return os.open(path, os.O_RDWR | _CREATE, 0o666)


def rewrite(descriptor: int, data: bytes) -> None:
    """Replace the contents of an open file; for the lock file, which only people read."""
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    _write_all(descriptor, data)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes; a full disk accepts a part first, and fails at the next call."""
    while data:
        data = data[os.write(descriptor, data) :]


def restrict(path: Path) -> None:
    """Make a directory accessible to its owner only."""
    path.chmod(0o700)


def sync(path: Path) -> None:
    """Sync a file that was appended to; does nothing if it is missing."""
    with contextlib.suppress(FileNotFoundError):
        _sync(path, os.O_RDWR)  # Windows cannot sync a file opened for reading


def truncate(path: Path, size: int) -> None:
    """Truncate a file."""
    os.truncate(path, size)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, and sync the new names to disk."""
    if path.is_dir():
        return
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.mkdir(path)  # noqa: PTH102 - all operations here are those of `os`
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    sync_directory(path.parent)


def rename(old: Path, new: Path) -> None:
    """Rename a file or directory, replacing an existing file, and sync the directory."""
    os.replace(old, new)  # noqa: PTH105
    sync_directory(new.parent)


def delete(path: Path) -> None:
    """Delete a file if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


def delete_directory(path: Path) -> None:
    """Delete a directory with its contents if it exists; never follows links."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def delete_empty(path: Path) -> None:
    """Delete a directory, and those above it, while they are empty."""
    with contextlib.suppress(OSError):
        os.removedirs(path)


def sync_directory(directory: Path) -> None:
    """Sync the names in a directory to disk: a rename is only durable after this."""
    if hasattr(os, "O_DIRECTORY"):  # Windows cannot open directories, and syncs names by itself
        _sync(directory, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_FIXES = {
    errno.ENOSPC: "Free some space and start again; what was saved before is intact.",
    errno.EDQUOT: "Free some of your quota and start again; what was saved before is intact.",
    errno.EIO: "Check the disk; what was saved before is intact if it can still be read.",
    errno.EACCES: "Choose a directory that you may write to.",
    errno.EPERM: "Choose a directory that you may write to.",
    errno.EROFS: "Choose a directory that can be written.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n) and start again.",
    errno.ENOENT: "Was the directory moved or deleted meanwhile? Put it back and start again.",
    errno.ESTALE: "The network file system lost it: mount it again and start again.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ENOTDIR: "A part of the path is a file: choose another.",
    errno.EISDIR: "It is a directory: choose another name.",
}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Convert a failed file operation to a one-line error with a fix.

    Raises:
        PlatformError: instead of the OSError.
    """
    try:
        yield
    except OSError as error:
        fix = _FIXES.get(error.errno or 0, "Check the path and start again.")
        raise PlatformError(path, error.strerror or str(error), fix) from error
