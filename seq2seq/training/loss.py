"""The cost of a batch: nats summed over real target tokens, and what it is divided by."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seq2seq.config.schema import Normalize
from seq2seq.data.batching import Batch
from seq2seq.model import DecoderOutput, RNNSearch

SLICE_BYTES = 8 << 20
"""Of logits, at once."""


@dataclass(frozen=True)
class Loss:
    """Cost of a batch in nats, summed over target tokens, end symbols included."""

    nll: Tensor  # ()  -log p of the references
    smoothed: Tensor  # ()  the same against smoothed targets; equals nll without smoothing
    sentences: int
    words: int
    draws: Tensor | None = None  # ()  what hard attention learns from, `reinforce.py`

    def objective(self, normalize: Normalize) -> Tensor:
        """Return what the gradient is taken of.

        The authors take the sum over all words of the batch; clipping at norm 1 then acts on
        nearly every update.
        """
        total = self.smoothed if self.draws is None else self.smoothed + self.draws
        match normalize:
            case Normalize.none:
                return total
            case Normalize.sentences:
                return total / self.sentences
            case Normalize.words:
                return total / self.words


def nll(output: DecoderOutput, batch: Batch, label_smoothing: float = 0.0) -> Loss:
    """Return the cost of predictions made along the targets of a batch."""
    targets = batch.tgt[batch.tgt_mask]  # (N,)
    total, smoothed = SmoothedNLL.apply(  # type: ignore[no-untyped-call]
        output.logits, targets, label_smoothing
    )
    return Loss(total, smoothed, batch.num_sentences, len(targets))


def cost(model: RNNSearch, batch: Batch, label_smoothing: float = 0.0) -> Loss:
    """Return the cost of a batch, by the kernel if the model has it: the same, in less memory."""
    given = (batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
    if model.nll is None:
        return nll(model(*given), batch, label_smoothing)
    targets = batch.tgt[batch.tgt_mask]  # (N,)
    total, smoothed = model.nll(model.decoder.W_o, model.along(*given).t, targets, label_smoothing)
    return Loss(total, smoothed, batch.num_sentences, len(targets))


@torch.inference_mode()
def sentence_nll(model: RNNSearch, batch: Batch) -> Tensor:
    """Return the nats (B,) of each sentence of a batch; its logits never exist all at once."""
    t = model.along(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask).t  # (N, l)
    targets = batch.tgt[batch.tgt_mask]  # (N,)
    rows = max(1, SLICE_BYTES // (4 * model.decoder.embedding.E.num_embeddings))
    parts = zip(t.split(rows), targets.split(rows), strict=True)
    costs = torch.cat([_nll(model, *part) for part in parts])
    grid = costs.new_zeros(batch.tgt.shape).masked_scatter_(batch.tgt_mask, costs)
    return grid.sum(dim=1)


def _nll(model: RNNSearch, t: Tensor, targets: Tensor) -> Tensor:
    logits = model.decoder.W_o(t)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return nn.functional.cross_entropy(wide, targets, reduction="none")


class SmoothedNLL(torch.autograd.Function):
    """Negative log-likelihood, and the same against smoothed targets, in one pass each way.

    With smoothing e over K words the target is 1 - e on the reference plus e / K everywhere, and
    the gradient is softmax minus target. Autograd over log_softmax, nll and mean makes five
    arrays of logits size for it; this makes two. Only the second output can be differentiated.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, logits: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_p = torch.log_softmax(logits, dim=-1, dtype=wide)  # (N, K)
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
