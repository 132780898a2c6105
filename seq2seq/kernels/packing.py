"""Packs batches without padding: the real tokens of each step, one step after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

Sizes = tuple[int, ...]
"""The number of sentences in each step."""


@dataclass(frozen=True)
class Packing:
    """The packed order of the real tokens of a padded batch, sentences by descending length.

    Step t holds word t of the `sizes[t]` sentences that are longer than t. These are the first
    ones of step t - 1, so a slice carries the state forward, and no work is done on padding.
    """

    num_rows: int  # B
    num_steps: int  # T of the padded batch
    sizes: Sizes  # sentences in each step; none is 0
    order: Tensor  # (B,)  sentences, the longest first
    places: Tensor  # (N,) index of each packed token in the flattened batch (B * T)
    mirrored: Tensor  # (N,) the same, with each sentence reversed within its length
    ranked: Tensor  # (N,) the same, in a batch whose sentences are in `order`

    @classmethod
    def of(cls, mask: Tensor) -> "Packing":
        """Plan the packing of a batch by its mask (B, T), True on real tokens, which come first."""
        num_rows, num_steps = mask.shape
        lengths = mask.sum(dim=1)
        order = lengths.argsort(descending=True, stable=True)
        left = lengths[order]
        steps = torch.arange(num_steps, device=mask.device)[:, None]
        real = steps < left  # (T, B)
        ranks = torch.arange(num_rows, device=mask.device)
        return cls(
            num_rows=num_rows,
            num_steps=num_steps,
            sizes=tuple(size for size in real.sum(dim=1).tolist() if size),
            order=order,
            places=(order * num_steps + steps)[real],
            mirrored=(order * num_steps + left - 1 - steps)[real],
            ranked=(ranks * num_steps + steps)[real],
        )

    def pack(self, padded: Tensor) -> Tensor:
        """Return the real tokens (N, d) of (B, T, d)."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def unpack(self, packed: Tensor, places: Tensor | None = None) -> Tensor:
        """Return (B, T, d), 0 on padding, from (N, d); `places` default to those of `pack`."""
        padded = packed.new_zeros(self.num_rows * self.num_steps, packed.shape[-1])
        places = self.places if places is None else places
        return padded.index_copy(0, places, packed).view(self.num_rows, self.num_steps, -1)


def slices(sizes: Sizes) -> Iterator[slice]:
    """Yield the packed rows of each step."""
    end = 0
    for size in sizes:
        yield slice(end, end := end + size)


def shifted(start: Tensor, states: Tensor, sizes: Sizes) -> Tensor:
    """Return the state before each token (..., N, n), given `start` and the states after each."""
    parts, before = [start[..., : sizes[0], :]], 0
    for size, following in pairwise(sizes):
        parts.append(states[..., before : before + following, :])
        before += size
    return torch.cat(parts, dim=-2)
