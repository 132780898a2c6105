"""Numbers that describe an attention matrix; NumPy, no model and no text.

A matrix is (Ty, Tx), rows sum to 1. The last column is the source's end symbol, the last row the
target's if the sentence came to its end. Neither is a word, so everything leaves that row and that
column out; only entropy, which is about whole rows, includes the column.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.alignment.heatmap import Weights

Numbers = NDArray[np.float64]

UNCOVERED, OVERCOVERED = 0.5, 2.0
"""Attention that a source word gets from all target words together: less than half of a word's is
hardly any, more than that of two words is much. The bounds are ours."""

MARGIN = 0.02
"""A shifted reading has to lower the error rate by this much to be advised."""

POOR = 0.5
"""An error rate above it is not worth using: where all links are sure, F is below a half."""

_WIDTHS = ((0.1, "one place"), (0.4, "a few places"), (0.75, "many places"), (2, "all words alike"))
"""What a share of the greatest possible entropy is called; the bounds are ours."""

_ORDERS = (
    (0.65, "in no order"),
    (0.9, "from left to right with many steps back"),
    (2, "from left to right"),
)

_ROUNDING = 1e-9
"""Positions closer than this are the same: sums of equal weights differ in their last digits."""


@dataclass(frozen=True)
class Measures:
    """Of one sentence, or means over sentences; None where undefined."""

    entropy: float | None  # nats, of a target word's row, mean over target words
    relative_entropy: float | None  # the same as a share of log Tx: 0 one place, 1 all alike
    uncovered: float | None  # share of source words with less attention than `UNCOVERED`
    overcovered: float | None  # share with more than `OVERCOVERED`
    unlinked: float | None  # share of source words with fertility 0
    monotonicity: float | None  # see `monotonicity`
    kendall: float | None  # see `kendall`

    def __str__(self) -> str:
        return (
            f"entropy {formatted(self.entropy, '.2f')} nats "
            f"({formatted(self.relative_entropy, '.0%')} of log length); of the source words "
            f"{formatted(self.uncovered, '.1%')} uncovered, {formatted(self.overcovered, '.1%')} "
            f"overcovered; monotone {formatted(self.monotonicity, '.1%')}"
        )


def measure(alpha: Weights, *, ended: bool) -> Measures:
    """Measure the attention of a sentence; `ended`: the last row is the end symbol's."""
    rows = np.asarray(alpha, np.float64)[: len(alpha) - ended]
    words = rows[:, :-1]
    entropies, covered = entropy(rows), coverage(words)
    greatest = np.log(rows.shape[1])
    return Measures(
        entropy=_mean(entropies),
        relative_entropy=_mean(entropies / greatest) if greatest else None,
        uncovered=_mean(covered < UNCOVERED),
        overcovered=_mean(covered > OVERCOVERED),
        unlinked=_mean(fertility(words) == 0),
        monotonicity=monotonicity(words),
        kendall=kendall(words),
    )


def average(sentences: Sequence[Measures]) -> Measures:
    """Return the mean of each measure over the sentences where it is defined."""
    means = {}
    for name in (field.name for field in fields(Measures)):
        values = [getattr(m, name) for m in sentences]
        means[name] = _mean(np.array([value for value in values if value is not None]))
    return Measures(**means)


def entropy(alpha: Weights) -> Numbers:
    """Return the entropy of each row in nats: 0 attends to one place, log Tx to all alike."""
    p = np.asarray(alpha, np.float64)
    nats: Numbers = np.sum(p * -np.log(np.where(p > 0, p, 1)), axis=1)
    return nats


def coverage(alpha: Weights) -> Numbers:
    """Return the attention that each source word gets from all target words (Tu et al. 2016)."""
    covered: Numbers = np.asarray(alpha, np.float64).sum(axis=0)
    return covered


def fertility(alpha: Weights) -> NDArray[np.int64]:
    """Return how many target words attend most to each source word (Brown et al. 1993).

    Each target word counts for one source word, the first of equals; one without weight for none.
    """
    if not alpha.shape[1]:
        return np.zeros(0, np.int64)
    with_weight = alpha[(alpha > 0).any(axis=1)]
    return np.bincount(with_weight.argmax(axis=1), minlength=alpha.shape[1]).astype(np.int64)


def positions(alpha: Weights) -> Numbers:
    """Return the mean position that each target word attends to, in source words from 0.

    Rows are scaled to sum 1, as some of their weight was the end symbol's; one without weight
    has no position and is left out.
    """
    p = np.asarray(alpha, np.float64)
    totals = p.sum(axis=1)
    means: Numbers = (p @ np.arange(p.shape[1]))[totals > 0] / totals[totals > 0]
    return means


def monotonicity(alpha: Weights) -> float | None:
    """Return the share of target words that attend no further left than the word before them.

    1 is word for word from left to right; words in random order give about 0.5. None below two
    target words. Ours, in the spirit of the monotonicity of Raffel et al. (2017,
    arXiv:1704.00784), where attention cannot step back at all.
    """
    return _mean(np.diff(positions(alpha)) >= -_ROUNDING)


def kendall(alpha: Weights) -> float | None:
    """Return Kendall's tau_a between target order and source positions (Kendall 1938).

    Over all pairs of target words: those in the same order in the source, less those in the
    opposite order, as a share of all. 1 is the same order, -1 the reversed one; the measure of
    reordering of Birch & Osborne (2010, LRscore) is made of it. None below two target words.
    """
    place = positions(alpha)
    later, earlier = np.tril_indices(len(place), -1)
    apart = place[later] - place[earlier]
    return _mean(np.where(np.abs(apart) <= _ROUNDING, 0, np.sign(apart)))


def advice(error_rate: float, later: float, earlier: float) -> str:
    """Say in a sentence what the shift test means for those who want to use the alignment.

    Error rates are those of the alignment as it is, of alpha_{i+1} and of alpha_{i-1}.
    """
    better, name, row = min((later, "later", "i+1"), (earlier, "earlier", "i-1"))
    if better < error_rate - MARGIN:
        return (
            f"Read it one target word {name} (row {row} for word i): that lowers the error rate "
            f"from {error_rate:.1%} to {better:.1%}."
        )
    if min(error_rate, better) > POOR:
        return (
            f"Do not use it as a word alignment: its error rate is {error_rate:.1%}, and one "
            "target word later or earlier does not help."
        )
    return "Use it as it is: one target word later or earlier is not better."


def reading(m: Measures) -> str:
    """Say in a sentence what attention does; shares of words, no gold links needed."""
    if m.relative_entropy is None:
        return "There is no sentence to measure."
    text = "Each target word attends to "
    text += next(width for most, width in _WIDTHS if m.relative_entropy <= most)
    if m.uncovered is not None:
        text += f"; {m.uncovered:.0%} of the source words get hardly any attention"
    if m.monotonicity is not None:
        order = next(order for most, order in _ORDERS if m.monotonicity <= most)
        text += f"; it goes through the source {order}"
    return f"{text}."


def formatted(value: float | None, form: str) -> str:
    """Return a number in a format; a dash where there is none."""
    return "-" if value is None else format(value, form)


def _mean(values: NDArray[Any]) -> float | None:
    return float(np.mean(values)) if np.size(values) else None
