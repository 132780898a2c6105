"""Reading files of a run, which may be damaged or come from a stranger.

Nothing here follows a link, waits for a pipe, or believes a size before it has looked. A manifest
of SHA-256 sums shows damage; it does not show intent, as whoever writes a folder writes its
manifest. What protects from intent is that no reader of this project can run code.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seq2seq.errors import PlatformError, RunDirError, UntrustedError

MANIFEST = "manifest.json"
FORMAT = 2
"""Of manifests. Format 1 had no `about` and no sum of itself; it is still read."""
MAX_JSON_BYTES = 1 << 20
MAX_ENTRIES = 100_000
"""Files and folders in a run; a training has some hundred."""

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
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hang us
    try:
        descriptor = os.open(path, flags)
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


def read_bytes(path: Path, most: int) -> bytes:
    """Read a file of a run.

    Args:
        path: The file.
        most: Refuse it, unread, if it has more bytes.

    Raises:
        RunDirError: missing, too large or unreadable.
        UntrustedError: not a regular file.
    """
    try:
        descriptor = open_own(path)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if size > most:
                raise RunDirError(path, f"is {size} bytes, more than {most}", _RESTORE)
            return file.read(size + 1)
    except FileNotFoundError:
        raise RunDirError(path, "missing", _RESTORE) from None
    except OSError as error:
        raise RunDirError(path, f"unreadable ({error.strerror or error})", _RESTORE) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object of a run.

    Raises:
        RunDirError: missing, too large, or not a JSON object; NaN and keys given twice are refused.
        UntrustedError: not a regular file.
    """
    return parse_json(read_bytes(path, MAX_JSON_BYTES), path)


def parse_json(data: bytes, where: Path) -> dict[str, Any]:
    """Read the bytes of a JSON object."""
    try:
        value = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
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


def read_folder(folder: Path) -> dict[str, bytes]:
    """Read a committed folder: every file once, its bytes checked against the manifest.

    Raises:
        RunDirError: a file is missing, cut or changed.
        UntrustedError: a link, or a name that leads elsewhere.
    """
    entries = read_manifest(folder)["files"]
    return {name: read_checked(folder, name, entry) for name, entry in entries.items()}


def verify_folder(folder: Path) -> str | None:
    """Return what is wrong with a committed folder, None if all sums agree.

    Raises:
        NewerVersionError: it cannot be judged.
    """
    try:
        read_folder(folder)
    except NewerVersionError:
        raise
    except (RunDirError, UntrustedError) as error:
        return error.what
    return None


def read_checked(folder: Path, name: str, entry: Any) -> bytes:
    """Read a file of which size and SHA-256 are known.

    Raises:
        RunDirError: it is missing, cut or changed.
        UntrustedError: a link, or a name that leads elsewhere.
    """
    path = folder / name
    if not _SAFE_NAME.fullmatch(name):
        raise UntrustedError(folder / MANIFEST, f"names a file {name[:80]!r}", _REFUSED)
    size = entry.get("size") if isinstance(entry, dict) else None
    if not isinstance(size, int):
        raise RunDirError(folder / MANIFEST, f"says nothing of {name}", _RESTORE)
    data = read_bytes(path, size)
    if len(data) != size:
        raise RunDirError(path, f"is {len(data)} bytes, expected {size}", _RESTORE)
    if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
        raise RunDirError(path, "SHA-256 differs from the manifest", _RESTORE)
    return data


def entry_of(data: bytes) -> dict[str, Any]:
    """Return what a manifest says of these bytes."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def entry_of_file(path: Path) -> dict[str, Any]:
    """Return what a manifest would say of a file, however large.

    Raises:
        RunDirError: missing.
        UntrustedError: not a regular file.
    """
    try:
        with os.fdopen(open_own(path), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"size": os.fstat(file.fileno()).st_size, "sha256": digest}
    except FileNotFoundError:
        raise RunDirError(path, "missing", _RESTORE) from None


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
        UntrustedError: a link, a hard link, a pipe, a socket, a device, or far too many files.
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
            if count > MAX_ENTRIES:
                raise UntrustedError(root, f"over {MAX_ENTRIES} files", _REFUSED)


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield what is in a folder; a run in progress may have deleted some of it meanwhile."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                yield Path(entry.path), entry.stat(follow_symlinks=False)


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


def _sum_of(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
