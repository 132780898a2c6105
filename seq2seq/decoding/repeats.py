"""Forbids repeated n-grams of pieces in a translation (Paulus et al. 2017, arXiv:1705.04304)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from seq2seq.decoding.constrained import Mask

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Repeats:
    """A `constrained.Rule` whose state is the pieces so far; other rules take precedence."""

    size: int  # n
    num_pieces: int
    first: Sequence[int] = ()  # pieces that the translation begins with
    soft: ClassVar[bool] = True

    @property
    def start(self) -> Ids:
        """The pieces that every hypothesis begins with."""
        return tuple(self.first)

    def allowed(self, state: Ids, left: int) -> Mask | None:
        """Forbid the pieces that followed earlier occurrences of the last n - 1 pieces."""
        n, begins = self.size, range(len(state) - self.size + 1)
        last = state[len(state) - n + 1 :]
        again = [state[i + n - 1] for i in begins if state[i : i + n - 1] == last]
        if not again:
            return None
        mask = np.ones(self.num_pieces, np.bool_)
        mask[again] = False
        return mask

    def after(self, state: Ids, token: int) -> Ids:
        """Append a piece."""
        return (*state, token)
