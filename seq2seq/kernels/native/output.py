"""The loss of logits by `output.c`, in one pass over them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq.kernels.native.build import Library

_SHARES = 8
"""The number of partial gradient sums; fixed, so that results do not depend on the threads."""


@dataclass(frozen=True)
class NativeLoss:
    """A `LossOfLogits` for float32 or bfloat16 logits."""

    library: Library

    def __call__(
        self,
        logits: Tensor,
        b: Tensor | None,
        targets: Tensor,
        label_smoothing: float,
        d_b: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses and the gradient, which overwrites the logits."""
        rows, num_words = logits.shape
        workspace, of_b = targets.new_empty(2, _SHARES, num_words, dtype=torch.float32)
        of_b.zero_()
        losses, spread = workspace.new_empty(2, rows)
        # Per row, the losses; per share of rows, the sums of gradients
        self.library(
            "output_loss",
            *(logits, logits.dtype is torch.bfloat16, b, targets, float(label_smoothing)),
            *(d_b is not None, losses, spread, of_b, workspace, _SHARES, rows, num_words),
        )
        # Totals
        total = losses.sum()
        if d_b is not None:
            d_b += of_b.sum(dim=0)
        smoothed = (1 - label_smoothing) * total + label_smoothing * spread.sum()
        return total, smoothed, logits
