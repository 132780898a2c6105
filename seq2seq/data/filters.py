"""Which pairs are kept for training, and an exact account of the others.

Only training pairs pass here: every pair of the validation and test sets is decoded and scored.
"""

import logging
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from hashlib import blake2b
from typing import Any

from seq2seq.config.schema import DataConfig, OnBadLine
from seq2seq.data.pair import Pair
from seq2seq.run.errors import DataError

logger = logging.getLogger(__name__)

WordCounter = Callable[[str], int]

NUM_EXAMPLES = 20
"""So many pair numbers are kept for each reason."""
MAX_WORD_CHARACTERS = 100
"""Mean characters per allowed word; one "word" of a million letters must not reach the model."""
EMPTY_WARNING = 0.1
COPY_WARNING = 0.5
DUPLICATE_WARNING = 0.5


class Reason(Enum):
    """Why a pair is dropped, in the order of the checks; the first that applies counts."""

    bad_line = "bad_line"
    empty = "empty"
    too_long = "too_long"
    ratio = "ratio"
    duplicate = "duplicate"


@dataclass(frozen=True)
class FilterReport:
    """How many pairs were read, kept and dropped.

    `read` is the sum of `kept`, the five reasons and `beyond_limit`. `copies` counts pairs, kept
    or not, whose sides are equal text.
    """

    read: int
    kept: int
    bad_line: int
    empty: int
    too_long: int
    ratio: int
    duplicate: int
    beyond_limit: int
    copies: int
    max_words: int
    max_ratio: float
    examples: dict[str, list[int]]
    """By reason the first `NUM_EXAMPLES` dropped pairs; 1 is the first pair of the corpus."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for `data_report.json`."""
        return asdict(self)

    def summary(self) -> str:
        """Return one line for the log."""
        parts = {
            "unreadable": self.bad_line,
            "empty": self.empty,
            f"longer than {self.max_words} words": self.too_long,
            f"ratio above {self.max_ratio:g}": self.ratio,
            "duplicate": self.duplicate,
        }
        dropped = ", ".join(f"{count:,} {what}" for what, count in parts.items() if count)
        line = f"{self.read:,} pairs read, {self.kept:,} kept"
        line += f" (dropped: {dropped})" if dropped else ""
        return line + (f"; {self.beyond_limit:,} beyond data.limit" if self.beyond_limit else "")


class Kept(Iterator[Pair]):
    """The pairs that pass, one at a time; `report` is complete when there are no more.

    Memory grows only by a 16-byte digest per kept pair, if duplicates are dropped.
    """

    def __init__(
        self,
        pairs: Iterable[Pair | DataError],
        cfg: DataConfig,
        count: tuple[WordCounter, WordCounter],
    ) -> None:
        self._cfg, self._count = cfg, count
        self._read = self._kept = self._beyond_limit = self._copies = 0
        self._dropped = dict.fromkeys(Reason, 0)
        self._examples: dict[Reason, list[int]] = {reason: [] for reason in Reason}
        self._first_bad: DataError | None = None
        self._seen: set[bytes] = set()
        self._passing = self._pass(pairs)

    def __next__(self) -> Pair:
        return next(self._passing)

    @property
    def report(self) -> FilterReport:
        """The account of the pairs read so far."""
        return FilterReport(
            read=self._read,
            kept=self._kept,
            **{reason.name: count for reason, count in self._dropped.items()},
            beyond_limit=self._beyond_limit,
            copies=self._copies,
            max_words=self._cfg.max_words,
            max_ratio=self._cfg.max_ratio,
            examples={reason.name: list(found) for reason, found in self._examples.items()},
        )

    def _pass(self, pairs: Iterable[Pair | DataError]) -> Iterator[Pair]:
        limit = self._cfg.limit
        for pair in pairs:
            self._read += 1
            # Beyond the limit reading goes on: only its end shows whether line counts agree.
            beyond = limit is not None and self._kept >= limit
            self._beyond_limit += beyond
            if isinstance(pair, DataError):
                self._skip(pair, beyond=beyond)
                continue
            self._copies += pair.src == pair.tgt
            if beyond:
                continue
            if reason := self._objection(pair):
                self._drop(reason)
            else:
                self._kept += 1
                yield pair
        self._judge()

    def _skip(self, error: DataError, *, beyond: bool) -> None:
        if self._cfg.on_bad_line is OnBadLine.error:
            raise error
        if not beyond:
            self._first_bad = self._first_bad or error
            self._drop(Reason.bad_line)

    def _drop(self, reason: Reason) -> None:
        self._dropped[reason] += 1
        if len(self._examples[reason]) < NUM_EXAMPLES:
            self._examples[reason].append(self._read)

    def _objection(self, pair: Pair) -> Reason | None:
        cfg = self._cfg
        if is_blank(pair.src) or is_blank(pair.tgt):
            return Reason.empty
        if max(len(pair.src), len(pair.tgt)) > cfg.max_words * MAX_WORD_CHARACTERS:
            return Reason.too_long
        words = [count(text) for count, text in zip(self._count, (pair.src, pair.tgt), strict=True)]
        if max(words) > cfg.max_words:
            return Reason.too_long
        if max(words) > cfg.max_ratio * min(words):
            return Reason.ratio
        if cfg.drop_duplicates:
            digest = digest_of(pair)
            if digest in self._seen:
                return Reason.duplicate
            self._seen.add(digest)
        return None

    def _judge(self) -> None:
        report, where = self.report, ", ".join(self._cfg.train)
        first = f"The first unreadable one: {self._first_bad}" if self._first_bad else None
        if not report.kept:
            raise DataError(
                where,
                f"no training pair is left: {report.summary()}",
                first or "Look at the files, or raise data.max_words and data.max_ratio.",
            )
        if first:
            logger.warning(
                "%s: %d of %d pairs cannot be read and were skipped. %s",
                where, report.bad_line, report.read, first,
            )  # fmt: skip
        if report.duplicate > DUPLICATE_WARNING * report.read:
            logger.warning(
                "%s: %d of %d pairs repeat an earlier one", where, report.duplicate, report.read
            )
        if report.empty > EMPTY_WARNING * report.read:
            logger.warning(
                "%s: %d of %d pairs have an empty side", where, report.empty, report.read
            )
        if report.copies > COPY_WARNING * report.read:
            logger.warning(
                "%s: in %d of %d pairs source and target are the same text",
                where,
                report.copies,
                report.read,
            )


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
        self._found: set[bytes] = set()

    def note(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Pass the pairs of the set on and remember them."""
        for pair in pairs:
            self._lines[digest_of(pair)] += 1
            yield pair

    def watch(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Pass training pairs on; when there are no more, warn if some are of the set."""
        for pair in pairs:
            if (digest := digest_of(pair)) in self._lines:
                self._found.add(digest)
            yield pair
        if self.in_training:
            logger.warning(
                "%s: %d of %d pairs are training pairs, too",
                self.name, self.in_training, self._lines.total(),
            )  # fmt: skip

    @property
    def in_training(self) -> int:
        """How many pairs of the set are training pairs, too, among those that passed so far."""
        return sum(self._lines[digest] for digest in self._found)


def between_blanks(text: str) -> int:
    """Count words as what stands between blanks."""
    return len(text.split())


def keep(
    pairs: Iterable[Pair | DataError],
    cfg: DataConfig,
    count: tuple[WordCounter, WordCounter] = (between_blanks, between_blanks),
) -> Kept:
    """Drop what training should not see, in this order; limits themselves are kept.

    1. bad_line: it cannot be read, if `on_bad_line` says to skip such pairs;
    2. empty: a side with nothing to see (`is_blank`);
    3. too_long: a side with more than `MAX_WORD_CHARACTERS` characters for each of `max_words`,
       or with more words than that;
    4. ratio: the longer side has more than `max_ratio` times the words of the shorter;
    5. duplicate: an earlier kept pair has the same two sides, if `drop_duplicates`;
    6. what follows the first `limit` kept pairs, read to its end but not looked at.

    Args:
        pairs: In the order of the corpus; an error stands for a pair that cannot be read.
        cfg: The limits.
        count: How words of the source and of the target are counted.

    Raises:
        DataError: at the end, if nothing was kept; at a pair that cannot be read, if
            `on_bad_line` says so.
    """
    return Kept(pairs, cfg, count)


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: only white space, control and format characters (U+200B)."""
    return all(char.isspace() or unicodedata.category(char) in ("Cc", "Cf") for char in text)
