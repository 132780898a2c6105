"""From a corpus to what training reads: kept text, vocabularies, ids. All of it inside the run.

corpus/SPLIT.source, .target   text, one sentence a line (and .links of the embedded corpus)
tokenizers/                    source.model, target.model (or .words), manifest
tokens/SPLIT.SIDE.ids, .ends   ids as int32, row ends as int64, both end symbols included
data_report.json               what was read, kept and dropped, checksums of these files; last
"""

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np

from seq2seq.config.registry import build
from seq2seq.config.schema import Config, DataConfig, TargetOrder
from seq2seq.data import subword_vocabulary, word_vocabulary  # noqa: F401 - they register
from seq2seq.data.batching import TokenizedPairs
from seq2seq.data.filters import FilterSummary, HeldOut, keep
from seq2seq.data.lengths import Length
from seq2seq.data.pair import Pair
from seq2seq.data.readers import Place, scan_pairs
from seq2seq.data.store import IdStore, TextStore
from seq2seq.data.text import strict
from seq2seq.data.tokenizer import EOS, RightToLeft, Tokenizer, VocabularyKind, composed
from seq2seq.run.checksums import entries_of, entry_of_file, read_directory, with_checksum
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError
from seq2seq.run.progress import tqdm

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

    # Ids of what training reads; the test set is tokenized when it is decoded.
    tokenizers = load_tokenizers(run, cfg)
    for split in SPLITS[:2]:
        for side, tokenizer in zip(SIDES, tokenizers, strict=True):
            _write_ids(run, split, side, tokenizer)
    for split in SPLITS:
        report[split]["unwritable"] = _unwritable(run, split, tokenizers[1])
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


def _text_names(cfg: DataConfig) -> list[str]:
    """What the two sides of the training text are called in an error."""
    if len(cfg.train) == len(SIDES):
        return [Path(name).name for name in cfg.train]
    return [f"the {side} side of {cfg.train[0]}" for side in SIDES]


def _write_ids(run: RunDir, split: str, side: str, tokenizer: Tokenizer) -> None:
    text, end = load_text(run, split, side), 0
    with (
        run.stream(f"tokens/{split}.{side}.ids") as ids_file,
        run.stream(f"tokens/{split}.{side}.ends") as ends_file,
        tqdm(total=len(text), unit=" lines", desc=f"{split} {side}", disable=None) as bar,
    ):
        for start in range(0, len(text), _CHUNK):
            rows = [[*row, EOS] for row in tokenizer.encode(text[start : start + _CHUNK])]
            ends = end + np.cumsum([len(row) for row in rows], dtype=np.int64)
            ids_file.write(np.concatenate(rows).astype(np.int32).tobytes())
            ends_file.write(ends.tobytes())
            end = int(ends[-1])
            bar.update(len(rows))


def _unwritable(run: RunDir, split: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Count the target lines that no translation can equal, as their ids do not give them back."""
    text, count, first = load_text(run, split, SIDES[1]), 0, None
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
    directory, kind = run.path(TOKENIZERS), _kind(cfg)
    files = read_directory(directory, MAX_VOCABULARY_BYTES)

    def load(side: int, language: str) -> Tokenizer:
        name = f"{SIDES[side]}.{kind.ending}"
        return kind.load(files.get(name, b""), side, language, str(directory / name))

    source, target = map(load, range(2), _languages(cfg))
    if cfg.data.target_order is TargetOrder.right_to_left:
        target = RightToLeft(target)
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
    return cast(VocabularyKind, build(cfg.tokenizer))


def _languages(cfg: Config) -> tuple[str, str]:
    return cfg.data.source_language, cfg.data.target_language
