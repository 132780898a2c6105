"""Checksums: of the files of a directory in its manifest, of others in `RECORDS`, or inside a file.

They show damage, not intent: whoever writes a directory writes its manifest.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from seq2seq.run.errors import RunDirError, UntrustedError
from seq2seq.run.reading import NOT_ALLOWED, RESTORE, opened, read_bytes, read_json

MANIFEST, CHECKSUMS = "manifest.json", "checksums.json"
RECORDS = ("data_report.json", CHECKSUMS)
"""Manifests of files of a run that come one by one: of its data, and of config and results."""
FORMAT = 2
MAX_FILE_BYTES = 1 << 33
"""Of a file with a known checksum that is read as a whole; the paper's checkpoints have 0.7 GB."""
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class NewerVersionError(RunDirError):
    """Not damage: a later version of this program wrote it."""


def manifest_of(files: Mapping[str, bytes], about: Mapping[str, Any]) -> bytes:
    """Return the manifest of a directory that holds these files."""
    entries = {name: entry_of(data) for name, data in sorted(files.items())}
    manifest = with_checksum({"format": FORMAT, "files": entries, "about": dict(about)})
    return json.dumps(manifest, indent=2, sort_keys=True).encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """Return a manifest: of a committed directory, or one of `RECORDS`.

    Raises:
        RunDirError: there is none, or it is of a version that this one does not know.
    """
    manifest = read_json(path)
    # The format first: what a later version wrote is not damaged. A data report has none.
    written = manifest.get("format", FORMAT)
    if isinstance(written, int) and written > FORMAT:
        raise NewerVersionError(
            path, f"of a newer version (format {written})", "Use the version that wrote this run."
        )
    if written != FORMAT or not isinstance(manifest.get("files"), dict):
        raise RunDirError(path, "not a manifest", RESTORE)
    return checked(manifest, path)


def entries_of(path: Path, limit: float = math.inf) -> dict[str, Any]:
    """Return size and checksum of each file that a manifest names.

    Raises:
        RunDirError: an entry makes no sense, or all together have more bytes than `limit`.
        UntrustedError: it has a name that leads elsewhere.
    """
    entries: dict[str, Any] = read_manifest(path)["files"]
    total = 0
    # All of it is checked before the first file is opened.
    for name, entry in entries.items():
        parts = [name] if path.name == MANIFEST else name.split("/", 1)
        if not all(map(_SAFE_NAME.fullmatch, parts)):
            raise UntrustedError(path, f"names a file {name[:80]!r}", NOT_ALLOWED)
        size = entry.get("size") if isinstance(entry, dict) else None
        if not isinstance(size, int) or size < 0:
            raise RunDirError(path, f"has no size of {name}", RESTORE)
        total += size
    if total > limit:
        raise RunDirError(path, f"names {total} bytes, more than {limit}", RESTORE)
    return entries


def read_directory(directory: Path, limit: int = MAX_FILE_BYTES) -> dict[str, bytes]:
    """Read a committed directory: every file once, its bytes checked against the manifest.

    Args:
        directory: With a manifest.
        limit: Refuse, unread, files of more bytes together.

    Raises:
        RunDirError: a file is missing, cut, changed or too large.
        UntrustedError: a link, a name that leads elsewhere, a file that can carry code.
    """
    files = {}
    for name, entry in entries_of(directory / MANIFEST, limit).items():
        data = files[name] = read_bytes(directory / name, entry["size"])
        _compare(directory / name, entry, RESTORE, len(data), hashlib.sha256(data).hexdigest)
    return files


def check_file(path: Path, entry: Mapping[str, Any], fix: str = RESTORE) -> None:
    """See that a file, however large, has a known size and SHA-256.

    Raises:
        RunDirError: it is missing, cut or changed.
        UntrustedError: not a regular file, or one that can carry code.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        _compare(path, entry, fix, size, lambda: hashlib.file_digest(file, "sha256").hexdigest())


def _compare(
    path: Path, entry: Mapping[str, Any], fix: str, size: int, digest: Callable[[], str]
) -> None:
    if size != entry["size"]:  # first: hashing takes long
        raise RunDirError(path, f"is {size} bytes, expected {entry['size']}", fix)
    if digest() != entry.get("sha256"):
        raise RunDirError(path, "SHA-256 differs from the recorded one", fix)


def verify_directory(directory: Path) -> str | None:
    """Return what is wrong with a committed directory, None if all checksums agree.

    Raises:
        NewerVersionError: it cannot be judged.
        UntrustedError: it holds what is not allowed in a run directory.
    """
    try:
        for name, entry in entries_of(directory / MANIFEST, MAX_FILE_BYTES).items():
            check_file(directory / name, entry)
    except NewerVersionError:
        raise
    except RunDirError as error:
        return error.what
    return None


def entry_of(data: bytes) -> dict[str, Any]:
    """Return size and SHA-256 of some bytes, as a manifest has them."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def entry_of_file(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file, however large.

    Raises:
        RunDirError: missing.
        UntrustedError: not a regular file.
    """
    with opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": os.fstat(file.fileno()).st_size, "sha256": digest}


def with_checksum(value: dict[str, Any]) -> dict[str, Any]:
    """Add the SHA-256 of a JSON object to it, for a file that stands alone."""
    return value | {"sha256": _checksum(value)}


def read_checksummed(path: Path) -> dict[str, Any]:
    """Read a JSON object that was written `with_checksum`.

    Raises:
        RunDirError: missing, unreadable or changed.
    """
    return checked(read_json(path), path)


def checked(value: dict[str, Any], path: Path) -> dict[str, Any]:
    """Check the checksum inside a JSON object; return the object without it.

    Raises:
        RunDirError: something in it has changed.
    """
    content = {key: value[key] for key in value if key != "sha256"}
    if value.get("sha256") != _checksum(content):
        raise RunDirError(path, "SHA-256 differs from the one inside", RESTORE)
    return content


def _checksum(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
