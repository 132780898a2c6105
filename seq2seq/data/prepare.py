"""From a corpus to what training reads: kept text, vocabularies, ids. All of it inside the run.

corpus/SPLIT.source, .target   text, one sentence a line (and .links of the embedded corpus)
tokenizers/                    source.model, target.model (or .words), manifest
tokens/SPLIT.SIDE.ids, .ends   ids as int32, row ends as int64, both end symbols included
data_report.json               what was read, kept and dropped, sums of these files; written last
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from seq2seq.data.batching import TokenizedPairs
from seq2seq.data.corpus import check_files, scan_pairs
from seq2seq.data.filters import HeldOut, WordCounter, between_blanks, keep
from seq2seq.data.pair import Links, Pair
from seq2seq.data.store import IdStore, TextStore
from seq2seq.data.text import strict
from seq2seq.data.tokenizer import (
    EOS,
    SentencePieceTokenizer,
    Tokenizer,
    VocabularyTooLargeError,
    train_sentencepiece,
)
from seq2seq.data.word_vocabulary import Moses, WordTokenizer, learn_words
from seq2seq.errors import RunDirError, UntrustedError
from seq2seq.progress import tqdm
from seq2seq.reading import entry_of_file, expected, read_folder, read_lines_of, read_sealed, seal
from seq2seq.run import RunDir
from seq2seq.settings import Config, DataConfig, SentencePieceConfig, WordsConfig

log = logging.getLogger(__name__)

SIDES = ("source", "target")
SPLITS = ("train", "validation", "test")
REPORT = "data_report.json"
TOKENIZERS = "tokenizers"
MAX_VOCABULARY_BYTES = 1 << 26  # 60 times that of the paper's 30,000 words
_OWN_FILE = re.compile(r"(corpus|tokens)/[a-z]+(\.[a-z]+)+")
_CHUNK = 10_000  # lines encoded at once


def prepare(run: RunDir, cfg: Config) -> None:
    """Read, filter and tokenize the corpus of a config into a run; does nothing if that is done.

    Raises:
        DataError: the corpus cannot be used.
        ConfigError: the vocabulary does not fit it.
    """
    if run.path(REPORT).exists():
        return
    if run.path("checkpoints").exists():  # no run of ours has trained on what it has not read
        raise RunDirError(run.path(REPORT), "missing", "Restore it from a copy.")
    for split in SPLITS:
        check_files(cfg.data, split)
    report = _read_corpus(run, cfg)
    _learn_vocabularies(run, cfg)
    tokenizers = load_tokenizers(run, cfg)
    for split in SPLITS[:2]:
        for side, tokenizer in zip(SIDES, tokenizers, strict=True):
            _write_ids(run, split, side, tokenizer)
    report["vocabularies"] = [len(tokenizer) for tokenizer in tokenizers]
    written = sorted(p for name in ("corpus", "tokens") for p in run.path(name).iterdir())
    report["files"] = {p.relative_to(run.root).as_posix(): entry_of_file(p) for p in written}
    run.write_json(REPORT, seal(report))


def reported_files(run: RunDir) -> dict[str, Any]:
    """Return what the data report says of the text and the ids of a run.

    Raises:
        RunDirError: it says nothing that makes sense.
        UntrustedError: it names a file elsewhere.
    """
    with expected(run.path(REPORT)):
        files = dict(read_sealed(run.path(REPORT))["files"])
    for name in files:
        if not _OWN_FILE.fullmatch(name):
            what = f"names a file {name[:80]!r}"
            raise UntrustedError(run.path(REPORT), what, "No run of ours has one: refused.")
    return files


def check_data(run: RunDir) -> None:
    """See that the text and the ids of a run are those that were written.

    Raises:
        RunDirError: a file is missing or has changed.
    """
    for name, entry in reported_files(run).items():
        path = run.path(name)
        if (found := entry_of_file(path)) != entry:
            with expected(run.path(REPORT)):
                sizes = f"{found['size']} bytes, expected {int(entry['size'])}"
                same = found["size"] == entry["size"]
            what = f"SHA-256 differs from the one in {REPORT}" if same else f"is {sizes}"
            raise RunDirError(path, what, "Restore it from a copy.")


def _read_corpus(run: RunDir, cfg: Config) -> dict[str, Any]:
    """Write the text of all splits and return the account of it."""
    counts, held_out = {}, {split: HeldOut(f"data.{split}") for split in SPLITS[1:]}
    scans = {split: scan_pairs(cfg.data, split) for split in SPLITS}
    for split, pairs in held_out.items():  # first, so that training pairs need not be remembered
        counts[split] = _write_text(run, split, pairs.note(strict(scans[split])))
    kept = keep(scans["train"], cfg.data, word_counters(cfg))
    passing: Iterable[Pair] = tqdm(kept, unit=" pairs", desc="reading", disable=None)
    for pairs in held_out.values():
        passing = pairs.watch(passing)
    _write_text(run, "train", passing)
    log.info("training data: %s", kept.report.summary())
    report: dict[str, Any] = {"train": kept.report.as_dict()}
    for split, pairs in held_out.items():
        report[split] = {"read": counts[split], "in_training": pairs.in_training}
    for split, scan in scans.items():
        report[split]["inputs"] = [asdict(file) for file in scan.files]
    return report | {"fingerprints": {split: scan.fingerprint for split, scan in scans.items()}}


def load_tokenizers(run: RunDir, cfg: Config) -> tuple[Tokenizer, Tokenizer]:
    """Return the source and the target vocabulary of a run, verified."""
    folder = run.path(TOKENIZERS)
    files = read_folder(folder, MAX_VOCABULARY_BYTES)

    def load(side: str, language: str) -> Tokenizer:
        name = f"{side}.{_ending(cfg)}"
        data, where = files.get(name, b""), str(folder / name)
        if isinstance(cfg.tokenizer, WordsConfig):
            return WordTokenizer(data, cfg.tokenizer, language, where)
        return SentencePieceTokenizer(data, where)

    source, target = map(load, SIDES, _languages(cfg.data))
    return source, target


def load_pairs(run: RunDir, split: str, tokenizers: tuple[Tokenizer, Tokenizer]) -> TokenizedPairs:
    """Return the ids of a split.

    Raises:
        RunDirError: they are not those of as many pairs, at least one, as its text has.
    """
    src, tgt = (
        IdStore(
            run.path(f"tokens/{split}.{side}.ids"),
            run.path(f"tokens/{split}.{side}.ends"),
            len(tokenizer),
        )
        for side, tokenizer in zip(SIDES, tokenizers, strict=True)
    )
    counts = {len(src), len(tgt), *(len(load_text(run, split, side)) for side in SIDES)}
    if len(counts) > 1 or 0 in counts:
        what = f"{split} has files of {sorted(counts)} pairs"
        raise RunDirError(run.path("tokens"), what, "Restore the folders tokens and corpus.")
    return TokenizedPairs(src, tgt)


def load_text(run: RunDir, split: str, side: str) -> TextStore:
    """Return the text of one side of a split.

    Raises:
        RunDirError: the run has none, as an exported model.
    """
    path = run.path(f"corpus/{split}.{side}")
    if not path.exists():
        raise RunDirError(path, "missing", "Name a whole run, or give --source and --reference.")
    return TextStore(path)


def _write_text(run: RunDir, split: str, pairs: Iterable[Pair]) -> int:
    """Write the sides of a split, and the gold links if its pairs have some; return the count."""
    count = 0
    first = next(stream := iter(pairs), None)
    kinds = (*SIDES, "links") if first is not None and first.links is not None else SIDES
    with ExitStack() as stack:
        files = [stack.enter_context(run.stream(f"corpus/{split}.{kind}")) for kind in kinds]
        for pair in chain([first] if first is not None else [], stream):
            count += 1
            texts = (pair.src, pair.tgt, _pharaoh(pair.links or ()))
            for file, text in zip(files, texts, strict=False):
                file.write(f"{text}\n".encode())
    return count


def _pharaoh(links: Links) -> str:
    return " ".join(f"{i}-{j}" for i, j in links)


def _languages(cfg: DataConfig) -> tuple[str, str]:
    return cfg.source_language, cfg.target_language


def _ending(cfg: Config) -> str:
    return "words" if isinstance(cfg.tokenizer, WordsConfig) else "model"


def word_counters(cfg: Config) -> tuple[WordCounter, WordCounter]:
    """Say how long a side is: in the words of the vocabulary, as the paper's limits are."""
    if not isinstance(cfg.tokenizer, WordsConfig):
        return between_blanks, between_blanks
    source, target = map(Moses, _languages(cfg.data))
    return lambda text: len(source.words(text)), lambda text: len(target.words(text))


def _learn_vocabularies(run: RunDir, cfg: Config) -> None:
    paths = [run.path(f"corpus/train.{side}") for side in SIDES]
    if isinstance(cfg.tokenizer, WordsConfig):
        models = [
            learn_words(read_lines_of(path), cfg.tokenizer, language)
            for path, language in zip(paths, _languages(cfg.data), strict=True)
        ]
    else:
        models = _learn_pieces(paths, cfg)
    names = (f"{side}.{_ending(cfg)}" for side in SIDES)
    run.commit_folder(TOKENIZERS, dict(zip(names, models, strict=True)))


def _learn_pieces(paths: Sequence[Path], cfg: Config) -> list[bytes]:
    """Learn one vocabulary a side, or one for both; where one is too large, name a size that fits.

    Returns:
        The models of the source and of the target.
    """
    assert isinstance(cfg.tokenizer, SentencePieceConfig)
    groups, names = [[path] for path in paths], _text_names(cfg.data)
    if cfg.tokenizer.joint:
        groups, names = [[*paths]], [" and ".join(names)]
    models, too_large = [], []
    for group, name in zip(groups, names, strict=True):
        try:
            sample = Sample(group, cfg.tokenizer.max_lines)
            models.append(train_sentencepiece(sample, cfg.tokenizer))
        except VocabularyTooLargeError as error:
            too_large.append((error.largest, error.asked, name))
    if too_large:
        largest, asked, name = min(too_large)
        raise VocabularyTooLargeError(asked, largest, name)
    return models * (2 if cfg.tokenizer.joint else 1)


def _text_names(cfg: DataConfig) -> list[str]:
    """What the two sides of the training text are called in an error."""
    if len(cfg.train) == len(SIDES):
        return [Path(name).name for name in cfg.train]
    return [f"the {side} side of {cfg.train[0]}" for side in SIDES]


class Sample(Iterable[str]):
    """At most so many lines of each file of a run, evenly over it; read anew whenever asked for."""

    def __init__(self, paths: Sequence[Path], most: int) -> None:
        self._steps = [(path, max(1, -(-_count_lines(path) // most))) for path in paths]

    def __iter__(self) -> Iterator[str]:
        for path, step in self._steps:
            yield from islice(read_lines_of(path), 0, None, step)


def _count_lines(path: Path) -> int:
    return sum(1 for _ in read_lines_of(path))


def _write_ids(run: RunDir, split: str, side: str, tokenizer: Tokenizer) -> None:
    path = run.path(f"corpus/{split}.{side}")
    end = 0
    with (
        run.stream(f"tokens/{split}.{side}.ids") as ids_file,
        run.stream(f"tokens/{split}.{side}.ends") as ends_file,
        tqdm(total=_count_lines(path), unit=" lines", desc=f"{split} {side}", disable=None) as bar,
    ):
        for lines in _chunks(read_lines_of(path)):
            rows = [[*row, EOS] for row in tokenizer.encode(lines)]
            ends = end + np.cumsum([len(row) for row in rows], dtype=np.int64)
            ids_file.write(np.concatenate(rows).astype(np.int32).tobytes())
            ends_file.write(ends.tobytes())
            end = int(ends[-1])
            bar.update(len(rows))


def _chunks(lines: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(lines, _CHUNK)):
        yield chunk
