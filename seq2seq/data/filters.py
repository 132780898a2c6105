"""Which pairs are kept for training, and an exact count of the others.

Only training pairs are filtered: every pair of the validation and test sets is decoded and scored.
Limits of length are in words; `lengths.py` says how many characters of Japanese make up one.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

from seq2seq.config.schema import DataConfig, OnBadLine
from seq2seq.data.lengths import CHARACTERS_PER_WORD, Length, Tally
from seq2seq.data.pair import Pair
from seq2seq.data.words import count_words, is_blank
from seq2seq.run.errors import DataError, printable

logger = logging.getLogger(__name__)

# Why a pair is dropped, in the order of the checks; the first that applies counts. With it what a
# warning says of such pairs, and what to do.
REASONS = {
    "bad_line": ("unreadable", "cannot be read and were skipped", "Look at data.train."),
    "empty": ("empty", "have an empty side", "Look at data.train."),
    "too_long": (
        "longer than {max_words} words",
        "are longer than {max_words} words, or {max_characters:g} characters without spaces",
        "Raise data.max_words to keep them.",
    ),
    "ratio": (
        "ratio above {max_ratio:g}",
        "have a side over {max_ratio:g} times as long as the other",
        "Raise data.max_ratio to keep them.",
    ),
    "duplicate": (
        "duplicate",
        "repeat an earlier one",
        "Set data.drop_duplicates=false to keep them.",
    ),
}
# How many pair numbers are noted for each reason.
NUM_EXAMPLES = 20
# Mean characters per allowed word; one "word" of a million letters must not reach the model.
MAX_WORD_CHARACTERS = 100
# Shares of the pairs above which a warning is due: of those that one filter drops, of copies.
DROP_WARNING = 0.1
COPY_WARNING = 0.5
# In a warning so many pairs are shown, at most so many characters of each side.
NUM_SHOWN, SHOWN = 2, 40


@dataclass
class FilterSummary:
    """How many pairs were read, kept and dropped; complete when all have been read."""

    max_words: int
    max_ratio: float
    read: int = 0  # the sum of `kept`, `dropped` and `beyond_limit`
    kept: int = 0
    beyond_limit: int = 0
    copies: int = 0  # pairs, kept or not, whose sides are equal text
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    # By reason the first dropped pairs; 1 is the first pair of the corpus.
    examples: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in REASONS})
    # The first of them as a warning shows them.
    shown: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in REASONS})
    # Of kept pairs, source and target: what lengths are counted in, their mean and their greatest.
    lengths: dict[str, dict[str, Any]] = field(default_factory=dict)

    def drop(self, reason: str, pair: Pair | DataError) -> None:
        """Count the pair that was read last."""
        self.dropped[reason] += 1
        if len(self.examples[reason]) < NUM_EXAMPLES:
            self.examples[reason].append(self.read)
        if len(self.shown[reason]) < NUM_SHOWN:
            self.shown[reason].append(f"{self.read} ({_shown(pair)})")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `data_report.json`."""
        values = asdict(self)
        del values["shown"]
        dropped: dict[str, int] = values.pop("dropped")
        return values | dropped

    def __str__(self) -> str:
        """Return one line for the log."""
        reasons = {name: texts[0].format(**vars(self)) for name, texts in REASONS.items()}
        dropped = [f"{count:,} {reasons[name]}" for name, count in self.dropped.items() if count]
        line = f"{self.read:,} pairs read, {self.kept:,} kept"
        line += f" (dropped: {', '.join(dropped)})" if dropped else ""
        return line + (f"; {self.beyond_limit:,} beyond data.limit" if self.beyond_limit else "")

    def mean_lengths(self) -> str:
        """Return `source 12.0 words, target 20.1 characters`, of kept pairs."""
        return ", ".join(f"{side} {x['mean']:.1f} {x['unit']}" for side, x in self.lengths.items())


def keep(
    pairs: Iterable[Pair | DataError],
    cfg: DataConfig,
    summary: FilterSummary,
    lengths: tuple[Length, Length] = (Length("", count_words), Length("", count_words)),
) -> Iterator[Pair]:
    """Yield the pairs that training should see, in their order; limits themselves are kept.

    Left out are pairs that cannot be read (if `on_bad_line` says so), that have a side which is
    empty or too long, whose lengths are out of proportion, that repeat an earlier one (if
    `drop_duplicates`), and what follows the first `limit` pairs.

    Args:
        pairs: In the order of the corpus; an error stands for a pair that cannot be read.
        cfg: The limits.
        summary: Counts every pair.
        lengths: How long the source and the target are.

    Raises:
        DataError: at a pair that cannot be read, if `on_bad_line` says so; at the end, if nothing
            was kept.
    """
    seen: set[bytes] = set()  # 16 bytes a pair
    first_bad: DataError | None = None
    tallies = [Tally(length) for length in lengths]
    for pair in pairs:
        summary.read += 1
        if isinstance(pair, DataError) and cfg.on_bad_line is OnBadLine.error:
            raise pair
        summary.copies += isinstance(pair, Pair) and pair.src == pair.tgt
        # Beyond the limit reading goes on: only its end shows whether line counts agree.
        if cfg.limit is not None and summary.kept >= cfg.limit:
            summary.beyond_limit += 1
        elif isinstance(pair, DataError):
            first_bad = first_bad or pair
            summary.drop("bad_line", pair)
        elif isinstance(found := _words_or_reason(pair, cfg, lengths, seen), str):
            summary.drop(found, pair)
        else:
            summary.kept += 1
            for tally, text, words in zip(tallies, (pair.src, pair.tgt), found, strict=True):
                tally.add(text, words)
            yield pair
    sides = zip(("source", "target"), tallies, strict=True)
    summary.lengths = {side: tally.as_dict() for side, tally in sides}
    _judge(summary, ", ".join(cfg.train), first_bad)


def _words_or_reason(
    pair: Pair, cfg: DataConfig, lengths: tuple[Length, Length], seen: set[bytes]
) -> tuple[float, float] | str:
    """Return why a pair is dropped, or its lengths; it is then among those that were seen."""
    if is_blank(pair.src) or is_blank(pair.tgt):
        return "empty"
    # Characters first: to count the words of an endless line would take as much memory again.
    if max(len(pair.src), len(pair.tgt)) > cfg.max_words * MAX_WORD_CHARACTERS:
        return "too_long"
    words = lengths[0].in_words(pair.src), lengths[1].in_words(pair.tgt)
    if max(words) > cfg.max_words:
        return "too_long"
    if max(words) > cfg.max_ratio * min(words):
        return "ratio"
    if cfg.drop_duplicates:
        if (digest := digest_of(pair)) in seen:
            return "duplicate"
        seen.add(digest)
    return words


def _judge(summary: FilterSummary, where: str, first_bad: DataError | None) -> None:
    """Refuse a corpus of which nothing is left; warn of one of which much is odd."""
    first = f"The first unreadable one: {first_bad}" if first_bad else None
    if not summary.kept:
        look = "Look at the files, or raise data.max_words and data.max_ratio."
        fix = first if first else look
        raise DataError(where, f"no training pair is left: {summary}", fix)
    for reason, count in summary.dropped.items():
        _, what, fix = REASONS[reason]
        if reason == "bad_line" and count:
            logger.warning("%s: %d of %d pairs %s. %s", where, count, summary.read, what, first)
        elif count > DROP_WARNING * (summary.read - summary.beyond_limit):
            text = "%s: %d of %d pairs %s, and were dropped, such as %s. %s"
            values = vars(summary) | {"max_characters": CHARACTERS_PER_WORD * summary.max_words}
            what, shown = what.format(**values), ", ".join(summary.shown[reason])
            logger.warning(text, where, count, summary.read, what, shown, fix)
    if summary.copies > COPY_WARNING * summary.read:
        what = "have the same text as source and target"
        logger.warning("%s: %d of %d pairs %s", where, summary.copies, summary.read, what)


def _shown(pair: Pair | DataError) -> str:
    if isinstance(pair, DataError):
        return pair.what
    sides = (text if len(text) <= SHOWN else f"{text[:SHOWN]}..." for text in (pair.src, pair.tgt))
    return printable(" | ".join(sides))


def digest_of(pair: Pair) -> bytes:
    """Return 16 bytes that tell the texts of a pair from those of any other."""
    # A line end cannot occur inside a side, so it keeps the two apart.
    return blake2b(f"{pair.src}\n{pair.tgt}".encode(), digest_size=16).digest()


class HeldOut:
    """The pairs of a validation or test set, to find them again in the training data.

    Memory: a 16-byte digest for each of them, none for a training pair.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lines: Counter[bytes] = Counter()
        self._in_training: set[bytes] = set()

    def note(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Pass the pairs of the set on and remember them."""
        for pair in pairs:
            self._lines[digest_of(pair)] += 1
            yield pair

    def watch(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Pass training pairs on; when there are no more, warn if some are of the set."""
        for pair in pairs:
            if (digest := digest_of(pair)) in self._lines:
                self._in_training.add(digest)
            yield pair
        if count := self.in_training:
            text = "%s: %d of %d pairs are training pairs, too"
            logger.warning(text, self.name, count, self._lines.total())

    @property
    def in_training(self) -> int:
        """How many pairs of the set are training pairs, too, among those that passed so far."""
        return sum(self._lines[digest] for digest in self._in_training)
