"""The run directory: atomic writes, verified reads, and locking.

A file or directory of a run is either complete or absent: it is written under a temporary name in
the same directory, synced, and renamed. Directories have a manifest of checksums, written last.
"""

import contextlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from seq2seq.run import writing
from seq2seq.run.checksums import (
    CHECKSUMS,
    FORMAT,
    MANIFEST,
    RECORDS,
    check_file,
    entries_of,
    entry_of_file,
    manifest_of,
    read_directory,
    verify_directory,
    with_checksum,
)
from seq2seq.run.errors import PlatformError, RunDirError, UntrustedError
from seq2seq.run.lock import RunLock
from seq2seq.run.naming import CONFIG, assignment, other_names
from seq2seq.run.reading import COPY_BACK, NOT_ALLOWED, RESTORE, RUN_AGAIN, check_tree
from seq2seq.run.writing import explained

_ASIDE = ".old-"
_TEMPORARY = re.compile(r"\.(tmp|trash|old)-")


class RunDir:
    """A run's directory and the rules for changing it. All names are relative to `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = RunLock(root / "run.lock")
        self._good: set[str] = set()
        self._checked: set[str] = set()

    @classmethod
    def create(cls, root: Path) -> "RunDir":
        """Make a new run directory and lock it; a run that stopped before it had data is reused.

        Raises:
            RunDirError: it already holds a run, or another process has just locked it.
            PlatformError: it cannot be made or written.
            UntrustedError: it holds links or pipes.
        """
        with explained(root):
            writing.make_directory(root)
            check_tree(root)
        run, config = cls(root), root / CONFIG
        if not config.exists() or (root / "run.lock").exists():  # "in use by" is the better error
            run.lock()
        ours = (root / "run.json").exists()  # otherwise config.yaml may be a user's own
        if config.exists() and (run.has_data() or not ours):
            run.unlock()
            fix = f"Continue it with {shlex.quote(assignment('resume', root))}, or name another."
            raise RunDirError(root, "already holds a run", fix)
        return run

    @classmethod
    def open(cls, root: Path) -> "RunDir":
        """Open an existing run for reading.

        Raises:
            RunDirError: there is no run.
            UntrustedError: it holds links, pipes or the like.
            PlatformError: no permission to read it.
        """
        try:
            os.lstat(root / CONFIG)
            check_tree(root)
        except PermissionError as error:
            where = error.filename or root
            raise PlatformError(where, "may not be read", "Change its permissions.") from None
        except (OSError, ValueError):
            what = "holds no run (no config.yaml)"
            raise RunDirError(root, what, other_names(root)) from None
        return cls(root)

    def has_data(self) -> bool:
        """Whether data has been prepared; until then, nothing in a run depends on its config."""
        return any(self.path(name).exists() for name in (RECORDS[0], "checkpoints"))

    def path(self, name: str) -> Path:
        """Return the path of a file or directory of the run."""
        return self.root / name

    def checked(self, name: str) -> Path:
        """Return the path of a file after verifying its size and checksum against the records.

        Every file outside directories with a manifest is read through this. Files without a record
        are not verified: data being prepared, and results of version 0.1.0.

        Raises:
            RunDirError: the file is missing or has changed, or the record is damaged.
            UntrustedError: one of them is not a regular file.
        """
        path = self.path(name)
        for record in map(self.path, RECORDS if name not in self._checked else ()):
            if record.exists() and (entry := entries_of(record).get(name)):
                fix = {RECORDS[0]: RESTORE}.get(record.name, RUN_AGAIN)
                check_file(path, entry, COPY_BACK if name == CONFIG else fix)
        self._checked.add(name)
        return path

    def record(self, *names: str) -> None:
        """Record size and checksum of written files, for `checked`."""
        record = self.path(CHECKSUMS)
        entries = entries_of(record) if record.exists() else {}
        entries |= {name: entry_of_file(self.path(name)) for name in names}
        self.write_json(CHECKSUMS, with_checksum({"format": FORMAT, "files": entries}))

    def lock(self) -> None:
        """Lock the run for this process until it ends, and delete leftovers of a dead one.

        Raises:
            RunDirError: another process holds the lock.
        """
        self._lock.acquire()
        with explained(self.root):
            _delete_leftovers(self.root)
            for directory in filter(_is_directory, list(self.root.iterdir())):
                _delete_leftovers(directory)

    def unlock(self) -> None:
        """Release the lock before the process ends."""
        self._lock.release()

    def discard(self) -> None:
        """Delete the run, and the directories above it that are empty then."""
        self.unlock()
        with explained(self.root):
            writing.delete_directory(self.root)
            writing.delete_empty(self.root.parent)

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a file, atomically replacing an older one."""
        with self.stream(name) as handle:
            handle.write(data.encode() if isinstance(data, str) else data)
        return self.path(name)

    def write_json(self, name: str, value: Any) -> Path:
        """Write JSON with sorted keys."""
        return self.write(name, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[BinaryIO]:
        """Write a file piece by piece; it appears, complete, when the block succeeds."""
        final = self.path(name)
        temporary = _temporary(final)
        if final.is_dir():
            raise UntrustedError(final, "a directory", NOT_ALLOWED)
        with explained(final):
            writing.make_directory(final.parent)
            writing.delete(temporary)  # left by a dead process with the same id
            try:
                with writing.new_file(temporary) as handle:
                    yield handle
                writing.rename(temporary, final)
            except BaseException:
                with contextlib.suppress(OSError):  # report the first error
                    writing.delete(temporary)
                raise

    def commit_directory(
        self, name: str, files: Mapping[str, bytes], about: Mapping[str, Any] | None = None
    ) -> Path:
        """Write a directory of files with a manifest, atomically.

        An existing directory is kept if it holds exactly these files, and replaced otherwise.
        `about` adds to the manifest, for example where the content comes from.

        Raises:
            PlatformError: no space, no permission, a failing disk; an older directory is untouched.
        """
        final = self.path(name)
        if final.exists() and verify_directory(final) is None and read_directory(final) == files:
            return final
        with self._replacing(name) as temporary:
            for key, data in files.items():
                writing.write_new(temporary / key, data)
            writing.write_new(temporary / MANIFEST, manifest_of(files, about or {}))  # last
        return final

    @contextlib.contextmanager
    def replace_tree(self, name: str) -> Iterator["RunDir"]:
        """Fill a run directory inside this one; it replaces an older one as a whole."""
        with self._replacing(name) as temporary:
            yield RunDir(temporary)

    @contextlib.contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        """Fill a directory under a temporary name; it is renamed when the block succeeds.

        A directory cannot replace another in one step: the old one is renamed first, and renamed
        back if the second step fails, or at the next start (`_delete_leftovers`).
        """
        final = self.path(name)
        temporary, aside = _temporary(final), final.with_name(f"{_ASIDE}{final.name}")
        with explained(final):
            try:
                # Fill it under a temporary name.
                writing.delete_directory(temporary)
                writing.make_directory(temporary)
                yield temporary
                writing.sync_directory(temporary)
                # Replace the old one.
                self._good.discard(name)
                if final.exists():
                    writing.rename(final, aside)
                writing.rename(temporary, final)
            except BaseException:
                with contextlib.suppress(OSError):  # report the first error
                    if aside.exists() and not final.exists():
                        writing.rename(aside, final)
                    writing.delete_directory(temporary)
                raise
            writing.delete_directory(aside)

    def is_good(self, name: str) -> bool:
        """Whether a committed directory verifies; a success is remembered by this process."""
        if name not in self._good and verify_directory(self.path(name)) is None:
            self._good.add(name)
        return name in self._good

    def remove_directory(self, name: str) -> None:
        """Delete a directory; it is renamed first, so that it never appears incomplete."""
        final = self.path(name)
        self._good.discard(name)
        if not final.exists():
            return
        trash = final.with_name(f".trash-{os.getpid()}-{final.name}")
        with explained(final):
            writing.delete_directory(trash)
            writing.rename(final, trash)
            writing.delete_directory(trash)

    def rename(self, old: str, new: str) -> None:
        """Rename a file."""
        with explained(self.path(old)):
            writing.rename(self.path(old), self.path(new))

    def append_line(self, name: str, value: Mapping[str, Any]) -> int:
        """Append one JSON line and return the size of the file in bytes."""
        path = self.path(name)
        with explained(path):
            return writing.append(path, (json.dumps(value, ensure_ascii=False) + "\n").encode())

    def sync(self, name: str) -> None:
        """Sync a file that grew, before committing something that depends on it."""
        with explained(self.path(name)):
            writing.sync(self.path(name))

    def cut(self, name: str, size: int) -> None:
        """Truncate a file to `size` bytes; a resumed run writes the rest again."""
        path = self.path(name)
        with explained(path):
            if path.exists() and path.stat().st_size > size:
                writing.truncate(path, size)


def _delete_leftovers(directory: Path) -> None:
    """Delete temporary files; restore the name of a directory that was being replaced."""
    for path in list(directory.iterdir()):
        replaced = directory / path.name.removeprefix(_ASIDE)
        if path.name.startswith(_ASIDE) and not replaced.exists():
            writing.rename(path, replaced)
        elif _TEMPORARY.match(path.name):
            (writing.delete_directory if _is_directory(path) else writing.delete)(path)


def _temporary(final: Path) -> Path:
    return final.with_name(f".tmp-{os.getpid()}-{final.name}")


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
