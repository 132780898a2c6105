"""No sequence of n pieces twice in a translation (Paulus et al. 2017, arXiv:1705.04304)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from seq2seq.decoding.ruled import Mask

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Repeats:
    """`ruled.Rule`, whose state is the pieces so far; what else is asked comes first."""

    size: int  # n
    num_pieces: int
    first: Sequence[int] = ()  # what a translation begins with
    gives_way: ClassVar[bool] = True

    @property
    def start(self) -> Ids:
        """Return the pieces that all begin with."""
        return tuple(self.first)

    def allowed(self, state: Ids, left: int) -> Mask | None:
        """Forbid what has followed the last n - 1 pieces before."""
        n = self.size
        last = state[len(state) - n + 1 :]
        again = [
            state[i + n - 1] for i in range(len(state) - n + 1) if state[i : i + n - 1] == last
        ]
        if not again:
            return None
        mask = np.ones(self.num_pieces, np.bool_)
        mask[again] = False
        return mask

    def after(self, state: Ids, token: int) -> Ids:
        """Return one more piece."""
        return (*state, token)
