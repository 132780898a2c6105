"""The loss of logits and its gradient, by torch's operations; `native/output.c` has it in C."""

from collections.abc import Callable

import torch
from torch import Tensor

LossOfLogits = Callable[
    [Tensor, Tensor | None, Tensor, float, Tensor | None], tuple[Tensor, Tensor, Tensor]
]
"""Losses of logits (N, K) less their bias (K), against targets (N,), plain and smoothed, summed.

With them comes the gradient of the second by the logits (N, K) in the dtype of the logits, which
may be overwritten. It is added up over the rows into the last argument (K), if there is one; else
there is no gradient in what is returned.
"""


def torch_loss(
    logits: Tensor, b: Tensor | None, targets: Tensor, label_smoothing: float, d_b: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """`LossOfLogits` by torch's operations."""
    dtype, exact = logits.dtype, torch.promote_types(logits.dtype, torch.float32)
    logits = logits.to(exact)
    if b is not None:
        logits += b
    p = torch.softmax(logits, dim=-1)
    # log sum exp, by way of the largest logit, whose p is at least 1 / K.
    log_sum = logits.amax(dim=-1) - p.amax(dim=-1).log_()
    loss = (log_sum - logits.gather(1, targets[:, None])[:, 0]).sum()
    spread = (log_sum - logits.mean(dim=-1)).sum() if label_smoothing else 0.0
    smoothed = (1 - label_smoothing) * loss + label_smoothing * spread
    if d_b is not None:
        p.sub_(label_smoothing / p.shape[1])
        p.scatter_add_(1, targets[:, None], p.new_full((len(p), 1), label_smoothing - 1))
        d_b += p.sum(dim=0)
    return loss, smoothed, p.to(dtype)
