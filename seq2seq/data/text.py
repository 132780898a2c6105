r"""The only reader of text files: strict about bytes, and it drops nothing silently.

A line ends at `\n` and nowhere else, as for `wc -l` and sacreBLEU. `str.splitlines` and common
text loaders also split at a lone `\r`, U+2028 or U+0085, which misaligns the two sides of a corpus.
Nothing is replaced: unreadable text is an error that names its line.
"""

import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, cast

from seq2seq.data.encodings import form_of, likeliest
from seq2seq.run.checksums import read_checksummed
from seq2seq.run.errors import DataError, PlatformError, UserError
from seq2seq.run.reading import expected

# Longer lines are refused, so that an archive of zeros cannot fill the memory.
MAX_LINE_BYTES = 64 * 1024 * 1024

_MAGIC = {".gz": b"\x1f\x8b", ".xz": b"\xfd7zXZ\x00"}
_UTF8_MARK = b"\xef\xbb\xbf"
_ISO_2022 = b"\x1b$"  # the escape to two-byte characters in mails from Japan, China, Korea
_OF_WINDOWS = re.compile(rb"[\x80-\x9f]")
# iconv's name of an encoding, or of the superset that such files use in practice.
_ICONV = {"Latin-1": "ISO-8859-1", "Shift-JIS": "CP932", "EUC-KR": "CP949", "TIS-620": "CP874"}
# The longer mark first: UTF-32 begins like UTF-16.
_WIDE_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_CONTROL = re.compile(r"[\x01-\x08\x0b-\x1f\x7f]")

T = TypeVar("T")


class _Stream(Protocol):
    def readline(self, limit: int, /) -> bytes: ...


@dataclass
class FileSummary:
    """Summary of one file of a corpus; complete once its last line has been read."""

    name: str
    sha256: str = ""  # in hex, of the bytes on disk or of the rows of a Hub dataset
    lines: int = 0  # or rows of a table
    carriage_returns: int = 0  # lines that ended in CR LF; the CR is dropped
    byte_order_marks: int = 0  # 1 if the file began with one; dropped
    control_characters: int = 0  # lines with control characters other than tabs; kept
    header_lines: int = 0  # of a table: 1 if the first line names the languages; part of `lines`
    left_out: int = 0  # entries of a dictionary that are not plain words
    origin: dict[str, Any] | None = None  # how `decoding/augment.py` made the file, if it did
    # Languages it may be in, the likeliest first: they help to guess a wrong encoding.
    languages: Sequence[str] = field(default=(), compare=False)


def read_lines(path: Path) -> Iterator[str]:
    r"""Read a text file, plain or compressed with gzip or xz, line by line without line ends.

    A last line without `\n` counts; a final `\n` adds no line. One `\r` at a line end and a byte
    order mark at the start of the file are dropped.

    Raises:
        DataError: not a readable file, a damaged archive, a line above `MAX_LINE_BYTES`, bytes
            that are not UTF-8, a NUL, or a file changed while it was read; names line and byte.
        PlatformError: no permission to read the file, or the disk fails.
    """
    yield from strict(scan_lines(path, FileSummary(path.name)))


def scan_lines(path: Path, summary: FileSummary) -> Iterator[str | DataError]:
    """Read like `read_lines`, but yield the error of an unreadable line and continue."""
    with open_unchanged(path, summary) as file:
        buffered = io.BufferedReader(file, 1 << 20)  # named, since it closes the file when freed
        try:
            yield from scan_stream(_unpacked(path, buffered), path, summary)
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
            what = f"damaged archive ({str(error).rstrip('.')})"
            raise DataError(path, what, "Fetch or write it again.") from None
        except OSError as error:
            what = f"cannot be read ({error.strerror or error})"
            raise PlatformError(path, what, "Check the disk.") from None


def scan_stream(
    stream: _Stream, name: Path | str, summary: FileSummary
) -> Iterator[str | DataError]:
    """Read an open stream like `scan_lines`; `name` is for errors."""
    lines = iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b"")
    # The first lines tell a file that is not text, or whose line ends are not ours.
    first = next(lines, b"")
    second = next(lines, b"") if b"\r" in first.rstrip(b"\r\n") else None
    if form := form_of(first):
        raise DataError(name, f"is {form[0]}, not text", form[1])
    if second == b"" and b"\0" not in first:
        count = first.count(13)
        what = f"its lines end in CR alone ({count} of them, no line feed)"
        raise DataError(name, what, r"Convert it: tr '\r' '\n' < OLD > NEW.")
    # Each line is text, or the error that it is not.
    for raw in chain(filter(None, (first, second)), lines):
        summary.lines += 1
        if len(raw) > MAX_LINE_BYTES:
            where, what = f"{name}:{summary.lines}", f"line above {MAX_LINE_BYTES} bytes"
            raise DataError(where, what, "Is this a text file?")
        try:
            line: str | DataError = _decode(raw, name, summary)
        except DataError as error:
            line = error
        yield line


def strict(items: Iterable[T | DataError]) -> Iterator[T]:
    """Yield items, and raise the first error among them."""
    for item in items:
        if isinstance(item, DataError):
            raise item
        yield item


def read_parallel(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Read two files in parallel, both to the end, so that unequal line counts are detected.

    Raises:
        UserError: as in `read_lines`, or the files differ in their number of lines.
    """
    yield from strict(scan_parallel(source, target, []))


def scan_parallel(
    source: Path, target: Path, summaries: list[FileSummary], languages: Sequence[str] = ()
) -> Iterator[tuple[str, str] | DataError]:
    """Read like `read_parallel`, but yield the error of an unreadable pair; append two summaries.

    `languages` are those of source and target, if known.
    """
    src_summary = FileSummary(source.name, languages=languages)
    tgt_summary = FileSummary(target.name, languages=languages[::-1])
    summaries += [src_summary, tgt_summary]

    # `zip` would stop at the shorter file and hide the longer one.
    both = zip_longest(scan_lines(source, src_summary), scan_lines(target, tgt_summary))
    for src, tgt in both:
        if isinstance(src, DataError):
            yield src
        elif isinstance(tgt, DataError):
            yield tgt
        elif src is not None and tgt is not None:
            yield src, tgt
    for path, summary in ((source, src_summary), (target, tgt_summary)):
        summary.origin = _origin(path, summary.sha256)

    if src_summary.lines != tgt_summary.lines:
        # en/train.txt and fr/train.txt differ only in their directories.
        same = source.name == target.name
        src_name, tgt_name = (source, target) if same else (source.name, target.name)
        what = f"{src_name} has {src_summary.lines} lines, {tgt_name} has {tgt_summary.lines}"
        fix = "Line n of one file must translate line n of the other."
        raise DataError(source, what, fix)


def _origin(path: Path, sha256: str) -> dict[str, Any] | None:
    """Return the origin of a file, from the report of `decoding/augment.py` next to it, if any."""
    report = path.with_name("report.json")
    with suppress(UserError), expected(report):
        found = read_checksummed(report)
        if found["files"][path.name]["sha256"] == sha256:
            return {key: found[key] for key in ("settings", "read", "written", "dropped")}
    return None


@contextmanager
def open_unchanged(path: Path, summary: FileSummary) -> Iterator[io.FileIO]:
    """Open a file and compute its SHA-256; on exit, check that nothing has written to it.

    Raises:
        UserError: as in `open_regular`, or its size or modification time has changed.
    """
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        summary.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        yield file
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            what = f"was changed while it was read ({before.st_size} bytes, then {after.st_size})"
            raise DataError(path, what, "Make sure that nothing writes to it, and start again.")


def open_regular(path: Path, advice: str = "Check the name.") -> io.FileIO:
    """Open a regular file to read bytes, unbuffered; a pipe or device could hang.

    `advice` says what to do if there is none.

    Raises:
        DataError: there is no such file, or it is not a regular file.
        PlatformError: no permission to read it.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = "is a directory" if stat.S_ISDIR(mode) else "is not a regular file"
            raise DataError(path, what, "Name a file.")
        return path.open("rb", buffering=0)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(path, "no such file", advice) from None
    except PermissionError:
        raise PlatformError(path, "may not be read", "Change its permissions.") from None
    except (OSError, ValueError) as error:  # a loop of links, a name too long, a NUL in it
        what = getattr(error, "strerror", None) or str(error)
        raise DataError(path, f"cannot be opened ({what})", "Name a readable file.") from None


def _unpacked(path: Path, file: "io.BufferedReader[Any]") -> IO[bytes]:
    """Undo the compression; the first bytes decide, since a file name may be wrong."""
    start = file.peek(512)[:512]
    kind = next((ending for ending, magic in _MAGIC.items() if start.startswith(magic)), None)
    named = path.suffix.lower()
    if named in _MAGIC and named != kind:
        form = form_of(start)
        holds = f"holds something else{f', {form[0]}' if form else ''}" if start else "is empty"
        what = f"is named {named} but {holds}"
        raise DataError(path, what, "Rename it, or write it again.")
    if kind == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    return lzma.LZMAFile(file) if kind == ".xz" else file


def _decode(raw: bytes, name: Path | str, summary: FileSummary) -> str:
    """Decode a line without its line end, and count what was dropped from it."""
    where, first = f"{name}:{summary.lines}", summary.lines == 1
    wide_mark = first and any(raw.startswith(mark) for mark in _WIDE_MARKS)
    # Bytes that are not UTF-8, or that only look like it.
    if b"\0" in raw and not wide_mark:
        wide = "UTF-16LE" if raw.index(0) % 2 else "UTF-16BE"
        fix = f"Remove it; if the file is UTF-16, convert it: iconv -f {wide} -t UTF-8."
        raise DataError(where, f"NUL at byte {raw.index(0) + 1}", fix)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        what = f"invalid UTF-8 byte 0x{raw[error.start]:02x} at byte {error.start + 1}"
        raise DataError(where, what, _advice(raw, error, summary)) from None
    if _ISO_2022 in raw:
        convert = "Convert it: iconv -f ISO-2022-JP -t UTF-8."
        raise DataError(where, f"ISO-2022 escape at byte {raw.index(_ISO_2022) + 1}", convert)
    # What is dropped, and what is only counted.
    text = text.removesuffix("\n")
    if text.endswith("\r"):
        summary.carriage_returns += 1
        text = text.removesuffix("\r")
    if first and raw.startswith(_UTF8_MARK):
        summary.byte_order_marks += 1
        text = text.removeprefix("\ufeff")
    summary.control_characters += _CONTROL.search(text) is not None
    return text


def _advice(raw: bytes, error: UnicodeDecodeError, summary: FileSummary) -> str:
    """Return a fix, guessed from the offending bytes."""
    name = next((name for mark, name in _WIDE_MARKS.items() if raw.startswith(mark)), None)
    if name is not None and summary.lines == 1:
        return f"It is {name}: convert it, iconv -f {name} -t UTF-8."
    if error.reason == "unexpected end of data":  # a line end would have come first
        return "The file ends inside a character: is it cut?"
    if names := likeliest(raw, summary.languages)[:3]:
        if names[0] == "Latin-1" and _OF_WINDOWS.search(raw):
            names[0] = "Windows-1252"
        code = _ICONV.get(names[0], names[0])
        return f"If the file is {' or '.join(names)}, convert it: iconv -f {code} -t UTF-8."
    return "Convert it to UTF-8: iconv -f ITS_ENCODING -t UTF-8."
