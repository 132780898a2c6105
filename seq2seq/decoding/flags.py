"""Flags pairs that somebody should look at: a sentence and its translation, by a model or a person.

A flag is a measure of the pair beyond its limit. What is usual differs between languages and kinds
of attention, so most limits are those of the run's own validation references, forced: `decode`
saves them.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from seq2seq.alignment.measures import measure
from seq2seq.alignment.words import SoftAlignment, to_words
from seq2seq.data.words import Splitter
from seq2seq.run.directory import RunDir
from seq2seq.run.jsonable import from_json
from seq2seq.run.reading import expected, read_json

SAVED = "decode/flags.json"

MEANINGS: Mapping[str, str] = {
    "diffuse": "attention is spread over many source words",
    "uncovered": "many source words get hardly any attention, perhaps left out",
    "overcovered": "many source words are attended to several times, perhaps said twice",
    "short": "few target words for the source words",
    "long": "many target words for the source words",
    "improbable": "low log-probability per token, perhaps of another sentence",
    "unfinished": "the model expected more, or was cut off",
    "copied": "most neighbouring words stand in the source, too",
    "repeated": "three words in a row occur again",
    "unknown": "a side has a word or character that the vocabulary lacks",
}

FIXED: Mapping[str, float] = {"unfinished": 1e6, "copied": 0.5, "repeated": 0.0, "unknown": 0.0}
"""Limits of every model; that of `unfinished` is one that only a missing end symbol exceeds."""

CALIBRATED = ("diffuse", "uncovered", "overcovered", "short", "long", "improbable", "unfinished")
"""Flags whose limit is the `QUANTILE` of references; with fewer than `LEAST`, there is none."""

QUANTILE, LEAST, MOST = 0.99, 100, 1000
"""Of references: the share within the limit; how many a limit takes; how many are measured."""

SHOWN = 8  # numbers of lines in a summary, of each flag
Measures = Mapping[str, float]  # by flag


@dataclass(frozen=True)
class Flags:
    """What `decode` saves of a test set."""

    limits: Mapping[str, float]
    lines: Mapping[str, Sequence[int]]  # by flag, the numbers of its lines, from 1
    decode: Mapping[str, Any] | None = None  # settings of the search; None: of an older version

    def summary(self, sentences: int) -> str:
        """Return the number of lines, then for each flag their number and the first of them."""
        every = {number for numbers in self.lines.values() for number in numbers}
        parts = [f"{len(every):,} of {sentences:,} lines"]
        for name, numbers in self.lines.items():
            first = ", ".join([*map(str, numbers[:SHOWN]), *["..."] * (len(numbers) > SHOWN)])
            parts.append(f"{name} {len(numbers):,} ({first})")
        return "; ".join(parts)


def measures(pieces: SoftAlignment, split: Splitter | None, *, unknown: bool) -> Measures:
    """Measure a pair; `split` finds its words, None takes pieces instead.

    Without words, nothing is `copied` or `repeated`: letters and sounds always are.
    """
    words = to_words(pieces, split)
    attention = measure(words.weights, ended=words.ended)
    sides = words.source_tokens[:-1], words.target_tokens[: len(words.weights) - words.ended]
    src, tgt = ([word.casefold() for word in side] for side in sides)
    found = {
        "diffuse": attention.relative_entropy or 0.0,
        "uncovered": attention.uncovered or 0.0,
        "overcovered": attention.overcovered or 0.0,
        "short": len(src) / max(1, len(tgt)),
        "long": len(tgt) / max(1, len(src)),
        "improbable": -fmean(pieces.log_probs),
        "unfinished": -pieces.log_probs[-1] if pieces.ended else math.inf,
        "unknown": float(unknown),
    }
    if split is None:
        return found
    copied = (ngrams(tgt, 2) & ngrams(src, 2)).total() / max(1, len(tgt) - 1)
    return found | {"copied": copied, "repeated": float(repeats(tgt) - repeats(src))}


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """Count the sequences of n words."""
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def repeats(words: Sequence[str]) -> int:
    """Return how many trigrams repeat an earlier one."""
    counts = ngrams(words, 3)
    return counts.total() - len(counts)


def calibrated(references: Sequence[Measures]) -> Measures:
    """Return the limits of a model, given the measures of references that it was forced to."""
    if len(references) < LEAST:
        return FIXED
    columns = {name: [row[name] for row in references] for name in CALIBRATED}
    return {**FIXED} | {
        name: float(np.quantile(column, QUANTILE, method="higher"))
        for name, column in columns.items()
    }


def flagged(measured: Measures, limits: Measures) -> list[str]:
    """Return the flags of a pair, in the order of `MEANINGS`."""
    beyond = {name for name, value in measured.items() if value > limits.get(name, math.inf)}
    return [name for name in MEANINGS if name in beyond]


def by_flag(lines: Iterable[Sequence[str]]) -> dict[str, list[int]]:
    """Return the numbers of the lines that have each flag, from the flags of every line."""
    found = defaultdict(list)
    for number, flags in enumerate(lines, start=1):
        for name in flags:
            found[name].append(number)
    return dict(found)


def saved_flags(run: RunDir) -> Flags | None:
    """Read what `decode` saved, or None; an exported model has the limits alone.

    Raises:
        RunDirError: it is damaged.
    """
    if not (path := run.checked(SAVED)).exists():
        return None
    with expected(path):
        return from_json(Flags, read_json(path))
