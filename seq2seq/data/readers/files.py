"""Corpora in files: two parallel text files, or both sides in one table."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import regex

from seq2seq.data.languages import short_code
from seq2seq.data.pair import Pair
from seq2seq.data.readers.place import Pairs, Place, reads
from seq2seq.data.text import FileSummary, open_regular, open_unchanged, scan_lines, scan_parallel
from seq2seq.run.errors import DataError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LINE_ENDS = re.compile(r"[\r\n]+")
_PARQUET_ROWS = 1000  # read at a time


@reads(".*", example="train.en,train.fr", names=2)
def read_parallel_files(place: Place) -> Pairs:
    """Read two text files; line n of one translates line n of the other."""
    source, target = (_openable(place, name) for name in place.names)
    if source.samefile(target):
        logger.warning("%s is both source and target: the model would learn to copy", source)
    # File names that suggest swapped sides are only a hint, so warn.
    languages = place.languages
    named = [_language_in_name(path, languages) for path in (source, target)]
    if languages[0] != languages[1] and (named[0] == languages[1] or named[1] == languages[0]):
        text = "%s is read as %s and %s as %s: are the languages swapped?"
        logger.warning(text, source, languages[0], target, languages[1])
    return as_pairs(scan_parallel(source, target, place.inputs, languages))


@reads(r".*\.tsv(\.gz|\.xz)?", example="pairs.tsv")
def read_tsv(place: Place) -> Pairs:
    """Read lines of source, tab, target, or the columns named by a header of language codes.

    Quotes have no special meaning.
    """
    path, summary = _table(place)
    return _tsv_pairs(scan_lines(path, summary), place, path, summary)


@reads(r".*\.jsonl?(\.gz|\.xz)?", example="pairs.jsonl")
def read_json_lines(place: Place) -> Pairs:
    """Read one JSON object per line, flat or with both sides under `translation`."""
    path, summary = _table(place)
    lines = scan_lines(path, summary)
    return parsed(lines, f"{path}:", lambda line, where: _json_pair(line, place, where))


@reads(r".*\.parquet", example="pairs.parquet")
def read_parquet(place: Place) -> Pairs:
    """Read Parquet rows, laid out like the JSON objects of `read_json_lines`."""
    path, summary = _table(place)
    rows = _parquet_rows(path, place, summary)
    return parsed(rows, f"{path} row ", lambda row, where: pair_of_row(row, place, where))


def as_pairs(texts: Iterable[tuple[str, str] | DataError]) -> Pairs:
    """Convert what `scan_parallel` yields to pairs."""
    return (text if isinstance(text, DataError) else Pair(*text) for text in texts)


def parsed(
    rows: Iterable[T | DataError], where: str, parse: Callable[[T, str], Pair], first: int = 1
) -> Pairs:
    """Yield the pair of each row, or the error that says why there is none; count from `first`."""
    for number, row in enumerate(rows, first):
        try:
            pair = row if isinstance(row, DataError) else parse(row, f"{where}{number}")
        except DataError as error:
            pair = error
        yield pair


def pair_of_row(row: Mapping[str, object], place: Place, where: str) -> Pair:
    """Extract both sides from `{"en": ..., "fr": ...}` or `{"translation": {...}}`.

    Line ends inside a text become one space; null becomes an empty side.

    Raises:
        DataError: a column is missing or does not hold text.
    """
    nested = row.get("translation")
    texts = nested if isinstance(nested, dict) else row
    source, target = place.languages
    if source not in texts or target not in texts:
        columns = ", ".join(map(repr, texts)) or "no column"
        what = f"has {columns}; wanted {source!r} and {target!r}"
        fix = "Set data.source_language and data.target_language, or rename the columns."
        raise DataError(where, what, fix)
    src = _text(texts[source], f"{where}, {source}")
    return Pair(src, _text(texts[target], f"{where}, {target}"))


def _text(value: object, where: str) -> str:
    """Return text from a table, after the same checks as bytes from a file."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(where, f"expected text, found {type(value).__name__}", "Write a string.")
    if "\0" in value:
        raise DataError(where, f"NUL at character {value.index(chr(0)) + 1}", "Remove it.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        what = f"half a surrogate pair at character {error.start + 1}"
        raise DataError(where, what, "Write the whole character.") from None
    return _LINE_ENDS.sub(" ", value)


def _openable(place: Place, name: str) -> Path:
    path = place.path(name)
    open_regular(path, "Check the name and data.root.").close()
    return path


def _table(place: Place) -> tuple[Path, FileSummary]:
    path = _openable(place, place.names[0])
    # English last: it is the least likely to go beyond ASCII.
    languages = sorted(place.languages, key=lambda code: short_code(code) == "en")
    place.inputs.append(FileSummary(path.name, languages=languages))
    return path, place.inputs[-1]


def _language_in_name(path: Path, languages: tuple[str, str]) -> str | None:
    """Return the language named in `train.en`, `train.en.gz`, `train.en.txt` or `en/train.txt`."""
    *parts, last = path.name.split(".")
    parts += [] if last in ("gz", "xz") else [last]
    return next((part for part in [*parts[:0:-1], path.parent.name] if part in languages), None)


def _tsv_pairs(
    lines: Iterator[str | DataError], place: Place, path: Path, summary: FileSummary
) -> Pairs:
    first = next(lines, "")
    source, target, count = 0, 1, 2
    if isinstance(first, str) and (named := _columns_named(first.split("\t"), place.languages)):
        (source, target), count = named, first.count("\t") + 1
        summary.header_lines = 1
        logger.info("%s: line 1 names the columns, so it is not a pair", path)
    elif summary.lines:
        lines = chain([first], lines)

    def parse(line: str, where: str) -> Pair:
        columns = line.split("\t")
        if len(columns) != count:
            what = f"expected {count} columns, found {len(columns)}"
            raise DataError(where, what, "Write source, one tab, target; quotes have no meaning.")
        return Pair(columns[source], columns[target])

    yield from parsed(lines, f"{path}:", parse, first=1 + summary.header_lines)


def _columns_named(cells: Sequence[str], languages: tuple[str, str]) -> tuple[int, int] | None:
    """Return the columns of both language codes in a header; None if the line is not a header."""
    codes = [regex.sub(r"^\P{L}+|\P{L}+$", "", cell).replace("_", "-").lower() for cell in cells]
    wanted = [language.replace("_", "-").lower() for language in languages]
    for part in (str, short_code):  # match `pt-BR` literally first, then as `pt`
        names, (source, target) = list(map(part, codes)), map(part, wanted)
        if source != target and names.count(source) == names.count(target) == 1:
            return names.index(source), names.index(target)
    return None


def _json_pair(line: str, place: Place, where: str) -> Pair:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = f"not JSON ({error})"
        raise DataError(where, what, "Write one whole object per line.") from None
    if not isinstance(row, dict):
        what = f"expected an object, found {type(row).__name__}"
        raise DataError(where, what, "Write one object per line, without a list around them.")
    return pair_of_row(row, place, where)


def _parquet_rows(path: Path, place: Place, summary: FileSummary) -> Iterator[dict[str, Any]]:
    # Read directly: `datasets` would first copy the file to its cache.
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_unchanged(path, summary) as file:
        try:
            table = pq.ParquetFile(file)
            wanted = {"translation", *place.languages}
            columns = [name for name in table.schema_arrow.names if name in wanted]
            for batch in table.iter_batches(_PARQUET_ROWS, columns=columns or None):
                rows = batch.to_pylist()
                summary.lines += len(rows)
                yield from rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            what = f"damaged Parquet file ({str(error).splitlines()[0]})"
            raise DataError(path, what, "Fetch or write it again.") from None
