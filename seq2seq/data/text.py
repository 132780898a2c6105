r"""The one reader of text files: strict about bytes, silent about nothing.

A line ends at `\n` and nowhere else, as `wc -l` and sacreBLEU count; `str.splitlines` and the
usual text loaders also break at a lone `\r`, U+2028 or U+0085 and so shift the two sides of a
corpus against each other. Nothing is replaced: what cannot be read is an error with its line.
"""

import gzip
import hashlib
import io
import logging
import lzma
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import IO, Protocol, TypeVar, cast

from seq2seq.run.errors import DataError, PlatformError

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line is refused, so that an archive of zeros cannot fill the memory."""

_MAGIC = {".gz": b"\x1f\x8b", ".xz": b"\xfd7zXZ\x00"}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"
_CONTROL = re.compile(rb"[\x01-\x08\x0b-\x1f\x7f]")
_BUFFER = 1 << 20

T = TypeVar("T")


class Lines(Protocol):
    """What the reader asks of an open stream."""

    def readline(self, limit: int, /) -> bytes:
        """Return the next line with its end, or as much of it as `limit` bytes; b"" at the end."""
        ...


@dataclass
class FileReport:
    r"""What was met in one file; complete when its last line has been read."""

    name: str
    sha256: str = ""
    """Of the bytes as they lie on the disk, or of the rows of a dataset, in hex."""
    lines: int = 0
    """Lines, or rows of a table."""
    carriage_returns: int = 0
    r"""Lines whose end was `\r\n`; the `\r` was dropped."""
    byte_order_marks: int = 0
    """1 if the file began with one; it was dropped."""
    control_characters: int = 0
    """Lines that hold some, tabs apart; they were kept."""


def read_lines(path: Path) -> Iterator[str]:
    r"""Read a text file, or one packed with gzip or xz, line by line without line ends.

    A last line without `\n` counts, a final `\n` adds none. One `\r` at a line end and a byte
    order mark at the start of the file are dropped. Archives are recognised by their first bytes.

    Raises:
        DataError: no such file, not a regular file, damaged archive, line above `MAX_LINE_BYTES`,
            bytes that are not UTF-8, a NUL, a change of the file meanwhile. Lines and bytes are
            counted from 1.
        PlatformError: the file may not be read, or the disk fails.
    """
    yield from strict(scan_lines(path, FileReport(path.name)))


def scan_lines(path: Path, report: FileReport) -> Iterator[str | DataError]:
    """Read like `read_lines`, but give a line that is no text as its error and go on behind it."""
    with _open_hashed(path, report) as file, _read_errors(path), _unpacked(path, file) as unpacked:
        yield from scan_stream(unpacked, path, report)


def scan_stream(stream: Lines, name: Path | str, report: FileReport) -> Iterator[str | DataError]:
    """Read like `scan_lines`, from what is open already; `name` is for errors."""
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        report.lines += 1
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(
                f"{name}:{report.lines}",
                f"line above {MAX_LINE_BYTES} bytes",
                "Is this a text file?",
            )
        try:
            line: str | DataError = _decode(raw, name, report)
        except DataError as error:
            line = error
        yield line


def strict(items: Iterable[T | DataError]) -> Iterator[T]:
    """Pass on what was read; the first error among it is raised."""
    for item in items:
        if isinstance(item, DataError):
            raise item
        yield item


def read_parallel(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Read two files side by side, both to their ends.

    Unequal counts are found at the end, where both are known, so the caller uses up the whole
    iterator before it trusts a single pair.

    Raises:
        DataError: the files differ in their number of lines, or as in `read_lines`.
        PlatformError: as in `read_lines`.
    """
    yield from strict(scan_parallel(source, target, []))


def scan_parallel(
    source: Path, target: Path, reports: list[FileReport]
) -> Iterator[tuple[str, str] | DataError]:
    """Read like `read_parallel`; a pair of which a side is no text is given as its error.

    Args:
        source: One file.
        target: The other.
        reports: Grows by the reports of the two files.
    """
    if _same_file(source, target):
        logger.warning("%s is both source and target: the model would learn to copy", source)
    src_report, tgt_report = FileReport(source.name), FileReport(target.name)
    reports += [src_report, tgt_report]
    both = zip_longest(scan_lines(source, src_report), scan_lines(target, tgt_report))
    for src, tgt in both:
        if isinstance(src, DataError):
            yield src
        elif isinstance(tgt, DataError):
            yield tgt
        elif src is not None and tgt is not None:
            yield src, tgt
    if src_report.lines != tgt_report.lines:
        # en/train.txt and fr/train.txt need their folders to be told apart
        same = source.name == target.name
        src_name, tgt_name = (source, target) if same else (source.name, target.name)
        raise DataError(
            source,
            f"{src_name} has {src_report.lines} lines, {tgt_name} has {tgt_report.lines}",
            "Line n of one file must translate line n of the other.",
        )


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.absolute() == other.absolute() or one.samefile(other)
    except (OSError, ValueError):  # reading says better what is wrong with it
        return False


@contextmanager
def open_steady(path: Path) -> Iterator[io.FileIO]:
    """Open a regular file, unbuffered; at the end see that nobody has written to it meanwhile.

    Raises:
        DataError: as in `open_regular`, or its size or time of change is another than before.
        PlatformError: as in `open_regular`.
    """
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        yield file
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            what = f"was changed while it was read ({before.st_size} bytes, then {after.st_size})"
            raise DataError(path, what, "Let nothing write to it, and start again.")


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex.

    Raises:
        UserError: as in `open_steady`.
    """
    with open_steady(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: Path) -> io.FileIO:
    """Open a regular file for reading bytes; nothing else, so that no pipe or device hangs.

    Raises:
        DataError: there is no such file, or it is not a regular one.
        PlatformError: it may not be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise DataError(path, "is a directory", "Name a file.")
        if not stat.S_ISREG(mode):
            raise DataError(path, "is not a regular file", "Name a file; pipes cannot be read.")
        return path.open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(path, "no such file", "Check the name and data.root.") from None
    except PermissionError:
        raise PlatformError(path, "may not be read", "Change its permissions.") from None
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a NUL in it
        what = getattr(error, "strerror", None) or str(error)
        raise DataError(path, f"cannot be opened ({what})", "Name a readable file.") from None


def check_text(text: str, where: str) -> str:
    """Return text that came from a table, after the checks that bytes from a file undergo.

    Raises:
        DataError: it holds a NUL or half a surrogate pair.
    """
    if "\0" in text:
        raise DataError(where, f"NUL at character {text.index(chr(0)) + 1}", "Remove it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"half a surrogate pair at character {error.start + 1}"
        raise DataError(where, what, "Write the whole character.") from None
    return text


class _Hashed(io.RawIOBase):
    """A file whose bytes are summed up as they are read."""

    def __init__(self, file: io.FileIO) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._file.readinto(buffer)
        self.sha256.update(buffer[:count])
        return count


@contextmanager
def _open_hashed(path: Path, report: FileReport) -> Iterator[io.BufferedReader]:
    with open_steady(path) as file:
        hashed = _Hashed(file)
        yield io.BufferedReader(hashed, _BUFFER)
    report.sha256 = hashed.sha256.hexdigest()


def _unpacked(path: Path, file: io.BufferedReader) -> IO[bytes]:
    """Look at the first bytes, never only at the name, and undo the compression."""
    start = file.peek(8)[:8]
    kind = next((ending for ending, magic in _MAGIC.items() if start.startswith(magic)), None)
    named = path.suffix.lower()
    if named in _MAGIC and named != kind:
        what = f"is named {named} but {'holds something else' if start else 'is empty'}"
        raise DataError(path, what, "Rename it, or write it again.")
    if kind == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if kind == ".xz":
        return lzma.LZMAFile(file)
    return file


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        what = f"damaged archive ({str(error).rstrip('.')})"
        raise DataError(path, what, "Fetch or write it again.") from None
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise PlatformError(path, what, "Check the disk.") from None


def _decode(raw: bytes, path: Path | str, report: FileReport) -> str:
    where, first = f"{path}:{report.lines}", report.lines == 1
    if first and raw.startswith(_UTF16_MARKS):
        what = f"invalid UTF-8 byte 0x{raw[0]:02x} at byte 1"
        raise DataError(where, what, "It is UTF-16: convert it, iconv -f UTF-16 -t UTF-8.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"invalid UTF-8 byte 0x{raw[error.start]:02x} at byte {error.start + 1}"
        raise DataError(where, what, _utf8_hint(raw, error.start)) from None
    if b"\0" in raw:
        # Letters of UTF-16 without a byte order mark: every second byte is zero.
        wide = re.search(rb"[^\0]\0[^\0]\0|\0[^\0]\0[^\0]", raw)
        fix = "It looks like UTF-16: iconv -f UTF-16LE -t UTF-8." if wide else "Remove it."
        raise DataError(where, f"NUL at byte {raw.index(0) + 1}", fix)
    text = text.removesuffix("\n")
    ended_by_return = text.endswith("\r")
    report.carriage_returns += ended_by_return
    text = text.removesuffix("\r")
    end = len(raw) - raw.endswith(b"\n") - ended_by_return
    report.control_characters += _CONTROL.search(raw, 0, end) is not None
    if first and raw.startswith(_UTF8_MARK):
        report.byte_order_marks += 1
        text = text.removeprefix("\ufeff")
    return text


def _utf8_hint(raw: bytes, start: int) -> str:
    """Guess from the offending byte what the file really is."""
    byte, rest = raw[start], raw[start + 1 :]
    continued = rest[:1] and 0x80 <= rest[0] < 0xC0
    if byte in (0xC0, 0xC1) and continued:
        return "It is an overlong sequence: write the character in its shortest form."
    if byte == 0xED and continued:
        return "It is half a surrogate pair (CESU-8): write the character as one sequence."
    if 0xC2 <= byte <= 0xF4 and all(0x80 <= b < 0xC0 for b in rest):  # no line end: last line
        return "The file ends inside a character: is it cut?"
    return "If the file is Latin-1, convert it: iconv -f ISO-8859-1 -t UTF-8."
