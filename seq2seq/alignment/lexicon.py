"""A lexicon of any corpus: the most probable target words given each source word, by IBM model 1.

Sentence pairs are aligned in blocks, since EM holds a probability for each pair of words in it. A
corpus of one block gets exactly IBM-1; of several, the sum of what each block counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2seq.alignment.ibm import ITERATIONS, Array, Ids, arrange, expect, maximize, uniform

BLOCK_CELLS = 8_000_000
"""Pairs of a source and a target word in a block, which takes about 60 bytes each."""

Pair = tuple[Sequence[int], Sequence[int]]  # word ids of both sides, from 1


@dataclass(frozen=True)
class Lexicon:
    """The k most probable target words of each source word.

    Where a source word occurs with fewer, probabilities of 0 are left, of word 0.
    """

    words: NDArray[np.int32]  # (K_x, k)  ids; equally probable ones ascend
    probabilities: NDArray[np.float32]  # (K_x, k)  in descending order


@dataclass(frozen=True)
class Counts:
    """How often a target word is expected to be the translation of a source word."""

    keys: Ids  # source word * K_y + target word, ascending
    counts: Array

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum of two."""
        both = np.concatenate([self.keys, other.keys])
        keys, places = np.unique(both, return_inverse=True)
        counts = np.concatenate([self.counts, other.counts])
        return Counts(keys, np.bincount(places, counts).astype(np.float64))


def lexicon(pairs: Iterable[Pair], num_src: int, num_tgt: int, most: int) -> Lexicon:
    """Return the lexicon of sentence pairs, with `most` target words of each source word.

    The vocabularies are K_x and K_y words. Pairs with an empty side take no part.
    """
    total = Counts(np.zeros(0, np.int64), np.zeros(0))
    for block in _blocks(pairs):
        total = total.plus(expected_counts(block, num_tgt))
    src, tgt = np.divmod(total.keys, num_tgt)
    t = total.counts / np.bincount(src, total.counts, minlength=1)[src]
    # Per source word the most probable target words first, of equals the first.
    order = np.lexsort((tgt, -t, src))
    src, tgt, t = src[order], tgt[order], t[order]
    place = np.arange(len(src)) - np.searchsorted(src, src)
    kept = place < most
    at, shape = (src[kept], place[kept]), (num_src, most)
    words, probabilities = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    words[at], probabilities[at] = tgt[kept], t[kept]
    return Lexicon(words, probabilities)


def expected_counts(pairs: Sequence[Pair], num_tgt: int) -> Counts:
    """Return the expected counts of IBM-1, trained on these pairs."""
    bitext = arrange([src for src, _ in pairs], [tgt for _, tgt in pairs])
    now = uniform(bitext)
    for _ in range(ITERATIONS - 1):
        now = maximize(bitext, now, expect(bitext, now))
    posterior = expect(bitext, now).posterior
    counts = np.bincount(bitext.entries, posterior, minlength=len(now.t)).astype(np.float64)
    seen = (bitext.lexicon_src > 0) & (counts > 0)  # 0 is the null word
    return Counts(bitext.lexicon_src[seen] * num_tgt + bitext.lexicon_tgt[seen], counts[seen])


def _blocks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    block: list[Pair] = []
    cells = 0
    for src, tgt in pairs:
        cells += (len(src) + 1) * len(tgt)
        if block and cells > BLOCK_CELLS:
            yield block
            block, cells = [], (len(src) + 1) * len(tgt)
        block.append((src, tgt))
    if block:
        yield block
