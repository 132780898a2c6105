"""`kernels.output.Cost` on the program of `output.c`: one pass over the logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq.kernels.native.build import Programs, is_narrow

_SHARES = 8
"""Rows go into so many sums of gradients, whatever the number of threads: results repeat."""


@dataclass(frozen=True)
class NativeCost:
    """`Cost` of float32 or bfloat16 logits."""

    programs: Programs

    def __call__(
        self,
        logits: Tensor,
        b: Tensor | None,
        targets: Tensor,
        label_smoothing: float,
        d_b: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the costs, and the gradient in the place of the logits."""
        rows, num_words = logits.shape
        room, of_b = targets.new_empty(2, _SHARES, num_words, dtype=torch.float32)
        of_b.zero_()
        nll, spread = room.new_empty(2, rows)
        self.programs(
            "cost",
            *(logits, is_narrow(logits), b, targets, float(label_smoothing), d_b is not None),
            *(nll, spread, of_b, room, _SHARES, rows, num_words),
        )
        total = nll.sum()
        if d_b is not None:
            d_b += of_b.sum(dim=0)
        smoothed = (1 - label_smoothing) * total + label_smoothing * spread.sum()
        return total, smoothed, logits
