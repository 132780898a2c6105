"""Read one split of a corpus, wherever it lies: files, a table, the Hub, sacreBLEU, the grammar.

The config names a place; `_locate` turns the name into one of five types, and reading and
fingerprinting branch on the type.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from seq2seq.data.hub import HubDataset, hub_fingerprint, parse_hub_name, read_hub_rows
from seq2seq.data.pair import Pair
from seq2seq.data.test_sets import SacreBleuSets, find_test_sets, parse_test_sets, read_test_sets
from seq2seq.data.text import check_text, open_regular, read_lines, read_parallel
from seq2seq.errors import ConfigError, DataError
from seq2seq.settings import DataConfig

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
    assert split in ("train", "validation", "test")
    place = _locate(cfg, split)
    match place:
        case Embedded():
            pairs = _generate(place, cfg, split)
        case ParallelFiles():
            pairs = (Pair(src, tgt) for src, tgt in read_parallel(place.source, place.target))
        case TableFile():
            pairs = _read_table(place, cfg)
        case HubDataset():
            rows = enumerate(read_hub_rows(place, cfg), 1)
            pairs = (_pair_of(row, cfg, f"{place.spec} row {number}") for number, row in rows)
        case SacreBleuSets():
            pairs = read_test_sets(place)
    return _not_empty(pairs, ", ".join(getattr(cfg, split)))


def fingerprint(cfg: DataConfig, split: str) -> str:
    """Return a SHA-256 in hex that changes when what `read_pairs` reads changes.

    Made from the bytes of files, the parameters of the grammar, or the name, config, split and
    library fingerprint of a dataset (which for a local folder includes modification times).

    Raises:
        UserError: as in `read_pairs`.
    """
    place = _locate(cfg, split)
    identity: dict[str, Any] = {"languages": [cfg.source_language, cfg.target_language]}
    match place:
        case Embedded():
            identity |= {"grammar": asdict(cfg.grammar), "split": split}
        case ParallelFiles():
            identity |= {"files": [_sha256(place.source), _sha256(place.target)]}
        case TableFile():
            identity |= {"files": [_sha256(place.path)], "form": place.form.name}
        case HubDataset():
            identity |= {"hub": hub_fingerprint(place, cfg)}
        case SacreBleuSets():
            files = [path for pair in find_test_sets(place) for path in pair]
            identity |= {"test sets": [_sha256(path) for path in files]}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


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


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_empty(pairs: Iterator[Pair], where: str) -> Iterator[Pair]:
    number = 0
    for number, pair in enumerate(pairs, 1):  # noqa: B007 - asked for after the loop
        yield pair
    if number == 0:
        raise DataError(where, "holds no sentence pair", "Give a file with at least one.")


def _generate(place: Embedded, cfg: DataConfig, split: str) -> Iterator[Pair]:
    from seq2seq.data.grammar import generate

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


def _read_table(place: TableFile, cfg: DataConfig) -> Iterator[Pair]:
    match place.form:
        case TableForm.tsv:
            return _read_tsv(place.path)
        case TableForm.json_lines:
            return _read_json_lines(place.path, cfg)
        case TableForm.parquet:
            return _read_parquet(place.path, cfg)


def _read_tsv(path: Path) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(path), 1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise DataError(
                f"{path}:{number}",
                f"expected 2 columns, found {len(columns)}",
                "Write source, one tab, target; quotes have no meaning.",
            )
        yield Pair(columns[0], columns[1])


def _read_json_lines(path: Path, cfg: DataConfig) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(path), 1):
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = f"not JSON ({error})"
            raise DataError(where, what, "Write one whole object a line.") from None
        if not isinstance(row, dict):
            what = f"expected an object, found {type(row).__name__}"
            raise DataError(where, what, "Write one object a line, no list around them.")
        yield _pair_of(row, cfg, where)


def _read_parquet(path: Path, cfg: DataConfig) -> Iterator[Pair]:
    # Read directly: `datasets` would first copy the file into its cache.
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with open_regular(path) as file:
        try:
            table = pq.ParquetFile(file)
            wanted = {"translation", cfg.source_language, cfg.target_language}
            columns = [name for name in table.schema_arrow.names if name in wanted]
            batches = table.iter_batches(_PARQUET_ROWS, columns=columns or None)
            for row in (row for batch in batches for row in batch.to_pylist()):
                number += 1
                yield _pair_of(row, cfg, f"{path} row {number}")
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
