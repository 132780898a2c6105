"""Dropout; the paper has none, small corpora need it."""

import torch
from torch import Tensor

from seq2seq.model.draws import Drawing

_LEVELS = 1 << 16
_LONGEST = 1 << 14  # draws of one row of attention: of four source tokens each


class Dropout(Drawing):
    """Set a share of the numbers to 0 in training and scale the others up, so that sums stay.

    Four masks come from 64 random bits, so the share is a multiple of 1 / 65,536.

    Args:
        p: Share of the numbers that become 0, below 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(
        self, x: Tensor, sentences: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Return x (B, T, d) with some of its numbers 0.

        Args:
            x: One row for each sentence and position; or (N, d), then the next two say which.
            sentences: (N,) of the batch.
            positions: (N,) in their sentences.
        """
        if not self.training or self._kept == _LEVELS:
            return x
        if sentences is None or positions is None:
            rows = (torch.arange(size, device=x.device) for size in x.shape[:-1])
            sentences, positions = torch.meshgrid(*rows, indexing="ij")
        return self._dropped(x, sentences, positions * -(-x.shape[-1] // 4))

    def of_weights(self, alpha: Tensor) -> Tensor:
        """Return attention weights (B, h, T, S) with some of them 0, whatever the padding is."""
        if not self.training or self._kept == _LEVELS:
            return alpha
        B, h, T, _ = alpha.shape
        numbers = torch.arange(B * h * T, device=alpha.device).view(B, h, T)
        # Of a row, T may differ from batch to batch, so position comes before head.
        head, position = numbers // T % h, numbers % T
        return self._dropped(alpha, numbers // (h * T), (position * h + head) * _LONGEST)

    @property
    def _kept(self) -> int:
        """Of the levels."""
        return max(1, round((1 - self.p) * _LEVELS))

    def _dropped(self, x: Tensor, sentences: Tensor, first: Tensor) -> Tensor:
        """Drop from rows (..., d) of sentences (...), whose first draws have these counters."""
        bits = self.bits(sentences, first, -(-x.shape[-1] // 4))
        numbers = bits.view(torch.int16)[..., : x.shape[-1]]
        mask = (numbers < self._kept - _LEVELS // 2).to(x.dtype)
        return x * mask.mul_(_LEVELS / self._kept)

    def of_words(self, x: Tensor) -> Tensor:
        """Return embedded words x (B, T, d) with some of them 0, as Sennrich & Zhang 2019."""
        if not self.training or self.p == 0:
            return x
        mask: Tensor = self(x.new_ones(*x.shape[:-1], 1))
        return x * mask

    def of_state(self, h: Tensor) -> tuple[Tensor, ...]:
        """Return the mask (B, n) for h (B, n), a sentence each row, at all steps; () if none."""
        if not self.training or self.p == 0:
            return ()
        rows = torch.arange(len(h), device=h.device)
        return (self(torch.ones_like(h), rows, torch.zeros_like(rows)),)

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        return f"p={self.p}"
