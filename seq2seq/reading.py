"""Reading files of a run, which may be damaged or come from a stranger.

Nothing here follows a link, waits for a pipe, or believes a size before it has looked. A manifest
of SHA-256 sums shows damage; it does not show intent, as whoever writes a folder writes its
manifest. What protects from intent is that no reader of this project can run code.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from seq2seq.errors import PlatformError, RunDirError, UntrustedError
from seq2seq.portable import BINARY, NO_LINK, NO_WAIT

MANIFEST = "manifest.json"
FORMAT = 2
"""Of manifests. Format 1 had no `about` and no sum of itself; it is still read."""
MAX_JSON_BYTES = 1 << 20
MAX_JSON_DEPTH = 32
MAX_FILE_BYTES = 1 << 33
"""Of a file with a known sum that is read as a whole; the paper's checkpoints have 0.7 GB."""
MAX_LINE_BYTES = 1 << 28
"""Of what a stage wrote; attention is written as text."""
MAX_ENTRIES = 100_000
"""Files and folders in a run; a training has some hundred."""

MAX_HOLE = 1 << 30
"""Bytes; a larger file may not be a hundred times what it takes on the disk."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESTORE = "Restore it from a copy."
_REFUSED = "No run of ours has one: refused."


class NewerVersionError(RunDirError):
    """Not damage: a later version of this program wrote it."""


def open_own(path: Path) -> int:
    """Open a regular file of a run for reading; return its descriptor.

    Raises:
        FileNotFoundError: there is none.
        UntrustedError: a link, a hard link, a folder, a pipe, a device.
        PlatformError: it may not be read.
    """
    try:
        if not NO_LINK and path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        descriptor = os.open(path, os.O_RDONLY | NO_LINK | NO_WAIT | BINARY)
    except PermissionError:
        raise PlatformError(path, "may not be read", "Change its permissions.") from None
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # a link, a socket, a NUL in the name
        what = getattr(error, "strerror", None) or str(error)
        raise UntrustedError(path, f"no regular file ({what})", _REFUSED) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        kind = "a hard link" if stat.S_ISREG(found.st_mode) else "no regular file"
        raise UntrustedError(path, kind, _REFUSED)
    return descriptor


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file of a run for reading.

    Raises:
        RunDirError: missing or unreadable.
        UntrustedError: not a regular file.
    """
    try:
        with os.fdopen(open_own(path), "rb") as file:
            yield file
    except FileNotFoundError:
        raise RunDirError(path, "missing", _RESTORE) from None
    except OSError as error:
        raise RunDirError(path, f"unreadable ({error.strerror or error})", _RESTORE) from None


@contextlib.contextmanager
def expected(path: Path | str) -> Iterator[None]:
    """Name a file of a run whose content turns out to be something else than was written there.

    Raises:
        RunDirError: instead of what reading a value of the wrong kind raises.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"holds something else than a run of ours ({type(error).__name__})"
        raise RunDirError(path, what, _RESTORE) from None


def read_bytes(path: Path, most: int) -> bytes:
    """Read a file of a run.

    Args:
        path: The file.
        most: Refuse it, unread, if it has more bytes.

    Raises:
        RunDirError: missing, too large or unreadable.
        UntrustedError: not a regular file, or one that can carry code.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise RunDirError(path, f"is {size} bytes, more than {most}", _RESTORE)
        data = file.read(size + 1)
    if (kind := _can_carry_code(data)) is not None:
        raise UntrustedError(path, kind, _REFUSED)
    return data


def _can_carry_code(data: bytes) -> str | None:
    """Say what a file is that nothing here would run, but that is there to be run."""
    # The length that begins a safetensors file has a third byte below 0x20; no opcode is one.
    if data[:1] == b"\x80" and 2 <= int.from_bytes(data[1:2]) <= 5 and data[2:3] >= b" ":
        return "a pickle"
    return "a zip archive (.pt, .pt2, .npz)" if data.startswith(b"PK\x03\x04") else None


def read_lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a text file that a stage of a run wrote.

    Raises:
        RunDirError: missing, or a line without an end, far too long or not UTF-8.
    """
    if not path.exists():
        raise RunDirError(path, "missing", "Run the stage that writes it first.")
    with opened(path) as handle:
        for number, line in enumerate(iter(lambda: handle.readline(MAX_LINE_BYTES), b""), start=1):
            if not line.endswith(b"\n"):
                what = "a line without an end, or far too long"
                raise RunDirError(f"{path}:{number}", what, "Run the stage that wrote it again.")
            with expected(f"{path}:{number}"):
                yield line.decode().removesuffix("\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object of a run.

    Raises:
        RunDirError: missing, too large, or not a JSON object; NaN and keys given twice are refused.
        UntrustedError: not a regular file.
    """
    return parse_json(read_bytes(path, MAX_JSON_BYTES), path)


def parse_json(data: bytes, where: Path | str) -> dict[str, Any]:
    """Read the bytes of a JSON object: no key twice, no number that is not finite, not too deep.

    Raises:
        RunDirError: it is something else.
    """
    try:
        value = json.loads(
            data, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite
        )
        if _deeper(value, MAX_JSON_DEPTH):
            raise ValueError(f"deeper than {MAX_JSON_DEPTH}")
    except (ValueError, RecursionError) as error:
        what = " ".join(str(error).split())[:200]
        raise RunDirError(where, f"unreadable ({what})", _RESTORE) from None
    if not isinstance(value, dict):
        raise RunDirError(where, "not a JSON object", _RESTORE)
    return value


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a committed folder.

    Raises:
        RunDirError: there is none, or it is of a version that this one does not know.
    """
    path = folder / MANIFEST
    manifest = read_json(path)
    written = manifest.get("format")
    if isinstance(written, int) and written > FORMAT:
        raise NewerVersionError(
            path, f"of a newer version (format {written})", "Use the version that wrote this run."
        )
    if written not in (1, FORMAT) or not isinstance(manifest.get("files"), dict):
        raise RunDirError(path, "not a manifest", _RESTORE)
    return manifest if written == 1 else unsealed(manifest, path)


def read_folder(folder: Path, most: int = MAX_FILE_BYTES) -> dict[str, bytes]:
    """Read a committed folder: every file once, its bytes checked against the manifest.

    Args:
        folder: With a manifest.
        most: Refuse, unread, files of more bytes together.

    Raises:
        RunDirError: a file is missing, cut, changed or too large.
        UntrustedError: a link, a name that leads elsewhere, a file that can carry code.
    """
    return {
        name: read_checked(folder, name, entry) for name, entry in entries_of(folder, most).items()
    }


def entries_of(folder: Path, most: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """Return what the manifest of a folder says of its files.

    Raises:
        RunDirError: it says nothing that makes sense, or of more bytes than `most`.
        UntrustedError: it has a name that leads elsewhere.
    """
    entries: dict[str, Any] = read_manifest(folder)["files"]
    total = 0
    for name, entry in entries.items():
        if not _SAFE_NAME.fullmatch(name):
            raise UntrustedError(folder / MANIFEST, f"names a file {name[:80]!r}", _REFUSED)
        size = entry.get("size") if isinstance(entry, dict) else None
        if not isinstance(size, int) or size < 0:
            raise RunDirError(folder / MANIFEST, f"says nothing of {name}", _RESTORE)
        total += size
    if total > most:
        raise RunDirError(folder / MANIFEST, f"names {total} bytes, more than {most}", _RESTORE)
    return entries


def verify_folder(folder: Path) -> str | None:
    """Return what is wrong with a committed folder, None if all sums agree.

    Raises:
        NewerVersionError: it cannot be judged.
        UntrustedError: there is more wrong with it than damage.
    """
    try:
        for name, entry in entries_of(folder, MAX_FILE_BYTES).items():
            if (path := folder / name).is_file() and path.stat().st_size > entry["size"]:
                return f"{name} is larger than the manifest says"
            _compare(path, entry_of_file(path), entry)
    except NewerVersionError:
        raise
    except RunDirError as error:
        return error.what
    return None


def read_checked(folder: Path, name: str, entry: dict[str, Any]) -> bytes:
    """Read a file of which size and SHA-256 are known.

    Raises:
        RunDirError: it is missing, cut or changed.
        UntrustedError: a link, or a file that can carry code.
    """
    data = read_bytes(folder / name, entry["size"])
    _compare(folder / name, entry_of(data), entry)
    return data


def _compare(path: Path, found: dict[str, Any], entry: dict[str, Any]) -> None:
    if found["size"] != entry["size"]:
        what = f"is {found['size']} bytes, expected {entry['size']}"
        raise RunDirError(path, what, _RESTORE)
    if found["sha256"] != entry.get("sha256"):
        raise RunDirError(path, "SHA-256 differs from the manifest", _RESTORE)


def entry_of(data: bytes) -> dict[str, Any]:
    """Return what a manifest says of these bytes."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def entry_of_file(path: Path) -> dict[str, Any]:
    """Return what a manifest would say of a file, however large.

    Raises:
        RunDirError: missing.
        UntrustedError: not a regular file.
    """
    with opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": os.fstat(file.fileno()).st_size, "sha256": digest}


def seal(value: dict[str, Any]) -> dict[str, Any]:
    """Add the SHA-256 of a JSON object to it, for a file that stands alone."""
    return value | {"sha256": _sum_of(value)}


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a JSON object that `seal` closed.

    Raises:
        RunDirError: missing, unreadable or changed.
    """
    return unsealed(read_json(path), path)


def unsealed(value: dict[str, Any], path: Path) -> dict[str, Any]:
    """Check the sum of a sealed JSON object and take it off.

    Raises:
        RunDirError: something in it has changed.
    """
    content = {key: value[key] for key in value if key != "sha256"}
    if value.get("sha256") != _sum_of(content):
        raise RunDirError(path, "SHA-256 differs from the one inside", _RESTORE)
    return content


def check_tree(root: Path) -> None:
    """Refuse a run in which anything is not a plain file or folder, before any of it is used.

    Raises:
        UntrustedError: a link, a hard link, a pipe, a socket, a device, a file of a terabyte that
            takes no room, or far too many files.
    """
    folders, count = [root], 0
    while folders:
        for path, found in _entries(folders.pop()):
            count += 1
            if stat.S_ISDIR(found.st_mode):
                folders.append(path)
            elif not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                what = "a hard link" if stat.S_ISREG(found.st_mode) else _kind(found.st_mode)
                raise UntrustedError(path, what, _REFUSED)
            if found.st_size > MAX_HOLE and _on_disk(found) < found.st_size // 100:
                raise UntrustedError(path, "a file that is mostly a hole", _REFUSED)
            if count > MAX_ENTRIES:
                raise UntrustedError(root, f"over {MAX_ENTRIES} files", _REFUSED)


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield what is in a folder; a run in progress may have deleted some of it meanwhile."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                yield Path(entry.path), entry.stat(follow_symlinks=False)


def _on_disk(found: os.stat_result) -> int:
    """Return how many bytes a file takes; its size on Windows, which does not say."""
    return found.st_blocks * 512 if hasattr(found, "st_blocks") else found.st_size


def _kind(mode: int) -> str:
    kinds = {stat.S_ISLNK: "a link", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(mode)), "a device")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is given twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    if (value := float(text)) in (math.inf, -math.inf):
        raise ValueError(f"{text[:20]} is too large")
    return value


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_deeper(item, levels - 1) for item in inner)


def _sum_of(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
