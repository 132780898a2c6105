"""Read one split of a corpus, wherever it lies: files, a table, the Hub, sacreBLEU, the grammar.

The config names a place; `_locate` turns the name into one of five types, and reading and
fingerprinting branch on the type.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from seq2seq.data.hub import HubDataset, hub_fingerprint, parse_hub_name, read_hub_rows
from seq2seq.data.pair import Pair
from seq2seq.data.test_sets import SacreBleuSets, find_test_sets, parse_test_sets, scan_test_sets
from seq2seq.data.text import (
    FileReport,
    check_text,
    file_digest,
    open_regular,
    open_steady,
    scan_lines,
    scan_parallel,
    strict,
)
from seq2seq.errors import ConfigError, DataError
from seq2seq.settings import DataConfig

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ARCHIVES = (".gz", ".xz")
_LINE_ENDS = re.compile(r"[\r\n]+")
_PARQUET_ROWS = 1000  # read at a time


class TableForm(Enum):
    """How a single file holds both sides."""

    tsv = ".tsv"
    json_lines = ".jsonl"
    parquet = ".parquet"


@dataclass(frozen=True)
class Embedded:
    """Pairs made by the grammar, with gold links."""

    count: int


@dataclass(frozen=True)
class ParallelFiles:
    """Line n of one file translates line n of the other."""

    source: Path
    target: Path


@dataclass(frozen=True)
class TableFile:
    """Both sides in one file."""

    path: Path
    form: TableForm


Place = Embedded | ParallelFiles | TableFile | HubDataset | SacreBleuSets


def read_pairs(cfg: DataConfig, split: str) -> Iterator[Pair]:
    r"""Read the pairs of a split in their order, none left out.

    Line counts, and all that is wrong far down a file, show only at the end: use up the iterator
    before training on its pairs. Line ends inside a text (JSON, Parquet and Hub only) become one
    blank, a missing value (null) an empty side.

    Args:
        cfg: Its `train`, `validation` or `test` lists two parallel files (source first), one
            .tsv (source, tab, target; no quoting), .jsonl/.json (one object a line) or .parquet,
            `embedded`, `hub:NAME[:CONFIG[:SPLIT]]`, or `sacrebleu:NAME[+NAME...]`. .gz and .xz
            are read as well. Objects and rows are flat, `{"en": ..., "fr": ...}`, or nested,
            `{"translation": {...}}`.
        split: "train", "validation" or "test".

    Raises:
        ConfigError: at once, if the place is of no known form.
        DataError: missing file, unequal line counts, bad line, missing column, no pair at all.
        PlatformError: unreadable file, no network.
        UntrustedError: the dataset consists of a program.
    """
    return strict(scan_pairs(cfg, split))


def scan_pairs(cfg: DataConfig, split: str) -> "Scan":
    """Read like `read_pairs`, but give a line that cannot be read as its error and go on."""
    assert split in ("train", "validation", "test")
    return Scan(cfg, split)


class Scan(Iterator[Pair | DataError]):
    """The pairs of a split; `files` and `fingerprint` are complete when there are no more."""

    def __init__(self, cfg: DataConfig, split: str) -> None:
        self.files: list[FileReport] = []
        """In the order in which the config names them; none of them for what is no file."""
        self._cfg, self._split, self._place = cfg, split, _locate(cfg, split)
        if isinstance(self._place, ParallelFiles):
            _warn_of_swapped(self._place, cfg)
        self._items = _not_empty(self._scan(), ", ".join(getattr(cfg, split)))

    def __next__(self) -> Pair | DataError:
        return next(self._items)

    @property
    def fingerprint(self) -> str:
        """What `fingerprint` returns, but of the very bytes that were read."""
        return _fingerprint(
            self._cfg, self._split, self._place, [file.sha256 for file in self.files]
        )

    def _scan(self) -> Iterator[Pair | DataError]:
        cfg, place = self._cfg, self._place
        match place:
            case Embedded():
                return _generate(place, cfg, self._split)
            case ParallelFiles():
                return map(_pair, scan_parallel(place.source, place.target, self.files))
            case TableFile():
                return _scan_table(place, cfg, self.files)
            case HubDataset():
                return _parsed(
                    read_hub_rows(place, cfg, self.files),
                    f"{place.spec} row ",
                    lambda row, where: _pair_of(row, cfg, where),
                )
            case SacreBleuSets():
                return map(_pair, scan_test_sets(place, self.files))


def check_files(cfg: DataConfig, split: str) -> None:
    """See that the files of a split, if it is files, can be opened: before anything takes long.

    Raises:
        UserError: as in `read_pairs`.
    """
    place = _locate(cfg, split)
    if isinstance(place, ParallelFiles | TableFile):
        for path in _files(place):
            open_regular(path).close()


def fingerprint(cfg: DataConfig, split: str) -> str:
    """Return a SHA-256 in hex that changes when what `read_pairs` reads changes.

    Made from the bytes of files, the parameters of the grammar, or the name, config, split and
    library fingerprint of a dataset (which for a local folder includes modification times).

    Raises:
        UserError: as in `read_pairs`.
    """
    place = _locate(cfg, split)
    return _fingerprint(cfg, split, place, [file_digest(path) for path in _files(place)])


def _fingerprint(cfg: DataConfig, split: str, place: Place, sums: list[str]) -> str:
    identity: dict[str, Any] = {"languages": [cfg.source_language, cfg.target_language]}
    match place:
        case Embedded():
            identity |= {"grammar": asdict(cfg.grammar), "split": split}
        case ParallelFiles():
            identity |= {"files": sums}
        case TableFile():
            identity |= {"files": sums, "form": place.form.name}
        case HubDataset():
            identity |= {"hub": hub_fingerprint(place, cfg)}
        case SacreBleuSets():
            identity |= {"test sets": sums}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _files(place: Place) -> list[Path]:
    match place:
        case ParallelFiles():
            return [place.source, place.target]
        case TableFile():
            return [place.path]
        case SacreBleuSets():
            return [path for pair in find_test_sets(place) for path in pair]
        case _:
            return []


def _pair(texts: tuple[str, str] | DataError) -> Pair | DataError:
    return texts if isinstance(texts, DataError) else Pair(*texts)


def _warn_of_swapped(place: ParallelFiles, cfg: DataConfig) -> None:
    """Warn if the file names say that the source is the target."""
    languages = (cfg.source_language, cfg.target_language)
    named = [_language_in_name(path, languages) for path in (place.source, place.target)]
    if languages[0] != languages[1] and (named[0] == languages[1] or named[1] == languages[0]):
        logger.warning(
            "%s is read as %s and %s as %s: are the languages swapped?",
            place.source, languages[0], place.target, languages[1],
        )  # fmt: skip


def _language_in_name(path: Path, languages: tuple[str, str]) -> str | None:
    """Return the language of `train.en`, `train.en.gz`, `train.en.txt` or `en/train.txt`."""
    parts = [part for part in path.name.split(".") if f".{part}" not in _ARCHIVES]
    return next((part for part in [*parts[:0:-1], path.parent.name] if part in languages), None)


def _locate(cfg: DataConfig, split: str) -> Place:
    match getattr(cfg, split):
        case ["embedded"]:
            return Embedded(getattr(cfg.grammar, f"{split}_pairs"))
        case [source, target]:
            return ParallelFiles(_path(cfg, source), _path(cfg, target))
        case [spec] if spec.startswith("hub:"):
            return parse_hub_name(spec, cfg, split)
        case [spec] if spec.startswith("sacrebleu:"):
            return parse_test_sets(spec, cfg.source_language, cfg.target_language)
        case [name] if form := _table_form(name):
            return TableFile(_path(cfg, name), form)
        case other:
            raise ConfigError(
                "config",
                f"data.{split}={other} is no place to read pairs from",
                "Use [embedded], [SOURCE,TARGET], one .tsv, .jsonl, .json or .parquet file, "
                "[hub:NAME:CONFIG:SPLIT] or [sacrebleu:NAME+NAME].",
            )


def _path(cfg: DataConfig, name: str) -> Path:
    return Path(cfg.root).expanduser() / Path(name).expanduser()


def _table_form(name: str) -> TableForm | None:
    lower = name.lower()
    if lower.endswith(".parquet"):
        return TableForm.parquet
    plain = lower.removesuffix(".gz").removesuffix(".xz")
    if plain.endswith((".jsonl", ".json")):
        return TableForm.json_lines
    return TableForm.tsv if plain.endswith(".tsv") else None


def _not_empty(items: Iterable[T], where: str) -> Iterator[T]:
    number = 0
    for number, item in enumerate(items, 1):  # noqa: B007 - asked for after the loop
        yield item
    if number == 0:
        raise DataError(where, "holds no sentence pair", "Give a file with at least one.")


def _generate(place: Embedded, cfg: DataConfig, split: str) -> Iterator[Pair]:
    from seq2seq.data.toy import generate

    if (cfg.source_language, cfg.target_language) != ("en", "fr"):
        languages = f"{cfg.source_language}-{cfg.target_language}"
        raise ConfigError(
            "config",
            f"the embedded corpus is en-fr, not {languages}",
            "Set data.source_language=en data.target_language=fr, or name files.",
        )
    grammar = cfg.grammar
    return generate(
        split,
        place.count,
        seed=grammar.seed,
        min_words=grammar.min_words,
        max_words=grammar.max_words,
    )


def _scan_table(
    place: TableFile, cfg: DataConfig, reports: list[FileReport]
) -> Iterator[Pair | DataError]:
    path, report = place.path, FileReport(place.path.name)
    reports.append(report)
    match place.form:
        case TableForm.tsv:
            return _parsed(scan_lines(path, report), f"{path}:", _tsv_pair)
        case TableForm.json_lines:
            lines = scan_lines(path, report)
            return _parsed(lines, f"{path}:", lambda line, where: _json_pair(line, cfg, where))
        case TableForm.parquet:
            rows = _parquet_rows(path, cfg, report)
            return _parsed(rows, f"{path} row ", lambda row, where: _pair_of(row, cfg, where))


def _parsed(
    rows: Iterable[T | DataError], place: str, parse: Callable[[T, str], Pair]
) -> Iterator[Pair | DataError]:
    """Make pairs of rows, and of a row that holds none its error."""
    for number, row in enumerate(rows, 1):
        try:
            pair = row if isinstance(row, DataError) else parse(row, f"{place}{number}")
        except DataError as error:
            pair = error
        yield pair


def _tsv_pair(line: str, where: str) -> Pair:
    columns = line.split("\t")
    if len(columns) != 2:
        what = f"expected 2 columns, found {len(columns)}"
        raise DataError(where, what, "Write source, one tab, target; quotes have no meaning.")
    return Pair(columns[0], columns[1])


def _json_pair(line: str, cfg: DataConfig, where: str) -> Pair:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = f"not JSON ({error})"
        raise DataError(where, what, "Write one whole object a line.") from None
    if not isinstance(row, dict):
        what = f"expected an object, found {type(row).__name__}"
        raise DataError(where, what, "Write one object a line, no list around them.")
    return _pair_of(row, cfg, where)


def _parquet_rows(path: Path, cfg: DataConfig, report: FileReport) -> Iterator[dict[str, Any]]:
    # Read directly: `datasets` would first copy the file into its cache.
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_steady(path) as file:
        report.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        try:
            table = pq.ParquetFile(file)
            wanted = {"translation", cfg.source_language, cfg.target_language}
            columns = [name for name in table.schema_arrow.names if name in wanted]
            for batch in table.iter_batches(_PARQUET_ROWS, columns=columns or None):
                rows = batch.to_pylist()
                report.lines += len(rows)
                yield from rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            what = f"damaged Parquet file ({str(error).splitlines()[0]})"
            raise DataError(path, what, "Fetch or write it again.") from None


def _pair_of(row: Mapping[str, object], cfg: DataConfig, where: str) -> Pair:
    nested = row.get("translation")
    texts = nested if isinstance(nested, dict) else row
    languages = (cfg.source_language, cfg.target_language)
    if not all(language in texts for language in languages):
        raise DataError(
            where,
            f"has {', '.join(map(repr, texts)) or 'no column'}; wanted "
            f"{languages[0]!r} and {languages[1]!r}",
            "Set data.source_language and data.target_language, or rename the columns.",
        )
    src, tgt = (_clean(texts[language], f"{where}, {language}") for language in languages)
    return Pair(src, tgt)


def _clean(text: object, where: str) -> str:
    if text is None:
        return ""
    if not isinstance(text, str):
        raise DataError(where, f"expected text, found {type(text).__name__}", "Write a string.")
    return _LINE_ENDS.sub(" ", check_text(text, where))
