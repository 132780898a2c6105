"""Checksums: in the manifest of a directory, in `RECORDS` for other files, or inside a file.

They detect damage, not tampering: whoever writes a directory also writes its manifest.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seq2seq.run.errors import RunDirError, UntrustedError
from seq2seq.run.reading import NOT_ALLOWED, RESTORE, opened, read_bytes, read_json

MANIFEST, CHECKSUMS = "manifest.json", "checksums.json"
RECORDS = ("data_report.json", CHECKSUMS)
"""Records of single files of a run: of its data, and of its config and results."""
FORMAT = 2
MAX_FILE_BYTES = 1 << 33
"""Limit for files with a known checksum read as a whole; the paper's checkpoints have 0.7 GB."""
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class NewerVersionError(RunDirError):
    """Not damage: a later version of this program wrote it."""


def manifest_of(files: Mapping[str, bytes], about: Mapping[str, Any]) -> bytes:
    """Return the manifest of a directory with these files."""
    entries = {name: entry_of(data) for name, data in sorted(files.items())}
    manifest = with_checksum({"format": FORMAT, "files": entries, "about": dict(about)})
    return json.dumps(manifest, indent=2, sort_keys=True).encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a committed directory, or one of `RECORDS`.

    Raises:
        RunDirError: it is missing, damaged, or of an unknown version.
    """
    manifest = read_json(path)
    # The format first: a file of a later version is not damaged. A data report has no format.
    written = manifest.get("format", FORMAT)
    if isinstance(written, int) and written > FORMAT:
        raise NewerVersionError(
            path, f"of a newer version (format {written})", "Use the version that wrote this run."
        )
    if written != FORMAT or not isinstance(manifest.get("files"), dict):
        raise RunDirError(path, "not a manifest", RESTORE)
    return _checked(manifest, path)


def entries_of(path: Path, limit: float = math.inf) -> dict[str, Any]:
    """Return size and checksum of each file in a manifest.

    Raises:
        RunDirError: an entry is invalid, or all files together have more bytes than `limit`.
        UntrustedError: a name points outside the directory.
    """
    entries: dict[str, Any] = read_manifest(path)["files"]
    total = 0
    # Check all entries before the first file is opened.
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


def read_directory(
    directory: Path, limit: int = MAX_FILE_BYTES, unread: Sequence[str] = ()
) -> dict[str, bytes]:
    """Read a committed directory of at most `limit` bytes: every file once, bytes verified.

    Those named in `unread` are left out; they still have to be there and carry no code.

    Raises:
        RunDirError: a file is missing, truncated, changed or too large.
        UntrustedError: a link, a name that points outside, a file that can carry code.
    """
    files = {}
    for name, entry in entries_of(directory / MANIFEST, limit).items():
        if name in unread:
            with opened(directory / name):
                continue
        data = files[name] = read_bytes(directory / name, entry["size"])
        _compare(directory / name, entry, RESTORE, len(data), hashlib.sha256(data).hexdigest)
    return files


def check_file(path: Path, entry: Mapping[str, Any], fix: str = RESTORE) -> None:
    """Check size and SHA-256 of a file of any size.

    Raises:
        RunDirError: it is missing, truncated or changed.
        UntrustedError: not a regular file, or one that can carry code.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        _compare(path, entry, fix, size, lambda: hashlib.file_digest(file, "sha256").hexdigest())


def _compare(
    path: Path, entry: Mapping[str, Any], fix: str, size: int, digest: Callable[[], str]
) -> None:
    if size != entry["size"]:  # first, as hashing is slow
        raise RunDirError(path, f"is {size} bytes, expected {entry['size']}", fix)
    if digest() != entry.get("sha256"):
        raise RunDirError(path, "SHA-256 differs from the recorded one", fix)


def verify_directory(directory: Path) -> str | None:
    """Return what is wrong with a committed directory, None if all checksums agree.

    Raises:
        NewerVersionError: a later version wrote it, so it cannot be verified.
        UntrustedError: it holds content that is not allowed in a run directory.
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
    """Return size and SHA-256 of some bytes, as in a manifest."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def entry_of_file(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file of any size.

    Raises:
        RunDirError: missing.
        UntrustedError: not a regular file.
    """
    with opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size": os.fstat(file.fileno()).st_size, "sha256": digest}


def with_checksum(value: dict[str, Any]) -> dict[str, Any]:
    """Add to a JSON object its own SHA-256, for a file without a manifest."""
    return value | {"sha256": _checksum(value)}


def read_checksummed(path: Path) -> dict[str, Any]:
    """Read a JSON object written `with_checksum`; return it without the checksum.

    Raises:
        RunDirError: missing, unreadable or changed.
    """
    return _checked(read_json(path), path)


def _checked(value: dict[str, Any], path: Path) -> dict[str, Any]:
    content = {key: value[key] for key in value if key != "sha256"}
    if value.get("sha256") != _checksum(content):
        raise RunDirError(path, "SHA-256 differs from the one inside", RESTORE)
    return content


def _checksum(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
