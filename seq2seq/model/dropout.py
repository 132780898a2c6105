"""Dropout; the paper has none, small corpora need it."""

import torch
from torch import Tensor, nn

_STEPS = 1 << 16


class Dropout(nn.Module):
    """Set a share of the numbers to 0 in training and scale the others up, so that sums stay.

    Four masks come from one 64-bit random number, where `nn.Dropout` draws a number for each: that
    took a fortieth of a training on a CPU. The share is therefore a multiple of 1 / 65,536.

    Args:
        p: Share of the numbers that become 0, below 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return x of any shape with some of its numbers 0."""
        kept = max(1, round((1 - self.p) * _STEPS))
        if not self.training or kept == _STEPS:
            return x
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        draws.random_(torch.iinfo(torch.int64).min, None)
        numbers = draws.view(torch.int16)[: x.numel()].view(x.shape)
        mask = (numbers < kept - _STEPS // 2).to(x.dtype)
        return x * mask.mul_(_STEPS / kept)

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        return f"p={self.p}"
