"""Reads files of a run, which may be damaged or untrusted.

Nothing here follows links, waits for pipes, or reads a file before checking its size, and no reader
can run code. Checksums (`checksums.py`) detect damage.
"""

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from seq2seq.run.errors import PlatformError, RunDirError, UntrustedError

MAX_JSON_BYTES = 1 << 20
MAX_JSON_DEPTH = 32
MAX_LINE_BYTES = 1 << 28
"""Limit on lines written by a stage; attention is written as text."""

RESTORE = "Restore it from a copy."
COPY_BACK = "Copy that of a checkpoint back; what may change goes on the command line."
RUN_AGAIN = "Restore it from a copy, or run the stage that wrote it again."
NOT_ALLOWED = "It is not allowed in a run directory."


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file of a run for reading.

    Raises:
        RunDirError: missing or unreadable.
        UntrustedError: a link, a hard link, a directory, a pipe, a device; or a file that can
            carry code.
        PlatformError: no permission to read it.
    """
    try:
        if (problem := _not_plain(os.lstat(path))) is not None or path.is_dir():
            raise UntrustedError(path, problem or "a directory", NOT_ALLOWED)
        with path.open("rb") as file:
            if (kind := _can_carry_code(file.peek(4))) is not None:
                raise UntrustedError(path, kind, NOT_ALLOWED)
            yield file
    except FileNotFoundError:
        raise RunDirError(path, "missing", RESTORE) from None
    except PermissionError:
        raise PlatformError(path, "may not be read", "Change its permissions.") from None
    except OSError as error:
        raise RunDirError(path, f"unreadable ({error.strerror or error})", RESTORE) from None


@contextlib.contextmanager
def expected(path: Path | str) -> Iterator[None]:
    """Convert errors from unexpected content to one that names the file.

    Raises:
        RunDirError: instead of the errors raised by values of the wrong kind.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"has unexpected content ({type(error).__name__})"
        raise RunDirError(path, what, RESTORE) from None


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a file of a run that has at most `limit` bytes.

    Raises:
        RunDirError: missing, too large or unreadable.
        UntrustedError: not a regular file, or one that can carry code.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise RunDirError(path, f"is {size} bytes, more than {limit}", RESTORE)
        return file.read(size + 1)


def _can_carry_code(data: bytes) -> str | None:
    """Return the name of a format that can carry code; never run here, but not allowed in a run."""
    # The length that begins a safetensors file has a third byte below 0x20, which is not an opcode.
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
            try:  # entering `expected` at each line would take longer than reading it
                text = line.decode()
            except UnicodeDecodeError:
                with expected(f"{path}:{number}"):
                    raise
            yield text.removesuffix("\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON object of a run.

    Raises:
        RunDirError: missing, too large, or not a JSON object; NaN and duplicate keys are refused.
        UntrustedError: not a regular file.
    """
    return parse_json(read_bytes(path, MAX_JSON_BYTES), path)


def parse_json(data: bytes, where: Path | str) -> dict[str, Any]:
    """Parse a JSON object; refuse duplicate keys, non-finite numbers and deep nesting.

    Raises:
        RunDirError: it is not such an object.
    """
    try:
        value = json.loads(
            data, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite
        )
        if _deeper(value, MAX_JSON_DEPTH):
            raise ValueError(f"deeper than {MAX_JSON_DEPTH}")
    except (ValueError, RecursionError) as error:
        what = " ".join(str(error).split())[:200]
        raise RunDirError(where, f"unreadable ({what})", RESTORE) from None
    if not isinstance(value, dict):
        raise RunDirError(where, "not a JSON object", RESTORE)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_deeper(item, levels - 1) for item in inner)


def check_tree(root: Path) -> None:
    """Refuse a run with anything but regular files and directories, before using any of it.

    Raises:
        UntrustedError: a link, a hard link, a pipe, a socket, a device.
    """
    for entry in _entries(root):
        # A run in progress may have deleted it in the meantime.
        with contextlib.suppress(FileNotFoundError):
            info = entry.stat(follow_symlinks=False)
            if (problem := _not_plain(info)) is not None:
                raise UntrustedError(entry.path, problem, NOT_ALLOWED)
            if stat.S_ISDIR(info.st_mode):
                check_tree(Path(entry.path))


def _entries(directory: Path) -> Iterator["os.DirEntry[str]"]:
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        yield from entries


def _not_plain(info: os.stat_result) -> str | None:
    """Return what an entry is if it is neither a regular file nor a directory, else None."""
    if stat.S_ISDIR(info.st_mode):
        return None
    if stat.S_ISREG(info.st_mode):
        return "a hard link" if info.st_nlink > 1 else None
    kinds = {stat.S_ISLNK: "a link", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(info.st_mode)), "a device")
