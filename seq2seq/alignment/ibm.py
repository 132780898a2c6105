r"""IBM model 1 (Brown et al. 1993) and the HMM aligner (Vogel et al. 1996), trained by EM.

Both give the probability of target words f_1 .. f_J and their links a, given source words
e_1 .. e_I; e_0 is the null word, for target words without a link.

    IBM-1   p(f, a | e) = prod_j 1/(I + 1) t(f_j | e_{a_j})
    HMM     p(f, a | e) = prod_j p(a_j | m_j, I) t(f_j | e_{a_j})

The HMM remembers m_j, the position of the last link before f_j, 0 at the beginning of a sentence.
The null word leaves it unchanged (Och & Ney 2003):

    p(0 | m, I) = p_0,    p(i | m, I) = (1 - p_0) s(i - m) / sum_{k=1..I} s(k - m)

The weights s of the jump widths are maximized by MM steps (Hunter 2004, MM algorithms for
generalized Bradley-Terry models), since plain counts of jumps ignore that the sum depends on m
and I. So the likelihood never falls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.pair import Links

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

NULL_PROBABILITY = 0.2  # p_0, the value of Och & Ney (2003)
ITERATIONS = 5  # EM iterations of each model, the customary number
_MM_STEPS = 3
"""Per EM iteration. Each is cheap and raises the likelihood; three nearly reach the maximum."""


@dataclass(frozen=True)
class Group:
    """Sentence pairs of I source words each, sorted by decreasing target length.

    Arrays run over the target words: the first of every pair, then the second, ...
    """

    pairs: Ids  # (N,) the pair of each target word, an index into the bitext
    places: Ids  # (N,) its position in the sentence, from 0
    starts: list[int]  # where the first, the second, ... target words begin; then N
    cells: slice  # of the flat arrays of the bitext, (N, I + 1) values in this order
    num_src: int  # I


@dataclass(frozen=True)
class Bitext:
    """Word ids of sentence pairs, arranged for EM; a cell is a target and a source word of a pair.

    The lexicon has an entry for each source word, null word included, and each target word that
    occurs in a pair with it.
    """

    num_pairs: int
    groups: list[Group]
    entries: NDArray[np.int32]  # the lexicon entry of each cell
    lexicon_src: Ids  # the source word of each entry
    lexicon_tgt: Ids  # its target word
    num_tgt: int  # target vocabulary

    @cached_property
    def most_src(self) -> int:
        """The largest I."""
        return max((group.num_src for group in self.groups), default=0)

    def jumps(self, num_src: int) -> Ids:
        """Index of the jump width from m = 0 .. I, rows, to i = 1 .. I, columns."""
        m, i = np.ogrid[: num_src + 1, 1 : num_src + 1]
        return np.asarray(i - m + self.most_src - 1)


@dataclass(frozen=True)
class Parameters:
    """What EM maximizes."""

    t: Array  # translation probability of each lexicon entry
    s: Array | None = None  # weight of each jump width, -(I - 1) .. I of the largest I; None: IBM-1


@dataclass(frozen=True)
class Expected:
    """Result of an E step."""

    log_likelihood: float  # nats
    posterior: Array  # of each cell: that its target word is linked to its source word
    moves: Mapping[int, Array]  # by I: expected number of jumps from m to i, (I + 1, I)


def arrange(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Bitext:
    """Arrange sentence pairs of word ids, from 1; pairs with an empty side take no part."""
    # Equal numbers of source words together, long targets first.
    num_src = np.array([len(words) for words in sources], np.int64)
    num_tgt = np.array([len(words) for words in targets], np.int64)
    order = np.lexsort((-num_tgt, num_src))
    order = order[(num_src[order] > 0) & (num_tgt[order] > 0)]
    bounds = [0, *(np.flatnonzero(np.diff(num_src[order])) + 1), len(order)]
    vocabulary = 1 + max((max(words, default=0) for words in targets), default=0)

    # Keys (source word, target word) of all cells, group by group.
    groups, keys, begin = [], [np.zeros(0, np.int64)], 0
    for first, end in pairwise(bounds if len(order) else ()):
        members = order[first:end]
        src = np.array([[0, *sources[pair]] for pair in members], np.int64)
        tgt = np.zeros((num_tgt[members[0]], len(members)), np.int64)  # 0 is padding
        for column, pair in enumerate(members):
            tgt[: num_tgt[pair], column] = targets[pair]
        places, columns = np.nonzero(tgt)
        keys.append((src[columns] * vocabulary + tgt[places, columns][:, None]).ravel())
        starts = [0, *np.cumsum(np.count_nonzero(tgt, axis=1)).tolist()]
        own = slice(begin, begin := begin + len(keys[-1]))
        groups.append(Group(members[columns], places, starts, own, src.shape[1] - 1))
    # The lexicon has each key once.
    lexicon, cells = np.unique(np.concatenate(keys), return_inverse=True)
    lexicon_src, lexicon_tgt = np.divmod(lexicon, vocabulary)
    return Bitext(
        len(sources), groups, cells.astype(np.int32), lexicon_src, lexicon_tgt, vocabulary - 1
    )


def uniform(bitext: Bitext) -> Parameters:
    """Return the parameters that IBM-1 starts from."""
    return Parameters(np.full(len(bitext.lexicon_src), 1 / max(bitext.num_tgt, 1)))


def with_jumps(bitext: Bitext, trained: Parameters) -> Parameters:
    """Return the parameters that the HMM starts from: the lexicon of IBM-1, all jumps alike."""
    return replace(trained, s=np.ones(2 * bitext.most_src))


def expect(bitext: Bitext, now: Parameters) -> Expected:
    """E step: posteriors of all links, and of all jumps."""
    posterior = now.t[bitext.entries]
    total, moves = 0.0, {}
    for group in bitext.groups:
        cells = posterior[group.cells].reshape(-1, group.num_src + 1)
        if now.s is None:
            sums = cells.sum(axis=1, keepdims=True)
            cells /= sums
            total += float(np.log(sums / (group.num_src + 1)).sum())
            continue
        jump = now.s[bitext.jumps(group.num_src)]
        jump = (1 - NULL_PROBABILITY) * _ratio(jump, jump.sum(axis=1, keepdims=True))
        by_place = [cells[a:b] for a, b in pairwise(group.starts)]
        log_likelihood, moves[group.num_src] = _forward_backward(by_place, jump)
        total += log_likelihood
    return Expected(total, posterior, moves)


def _forward_backward(cells: Sequence[Array], jump: Array) -> tuple[float, Array]:
    """Replace translation probabilities by posteriors, scaled at each target word.

    They are, for each target position, (pairs that have it, I + 1), the null word first; `jump` is
    p(i | m, I), (I + 1, I). Returns the log-likelihood in nats, and the expected number of jumps
    from m to i.
    """
    # Forward: `memory` is p(m | target words so far), `real` and `null` are p(a, m | so far).
    total, steps = 0.0, []
    memory = np.zeros((len(cells[0]), len(jump)))
    memory[:, 0] = 1
    for t in cells:
        memory = memory[: len(t)]
        real, null = (memory @ jump) * t[:, 1:], NULL_PROBABILITY * t[:, :1] * memory
        scale = real.sum(axis=1, keepdims=True) + null.sum(axis=1, keepdims=True)
        real, null = real / scale, null / scale
        steps.append((t, memory, real, null, scale))
        total += float(np.log(scale).sum())
        memory = null.copy()
        memory[:, 1:] += real
    # Backward: `after` is p(later target words | m), scaled; 1 for sentences that end here.
    moves, after = np.zeros_like(jump), np.ones((0, len(jump)))
    for t, memory, real, null, scale in reversed(steps):
        after = np.concatenate([after, np.ones((len(t) - len(after), len(jump)))])
        onward = t[:, 1:] * after[:, 1:] / scale
        before = onward @ jump.T + NULL_PROBABILITY * t[:, :1] * after / scale
        moves += memory.T @ onward
        t[:, 0], t[:, 1:] = (null * after).sum(axis=1), real * after[:, 1:]
        after = before
    return total, moves * jump


def maximize(bitext: Bitext, now: Parameters, expected: Expected) -> Parameters:
    """M step: the parameters under which the expected links are most probable."""
    counts = np.bincount(bitext.entries, expected.posterior, minlength=len(now.t))
    totals = np.bincount(bitext.lexicon_src, counts)
    # A word that is never linked may have lost all its counts to underflow.
    t = counts / np.maximum(totals, np.finfo(float).tiny)[bitext.lexicon_src]
    if (s := now.s) is not None:
        for _ in range(_MM_STEPS):
            s = _jump_weights(bitext, s, expected.moves)
    return Parameters(t, s)


def _jump_weights(bitext: Bitext, s: Array, moves: Mapping[int, Array]) -> Array:
    """Return s(d) = n(d) / sum of n(m) / Z(m) over all m from where a jump of width d is possible.

    n are expected numbers of jumps, Z(m) is the sum of the old s over the jumps from m.
    """
    jumps, chances = np.zeros_like(s), np.zeros_like(s)
    for num_src, number in moves.items():
        width = bitext.jumps(num_src)
        share = _ratio(number.sum(axis=1, keepdims=True), s[width].sum(axis=1, keepdims=True))
        of_each = np.broadcast_to(share, width.shape).ravel()
        jumps += np.bincount(width.ravel(), number.ravel(), minlength=len(s))
        chances += np.bincount(width.ravel(), of_each, minlength=len(s))
    return _ratio(jumps, chances)


def _ratio(a: Array, b: Array) -> Array:
    """Return a / b, and 0 where b is: of positions that no word is linked from."""
    b = np.broadcast_to(b, a.shape)
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def best_links(bitext: Bitext, expected: Expected) -> list[Links]:
    """Link each target word to its most probable source word, or to none for the null word."""
    links: list[list[tuple[int, int]]] = [[] for _ in range(bitext.num_pairs)]
    for group in bitext.groups:
        best = expected.posterior[group.cells].reshape(-1, group.num_src + 1).argmax(axis=1)
        linked = np.flatnonzero(best)
        rows = (group.pairs[linked], best[linked] - 1, group.places[linked])
        for pair, i, j in np.transpose(rows).tolist():
            links[pair].append((i, j))
    return [tuple(of_pair) for of_pair in links]


def align(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> dict[str, list[Links]]:
    """Train IBM-1, then the HMM from its lexicon; return the links of all pairs under each."""
    bitext = arrange(sources, targets)
    now, links = uniform(bitext), {}
    for name in ("IBM-1", "HMM"):
        for _ in range(ITERATIONS):
            now = maximize(bitext, now, expect(bitext, now))
        links[name] = best_links(bitext, expect(bitext, now))
        now = with_jumps(bitext, now)
    return links
