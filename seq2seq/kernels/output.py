"""The cost of the output layer in chunks of words: its logits (N, K_y) never exist at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seq2seq.kernels.precision import Factor, product_format, widened

_CHUNK_BYTES = 16 << 20
"""Of logits: they pass through the processor's cache, and not through memory."""


def output_loss(
    W_o: nn.Module, t: Tensor, targets: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return the summed -log p of targets, and the same if smoothed; see `output.smoothed_loss`.

    Only the second can be differentiated.

    Args:
        W_o: A linear layer, or a sequence that ends in one.
        t: (N, l) last hidden layer.
        targets: (N,) ids.
        label_smoothing: Share of the target spread over all words.
    """
    *before, last = W_o if isinstance(W_o, nn.Sequential) else [W_o]
    for layer in before:
        t = layer(t)
    assert isinstance(last, nn.Linear)
    narrow = product_format(last.weight)
    differentiated = torch.is_grad_enabled()
    with torch.autocast(t.device.type, enabled=False):
        total, smoothed = OutputNLL.apply(  # type: ignore[no-untyped-call]
            t.to(last.weight.dtype),
            last.weight,
            last.bias,
            targets,
            label_smoothing,
            narrow,
            differentiated,
        )
    return total, smoothed


class OutputNLL(torch.autograd.Function):
    """Linear layer, softmax and cost. The gradient is computed on the way forward.

    Of smoothed targets (1 - e on the reference plus e / K everywhere) it is softmax minus target;
    backward only has to scale it.
    """

    @staticmethod
    def forward(  # noqa: D102, PLR0913 - autograd functions take tensors one by one
        ctx: Any,
        t: Tensor,
        W: Tensor,
        b: Tensor | None,
        targets: Tensor,
        label_smoothing: float,
        narrow: torch.dtype,
        differentiated: bool,
    ) -> tuple[Tensor, Tensor]:
        cost = cost_for(W, narrow)
        W_fast, t_fast = Factor(W, narrow, often=False), widened(t, narrow)
        W_fast_T = Factor(W_fast.weight.T, narrow, often=False)
        d_t, d_W, d_b = torch.empty_like(t), torch.zeros_like(W), W.new_zeros(len(W))
        total, smoothed = t.new_zeros(()), t.new_zeros(())
        size = max(16, _CHUNK_BYTES // (len(W) * narrow.itemsize))
        size = 1 << (size.bit_length() - 1)  # as `rounded` has it
        for part in range(0, len(t), size):
            rows, seen = slice(part, part + size), t_fast[part : part + size]
            of_rows, logits = targets[rows], W_fast(seen)
            into = d_b if differentiated else None
            nll, against_smoothed, d_logits = cost(
                logits[: len(of_rows)], b, of_rows, label_smoothing, into
            )
            total += nll
            smoothed += against_smoothed
            if differentiated:
                d_logits = _with_zeros(d_logits, logits)
                d_t[rows] = W_fast_T(d_logits)[: len(of_rows)]
                if narrow == W.dtype:
                    d_W.addmm_(d_logits.T, seen)
                else:
                    d_W += d_logits.T @ seen
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
    """Return gradients as so many rows as there are logits, whose place they may take."""
    rows = len(d_logits)
    if rows == len(logits):
        return d_logits
    if d_logits.data_ptr() != logits.data_ptr():
        logits[:rows] = d_logits
    logits[rows:] = 0
    return logits


Cost = Callable[
    [Tensor, Tensor | None, Tensor, float, Tensor | None], tuple[Tensor, Tensor, Tensor]
]
"""Costs of logits (N, K) less their bias (K), against targets (N,), plain and smoothed, summed.

With them comes the gradient of the second by the logits (N, K) in the format of the logits, which
may be overwritten. It is added up over the rows into the last argument (K), if there is one; else
there is no gradient in what is returned.
"""


def cost_for(weight: Tensor, narrow: torch.dtype) -> Cost:
    """Return what computes the cost of an output layer with this weight."""
    from seq2seq.kernels import native  # says itself where it cannot run

    return native.cost_for(weight, narrow) or torch_cost


def torch_cost(
    logits: Tensor, b: Tensor | None, targets: Tensor, label_smoothing: float, d_b: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`Cost` by torch's operations."""
    narrow, exact = logits.dtype, torch.promote_types(logits.dtype, torch.float32)
    logits = logits.to(exact)
    if b is not None:
        logits += b
    p = torch.softmax(logits, dim=-1)
    # log sum exp, by way of the largest logit, whose p is at least 1 / K.
    log_sum = logits.amax(dim=-1) - p.amax(dim=-1).log_()
    nll = (log_sum - logits.gather(1, targets[:, None])[:, 0]).sum()
    spread = (log_sum - logits.mean(dim=-1)).sum() if label_smoothing else 0.0
    smoothed = (1 - label_smoothing) * nll + label_smoothing * spread
    if d_b is not None:
        p.sub_(label_smoothing / p.shape[1])
        p.scatter_add_(1, targets[:, None], p.new_full((len(p), 1), label_smoothing - 1))
        d_b += p.sum(dim=0)
    return nll, smoothed, p.to(narrow)
