"""Functions around the output layer: maxout, the smoothed loss, and the best words by logits."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seq2seq.model.protocols import Barred, Best


def max_of_pairs(t_tilde: Tensor) -> Tensor:
    """Return the larger of each adjacent pair, (..., l) of (..., 2l)."""
    t: Tensor = t_tilde.unflatten(-1, (-1, 2)).amax(dim=-1)
    return t


def log_softmax(logits: Tensor) -> Tensor:
    """Return log p of every word (N, K), in float32 at least."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return torch.log_softmax(logits, dim=-1, dtype=wide)


def smoothed_loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the summed -log p of targets (N,) given logits (N, K), without and with smoothing."""
    total, smoothed = SmoothedLoss.apply(  # type: ignore[no-untyped-call]
        logits, targets, label_smoothing
    )
    return total, smoothed


class SmoothedLoss(torch.autograd.Function):
    """Negative log-likelihood against plain and smoothed targets, with a hand-written backward.

    With smoothing e over K words the target is 1 - e on the reference plus e / K everywhere, and
    the gradient is softmax minus target. Autograd through log_softmax, gather and mean would
    allocate five tensors the size of the logits; this allocates two. Only the second output has a
    gradient.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, logits: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        log_p = log_softmax(logits)  # (N, K)
        total = -log_p.gather(1, targets[:, None]).sum()
        smoothed = total
        if label_smoothing:
            spread = -log_p.sum() / log_p.shape[1]
            smoothed = (1 - label_smoothing) * total + label_smoothing * spread
        ctx.save_for_backward(log_p, targets)
        ctx.label_smoothing, ctx.dtype = label_smoothing, logits.dtype
        ctx.mark_non_differentiable(total)
        return total, smoothed.clone()

    @staticmethod
    def backward(  # noqa: D102
        ctx: Any, _d_total: Tensor, d_smoothed: Tensor
    ) -> tuple[Tensor, None, None]:
        log_p, targets = ctx.saved_tensors
        share = ctx.label_smoothing
        d_logits = log_p.exp()
        if share:
            d_logits.sub_(share / log_p.shape[1])
        d_logits[torch.arange(len(targets), device=targets.device), targets] -= 1 - share
        return d_logits.mul_(d_smoothed).to(ctx.dtype), None, None


@dataclass(frozen=True)
class LogitsPrediction:
    """A `Prediction` that holds all logits."""

    logits: Tensor  # (R, K_y)
    alpha: Tensor  # (R, Tx)

    def log_probs(self) -> Tensor:
        """Return log p of every word (R, K_y)."""
        return log_softmax(self.logits)

    def best(self, count: int, barred: Barred, lists: Tensor | None = None) -> Best:
        """See `Prediction.best`."""
        if lists is None:
            logits = self.logits.to(torch.float32, copy=True)
            values, words, log_sum = best_logits(logits, count, barred)
        else:
            log_p = self.log_probs()
            rows = lists.repeat_interleave(len(log_p) // len(lists), dim=0)
            values, words, log_sum = best_listed(log_p.gather(1, rows), rows, count, barred)
        return Best(values - log_sum, words)


def best_logits(logits: Tensor, count: int, barred: Barred) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best logits of each row, their words, and the log-sum-exp of all logits (R, 1).

    Overwrites `logits`.
    """
    logits = logits.float()
    log_sum = torch.logsumexp(logits, dim=-1, keepdim=True)
    logits[:, barred.words] = -torch.inf
    logits[:, barred.eos].masked_fill_(barred.too_early, -torch.inf)
    return *largest(logits, min(count, logits.shape[1])), log_sum


def best_listed(
    logits: Tensor, lists: Tensor, count: int, barred: Barred
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same as `best_logits`, given the logits (R, N) of the words in lists (R, N)."""
    logits = logits.float()
    log_sum = torch.logsumexp(logits, dim=-1, keepdim=True)
    blocked = torch.isin(lists, barred.words) | (lists == barred.eos) & barred.too_early[:, None]
    values, places = largest(logits.masked_fill(blocked, -torch.inf), min(count, logits.shape[1]))
    return values, lists.gather(1, places), log_sum


def largest(scores: Tensor, count: int, block: int = 64) -> tuple[Tensor, Tensor]:
    """Return the largest scores of each row (rows, count), descending, and their indices.

    Faster than a plain `topk`, which branches on every score: block maxima need no branches, and
    the best scores lie in the blocks with the largest maxima.
    """
    num_scores = scores.shape[1]
    whole = num_scores // block * block
    if whole <= count * block:
        return scores.topk(count, dim=-1)
    # The blocks that hold the best scores
    maxima = scores[:, :whole].unflatten(1, (-1, block)).amax(dim=-1)
    if whole < num_scores:
        maxima = torch.cat([maxima, scores[:, whole:].amax(dim=-1, keepdim=True)], dim=-1)
    blocks = maxima.topk(count, dim=-1).indices
    # The best scores within them
    places = (blocks[..., None] * block + torch.arange(block, device=scores.device)).flatten(1)
    beyond = places >= num_scores  # past the end of the last block, which is shorter
    inside = scores.gather(1, places.clamp_max(num_scores - 1)).masked_fill_(beyond, -torch.inf)
    values, order = inside.topk(count, dim=-1)
    return values, places.gather(1, order)
