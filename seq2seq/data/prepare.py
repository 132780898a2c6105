"""From a corpus to what training reads: kept text, vocabularies, ids. All of it inside the run.

corpus/SPLIT.source, .target   text, one sentence a line (and .links of the embedded corpus)
tokenizers/                    source.model, target.model (or .words), manifest
tokens/SPLIT.SIDE.ids, .ends   ids as int32, row ends as int64, both end symbols included
data_report.json               what was read, kept and dropped, checksums of these files; last
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from seq2seq.config.registry import build
from seq2seq.config.schema import Config, DataConfig, all_symbols
from seq2seq.data import subword_vocabulary, word_vocabulary  # noqa: F401 - they register
from seq2seq.data.batching import TokenizedPairs
from seq2seq.data.filters import FilterSummary, HeldOut, keep
from seq2seq.data.lengths import Length
from seq2seq.data.pair import Pair
from seq2seq.data.placeholders import CarryingTokenizer, placeholders_of
from seq2seq.data.readers import Place, scan_pairs
from seq2seq.data.store import IdStore, TextStore
from seq2seq.data.text import strict
from seq2seq.data.tokenizer import EOS, UNK, Tokenizer, VocabularyKind, composed
from seq2seq.run.checksums import (
    MANIFEST,
    entries_of,
    entry_of_file,
    read_directory,
    read_manifest,
    with_checksum,
)
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError
from seq2seq.run.progress import tqdm
from seq2seq.run.reading import expected

log = logging.getLogger(__name__)

SIDES = ("source", "target")
SPLITS = ("train", "validation", "test")
REPORT = "data_report.json"
TOKENIZERS = "tokenizers"
MAX_VOCABULARY_BYTES = 1 << 26  # 60 times that of the paper's 30,000 words

_CHUNK = 10_000  # lines encoded at once
_RESTORE = "Restore it from a copy."
_UNWRITABLE_WARNING = 0.1  # share of the lines of a split


def prepare(run: RunDir, cfg: Config) -> None:
    """Read, filter and tokenize the corpus of a config into a run; does nothing if that is done.

    Raises:
        DataError: the corpus cannot be used.
        ConfigError: the vocabulary does not fit it.
    """
    if run.path(REPORT).exists():
        return
    if run.path("checkpoints").exists():  # nothing trains on what was not prepared
        raise RunDirError(run.path(REPORT), "missing", _RESTORE)
    for name in ("corpus", "tokens"):  # of a try that ended before, maybe with other settings
        run.remove_directory(name)
    report = _read_corpus(run, cfg)
    if cfg.init.run is None:
        _learn_vocabularies(run, cfg)
    else:  # they were copied when the run was made
        log.info("vocabularies are those of %s: none is learnt", cfg.init.run)
        if cfg.init.new_pieces or all_symbols(cfg):
            _grow_vocabularies(run, cfg)

    # Ids of what training reads; the test set is tokenized when it is decoded.
    tokenizers = _load_vocabularies(run, cfg)
    for split in SPLITS:
        texts = _to_learn(run, cfg, split)
        for side, tokenizer, text in zip(SIDES, tokenizers, texts, strict=True):
            if split != "test":
                _write_ids(run, f"{split}.{side}", text, tokenizer)
        report[split]["unwritable"] = _unwritable(split, texts[1], tokenizers[1])
    report["vocabularies"] = [len(tokenizer) for tokenizer in tokenizers]
    written = sorted(p for name in ("corpus", "tokens") for p in run.path(name).iterdir())
    report["files"] = {p.relative_to(run.root).as_posix(): entry_of_file(p) for p in written}
    run.write_json(REPORT, with_checksum(report))


def _read_corpus(run: RunDir, cfg: Config) -> dict[str, Any]:
    """Write the text of all splits and return what the report says of them."""
    # All are opened before the first is read, which may take hours.
    places = {split: Place(cfg.data, split) for split in SPLITS}
    scans = {split: scan_pairs(place) for split, place in places.items()}

    # Validation and test set first, so that training pairs need not be remembered.
    report: dict[str, Any] = {}
    held_out = {split: HeldOut(f"data.{split}") for split in SPLITS[1:]}
    for split, pairs in held_out.items():
        report[split] = {"read": _write_text(run, split, pairs.note(strict(scans[split])))}

    summary = FilterSummary(cfg.data.max_words, cfg.data.max_ratio)
    kept = keep(scans["train"], cfg.data, summary, lengths_of(cfg))
    passing: Iterable[Pair] = tqdm(kept, unit=" pairs", desc="reading", disable=None)
    for pairs in held_out.values():
        passing = pairs.watch(passing)
    if (placeholders := placeholders_of(cfg)) is not None:
        passing = map(placeholders.pair, passing)
    _write_text(run, "train", passing)
    log.info("training data: %s", summary)
    log.info("mean length: %s", summary.mean_lengths())

    report["train"] = summary.as_dict()
    for split, pairs in held_out.items():
        report[split]["in_training"] = pairs.in_training
    for split, place in places.items():
        report[split]["inputs"] = [asdict(file) for file in place.inputs]
    return report


def _write_text(run: RunDir, split: str, pairs: Iterable[Pair]) -> int:
    """Write the sides of a split, and the gold links if its pairs have some; return the count."""
    count = 0
    first = next(stream := iter(pairs), None)
    kinds = (*SIDES, "links") if first is not None and first.links is not None else SIDES
    with ExitStack() as stack:
        files = [stack.enter_context(run.stream(f"corpus/{split}.{kind}")) for kind in kinds]
        for pair in chain([first] if first is not None else [], stream):
            count += 1
            links = " ".join(f"{i}-{j}" for i, j in pair.links or ())
            # The target as models write it: composed, so that no reference differs by its spelling.
            target = composed(pair.tgt)
            for file, text in zip(files, (pair.src, target, links), strict=False):
                file.write(f"{text}\n".encode())
    return count


def _learn_vocabularies(run: RunDir, cfg: Config) -> None:
    """Learn from the text that was kept, on both sides of the training set."""
    kind = _kind(cfg)
    texts = [load_text(run, "train", side) for side in SIDES]
    learnt = kind.learn(texts, _languages(cfg), _text_names(cfg.data))
    names = [f"{side}.{kind.ending}" for side in SIDES]
    run.commit_directory(TOKENIZERS, dict(zip(names, learnt, strict=True)))


def _grow_vocabularies(run: RunDir, cfg: Config) -> None:
    """Add to those of an origin the symbols that they lack, and `init.new_pieces`."""
    directory, kind = run.path(TOKENIZERS), _kind(cfg)
    files = read_directory(directory, MAX_VOCABULARY_BYTES)
    with expected(directory / MANIFEST):
        taken = [int(size) for size in read_manifest(directory / MANIFEST)["about"]["taken"]]
    texts = [load_text(run, "train", side) for side in SIDES]
    names = [f"{side}.{kind.ending}" for side in SIDES]
    is_joint = files[names[0]] == files[names[1]]
    grown = {}
    for side, (name, language) in enumerate(zip(names, _languages(cfg), strict=True)):
        size = taken[side]  # the rest is of a try that ended before
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
    """Return the most frequent pieces by which what is unknown in lines could be written."""
    counts: Counter[str] = Counter()
    if most:
        stream = iter(lines)
        while chunk := [*islice(stream, _CHUNK)]:
            rows = tokenizer.tokens(chunk)
            unknown = (token.piece for row in rows for token in row if token.id == UNK)
            counts.update(part for piece in unknown for part in kind.parts(piece))
    return sorted(counts, key=lambda piece: (-counts[piece], piece))[:most]


def _text_names(cfg: DataConfig) -> list[str]:
    """What the two sides of the training text are called in an error."""
    if len(cfg.train) == len(SIDES):
        return [Path(name).name for name in cfg.train]
    return [f"the {side} side of {cfg.train[0]}" for side in SIDES]


def _to_learn(run: RunDir, cfg: Config, split: str) -> Sequence[Sequence[str]]:
    """Return both sides of a split with the symbols of `data.placeholders`.

    Training text has them already; others are read and scored as they are.
    """
    texts = [load_text(run, split, side) for side in SIDES]
    if split == "train" or (placeholders := placeholders_of(cfg)) is None:
        return texts
    pairs = [placeholders.pair(Pair(*both)) for both in zip(*texts, strict=True)]
    return [pair.src for pair in pairs], [pair.tgt for pair in pairs]


def _write_ids(run: RunDir, name: str, text: Sequence[str], tokenizer: Tokenizer) -> None:
    end = 0
    with (
        run.stream(f"tokens/{name}.ids") as ids_file,
        run.stream(f"tokens/{name}.ends") as ends_file,
        tqdm(total=len(text), unit=" lines", desc=name, disable=None) as bar,
    ):
        for start in range(0, len(text), _CHUNK):
            rows = [[*row, EOS] for row in tokenizer.encode(text[start : start + _CHUNK])]
            ends = end + np.cumsum([len(row) for row in rows], dtype=np.int64)
            ids_file.write(np.concatenate(rows).astype(np.int32).tobytes())
            ends_file.write(ends.tobytes())
            end = int(ends[-1])
            bar.update(len(rows))


def _unwritable(split: str, text: Sequence[str], tokenizer: Tokenizer) -> dict[str, Any]:
    """Count the target lines that no translation can equal, as their ids do not give them back."""
    count, first = 0, None
    for start in range(0, len(text), _CHUNK):
        lost = tokenizer.lost(text[start : start + _CHUNK])
        found = [(start + i, what) for i, what in enumerate(lost, start=1) if what is not None]
        count += len(found)
        first = first or next(iter(found), None)
    if first is None:
        return {"lines": 0}
    level = logging.WARNING if count > _UNWRITABLE_WARNING * len(text) else logging.INFO
    what = (
        "%s: %d of %d target lines cannot be written by the vocabulary; the first, line %d, has %r"
    )
    log.log(level, what, split, count, len(text), *first)
    return {"lines": count, "first_line": first[0], "first": first[1]}


def load_tokenizers(run: RunDir, cfg: Config) -> tuple[Tokenizer, Tokenizer]:
    """Return the source and the target vocabulary of a run, verified."""
    source, target = _load_vocabularies(run, cfg)
    if (placeholders := placeholders_of(cfg)) is not None:
        source = CarryingTokenizer(source, target, placeholders)
    return source, target


def _load_vocabularies(run: RunDir, cfg: Config) -> tuple[Tokenizer, Tokenizer]:
    """Return them as they read text with its symbols."""
    directory, kind = run.path(TOKENIZERS), _kind(cfg)
    files = read_directory(directory, MAX_VOCABULARY_BYTES)

    def load(side: int, language: str) -> Tokenizer:
        name = f"{SIDES[side]}.{kind.ending}"
        return kind.load(files.get(name, b""), side, language, str(directory / name))

    source, target = map(load, range(2), _languages(cfg))
    return source, target


def load_pairs(run: RunDir, split: str, tokenizers: tuple[Tokenizer, Tokenizer]) -> TokenizedPairs:
    """Return the ids of a split.

    Raises:
        RunDirError: they are not those of as many pairs, at least one, as its text has.
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
        RunDirError: the run has none, as an exported model.
    """
    path = run.checked(f"corpus/{split}.{side}")
    if not path.exists():
        raise RunDirError(path, "missing", "Name a whole run, or give --source and --reference.")
    return TextStore(path)


def lengths_of(cfg: Config) -> tuple[Length, Length]:
    """Return how long a side is: in the words of the vocabulary, as the paper's limits are."""
    count = _kind(cfg).word_counter
    source, target = (Length(language, count(language)) for language in _languages(cfg))
    return source, target


def check_data(run: RunDir) -> None:
    """Check that the text and the ids of a run are those that were written.

    Raises:
        RunDirError: a file is missing or has changed.
    """
    for name in entries_of(run.path(REPORT)):
        run.checked(name)


def _kind(cfg: Config) -> VocabularyKind:
    tokenizer = cfg.tokenizer
    if cfg.data.placeholders:
        tokenizer = replace(tokenizer, symbols=all_symbols(cfg))
    return cast(VocabularyKind, build(tokenizer))


def _languages(cfg: Config) -> tuple[str, str]:
    return cfg.data.source_language, cfg.data.target_language
