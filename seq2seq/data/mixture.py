"""How often the pairs of several corpora are drawn in training.

A corpus of n pairs and weight w is drawn from with probability ~ w n^(1/temperature).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seq2seq.data.store import Lengths


@dataclass(frozen=True)
class Mixture:
    """Concatenated corpora, and each one's share of the draws."""

    sizes: tuple[int, ...]
    shares: tuple[float, ...]

    def draw(self, *, seed: int, epoch: int, reshuffle: bool) -> Lengths:
        """Return the rows of an epoch, as many as there are pairs; a pure function.

        Each corpus is passed through repeatedly, in a new order each time (`reshuffle`), and an
        epoch continues where the last one ended: no pair is drawn twice before every other pair of
        its corpus is drawn once.
        """
        rows, offset = [], 0
        for number, (size, share) in enumerate(zip(self.sizes, self.shares, strict=True), start=1):
            first, stop = (int(n * share * sum(self.sizes) + 0.5) for n in (epoch, epoch + 1))
            for turn in range(first // size, -(-stop // size)):
                # Never 0 at the end: to NumPy, [seed, turn, 0] and [seed, turn] are the same seed.
                rng = np.random.default_rng([seed, turn if reshuffle else 0, number])
                start = turn * size
                rows.append(offset + rng.permutation(size)[max(0, first - start) : stop - start])
            offset += size
        return np.concatenate(rows)


def mixture(
    sizes: Sequence[int], weights: Sequence[float], temperature: float = 1.0
) -> Mixture | None:
    """Return the mixture of corpora; None if drawn by size, with each pair once per epoch."""
    if temperature == 1 and len({*weights}) == 1:
        return None
    # Relative to the largest size, so that no power overflows.
    scaled = (
        w * (n / max(sizes)) ** (1 / temperature) for n, w in zip(sizes, weights, strict=True)
    )
    total = sum(found := [*scaled])
    return Mixture(tuple(sizes), tuple(share / total for share in found))
