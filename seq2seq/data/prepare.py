"""Prepares a corpus for training: filtered text, vocabularies and ids, all inside the run.

corpus/SPLIT.source, .target   text, one sentence per line (and .links, if there are any)
tokenizers/                    source.model, target.model (or .words, .characters), manifest
tokens/SPLIT.SIDE.ids, .ends   ids as int32, row ends as int64, both with end symbols
data_report.json               counts of pairs read, kept and dropped; checksums; written last
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, cast

import numpy as np

from seq2seq.config.registry import build
from seq2seq.config.schema import (
    CharactersConfig,
    Config,
    DataConfig,
    Direction,
    GuidedAlignmentConfig,
    TargetOrder,
    all_symbols,
)

# They register.
from seq2seq.data import character_vocabulary, subword_vocabulary, word_vocabulary  # noqa: F401
from seq2seq.data.batching import TokenizedPairs
from seq2seq.data.filters import FilterSummary, HeldOut, keep
from seq2seq.data.lengths import Length
from seq2seq.data.mixture import mixture
from seq2seq.data.pair import Pair
from seq2seq.data.placeholders import CarryingTokenizer, placeholders_of
from seq2seq.data.readers import Place, scan_pairs
from seq2seq.data.readers.links import with_links
from seq2seq.data.shared import copy_files, locked, shared_directory
from seq2seq.data.store import IdStore, Lengths, TextStore
from seq2seq.data.tags import tag_ids
from seq2seq.data.text import strict
from seq2seq.data.tokenizer import EOS, UNK, RightToLeft, Tokenizer, VocabularyKind, composed
from seq2seq.data.words import Splitter, word_spans
from seq2seq.run import workers
from seq2seq.run.checksums import (
    MANIFEST,
    entries_of,
    entry_of_file,
    read_checksummed,
    read_directory,
    read_manifest,
    with_checksum,
)
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError, RunDirError
from seq2seq.run.progress import tqdm
from seq2seq.run.reading import expected, read_json

log = logging.getLogger(__name__)

SIDES = ("source", "target")
SPLITS = ("train", "validation", "test")
REPORT = "data_report.json"
TOKENIZERS = "tokenizers"
MAX_VOCABULARY_BYTES = 1 << 26  # 60 times that of the paper's 30,000 words

_MOST_WORKERS = 16  # more would wait for the reader
_RESTORE = "Restore it from a copy."
_UNWRITABLE_WARNING = 0.1  # fraction of the lines of a split


def prepare(run: RunDir, cfg: Config) -> None:
    """Read, filter and tokenize the corpus of a config into a run; does nothing if already done.

    With `data.prepared`, the files come from there. That also brings back files that are missing.

    Raises:
        DataError: the corpus cannot be used.
        ConfigError: the vocabulary does not fit it, or the objective needs links.
        RunDirError: files are missing, and the data now there is not that of the run.
    """
    _check_links(cfg)  # shared data may have been made for another objective
    report, missing = run.path(REPORT), list[str]()
    if done := report.exists():
        names = entries_of(report) if cfg.data.prepared else ()
        if not (missing := [name for name in names if not run.path(name).exists()]):
            return
    elif run.path("checkpoints").exists():  # a trained run must have had a report
        raise RunDirError(report, "missing", _RESTORE)
    if (shared := shared_directory(cfg)) is None:
        if not done:
            _make(run, cfg)
        return
    with locked(shared):
        if not shared.path(REPORT).exists():
            _make(shared, cfg)
        log.info("prepared data: %s", shared.root)
        _take(run, shared, missing)


def _check_links(cfg: Config) -> None:
    """Check that training pairs have links if the objective needs them; embedded ones do."""
    guided = isinstance(cfg.objective, GuidedAlignmentConfig)
    if guided and cfg.data.links is None and cfg.data.train != ["embedded"]:
        what = "objective=guided_alignment needs the word links of the training pairs"
        raise ConfigError("config", what, "Give data.links=FILE.")


def _take(run: RunDir, shared: RunDir, missing: Sequence[str]) -> None:
    """Copy shared data into a run, or just the files that it lacks."""
    entries = entries_of(shared.path(REPORT))
    if missing:
        if entries_of(run.path(REPORT)) != entries:
            what = f"lacks {missing[0]}, and {shared.root} has other data"
            raise RunDirError(run.root, what, "Restore the sources or the file from a copy.")
        copy_files(shared, run, missing)
        return
    run.commit_directory(TOKENIZERS, read_directory(shared.path(TOKENIZERS), MAX_VOCABULARY_BYTES))
    copy_files(shared, run, entries)
    run.write_json(REPORT, read_json(shared.path(REPORT)))  # last


def _make(run: RunDir, cfg: Config) -> None:
    """Prepare data in a directory."""
    for name in ("corpus", "tokens"):  # left by an interrupted attempt, maybe with other settings
        run.remove_directory(name)
    report = _read_corpus(run, cfg)
    if cfg.init.run is None:
        _learn_vocabularies(run, cfg)
    else:  # they were copied when the run was made
        log.info("vocabularies are those of %s: none is learnt", cfg.init.run)
        if cfg.init.new_pieces or all_symbols(cfg):
            _grow_vocabularies(run, cfg)

    # Ids for training and validation; the test set is tokenized when it is decoded.
    tokenizers, processes = _load_vocabularies(run, cfg), _workers(cfg)
    tags = tag_ids(cfg.data.tags, tokenizers[0])
    for split in SPLITS:
        texts = _to_learn(run, cfg, split)
        if split != "test":
            blocks = ((target, size) for _, target, size in report[split]["blocks"])
            before = ([tags[d]] if tags else [] for d, size in blocks for _ in range(size))
            _write_ids(run, f"{split}.{SIDES[0]}", texts[0], tokenizers[0], processes, before)
            _write_ids(run, f"{split}.{SIDES[1]}", texts[1], tokenizers[1], processes, repeat([]))
        report[split]["unwritable"] = _unwritable(split, texts[1], tokenizers[1], processes)
    report["vocabularies"] = [len(tokenizer) for tokenizer in tokenizers]
    written = sorted(p for name in ("corpus", "tokens") for p in run.path(name).iterdir())
    report["files"] = {p.relative_to(run.root).as_posix(): entry_of_file(p) for p in written}
    run.write_json(REPORT, with_checksum(report))


def _read_corpus(run: RunDir, cfg: Config) -> dict[str, Any]:
    """Write the text of all splits and return their report.

    The training set is ordered by corpus, the validation and test sets by direction.
    """
    # Open all corpora before reading the first, which may take hours.
    parts, directions = cfg.data.parts, cfg.data.directions
    places = {split: _places(cfg.data, split) for split in SPLITS}
    scans = {split: [scan_pairs(place) for place in places[split]] for split in SPLITS}
    if cfg.data.links is not None:
        scans["train"] = [with_links(scans["train"][0], places["train"][0], cfg.data.links)]

    # Validation and test sets first, so that training pairs need not be remembered.
    report: dict[str, Any] = {}
    held_out = {split: HeldOut(f"data.{split}") for split in SPLITS[1:]}
    for split, pairs in held_out.items():
        counts = dict.fromkeys(directions, 0)
        both = zip(places[split], scans[split], strict=True)
        every = (_counted(strict(scan), counts, place.languages) for place, scan in both)
        read = _write_text(
            run, split, pairs.note(chain.from_iterable(every)), links=len(parts) == 1
        )
        report[split] = {"read": read, "blocks": [[*d, n] for d, n in counts.items()]}

    summaries = [FilterSummary(part.max_words, part.max_ratio) for part in parts]
    lengths = (lengths_of(cfg, (part.source_language, part.target_language)) for part in parts)
    kept = map(keep, scans["train"], parts, summaries, lengths, repeat(_workers(cfg)))
    passing: Iterable[Pair] = chain.from_iterable(kept)
    passing = tqdm(passing, unit=" pairs", desc="reading", disable=None)
    for pairs in held_out.values():
        passing = pairs.watch(passing)
    if (placeholders := placeholders_of(cfg)) is not None:
        passing = map(placeholders.pair, passing)
    _write_text(run, "train", passing, links=len(parts) == 1)

    report["train"] = _summary(cfg.data, summaries)
    for split, pairs in held_out.items():
        report[split]["in_training"] = pairs.in_training
    for split in SPLITS:
        report[split]["inputs"] = [asdict(file) for place in places[split] for file in place.inputs]
    return report


def _places(data: DataConfig, split: str) -> list[Place]:
    """Return the places of a split: for training in the order of the corpora, else by direction.

    Raises:
        ConfigError: a corpus has no training text, or a direction no text of another split.
    """
    places = [Place(part, split) for part in data.parts]
    if not data.corpora:
        return places
    fix = f"Write {{{split}: [FILE, FILE]}} in data.corpora."
    if split == "train":
        for i in (i for i, place in enumerate(places) if not place.names):
            raise ConfigError("config", f"data.corpora.{i} has no train", fix)
        return places
    for direction in data.directions:
        if not any(place.names and place.languages == direction for place in places):
            raise ConfigError("config", f"no {'-'.join(direction)} corpus has a {split}", fix)
    named = (place for place in places if place.names)
    return sorted(named, key=lambda place: data.directions.index(place.languages))


def _counted(
    pairs: Iterable[Pair], counts: dict[Direction, int], direction: Direction
) -> Iterator[Pair]:
    for pair in pairs:
        counts[direction] += 1
        yield pair


def _summary(data: DataConfig, summaries: Sequence[FilterSummary]) -> dict[str, Any]:
    """Return the report of the training pairs, and log it."""
    sizes, mixed = [summary.kept for summary in summaries], None
    if data.corpora:
        mixed = mixture(sizes, [corpus.weight for corpus in data.corpora], data.temperature)
    shares = mixed.shares if mixed else [size / sum(sizes) for size in sizes]
    directions = [(part.source_language, part.target_language) for part in data.parts]
    corpora = []
    for direction, summary, share in zip(directions, summaries, shares, strict=True):
        of = f", {'-'.join(direction)}, {share:.1%} of what is drawn" if data.corpora else ""
        log.info("training data%s: %s", of, summary)
        log.info("mean length: %s", summary.mean_lengths())
        corpora.append({"direction": [*direction], "share": share, **summary.as_dict()})
    blocks = [[*d, n] for d, n in zip(directions, sizes, strict=True)]
    if not data.corpora:
        return {**summaries[0].as_dict(), "blocks": blocks}
    totals = {key: sum(corpus[key] for corpus in corpora) for key in ("read", "kept")}
    return {**totals, "blocks": blocks, "corpora": corpora}


def _write_text(run: RunDir, split: str, pairs: Iterable[Pair], *, links: bool) -> int:
    """Write the sides of a split, and its gold links if it has any; return the number of pairs."""
    count = 0
    first = next(stream := iter(pairs), None)
    links = links and first is not None and first.links is not None
    kinds = (*SIDES, "links") if links else SIDES
    with ExitStack() as stack:
        files = [stack.enter_context(run.stream(f"corpus/{split}.{kind}")) for kind in kinds]
        for pair in chain([first] if first is not None else [], stream):
            count += 1
            gold = " ".join(f"{i}-{j}" for i, j in pair.links or ())
            # Compose the target, as models write it, so that references match in spelling.
            target = composed(pair.tgt)
            for file, text in zip(files, (pair.src, target, gold), strict=False):
                file.write(f"{text}\n".encode())
    return count


def _learn_vocabularies(run: RunDir, cfg: Config) -> None:
    """Learn the vocabularies from both sides of the filtered training set."""
    kind = _kind(cfg)
    texts = [load_text(run, "train", side) for side in SIDES]
    about = (cfg.data.directions[0], _text_names(cfg.data), _workers(cfg))
    learnt = kind.learn(texts, *about)
    names = [f"{side}.{kind.ending}" for side in SIDES]
    run.commit_directory(TOKENIZERS, dict(zip(names, learnt, strict=True)))


def _grow_vocabularies(run: RunDir, cfg: Config) -> None:
    """Add missing symbols and `init.new_pieces` to the vocabularies of `init.run`."""
    directory, kind = run.path(TOKENIZERS), _kind(cfg)
    files = read_directory(directory, MAX_VOCABULARY_BYTES)
    with expected(directory / MANIFEST):
        taken = [int(size) for size in read_manifest(directory / MANIFEST)["about"]["taken"]]
    texts = [load_text(run, "train", side) for side in SIDES]
    names = [f"{side}.{kind.ending}" for side in SIDES]
    is_joint = files[names[0]] == files[names[1]]
    grown = {}
    for side, (name, language) in enumerate(zip(names, cfg.data.directions[0], strict=True)):
        size = taken[side]  # the rest is from an interrupted attempt
        add = partial(kind.grown, files[name], size, all_symbols(cfg))
        tokenizer = kind.load(add([]), side, language, name)
        lines = chain(*texts) if is_joint else texts[side]
        pieces = _unknown(kind, tokenizer, lines, cfg.init.new_pieces)
        grown[name] = add(pieces)
        new, shown = len(tokenizer) - size, " ".join(pieces[:20])
        log.info("%s: %d new symbols, %d new pieces: %s", name, new, len(pieces), shown)
    run.commit_directory(TOKENIZERS, grown, about={"taken": taken})


def _unknown(
    kind: VocabularyKind, tokenizer: Tokenizer, lines: Iterable[str], most: int
) -> list[str]:
    """Return the `most` most frequent pieces that would let unknown parts of lines be written."""
    counts: Counter[str] = Counter()
    if most:
        for chunk in workers.chunked(lines, len):
            rows = tokenizer.tokens(chunk)
            unknown = (token.piece for row in rows for token in row if token.id == UNK)
            counts.update(part for piece in unknown for part in kind.parts(piece))
    return sorted(counts, key=lambda piece: (-counts[piece], piece))[:most]


def _text_names(cfg: DataConfig) -> list[str]:
    """Return the names of both sides of the training text, for errors."""
    if len(cfg.train) == len(SIDES):
        return [Path(name).name for name in cfg.train]
    return [f"the {side} side of {(*cfg.train, 'data.corpora')[0]}" for side in SIDES]


def _to_learn(run: RunDir, cfg: Config, split: str) -> Sequence[Sequence[str]]:
    """Return both sides of a split with the symbols of `data.placeholders`.

    Training text already has them on disk; the other splits are stored and scored without.
    """
    texts = [load_text(run, split, side) for side in SIDES]
    if split == "train" or (placeholders := placeholders_of(cfg)) is None:
        return texts
    pairs = [placeholders.pair(Pair(*both)) for both in zip(*texts, strict=True)]
    return [pair.src for pair in pairs], [pair.tgt for pair in pairs]


def _write_ids(
    run: RunDir,
    name: str,
    text: Sequence[str],
    tokenizer: Tokenizer,
    processes: int,
    before: Iterator[list[int]],
) -> None:
    """Write the ids of a side; `before` yields the ids to put before each line."""

    def encoded(chunk: tuple[Sequence[str], Sequence[list[int]]]) -> tuple[bytes, Lengths]:
        texts, beginnings = chunk
        pairs = zip(beginnings, tokenizer.encode(texts), strict=True)
        rows = [[*beginning, *row, EOS] for beginning, row in pairs]
        ids = np.concatenate(rows).astype(np.int32).tobytes()
        return ids, np.cumsum([len(row) for row in rows], dtype=np.int64)

    end = 0
    with (
        run.stream(f"tokens/{name}.ids") as ids_file,
        run.stream(f"tokens/{name}.ends") as ends_file,
        tqdm(total=len(text), unit=" lines", desc=name, disable=None) as bar,
    ):
        chunks = ((lines, [*islice(before, len(lines))]) for lines in _chunks(text))
        for ids, ends in workers.mapped(encoded, chunks, processes):
            ids_file.write(ids)
            ends_file.write((end + ends).tobytes())
            end += int(ends[-1])
            bar.update(len(ends))


def _chunks(text: Sequence[str]) -> Iterator[Sequence[str]]:
    size = workers.CHUNK
    return (text[start : start + size] for start in range(0, len(text), size))


def _workers(cfg: Config) -> int:
    return cfg.data.workers or min(_MOST_WORKERS, workers.number_of_cpus())


def _unwritable(
    split: str, text: Sequence[str], tokenizer: Tokenizer, processes: int
) -> dict[str, Any]:
    """Count the target lines that no translation can equal, since ids cannot express them."""
    lost = chain.from_iterable(workers.mapped(tokenizer.lost, _chunks(text), processes))
    count, first = 0, None
    for number, what_is_lost in enumerate(lost, start=1):
        if what_is_lost is not None:
            count += 1
            first = first or (number, what_is_lost)
    if first is None:
        return {"lines": 0}
    level = logging.WARNING if count > _UNWRITABLE_WARNING * len(text) else logging.INFO
    what = (
        "%s: %d of %d target lines cannot be written by the vocabulary; the first, line %d, has %r"
    )
    log.log(level, what, split, count, len(text), *first)
    return {"lines": count, "first_line": first[0], "first": first[1]}


def load_tokenizers(run: RunDir, cfg: Config) -> tuple[Tokenizer, Tokenizer]:
    """Return the verified source and target vocabularies of a run."""
    source, target = _load_vocabularies(run, cfg)
    if (placeholders := placeholders_of(cfg)) is not None:
        source = CarryingTokenizer(source, target, placeholders)
    return source, target


def _load_vocabularies(run: RunDir, cfg: Config) -> tuple[Tokenizer, Tokenizer]:
    """Return the vocabularies for text that already has its placeholder symbols."""
    directory, kind = run.path(TOKENIZERS), _kind(cfg)
    files = read_directory(directory, MAX_VOCABULARY_BYTES)

    def load(side: int, language: str) -> Tokenizer:
        name = f"{SIDES[side]}.{kind.ending}"
        return kind.load(files.get(name, b""), side, language, str(directory / name))

    source, target = map(load, range(2), cfg.data.directions[0])
    if cfg.data.target_order is TargetOrder.right_to_left:
        target = RightToLeft(target)
    return source, target


def load_pairs(run: RunDir, split: str, tokenizers: tuple[Tokenizer, Tokenizer]) -> TokenizedPairs:
    """Return the ids of a split.

    Raises:
        RunDirError: the split is empty, or ids and text differ in their number of pairs.
    """

    def load(side: str, tokenizer: Tokenizer) -> IdStore:
        ids, ends = (run.checked(f"tokens/{split}.{side}.{kind}") for kind in ("ids", "ends"))
        return IdStore(ids, ends, len(tokenizer))

    src, tgt = map(load, SIDES, tokenizers)
    counts = {len(src), len(tgt), *(len(load_text(run, split, side)) for side in SIDES)}
    if len(counts) > 1 or 0 in counts:
        what = f"{split} has files of {sorted(counts)} pairs"
        raise RunDirError(run.path("tokens"), what, "Restore tokens/ and corpus/ from a copy.")
    return TokenizedPairs(src, tgt)


def load_text(run: RunDir, split: str, side: str) -> TextStore:
    """Return the text of one side of a split.

    Raises:
        RunDirError: the run has no text, as in an exported model.
    """
    path = run.checked(f"corpus/{split}.{side}")
    if not path.exists():
        raise RunDirError(path, "missing", "Name a whole run, or give --source and --reference.")
    return TextStore(path)


def load_blocks(run: RunDir, cfg: Config, split: str) -> list[tuple[Direction, int]]:
    """Return the directions of a split in the order of its lines, each with its number of lines.

    The training set has one block per corpus.
    """
    if not cfg.data.corpora:
        return [(cfg.data.directions[0], len(load_text(run, split, SIDES[0])))]
    path = run.path(REPORT)
    with expected(path):
        blocks = [((a, b), int(count)) for a, b, count in read_checksummed(path)[split]["blocks"]]
        counts = [count for _, count in blocks]
        known = all(d in cfg.data.directions for d, _ in blocks) and min(counts) >= 0
        if not known or sum(counts) != len(load_text(run, split, SIDES[0])):
            raise ValueError(blocks)
    return blocks


def directions_of(run: RunDir, cfg: Config, split: str) -> list[Direction]:
    """Return the direction of each line of a split."""
    return [d for d, count in load_blocks(run, cfg, split) for _ in range(count)]


def lengths_of(cfg: Config, direction: Direction | None = None) -> tuple[Length, Length]:
    """Return the length measures of both sides, in words of the vocabulary, as in the paper.

    None means the first direction; most runs have only one.
    """
    count = _kind(cfg).word_counter
    languages = direction or cfg.data.directions[0]
    source, target = (Length(language, count(language)) for language in languages)
    return source, target


def splitter_of(cfg: Config) -> Splitter | None:
    """Return what splits text into the words that pictures show; None if they show characters."""
    return None if isinstance(cfg.tokenizer, CharactersConfig) else word_spans


def check_data(run: RunDir) -> None:
    """Check that the text and the ids of a run are unchanged.

    Raises:
        RunDirError: a file is missing or has changed.
    """
    for name in entries_of(run.path(REPORT)):
        run.checked(name)


def _kind(cfg: Config) -> VocabularyKind:
    """Return the kind of vocabulary of a config; it never splits the config's symbols."""
    tokenizer = cfg.tokenizer
    if symbols := all_symbols(cfg):
        tokenizer = replace(tokenizer, symbols=symbols)
    return cast(VocabularyKind, build(tokenizer))
