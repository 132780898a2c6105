"""How often the pairs of several corpora are drawn in training.

Of n pairs and weight w, a corpus is drawn from with probability ~ w n^(1/temperature).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seq2seq.data.store import Lengths


@dataclass(frozen=True)
class Mixture:
    """Corpora whose rows follow each other, and the share of the draws that each one has."""

    sizes: tuple[int, ...]
    shares: tuple[float, ...]

    def draw(self, *, seed: int, epoch: int, reshuffle: bool) -> Lengths:
        """Return the rows of an epoch, as many as there are pairs: a pure function of all this.

        A corpus is gone through again and again, each time in a new order (`reshuffle`), and an
        epoch goes on where the one before it has ended: no pair is drawn twice before another one
        of its corpus is drawn once.
        """
        rows, offset = [], 0
        for number, (size, share) in enumerate(zip(self.sizes, self.shares, strict=True), start=1):
            first, stop = (int(n * share * sum(self.sizes) + 0.5) for n in (epoch, epoch + 1))
            for turn in range(first // size, -(-stop // size)):
                # Never 0 in the last place: NumPy takes [seed, turn, 0] for [seed, turn].
                rng = np.random.default_rng([seed, turn if reshuffle else 0, number])
                start = turn * size
                rows.append(offset + rng.permutation(size)[max(0, first - start) : stop - start])
            offset += size
        return np.concatenate(rows)


def mixture(
    sizes: Sequence[int], weights: Sequence[float], temperature: float = 1.0
) -> Mixture | None:
    """Return in which shares corpora are drawn from; None: all by size, each pair once an epoch."""
    if temperature == 1 and len({*weights}) == 1:
        return None
    # By the largest, so that no power overflows.
    scaled = (
        w * (n / max(sizes)) ** (1 / temperature) for n, w in zip(sizes, weights, strict=True)
    )
    total = sum(found := [*scaled])
    return Mixture(tuple(sizes), tuple(share / total for share in found))
