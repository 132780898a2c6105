"""Training objectives: likelihood, guided alignment, the agreement of two passes (R-Drop, SimCut).

Minimum risk is in `minimum_risk.py`. Builders get their own config, the whole config, and the
vocabularies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from seq2seq.config import schema
from seq2seq.config.registry import builds
from seq2seq.config.schema import Config
from seq2seq.data.batching import Batch
from seq2seq.data.tokenizer import PAD, Tokenizer
from seq2seq.model import EncoderDecoder
from seq2seq.model.draws import Drawing, entry_keys, keyed
from seq2seq.model.output import log_softmax
from seq2seq.model.protocols import Followed
from seq2seq.training.loss import Loss, loss_along, slices


@dataclass(frozen=True)
class Task:
    """What a model follows, and the loss of what it followed."""

    batch: Batch
    keys: Tensor  # (B') of its draws
    loss: Callable[[Followed], Loss]


class Objective(Protocol):
    """What an update minimizes."""

    passes: int  # over the same sentences, with other draws

    def prepare(self, model: EncoderDecoder, batch: Batch, keys: Tensor) -> Task:
        """Return the task of a batch, given the keys (B, passes) of its sentences' draws."""


def draw_keys(seed: int, update: int, count: int, passes: int) -> Tensor:
    """Return the keys (count, passes) of the sentences of an update; see `draws.entry_keys`."""
    return torch.stack([entry_keys(seed, update, count, number=n) for n in range(passes)], dim=1)


@dataclass(frozen=True)
class Likelihood:
    """-log p of the references, smoothed or not."""

    label_smoothing: float
    passes = 1

    def prepare(self, model: EncoderDecoder, batch: Batch, keys: Tensor) -> Task:
        """See `Objective`."""
        return Task(batch, keys[:, 0], lambda followed: self.loss(model, followed, batch))

    def loss(self, model: EncoderDecoder, followed: Followed, batch: Batch) -> Loss:
        """Return the loss of a batch along which the model has been run."""
        return loss_along(model, followed, batch, self.label_smoothing)


@builds(schema.LikelihoodConfig)
def likelihood(_own: Any, cfg: Config, _tokenizers: Sequence[Tokenizer]) -> Likelihood:
    """Build the default objective."""
    return Likelihood(cfg.trainer.label_smoothing)


@dataclass(frozen=True)
class GuidedAlignment(Likelihood):
    """S - weight sum_i sum_j a_ij log alpha_ij, over the target tokens i that have links.

    a_ij is 1/n for each of the n source tokens linked to token i: Chen et al. 2016, Guided
    Alignment Training for Topic-Aware Neural Machine Translation (arXiv:1607.01628). alpha is the
    one that figures show: in a Transformer one head or the mean of a layer, Garg et al. 2019,
    Jointly Learning to Align and Translate with Transformer Models (arXiv:1909.02074).
    """

    weight: float

    def loss(self, model: EncoderDecoder, followed: Followed, batch: Batch) -> Loss:
        """Return the loss; the cross entropy of links and alpha is its `extra`."""
        assert batch.links is not None
        alpha, links = followed.alpha[batch.tgt_mask], batch.links[batch.tgt_mask]  # (N, Tx)
        log_alpha = alpha.clamp_min(torch.finfo(alpha.dtype).tiny).log()
        shares = links.to(alpha) / links.sum(dim=1, keepdim=True).clamp_min(1)
        extra = -self.weight * (shares * log_alpha).sum()
        return replace(super().loss(model, followed, batch), extra=extra)


@builds(schema.GuidedAlignmentConfig)
def guided_alignment(
    own: schema.GuidedAlignmentConfig, cfg: Config, _tokenizers: Sequence[Tokenizer]
) -> GuidedAlignment:
    """Build it; `links.py` gives batches their links."""
    return GuidedAlignment(cfg.trainer.label_smoothing, own.weight)


@dataclass(frozen=True)
class Shares:
    """The coefficients of the losses S and the divergences of two passes.

    The objective is first S_1 + second S_2 + forward KL(p_1 || p_2) + backward KL(p_2 || p_1).
    """

    first: float
    second: float
    forward: float
    backward: float


class Agreement:
    """The objective of two passes over the same sentences with different random draws."""

    passes = 2

    def __init__(self, shares: Shares, label_smoothing: float, cutoff: float = 0.0) -> None:
        self.shares, self.label_smoothing = shares, label_smoothing
        self.cutoff = Cutoff(cutoff)

    def prepare(self, model: EncoderDecoder, batch: Batch, keys: Tensor) -> Task:
        """See `Objective`; both passes are computed together."""
        again = self.cutoff(batch, keys[:, 1])
        pairs = zip(vars(batch).values(), vars(again).values(), strict=True)
        both = Batch(*(torch.cat(pair) for pair in pairs if pair[0] is not None))
        return Task(both, keys.T.flatten(), lambda followed: self.loss(model, followed, batch))

    def loss(self, model: EncoderDecoder, followed: Followed, batch: Batch) -> Loss:
        """Return the loss of a batch; `followed` are both of its passes."""
        assert not followed.losses
        t_1, t_2 = followed.t.chunk(2)
        targets = batch.tgt[batch.tgt_mask]

        total, objective = t_1.new_zeros(()), t_1.new_zeros(())
        for *hidden, words in slices(model, t_1, t_2, targets):
            logits = map(model.logits, hidden)
            nats, loss = AgreementLoss.apply(*logits, words, self.label_smoothing, self.shares)  # type: ignore[no-untyped-call]
            total, objective = total + nats, objective + loss
        return Loss(total, objective, batch.num_sentences, len(targets))


class Cutoff(Drawing):
    """Hides random words of both sides from a pass: their embeddings are zero, the targets stay."""

    site = 0x5EC07

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def __call__(self, batch: Batch, keys: Tensor) -> Batch:
        """Return a batch with some ids replaced by that of y_0, whose embedding is zero."""
        if not self.share:
            return batch
        with keyed(keys):
            src, tgt = (self._cut(ids, side) for side, ids in enumerate((batch.src, batch.tgt)))
        return replace(batch, src=src, tgt=tgt)

    def _cut(self, ids: Tensor, side: int) -> Tensor:
        sentences = torch.arange(len(ids), device=ids.device)
        # The draws of both sides interleave, so that they do not depend on the padding.
        drawn = self.uniform(sentences, torch.zeros_like(sentences), 2 * ids.shape[1])
        return ids.masked_fill(drawn[:, side::2] < self.share, PAD)


class AgreementLoss(torch.autograd.Function):
    """The weighted sum of `Shares` over two passes, given their logits (N, K) each.

    With d = log p_1 - log p_2, the divergence KL(p_1 || p_2) = sum p_1 d has the gradient
    p_1 (d - KL) for the first logits, and p_2 - p_1 for the second. The gradient is computed in
    the forward pass; backward only scales it.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        logits_1: Tensor,
        logits_2: Tensor,
        targets: Tensor,
        label_smoothing: float,
        shares: Shares,
    ) -> tuple[Tensor, Tensor]:
        # Both divergences
        log_ps = log_softmax(logits_1), log_softmax(logits_2)
        ps = [log_p.exp() for log_p in log_ps]
        d = log_ps[0] - log_ps[1]
        divergences = (ps[0] * d).sum(1, keepdim=True), -(ps[1] * d).sum(1, keepdim=True)
        at = targets[:, None]
        own, toward = (shares.first, shares.second), (shares.forward, shares.backward)
        spread = label_smoothing / logits_1.shape[1]
        objective = toward[0] * divergences[0].sum() + toward[1] * divergences[1].sum()
        # The loss and the gradient of each pass
        gradients = []
        for this, that, sign in ((0, 1, 1), (1, 0, -1)):
            log_p, p = log_ps[this], ps[this]
            if own[this]:
                nats = -(1 - label_smoothing) * log_p.gather(1, at).sum() - spread * log_p.sum()
                objective = objective + own[this] * nats
            # The factors of p: from the loss, the other pass's divergence, and its own.
            slope = own[this] + toward[that] - toward[this] * divergences[this]
            gradient = p * (slope + (sign * toward[this]) * d) if toward[this] else p * slope
            gradient = gradient - toward[that] * ps[that] if toward[that] else gradient
            gradient -= own[this] * spread
            gradient.scatter_add_(
                1, at, gradient.new_full(at.shape, own[this] * (label_smoothing - 1))
            )
            gradients.append(gradient.to(logits_1.dtype))
        ctx.save_for_backward(*gradients)
        total = -log_ps[0].gather(1, at).sum()
        ctx.mark_non_differentiable(total)
        return total, objective

    @staticmethod
    def backward(  # noqa: D102
        ctx: Any, _d_total: Tensor, d_objective: Tensor
    ) -> tuple[Tensor | None, ...]:
        first, second = (gradient * d_objective for gradient in ctx.saved_tensors)
        return first, second, None, None, None


@builds(schema.RDropConfig)
def rdrop(own: schema.RDropConfig, cfg: Config, _tokenizers: Sequence[Tokenizer]) -> Agreement:
    """R-Drop, with half the sum of both losses, so that without dropout it is the plain loss."""
    return Agreement(Shares(0.5, 0.5, own.weight / 4, own.weight / 4), cfg.trainer.label_smoothing)


@builds(schema.SimCutConfig)
def simcut(own: schema.SimCutConfig, cfg: Config, _tokenizers: Sequence[Tokenizer]) -> Agreement:
    """SimCut; as in the authors' code, gradients flow through both sides of the divergence."""
    return Agreement(Shares(1.0, 0.0, own.weight, 0.0), cfg.trainer.label_smoothing, own.cutoff)
