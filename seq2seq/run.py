"""The run directory: what its files are called and how they come and go.

A file or folder of a run is either whole or absent: it is written under a temporary name beside
its place, synced, and renamed. Folders carry a manifest of SHA-256 sums, written last.
"""

import contextlib
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from seq2seq import fsops
from seq2seq.errors import PlatformError, RunDirError
from seq2seq.fsops import explained
from seq2seq.reading import FORMAT, MANIFEST, check_tree, entry_of, read_folder, seal, verify_folder

log = logging.getLogger(__name__)

_ASIDE = ".old-"
_TEMPORARY = re.compile(r"\.(tmp|trash|old)-")
_OWNER_WRITES = 0.2
"""Seconds in which whoever has just taken a lock will have written who it is."""
_LOCKED_BYTE = " "
"""The first one of a lock file, which Windows lets nobody read while it is locked."""
_SPARE = 1.1
"""Free space asked for before a folder is written, as a multiple of its size."""


class RunDir:
    """A run's folder and the rules for changing it. All names are relative to `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: int | None = None
        self._good: set[str] = set()

    @classmethod
    def create(cls, root: Path) -> "RunDir":
        """Make a new run folder and lock it.

        Raises:
            RunDirError: the folder already holds a run, or another process has just taken it.
            PlatformError: it cannot be made or written.
            UntrustedError: it holds links or pipes.
        """
        with explained(root):
            fsops.make_folder(root)
            check_tree(root)
        run = cls(root)
        taken = (root / "config.yaml").exists()
        if not taken or (root / "run.lock").exists():  # then "in use by" is the better answer
            run.lock()
        if taken or (root / "config.yaml").exists():
            run.unlock()
            raise RunDirError(
                root, "already holds a run", f"Continue it with resume={root}, or name another."
            )
        return run

    @classmethod
    def open(cls, root: Path) -> "RunDir":
        """Open an existing run for reading.

        Raises:
            RunDirError: there is no run.
            UntrustedError: it holds links, pipes or the like.
            PlatformError: it may not be read.
        """
        with explained(root):
            try:
                _look_for_config(root)
                check_tree(root)
            except PermissionError as error:
                where = error.filename or root
                raise PlatformError(where, "may not be read", "Change its permissions.") from None
        return cls(root)

    def path(self, name: str) -> Path:
        """Return the place of a file or folder of the run."""
        return self.root / name

    def lock(self) -> None:
        """Take the run for this process until it ends, and clear away what a dead one left.

        The system frees the lock the moment its owner dies, forked children or not.

        Raises:
            RunDirError: another process has it.
        """
        path = self.path("run.lock")
        with explained(path):
            descriptor = fsops.open_lock(path)
        if not _locked(descriptor, path):
            owner = _owner(descriptor)
            os.close(descriptor)
            raise RunDirError(self.root, f"in use by {owner}", "Wait for it, or stop it first.")
        self._lock = descriptor
        if hasattr(os, "register_at_fork"):  # the lock is held as long as anybody has it open
            os.register_at_fork(after_in_child=self.unlock)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        owner = f"{_LOCKED_BYTE}pid {os.getpid()} on {socket.gethostname()} since {started}"
        with explained(path):
            fsops.rewrite(descriptor, owner.encode())
            self._sweep()

    def unlock(self) -> None:
        """Give the run back before the process ends."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a whole file, replacing an older one in one step."""
        with self.stream(name) as handle:
            handle.write(data.encode() if isinstance(data, str) else data)
        return self.path(name)

    def write_json(self, name: str, value: Any) -> Path:
        """Write JSON with sorted keys."""
        return self.write(name, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """Write a file piece by piece; it appears, whole, when the block ends well."""
        final = self.path(name)
        temporary = _temporary(final)
        with explained(final):
            fsops.make_folder(final.parent)
            fsops.delete(temporary)
            try:
                with fsops.new_file(temporary) as handle:
                    yield handle
                fsops.rename(temporary, final)
            except BaseException:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    fsops.delete(temporary)
                raise

    def commit_folder(
        self, name: str, files: Mapping[str, bytes], about: Mapping[str, Any] | None = None
    ) -> Path:
        """Write a folder of files with a manifest; it appears whole or not at all.

        An existing folder of that name is kept if it holds just this, and replaced otherwise.

        Args:
            name: Of the folder.
            files: Its files.
            about: What its manifest says besides: where the content comes from.

        Raises:
            PlatformError: no space, no permission, a failing disk; an older folder is untouched.
        """
        final = self.path(name)
        if final.exists() and _holds(final, files):
            return final
        temporary = _temporary(final)
        with explained(final):
            fsops.make_folder(final.parent)
            _ask_for_space(final.parent, sum(map(len, files.values())))
            try:
                write_folder(temporary, files, about or {})
                self._put(temporary, final)
            except BaseException:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    fsops.delete_folder(temporary)
                raise
        return final

    def _put(self, temporary: Path, final: Path) -> None:
        """Give a whole folder its name; if the process dies meanwhile, `_sweep` finds the old one.

        Two renames, as a folder cannot take the place of another in one.
        """
        self._good.discard(final.relative_to(self.root).as_posix())
        aside = final.with_name(f"{_ASIDE}{final.name}")
        if final.exists():
            fsops.rename(final, aside)
        try:
            fsops.rename(temporary, final)
        except OSError:
            if not final.exists() and aside.exists():
                fsops.rename(aside, final)
            raise
        fsops.delete_folder(aside)

    def is_good(self, name: str) -> bool:
        """Whether a committed folder can be read back; looked at once in the life of a process."""
        if name not in self._good and verify_folder(self.path(name)) is None:
            self._good.add(name)
        return name in self._good

    @contextlib.contextmanager
    def replace_tree(self, name: str) -> Iterator["RunDir"]:
        """Fill a run directory inside this one; it takes the place of an older one as a whole."""
        final = self.path(name)
        inner = RunDir(_temporary(final))
        with explained(final):
            try:
                fsops.delete_folder(inner.root)
                fsops.make_folder(inner.root)
                yield inner
                self.remove_folder(name)
                fsops.rename(inner.root, final)
            except BaseException:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    fsops.delete_folder(inner.root)
                raise

    def remove_folder(self, name: str) -> None:
        """Delete a folder: renamed away first, so that it never looks half whole."""
        final = self.path(name)
        self._good.discard(name)
        if not final.exists():
            return
        trash = final.with_name(f".trash-{os.getpid()}-{final.name}")
        with explained(final):
            fsops.delete_folder(trash)
            fsops.rename(final, trash)
            fsops.delete_folder(trash)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name."""
        with explained(self.path(old)):
            fsops.rename(self.path(old), self.path(new))

    def append_line(self, name: str, value: Mapping[str, Any]) -> int:
        """Append one JSON line and return the size of the file in bytes."""
        path = self.path(name)
        with explained(path):
            return fsops.append(path, (json.dumps(value, ensure_ascii=False) + "\n").encode())

    def sync(self, name: str) -> None:
        """Bring a file that grew to the disk, before something is committed that counts on it."""
        with explained(self.path(name)):
            fsops.sync(self.path(name))

    def cut(self, name: str, size: int) -> None:
        """Shorten a file to `size` bytes: what a resumed run will write again."""
        path = self.path(name)
        with explained(path):
            if path.exists() and path.stat().st_size > size:
                fsops.truncate(path, size)

    def _sweep(self) -> None:
        """Delete what an interrupted process left under a temporary name, here and one below."""
        _delete_leftovers(self.root)
        for folder in filter(_is_folder, list(self.root.iterdir())):
            _delete_leftovers(folder)


def _delete_leftovers(folder: Path) -> None:
    """Delete what has a temporary name; a folder that was being replaced gets its own back."""
    for path in list(folder.iterdir()):
        replaced = folder / path.name.removeprefix(_ASIDE)
        if path.name.startswith(_ASIDE) and not replaced.exists():
            fsops.rename(path, replaced)
        elif _TEMPORARY.match(path.name):
            (fsops.delete_folder if _is_folder(path) else fsops.delete)(path)


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    return verify_folder(folder) is None and read_folder(folder) == dict(files)


def write_folder(folder: Path, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
    """Write a folder of files, its manifest last, all of it synced."""
    sums = {key: entry_of(data) for key, data in sorted(files.items())}
    manifest = seal({"format": FORMAT, "files": sums, "about": dict(about)})
    fsops.delete_folder(folder)
    fsops.make_folder(folder)
    for key, data in files.items():
        fsops.write_new(folder / key, data)
    fsops.write_new(folder / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode())
    fsops.sync_folder(folder)


def _locked(descriptor: int, path: Path) -> bool:
    """Lock an open file, unless another process has; where there are no locks, only say so."""
    from filelock import lock_descriptor  # takes 0.1 s, and only who trains needs it

    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError as error:
        what = error.strerror or str(error)
        log.warning("%s cannot be locked (%s): let no second process train here", path, what)
        return True


def _owner(descriptor: int) -> str:
    """Return what a lock file says of its owner, who may have taken it a moment ago."""
    time.sleep(_OWNER_WRITES)
    os.lseek(descriptor, len(_LOCKED_BYTE), os.SEEK_SET)
    return os.read(descriptor, 500).decode("utf-8", "replace") or "another process"


def _temporary(final: Path) -> Path:
    return final.with_name(f".tmp-{os.getpid()}-{final.name}")


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _ask_for_space(folder: Path, size: int) -> None:
    free = fsops.free_bytes(folder)
    if free < _SPARE * size:
        raise PlatformError(
            folder,
            f"no space left: {readable(size)} to write, {readable(free)} free",
            "Free some space and start again; what was saved before is intact.",
        )


def readable(size: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _look_for_config(root: Path) -> None:
    """See that a folder is a run; `lexists` would take one that may not be entered for none."""
    try:
        os.lstat(root / "config.yaml")
    except PermissionError:
        raise
    except (OSError, ValueError):
        what = "holds no run (no config.yaml)"
        raise RunDirError(root, what, "Name a run directory.") from None
