"""Random choice that gives the same corpus on every Python version.

Only `Random.random` is used: its algorithm is fixed by the documentation, while `choice`,
`randrange` and `shuffle` have changed between versions.
"""

import hashlib
from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")

SKEW = 1.3
"""Exponent of the draw from a word list: the first tenth of a list gets a sixth of the draws."""


class Dice:
    """A seeded source of choices.

    Args:
        seed: Any text; equal texts give equal choices.
    """

    def __init__(self, seed: str) -> None:
        digest = hashlib.blake2b(seed.encode(), digest_size=8).digest()
        self._random = Random(int.from_bytes(digest, "big")).random

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random() < probability

    def between(self, low: int, high: int) -> int:
        """Return an integer of [low, high], all equally likely."""
        return low + int(self._random() * (high - low + 1))

    def even(self, options: Sequence[T]) -> T:
        """Choose with equal chances."""
        return options[int(self._random() * len(options))]

    def common(self, options: Sequence[T]) -> T:
        """Choose a word, those early in their list a little more often."""
        return options[int(self._random() ** SKEW * len(options))]

    def weighted(self, options: Sequence[tuple[T, int]]) -> T:
        """Choose by weight."""
        mark = self._random() * sum([weight for _, weight in options])
        for option, weight in options:
            mark -= weight
            if mark < 0:
                return option
        return options[-1][0]
