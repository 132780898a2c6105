"""Dropout. The paper has none; small corpora need it."""

import torch
from torch import Tensor

from seq2seq.model.draws import Drawing

_LEVELS = 1 << 16
_LONGEST = 1 << 14  # counters reserved per row of attention; each covers four source tokens


class Dropout(Drawing):
    """In training, set a share of the numbers to 0 and scale up the others, to keep the mean.

    64 random bits decide about four numbers, so the share p, below 1, is a multiple of 1 / 65,536.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(
        self, x: Tensor, sentences: Tensor | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Return x (B, T, d) with some of its numbers set to 0.

        Of rows (N, d), tell each one's sentence, an index into the batch, and position (N,).
        """
        if not self.training or self._kept == _LEVELS:
            return x
        if sentences is None or positions is None:
            rows = (torch.arange(size, device=x.device) for size in x.shape[:-1])
            sentences, positions = torch.meshgrid(*rows, indexing="ij")
        return self._dropped(x, sentences, positions * -(-x.shape[-1] // 4))

    def of_weights(self, alpha: Tensor) -> Tensor:
        """Drop attention weights (B, h, T, S); the masks do not depend on the padding."""
        if not self.training or self._kept == _LEVELS:
            return alpha
        B, h, T, _ = alpha.shape
        numbers = torch.arange(B * h * T, device=alpha.device).view(B, h, T)
        # T differs between batches, so rows count as position * h + head, not head * T + position.
        head, position = numbers // T % h, numbers % T
        return self._dropped(alpha, numbers // (h * T), (position * h + head) * _LONGEST)

    @property
    def _kept(self) -> int:
        """The number of levels, out of `_LEVELS`, that are kept."""
        return max(1, round((1 - self.p) * _LEVELS))

    def _dropped(self, x: Tensor, sentences: Tensor, first: Tensor) -> Tensor:
        """Drop from rows (..., d) of `sentences` (...); `first` (...) is each row's counter."""
        bits = self.bits(sentences, first, -(-x.shape[-1] // 4))
        numbers = bits.view(torch.int16)[..., : x.shape[-1]]
        mask = (numbers < self._kept - _LEVELS // 2).to(x.dtype)
        return x * mask.mul_(_LEVELS / self._kept)

    def of_words(self, x: Tensor) -> Tensor:
        """Drop whole embedded words of x (B, T, d), as in Sennrich & Zhang 2019."""
        if not self.training or self.p == 0:
            return x
        mask: Tensor = self(x.new_ones(*x.shape[:-1], 1))
        return x * mask

    def of_state(self, h: Tensor) -> tuple[Tensor, ...]:
        """Return one mask (B, n) for all steps of h (B, n), one sentence per row; () if none."""
        if not self.training or self.p == 0:
            return ()
        rows = torch.arange(len(h), device=h.device)
        return (self(torch.ones_like(h), rows, torch.zeros_like(rows)),)

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        return f"p={self.p}"
