"""Filters the training pairs, and counts exactly what was dropped and why.

Only training pairs are filtered: every pair of the validation and test sets is decoded and scored.
Length limits are in words, to which `lengths.py` converts characters of unspaced scripts; or in
characters, if the vocabulary is of them.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, TypeVar

from seq2seq.config.schema import DataConfig, OnBadLine
from seq2seq.data.lengths import CHARACTERS_PER_WORD, Length, Tally
from seq2seq.data.pair import Pair
from seq2seq.data.words import count_words, is_blank
from seq2seq.run.errors import DataError, printable
from seq2seq.run.workers import chunked, mapped

logger = logging.getLogger(__name__)

R = TypeVar("R")

# Reasons to drop a pair, in the order of the checks; the first that applies counts. Each has its
# texts for the log, for warnings, and the fix.
REASONS = {
    "bad_line": ("unreadable", "cannot be read and were skipped", "Look at data.train."),
    "empty": ("empty", "have an empty side", "Look at data.train."),
    "too_long": (
        "longer than {max_words} {unit}",
        "are longer than {limit}",
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
# Number of example pairs recorded per reason.
NUM_EXAMPLES = 20
# Mean characters per allowed word; one "word" of a million letters must not reach the model.
MAX_WORD_CHARACTERS = 100
# Fractions of the pairs above which to warn: pairs dropped by one filter, and copies.
DROP_WARNING = 0.1
COPY_WARNING = 0.5
# Number of pairs shown in a warning, and characters of each side.
NUM_SHOWN, SHOWN = 2, 40


@dataclass
class FilterSummary:
    """Counts of pairs read, kept and dropped; complete once all have been read."""

    max_words: int
    max_ratio: float
    read: int = 0  # the sum of `kept`, `dropped` and `beyond_limit`
    kept: int = 0
    beyond_limit: int = 0
    copies: int = 0  # pairs with equal sides, kept or not
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    # Numbers of the first pairs dropped for each reason, from 1.
    examples: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in REASONS})
    # The first of them, as shown in warnings.
    shown: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in REASONS})
    # Of kept pairs, for source and target: the unit of lengths, their mean and maximum.
    lengths: dict[str, dict[str, Any]] = field(default_factory=dict)
    unit: str = "words"  # of `max_words`

    def drop(self, reason: str, pair: Pair | DataError) -> None:
        """Count the last pair read as dropped."""
        self.dropped[reason] += 1
        if len(self.examples[reason]) < NUM_EXAMPLES:
            self.examples[reason].append(self.read)
        if len(self.shown[reason]) < NUM_SHOWN:
            self.shown[reason].append(f"{self.read} ({_shown(pair)})")

    @property
    def limit(self) -> str:
        """The maximum length, as shown in warnings."""
        converted = f", or {CHARACTERS_PER_WORD * self.max_words:g} characters without spaces"
        return f"{self.max_words} {self.unit}{converted if self.unit == 'words' else ''}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `data_report.json`."""
        values = asdict(self)
        del values["shown"], values["unit"]
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
        """Return the mean lengths of kept pairs: `source 12.0 words, target 20.1 characters`."""
        return ", ".join(f"{side} {x['mean']:.1f} {x['unit']}" for side, x in self.lengths.items())


def keep(
    pairs: Iterable[Pair | DataError],
    cfg: DataConfig,
    summary: FilterSummary,
    lengths: tuple[Length, Length] = (Length("", count_words), Length("", count_words)),
    workers: int = 1,
) -> Iterator[Pair]:
    """Yield the training pairs that pass all filters, in order; limits are inclusive.

    Dropped are unreadable pairs (if `on_bad_line` allows it), pairs with an empty or too long side
    or with lengths out of proportion, repetitions of an earlier pair (if `drop_duplicates`), and
    everything after the first `limit` pairs.

    Args:
        pairs: In the order of the corpus; an error stands for an unreadable pair.
        cfg: The limits.
        summary: Counts every pair.
        lengths: Measure the length of source and target.
        workers: Processes that do it; pairs are read further ahead then.

    Raises:
        DataError: at an unreadable pair, depending on `on_bad_line`; at the end, if nothing was
            kept.
    """
    seen: set[bytes] | None = set() if cfg.drop_duplicates else None  # 16 bytes per pair
    first_bad: DataError | None = None
    tallies = [Tally(length) for length in lengths]
    if lengths[0].in_characters:
        summary.unit = "characters"

    def full() -> bool:
        return cfg.limit is not None and summary.kept >= cfg.limit

    def measured(pair: Pair | DataError) -> tuple[float, float] | str:
        return _words_or_reason(pair, cfg, lengths)

    for pair, found in _each(pairs, measured, full, workers):
        summary.read += 1
        if isinstance(pair, DataError) and cfg.on_bad_line is OnBadLine.error:
            raise pair
        summary.copies += isinstance(pair, Pair) and pair.src == pair.tgt
        # Keep reading beyond the limit: line counts can only be compared at the end.
        if full():
            summary.beyond_limit += 1
        elif isinstance(pair, DataError):
            first_bad = first_bad or pair
            summary.drop("bad_line", pair)
        elif isinstance(found := _unless_repeated(found, pair, seen), str):
            summary.drop(found, pair)
        else:
            summary.kept += 1
            for tally, text, words in zip(tallies, (pair.src, pair.tgt), found, strict=True):
                tally.add(text, words)
            yield pair
    sides = zip(("source", "target"), tallies, strict=True)
    summary.lengths = {side: tally.as_dict() for side, tally in sides}
    _judge(summary, ", ".join(cfg.train), first_bad)


def _each(
    pairs: Iterable[Pair | DataError],
    measured: Callable[[Pair | DataError], R | str],
    full: Callable[[], bool],
    workers: int,
) -> Iterator[tuple[Pair | DataError, R | str]]:
    """Yield each pair with what `measured` returns, or with "" once `full` is true."""
    if workers == 1:
        yield from ((pair, "" if full() else measured(pair)) for pair in pairs)
        return
    waiting: deque[list[Pair | DataError]] = deque()

    def sent() -> Iterator[list[Pair | DataError]]:
        for chunk in chunked(pairs, _size):
            waiting.append(chunk)
            yield [] if full() else chunk

    for found in mapped(lambda chunk: [*map(measured, chunk)], sent(), workers):
        chunk = waiting.popleft()
        yield from zip(chunk, found or [""] * len(chunk), strict=True)


def _size(pair: Pair | DataError) -> int:
    return 0 if isinstance(pair, DataError) else len(pair.src) + len(pair.tgt)


def _words_or_reason(
    pair: Pair | DataError, cfg: DataConfig, lengths: tuple[Length, Length]
) -> tuple[float, float] | str:
    """Return the reason to drop a pair, or its lengths."""
    if isinstance(pair, DataError):
        return "bad_line"
    if is_blank(pair.src) or is_blank(pair.tgt):
        return "empty"
    # Characters first: counting the words of an endless line would double its memory.
    if max(len(pair.src), len(pair.tgt)) > cfg.max_words * MAX_WORD_CHARACTERS:
        return "too_long"
    words = lengths[0].in_words(pair.src), lengths[1].in_words(pair.tgt)
    if max(words) > cfg.max_words:
        return "too_long"
    if max(words) > cfg.max_ratio * min(words):
        return "ratio"
    return words


def _unless_repeated(found: R | str, pair: Pair, seen: set[bytes] | None) -> R | str:
    """Return what was found, or that the pair repeats one in `seen`; adds it."""
    if seen is None or isinstance(found, str):
        return found
    known = (digest := digest_of(pair)) in seen
    seen.add(digest)
    return "duplicate" if known else found


def _judge(summary: FilterSummary, where: str, first_bad: DataError | None) -> None:
    """Refuse a corpus with no pair left; warn if many pairs are dropped or are copies."""
    first = f"The first unreadable one: {first_bad}" if first_bad else None
    if not summary.kept:
        look = "Look at the files, or raise data.max_words and data.max_ratio."
        fix = first if first else look
        raise DataError(where, f"no training pair is left: {summary}", fix)
    # Few dropped pairs are usual; many mean wrong files or settings.
    for reason, count in summary.dropped.items():
        _, what, fix = REASONS[reason]
        if reason == "bad_line" and count:
            logger.warning("%s: %d of %d pairs %s. %s", where, count, summary.read, what, first)
        elif count > DROP_WARNING * (summary.read - summary.beyond_limit):
            text = "%s: %d of %d pairs %s, and were dropped, such as %s. %s"
            what = what.format(limit=summary.limit, max_ratio=summary.max_ratio)
            shown = ", ".join(summary.shown[reason])
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
    """Return a 16-byte digest of the texts of a pair."""
    # A line end cannot occur inside a side, so it separates the two.
    return blake2b(f"{pair.src}\n{pair.tgt}".encode(), digest_size=16).digest()


class HeldOut:
    """The pairs of a validation or test set, to detect them in the training data.

    Memory: a 16-byte digest per held-out pair, nothing per training pair.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lines: Counter[bytes] = Counter()
        self._in_training: set[bytes] = set()

    def note(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Yield the pairs of the set unchanged and remember them."""
        for pair in pairs:
            self._lines[digest_of(pair)] += 1
            yield pair

    def watch(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Yield training pairs unchanged; at the end, warn if some are in the set."""
        for pair in pairs:
            if (digest := digest_of(pair)) in self._lines:
                self._in_training.add(digest)
            yield pair
        if count := self.in_training:
            text = "%s: %d of %d pairs are training pairs, too"
            logger.warning(text, self.name, count, self._lines.total())

    @property
    def in_training(self) -> int:
        """Number of pairs of the set found among the training pairs seen so far."""
        return sum(self._lines[digest] for digest in self._in_training)
