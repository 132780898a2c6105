"""The loss of the output layer, in chunks: the logits (N, K_y) never exist all at once."""

from typing import Any

import torch
from torch import Tensor, nn

from seq2seq.kernels.choice import loss_for
from seq2seq.kernels.matmul import PackedWeight, compute_dtype, padded

_CHUNK_BYTES = 16 << 20
"""The size of a chunk of logits, small enough to stay in the processor's cache."""


def output_loss(
    W_o: nn.Module, t: Tensor, targets: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return the summed -log p of targets, without and with smoothing; see `output.smoothed_loss`.

    Only the second has a gradient. W_o is a linear layer, or a sequence that ends in one; t (N, l)
    is the last hidden layer, targets (N,) are ids.
    """
    *before, last = W_o if isinstance(W_o, nn.Sequential) else [W_o]
    for layer in before:
        t = layer(t)
    assert isinstance(last, nn.Linear)
    dtype = compute_dtype(last.weight)
    differentiated = torch.is_grad_enabled()
    given = last.weight, last.bias, targets, label_smoothing, dtype, differentiated
    with torch.autocast(t.device.type, enabled=False):
        total, smoothed = OutputLoss.apply(t.to(last.weight.dtype), *given)  # type: ignore[no-untyped-call]
    return total, smoothed


class OutputLoss(torch.autograd.Function):
    """Linear layer, softmax and loss. The gradient is computed in the forward pass.

    With smoothed targets (1 - e on the reference plus e / K everywhere) it is softmax minus target;
    backward only scales it.
    """

    @staticmethod
    def forward(  # noqa: D102, PLR0913 - autograd functions take tensors one by one
        ctx: Any,
        t: Tensor,
        W: Tensor,
        b: Tensor | None,
        targets: Tensor,
        label_smoothing: float,
        dtype: torch.dtype,
        differentiated: bool,
    ) -> tuple[Tensor, Tensor]:
        loss_of = loss_for(W, dtype)
        W_fast, t_fast = PackedWeight(W, dtype, often=False), padded(t, dtype)
        W_fast_T = PackedWeight(W_fast.weight.T, dtype, often=False)
        d_t, d_W, d_b = torch.empty_like(t), torch.zeros_like(W), W.new_zeros(len(W))
        total, smoothed = t.new_zeros(()), t.new_zeros(())
        size = max(16, _CHUNK_BYTES // (len(W) * dtype.itemsize))
        size = 1 << (size.bit_length() - 1)  # a power of two, which `rounded` leaves unchanged
        # Chunk by chunk: logits, losses, and the gradients of t, W and b.
        for part in range(0, len(t), size):
            rows, t_rows = slice(part, part + size), t_fast[part : part + size]
            of_rows, logits = targets[rows], W_fast(t_rows)
            into = d_b if differentiated else None
            loss, against_smoothed, d_logits = loss_of(
                logits[: len(of_rows)], b, of_rows, label_smoothing, into
            )
            total += loss
            smoothed += against_smoothed
            if differentiated:
                d_logits = _with_zeros(d_logits, logits)
                d_t[rows] = W_fast_T(d_logits)[: len(of_rows)]
                if dtype == W.dtype:
                    d_W.addmm_(d_logits.T, t_rows)
                else:
                    d_W += d_logits.T @ t_rows
        if differentiated:
            ctx.save_for_backward(d_t, d_W, d_b)
        ctx.has_bias = b is not None
        ctx.mark_non_differentiable(total)
        return total, smoothed

    @staticmethod
    def backward(  # noqa: D102
        ctx: Any, _d_total: Tensor, d_smoothed: Tensor
    ) -> tuple[Tensor | None, ...]:
        d_t, d_W, d_b = (x * d_smoothed for x in ctx.saved_tensors)
        return d_t, d_W, d_b if ctx.has_bias else None, None, None, None, None


def _with_zeros(d_logits: Tensor, logits: Tensor) -> Tensor:
    """Pad gradients with zero rows to the number of rows of `logits`, whose memory they may use."""
    rows = len(d_logits)
    if rows == len(logits):
        return d_logits
    if d_logits.data_ptr() != logits.data_ptr():
        logits[:rows] = d_logits
    logits[rows:] = 0
    return logits
