r"""The one reader of text files: strict about bytes, silent about nothing.

A line ends at `\n` and nowhere else, as `wc -l` and sacreBLEU count; `str.splitlines` and the
usual text loaders also break at a lone `\r`, U+2028 or U+0085 and so shift the two sides of a
corpus against each other. Nothing is replaced: what cannot be read is an error with its line.
"""

import gzip
import logging
import lzma
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from itertools import zip_longest
from pathlib import Path
from typing import IO, cast

from seq2seq.errors import DataError, PlatformError

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A longer line is refused, so that an archive of zeros cannot fill the memory."""

_MAGIC = {".gz": b"\x1f\x8b", ".xz": b"\xfd7zXZ\x00"}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_lines(path: Path) -> Iterator[str]:
    r"""Read a text file, or one packed with gzip or xz, line by line without line ends.

    A last line without `\n` counts, a final `\n` adds none. One `\r` at a line end and a byte
    order mark at the start of the file are dropped. Archives are recognised by their first bytes.

    Raises:
        DataError: no such file, not a regular file, damaged archive, line above `MAX_LINE_BYTES`,
            bytes that are not UTF-8, a NUL. Lines and bytes are counted from 1.
        PlatformError: the file may not be read, or the disk fails.
    """
    with open_regular(path) as file, _unpacked(path, file) as unpacked, _read_errors(path):
        yield from read_stream(unpacked, path)


def read_stream(stream: IO[bytes], name: Path | str) -> Iterator[str]:
    """Read lines from an open stream by the rules of `read_lines`; `name` is for errors."""
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(
                f"{name}:{number}", f"line above {MAX_LINE_BYTES} bytes", "Is this a text file?"
            )
        yield _decode(raw, number, name)


def read_parallel(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Read two files side by side, both to their ends.

    Unequal counts are found at the end, where both are known, so the caller uses up the whole
    iterator before it trusts a single pair.

    Raises:
        DataError: the files differ in their number of lines, or as in `read_lines`.
        PlatformError: as in `read_lines`.
    """
    if source.absolute() == target.absolute():
        logger.warning("%s is both source and target: the model would learn to copy", source)
    num_src = num_tgt = 0
    for src, tgt in zip_longest(read_lines(source), read_lines(target)):
        num_src += src is not None
        num_tgt += tgt is not None
        if src is not None and tgt is not None:
            yield src, tgt
    if num_src != num_tgt:
        # en/train.txt and fr/train.txt need their folders to be told apart
        same = source.name == target.name
        src_name, tgt_name = (source, target) if same else (source.name, target.name)
        raise DataError(
            source,
            f"{src_name} has {num_src} lines, {tgt_name} has {num_tgt}",
            "Line n of one file must translate line n of the other.",
        )


def open_regular(path: Path) -> BufferedReader:
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
        return path.open("rb")
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


def _unpacked(path: Path, file: BufferedReader) -> IO[bytes]:
    """Look at the first bytes, never only at the name, and undo the compression."""
    with _read_errors(path):
        start = file.read(8)
        file.seek(0)
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


def _decode(raw: bytes, number: int, path: Path | str) -> str:
    where = f"{path}:{number}"
    if number == 1 and raw.startswith(_UTF16_MARKS):
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
    text = text.removesuffix("\n").removesuffix("\r")
    return text.removeprefix("\ufeff") if number == 1 else text


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
