"""Measures of attention matrices: entropy, coverage, fertility, monotonicity. Plain NumPy.

A matrix is (Ty, Tx) and its rows sum to 1. The last column is the source's end symbol; the last row
is the target's, if the sentence ended. Neither is a word, so all measures leave out that row and
that column, except entropy, which is about whole rows and includes the column.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.alignment.heatmap import Weights

Numbers = NDArray[np.float64]

UNCOVERED, OVERCOVERED = 0.5, 2.0
"""Bounds on the total attention that a source word gets from all target words, in units of one
target word: below is hardly any, above is a lot. The bounds are ours."""

MARGIN = 0.02  # minimum decrease of the error rate for a shifted reading to be recommended
POOR = 0.5
"""Above this error rate an alignment is not worth using: if all links are sure, F1 is below 0.5."""

_WIDTHS = ((0.1, "one place"), (0.4, "a few places"), (0.75, "many places"), (2, "all words alike"))
"""Descriptions of entropy as a share of its maximum, by upper bound; the bounds are ours."""

_ORDERS = (
    (0.65, "in no order"),
    (0.9, "from left to right with many steps back"),
    (2, "from left to right"),
)

_ROUNDING = 1e-9
"""Positions closer than this count as equal: rounding separates sums of equal weights."""


@dataclass(frozen=True)
class Measures:
    """Measures of one sentence, or means over sentences; None where undefined."""

    entropy: float | None  # nats per row, mean over target words
    relative_entropy: float | None  # as a share of log Tx: 0 a single position, 1 uniform
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
    """Measure the attention of a sentence; if `ended`, the last row is the end symbol's."""
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
    """Return the entropy of each row in nats: 0 for a single position, log Tx for uniform."""
    p = np.asarray(alpha, np.float64)
    return np.asarray(np.sum(p * -np.log(np.where(p > 0, p, 1)), axis=1))


def coverage(alpha: Weights) -> Numbers:
    """Return the attention that each source word gets from all target words (Tu et al. 2016)."""
    return np.asarray(np.asarray(alpha, np.float64).sum(axis=0))


def fertility(alpha: Weights) -> NDArray[np.int64]:
    """Return the number of target words that attend most to each source word (Brown et al. 1993).

    Each target word counts for one source word, the first on ties; a row without weight for none.
    """
    if not alpha.shape[1]:
        return np.zeros(0, np.int64)
    with_weight = alpha[(alpha > 0).any(axis=1)]
    return np.bincount(with_weight.argmax(axis=1), minlength=alpha.shape[1]).astype(np.int64)


def positions(alpha: Weights) -> Numbers:
    """Return the mean source position, from 0, that each target word attends to.

    Rows are renormalised to 1, since the end symbol's weight was removed; rows without weight have
    no position and are left out.
    """
    p = np.asarray(alpha, np.float64)
    totals = p.sum(axis=1)
    means: Numbers = (p @ np.arange(p.shape[1]))[totals > 0] / totals[totals > 0]
    return means


def monotonicity(alpha: Weights) -> float | None:
    """Return the share of target words that attend no further left than the word before them.

    1 means strictly left to right; random order gives about 0.5. None for fewer than two target
    words. This measure is ours, in the spirit of the monotonicity of Raffel et al. (2017,
    arXiv:1704.00784), where attention cannot step back at all.
    """
    return _mean(np.diff(positions(alpha)) >= -_ROUNDING)


def kendall(alpha: Weights) -> float | None:
    """Return Kendall's tau_a between target order and source positions (Kendall 1938).

    Over all pairs of target words: pairs in the same order in the source minus pairs in the
    opposite order, divided by all pairs. 1 is the same order, -1 the reversed one. The reordering
    metric of Birch & Osborne (2010, LRscore) builds on it. None for fewer than two target words.
    """
    place = positions(alpha)
    later, earlier = np.tril_indices(len(place), -1)
    apart = place[later] - place[earlier]
    return _mean(np.where(np.abs(apart) <= _ROUNDING, 0, np.sign(apart)))


def advice(error_rate: float, later: float, earlier: float) -> str:
    """Return a sentence of advice on how to use the alignment, by the shift test.

    The error rates are those of the unshifted alignment, of alpha_{i+1} and of alpha_{i-1}.
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
    """Return a sentence that describes the attention, without reference to gold links."""
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
    """Format a number; return a dash for None."""
    return "-" if value is None else format(value, form)


def _mean(values: NDArray[Any]) -> float | None:
    return float(np.mean(values)) if np.size(values) else None
