"""The run directory: the only module that writes, renames or deletes files of a run.

A file or folder of a run is either whole or absent: it is written under a temporary name beside
its place, synced, and renamed. Folders carry a manifest of SHA-256 sums, written last.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from seq2seq.errors import PlatformError, RunDirError, UntrustedError

MANIFEST = "manifest.json"
_TEMPORARY = re.compile(r"\.(tmp|trash)-")
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_JSON_BYTES = 1 << 20


class RunDir:
    """A run's folder and the rules for changing it. All names are relative to `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: BinaryIO | None = None

    @classmethod
    def create(cls, root: Path) -> "RunDir":
        """Make a new run folder and lock it.

        Raises:
            RunDirError: the folder already holds a run.
            PlatformError: it cannot be made or written.
        """
        if (root / "config.yaml").exists():
            raise RunDirError(
                root, "already holds a run", f"Continue it with resume={root}, or name another."
            )
        with explained(root):
            root.mkdir(parents=True, exist_ok=True)
        run = cls(root)
        run.lock()
        return run

    @classmethod
    def open(cls, root: Path) -> "RunDir":
        """Open an existing run for reading.

        Raises:
            RunDirError: there is no run.
        """
        if not (root / "config.yaml").is_file():
            raise RunDirError(root, "holds no run (no config.yaml)", "Name a run directory.")
        return cls(root)

    def path(self, name: str) -> Path:
        """Return the place of a file or folder of the run."""
        return self.root / name

    def lock(self) -> None:
        """Take the run for this process until it ends.

        `lockf` and not `flock`: it is free the moment its owner dies, forked children or not.

        Raises:
            RunDirError: another process has it.
        """
        path = self.path("run.lock")
        with explained(path):
            handle = path.open("a+b")
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            owner = handle.read(500).decode("utf-8", "replace") or "another process"
            handle.close()
            raise RunDirError(
                self.root, f"in use by {owner}", "Wait for it, or stop it first."
            ) from None
        handle.truncate(0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        handle.write(f"pid {os.getpid()} on {socket.gethostname()} since {started}".encode())
        handle.flush()
        self._lock = handle  # closing any descriptor of the file would drop the lock
        self._sweep()

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
        temporary = final.with_name(f".tmp-{os.getpid()}-{final.name}")
        with explained(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as handle:
                    yield handle
                    handle.flush()
                    os.fsync(handle.fileno())
                temporary.replace(final)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(final.parent)

    def commit_folder(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Write a folder of files with a manifest; it appears whole or not at all.

        An existing folder of that name is kept if it verifies, replaced if it is damaged.
        """
        final = self.path(name)
        temporary = final.with_name(f".tmp-{os.getpid()}-{final.name}")
        sums = {key: _entry(data) for key, data in sorted(files.items())}
        manifest = json.dumps({"format": 1, "files": sums}, indent=2, sort_keys=True).encode()
        with explained(final):
            if final.exists() and verify_folder(final) is None:
                return final
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            try:
                for key, data in [*files.items(), (MANIFEST, manifest)]:  # manifest last
                    _write_synced(temporary / key, data)
                _sync_folder(temporary)
                self.remove_folder(name)
                temporary.rename(final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            _sync_folder(final.parent)
        return final

    def remove_folder(self, name: str) -> None:
        """Delete a folder: renamed away first, so that it never looks half whole."""
        final = self.path(name)
        if not final.exists():
            return
        trash = final.with_name(f".trash-{os.getpid()}-{final.name}")
        with explained(final):
            final.rename(trash)
            shutil.rmtree(trash)

    def append_line(self, name: str, value: Mapping[str, Any]) -> int:
        """Append one JSON line and return the size of the file in bytes."""
        path = self.path(name)
        with explained(path), path.open("ab") as handle:
            handle.write((json.dumps(value, ensure_ascii=False) + "\n").encode())
            return handle.tell()

    def cut(self, name: str, size: int) -> None:
        """Shorten a file to `size` bytes: what a resumed run will write again."""
        path = self.path(name)
        if path.exists() and path.stat().st_size > size:
            os.truncate(path, size)

    def _sweep(self) -> None:
        """Delete what an interrupted process left under a temporary name."""
        for folder in (self.root, *(p for p in self.root.iterdir() if p.is_dir())):
            for leftover in folder.iterdir():
                if not _TEMPORARY.match(leftover.name) or leftover.is_symlink():
                    continue
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink(missing_ok=True)


def verify_folder(folder: Path) -> str | None:
    """Return what is wrong with a committed folder, None if all sums agree."""
    try:
        read_folder(folder)
    except (RunDirError, UntrustedError) as error:
        return error.what
    return None


def read_folder(folder: Path) -> dict[str, bytes]:
    """Read a committed folder: every file once, its bytes checked against the manifest.

    Raises:
        RunDirError: a file is missing, cut or changed.
        UntrustedError: a link, or a name that leads elsewhere.
    """
    entries = read_json(folder / MANIFEST).get("files")
    if not isinstance(entries, dict):
        raise RunDirError(folder / MANIFEST, "not a manifest", "Restore it from a copy.")
    return {name: _read_checked(folder / name, entry) for name, entry in entries.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object of a run."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise RunDirError(path, f"larger than {_MAX_JSON_BYTES} bytes", "Restore the file.")
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunDirError(path, "missing", "Restore it from a copy.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirError(path, f"unreadable ({error})", "Restore it from a copy.") from None
    if not isinstance(value, dict):
        raise RunDirError(path, "not a JSON object", "Restore it from a copy.")
    return value


def _read_checked(path: Path, entry: Any) -> bytes:
    if not _SAFE_NAME.fullmatch(path.name) or path.is_symlink():
        raise UntrustedError(path, "a link or a strange name", "No run of ours has one: refused.")
    try:
        size, digest = entry["size"], entry["sha256"]
        if path.stat().st_size != size:
            raise RunDirError(
                path, f"is {path.stat().st_size} bytes, expected {size}", "Restore it from a copy."
            )
        data = path.read_bytes()
    except (OSError, KeyError, TypeError) as error:
        what = getattr(error, "strerror", None) or "not listed properly"
        raise RunDirError(path, what, "Restore it from a copy.") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise RunDirError(path, "SHA-256 differs from the manifest", "Restore it from a copy.")
    return data


def _entry(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a failed file operation into one line that says what to do."""
    try:
        yield
    except OSError as error:
        fixes = {
            errno.ENOSPC: "Free some space and start again; what was saved before is intact.",
            errno.EDQUOT: "Free some of your quota and start again.",
            errno.EACCES: "Choose a folder that you may write.",
            errno.EROFS: "Choose a folder that can be written.",
        }
        fix = fixes.get(error.errno or 0, "Check the path and start again.")
        raise PlatformError(path, error.strerror or str(error), fix) from error


def provenance(command: list[str] | None = None) -> dict[str, Any]:
    """Return what a result depends on besides config: versions, threads, command.

    No host name, no environment, no path but those that the user typed.
    """
    from importlib.metadata import version

    import torch

    import seq2seq

    packages = ("torch", "sentencepiece", "sacremoses", "sacrebleu", "datasets", "numpy")
    return {
        "format": 1,
        "seq2seq": seq2seq.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "packages": {name: version(name) for name in packages},
        "threads": torch.get_num_threads(),
        "command": command if command is not None else [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
