"""Which pairs are kept for training, and an exact count of the others.

Only training pairs are filtered: every pair of the validation and test sets is decoded and scored.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

from seq2seq.config.schema import DataConfig, OnBadLine
from seq2seq.data.pair import Pair
from seq2seq.data.words import WordCounter, count_words, is_blank
from seq2seq.run.errors import DataError

logger = logging.getLogger(__name__)

# Why a pair is dropped, in the order of the checks; the first that applies counts.
REASONS = {
    "bad_line": "unreadable",
    "empty": "empty",
    "too_long": "longer than {max_words} words",
    "ratio": "ratio above {max_ratio:g}",
    "duplicate": "duplicate",
}
# How many pair numbers are noted for each reason.
NUM_EXAMPLES = 20
# Mean characters per allowed word; one "word" of a million letters must not reach the model.
MAX_WORD_CHARACTERS = 100
# Shares of the pairs above which something is wrong with the files.
EMPTY_WARNING = 0.1
COPY_WARNING = 0.5
DUPLICATE_WARNING = 0.5


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

    def drop(self, reason: str) -> None:
        """Count the pair that was read last."""
        self.dropped[reason] += 1
        if len(self.examples[reason]) < NUM_EXAMPLES:
            self.examples[reason].append(self.read)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `data_report.json`."""
        values = asdict(self)
        dropped: dict[str, int] = values.pop("dropped")
        return values | dropped

    def __str__(self) -> str:
        """Return one line for the log."""
        reasons = {name: text.format(**vars(self)) for name, text in REASONS.items()}
        dropped = [f"{count:,} {reasons[name]}" for name, count in self.dropped.items() if count]
        line = f"{self.read:,} pairs read, {self.kept:,} kept"
        line += f" (dropped: {', '.join(dropped)})" if dropped else ""
        return line + (f"; {self.beyond_limit:,} beyond data.limit" if self.beyond_limit else "")


def keep(
    pairs: Iterable[Pair | DataError],
    cfg: DataConfig,
    summary: FilterSummary,
    count: tuple[WordCounter, WordCounter] = (count_words, count_words),
) -> Iterator[Pair]:
    """Yield the pairs that training should see, in their order; limits themselves are kept.

    Left out are pairs that cannot be read (if `on_bad_line` says so), that have a side which is
    empty or too long, whose lengths are out of proportion, that repeat an earlier one (if
    `drop_duplicates`), and what follows the first `limit` pairs.

    Args:
        pairs: In the order of the corpus; an error stands for a pair that cannot be read.
        cfg: The limits.
        summary: Counts every pair.
        count: How words of the source and of the target are counted.

    Raises:
        DataError: at a pair that cannot be read, if `on_bad_line` says so; at the end, if nothing
            was kept.
    """
    seen: set[bytes] = set()  # 16 bytes a pair
    first_bad: DataError | None = None
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
            summary.drop("bad_line")
        elif reason := _reason(pair, cfg, count, seen):
            summary.drop(reason)
        else:
            summary.kept += 1
            yield pair
    _judge(summary, ", ".join(cfg.train), first_bad)


def _reason(
    pair: Pair, cfg: DataConfig, count: tuple[WordCounter, WordCounter], seen: set[bytes]
) -> str | None:
    """Return why a pair is dropped, None if it is kept; it is then among those that were seen."""
    if is_blank(pair.src) or is_blank(pair.tgt):
        return "empty"
    # Characters first: to count the words of an endless line would take as much memory again.
    if max(len(pair.src), len(pair.tgt)) > cfg.max_words * MAX_WORD_CHARACTERS:
        return "too_long"
    words = count[0](pair.src), count[1](pair.tgt)
    if max(words) > cfg.max_words:
        return "too_long"
    if max(words) > cfg.max_ratio * min(words):
        return "ratio"
    if cfg.drop_duplicates:
        if (digest := digest_of(pair)) in seen:
            return "duplicate"
        seen.add(digest)
    return None


def _judge(summary: FilterSummary, where: str, first_bad: DataError | None) -> None:
    """Refuse a corpus of which nothing is left; warn of one of which much is odd."""
    first = f"The first unreadable one: {first_bad}" if first_bad else None
    if not summary.kept:
        look = "Look at the files, or raise data.max_words and data.max_ratio."
        fix = first if first else look
        raise DataError(where, f"no training pair is left: {summary}", fix)
    read, dropped = summary.read, summary.dropped
    for number, share, what in (
        (dropped["bad_line"], 0, f"cannot be read and were skipped. {first}"),
        (dropped["duplicate"], DUPLICATE_WARNING, "repeat an earlier one"),
        (dropped["empty"], EMPTY_WARNING, "have an empty side"),
        (summary.copies, COPY_WARNING, "have the same text as source and target"),
    ):
        if number > share * read:
            logger.warning("%s: %d of %d pairs %s", where, number, read, what)


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
