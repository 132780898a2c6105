"""The loss of a batch: nats summed over real target tokens, and its normalization."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq2seq.config.schema import Normalize
from seq2seq.data.batching import Batch
from seq2seq.model.output import smoothed_loss
from seq2seq.model.protocols import Followed, TranslationModel

SLICE_BYTES = 8 << 20
"""The size of the logits computed at once."""


@dataclass(frozen=True)
class Loss:
    """Loss of a batch in nats, summed over target tokens, end symbols included."""

    total: Tensor  # ()  -log p of the references
    smoothed: Tensor  # ()  the same against smoothed targets; equals `total` without smoothing
    sentences: int
    tokens: int
    extra: Tensor | None = None  # ()  sum of the model's own loss terms

    def objective(self, normalize: Normalize) -> Tensor:
        """Return the scalar to differentiate.

        The authors sum over all words of the batch; clipping at norm 1 then acts on nearly every
        update.
        """
        objective = self.smoothed if self.extra is None else self.smoothed + self.extra
        match normalize:
            case Normalize.none:
                return objective
            case Normalize.sentences:
                return objective / self.sentences
            case Normalize.words:
                return objective / self.tokens


def loss_along(
    model: TranslationModel, followed: Followed, batch: Batch, label_smoothing: float = 0.0
) -> Loss:
    """Return the loss of a batch along whose targets the model has been run."""
    targets = batch.tgt[batch.tgt_mask]  # (N,)
    sizes = batch.num_sentences, len(targets)
    if not followed.losses:
        return Loss(*model.output_loss(followed.t, targets, label_smoothing), *sizes)
    # The model's own loss terms need the probability of each word.
    logits = model.logits(followed.t)
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p = torch.log_softmax(logits.detach(), dim=-1, dtype=wide)
    log_p = log_p.gather(1, targets[:, None]).squeeze(1)
    extra = torch.stack([term(log_p) for term in followed.losses.values()]).sum()
    return Loss(*smoothed_loss(logits, targets, label_smoothing), *sizes, extra)


@torch.inference_mode()
def sentence_losses(model: TranslationModel, batch: Batch) -> Tensor:
    """Return the loss (B,) in nats of each sentence; logits are computed in slices."""
    t = model.follow(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask).t  # (N, l)
    parts = slices(model, t, batch.tgt[batch.tgt_mask])
    losses = torch.cat([_token_losses(model, *part) for part in parts])
    grid = losses.new_zeros(batch.tgt.shape).masked_scatter_(batch.tgt_mask, losses)
    return grid.sum(dim=1)


def log_probs(model: TranslationModel, t: Tensor, targets: Tensor) -> Tensor:
    """Return log p (N,) of targets; logits are computed in slices, again for the gradient."""
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    parts = slices(model, t, targets)
    return -torch.cat([again(_token_losses, model, *part) for part in parts])


def slices(model: TranslationModel, *hidden_and_targets: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut hidden layers (N, l) and targets (N,), last, to where logits have `SLICE_BYTES`."""
    rows = max(1, SLICE_BYTES // (4 * (len(hidden_and_targets) - 1) * model.num_words))
    return zip(*(each.split(rows) for each in hidden_and_targets), strict=True)


def _token_losses(model: TranslationModel, t: Tensor, targets: Tensor) -> Tensor:
    logits = model.logits(t)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return nn.functional.cross_entropy(wide, targets, reduction="none")
