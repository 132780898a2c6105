"""The cost of the output layer in chunks of words: its logits (N, K_y) never exist at once."""

from typing import Any

import torch
from torch import Tensor, nn

from seq2seq.kernels.precision import dense, product_format

_CHUNK_BYTES = 8 << 20
"""Of logits: they pass through the processor's cache, and not through memory."""


def nll_fused(
    W_o: nn.Module, t: Tensor, targets: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return the summed negative log-likelihood, and the same against smoothed targets.

    Equals `training.loss.SmoothedNLL` of the logits W_o t. Only the second can be differentiated.

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
        num_words = len(W)
        W_fast, t_fast = W.to(narrow), t.to(narrow)
        W_fast_T = W_fast.T.contiguous() if differentiated else W_fast
        d_t, d_W, d_b = torch.empty_like(t), torch.zeros_like(W), W.new_zeros(num_words)
        total, spread = t.new_zeros(()), t.new_zeros(())
        size = max(16, _CHUNK_BYTES // (num_words * t.element_size()))
        for part in range(0, len(t), size):
            rows = slice(part, part + size)
            logits = dense(t_fast[rows], W_fast).to(t.dtype)
            if b is not None:
                logits += b
            p = torch.softmax(logits, dim=-1)
            # log sum exp, by way of the largest logit, whose p is at least 1 / K.
            log_sum = logits.amax(dim=-1) - p.amax(dim=-1).log_()
            total += (log_sum - logits.gather(1, targets[rows, None])[:, 0]).sum()
            if label_smoothing:
                spread += (log_sum - logits.mean(dim=-1)).sum()
            if differentiated:
                d_logits = p.sub_(label_smoothing / num_words) if label_smoothing else p
                ones = d_logits.new_full((len(p), 1), label_smoothing - 1)
                d_logits.scatter_add_(1, targets[rows, None], ones)
                d_b += d_logits.sum(dim=0)
                d_logits = d_logits.to(narrow)
                d_t[rows] = dense(d_logits, W_fast_T)
                if narrow == W.dtype:
                    d_W.addmm_(d_logits.T, t_fast[rows])
                else:
                    d_W += d_logits.T @ t_fast[rows]
        smoothed = (1 - label_smoothing) * total + label_smoothing * spread
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
