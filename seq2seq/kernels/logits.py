"""The loss of logits and its gradient, in torch operations; `native/output.c` is the same in C."""

from collections.abc import Callable

import torch
from torch import Tensor

LossOfLogits = Callable[
    [Tensor, Tensor | None, Tensor, float, Tensor | None], tuple[Tensor, Tensor, Tensor]
]
"""Takes logits (N, K) without their bias, the bias (K), targets (N,), smoothing, and d_b (K).

Returns the summed loss against plain and against smoothed targets, and the gradient of the second
with respect to the logits (N, K), in their dtype; it may overwrite them. The gradient is also
summed over rows into d_b. If d_b is None, the gradient returned is meaningless.
"""


def torch_loss(
    logits: Tensor, b: Tensor | None, targets: Tensor, label_smoothing: float, d_b: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """A `LossOfLogits` in torch operations."""
    dtype, exact = logits.dtype, torch.promote_types(logits.dtype, torch.float32)
    logits = logits.to(exact)
    if b is not None:
        logits += b
    p = torch.softmax(logits, dim=-1)
    # The log-sum-exp from the largest logit, whose p is at least 1 / K.
    log_sum = logits.amax(dim=-1) - p.amax(dim=-1).log_()
    loss = (log_sum - logits.gather(1, targets[:, None])[:, 0]).sum()
    spread = (log_sum - logits.mean(dim=-1)).sum() if label_smoothing else 0.0
    smoothed = (1 - label_smoothing) * loss + label_smoothing * spread
    if d_b is not None:
        p.sub_(label_smoothing / p.shape[1])
        p.scatter_add_(1, targets[:, None], p.new_full((len(p), 1), label_smoothing - 1))
        d_b += p.sum(dim=0)
    return loss, smoothed, p.to(dtype)
