"""Stochastic attention and how it learns where to look: REINFORCE, as in Xu et al. 2015, 4.1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from seq2seq.model.attention import AdditiveAttention, expectation
from seq2seq.model.draws import Drawing
from seq2seq.model.initialization import Scheme, draw_layers
from seq2seq.model.protocols import Attended, Draw, Layer, LossTerm, Source


@dataclass(frozen=True)
class Reinforce:
    """Weights of the terms that hard attention learns from."""

    weight: float
    discount: float
    entropy_weight: float


class HardAttention(AdditiveAttention, Drawing):
    """Stochastic attention to one position, Xu et al. 2015, 4.1, over the paper's energies.

    In training the context is one annotation, drawn with probabilities alpha_i; for a share of
    the steps (`soft_share`, their variance reduction) it is the expectation. The draw has no
    gradient: `reinforce_loss` learns from its log-probability. At test time the context is
    the most likely annotation, or the expectation. `alpha` is always the distribution. Its own
    state in training is the number of the step.
    """

    sequential: ClassVar[bool] = True

    def __init__(
        self,
        query: int,
        annotation: int,
        align: int,
        linear: Layer = nn.Linear,
        *,
        soft_share: float,
        take_most_likely: bool,
        reinforce: Reinforce,
    ) -> None:
        super().__init__(query, annotation, align, linear)
        self.baseline = linear(query, 1)
        self.soft_share = soft_share
        self.take_most_likely = take_most_likely
        self.reinforce = reinforce

    def initialize(self, scheme: Scheme) -> None:
        """Draw W_a, U_a, v_a, baseline."""
        super().initialize(scheme)
        draw_layers(scheme, self.baseline)

    def forward(self, query: Tensor, source: Source, state: Tensor | None = None) -> Attended:
        """Attend with s_{i-1} (R, n)."""
        alpha = self.weigh(query, source)
        if not self.training and self.take_most_likely:
            return Attended(_at(source, alpha.argmax(dim=-1)), alpha)
        expected = expectation(alpha, source)
        if not self.training:
            return Attended(expected, alpha)
        step = query.new_zeros(len(query), 1, dtype=torch.int64) if state is None else state
        position, soft = self.draw(alpha.detach(), step)
        c = torch.where(soft[:, None], expected, _at(source, position))
        log_alpha = alpha.clamp_min(torch.finfo(alpha.dtype).tiny).log()
        log_prob = log_alpha.gather(1, position[:, None]).squeeze(1)
        drawn = (
            torch.where(soft, 0.0, log_prob),  # nothing was drawn where the expectation was taken
            -(alpha * log_alpha).sum(dim=-1),
            self.baseline(query.detach()).squeeze(-1),
        )
        return Attended(c, alpha, step + 1, draw=Draw(drawn, self.losses))

    def draw(self, alpha: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Return a position for each row of alpha (R, Tx), and where to take the expectation.

        A row is a sentence: two draws at each step (R, 1), the second through the sums of alpha.
        """
        sentences = torch.arange(len(alpha), device=alpha.device)
        draws = self.uniform(sentences, 2 * step.squeeze(1), 2)
        sums = alpha.double().cumsum(dim=-1)
        chosen = torch.searchsorted(sums, draws[:, 1:] * sums[:, -1:], right=True)
        return chosen.squeeze(1), draws[:, 0] < self.soft_share

    def losses(self, drawn: Sequence[Tensor], mask: Tensor) -> Mapping[str, LossTerm]:
        """Return what is learned from the draws along targets: log-probability, entropy, baseline.

        Args:
            drawn: (B, Ty) each.
            mask: (B, Ty) of real target words.
        """
        log_prob, entropy, baseline = (values[mask] for values in drawn)
        return {"reinforce": partial(self._loss, mask, log_prob, entropy, baseline)}

    def _loss(
        self, mask: Tensor, log_prob: Tensor, entropy: Tensor, baseline: Tensor, log_p: Tensor
    ) -> Tensor:
        """Return a scalar whose gradient is that of the draws, to be added to the summed loss.

        A draw has no gradient. Moving its log-probability along (reward - baseline) moves the
        expected loss downhill. Later words tell less and less about a draw but add their noise,
        so they may be discounted. The baseline is learned: the decoder state predicts the mean
        reward of a word to come. The value of the sum means nothing.
        """
        reward, left = rewards_to_go(log_p, mask, self.reinforce.discount)
        advantage = reward - left * baseline.detach()
        policy = -(advantage * log_prob).sum()
        error = (baseline - reward / left).square().sum()
        of_entropy = self.reinforce.entropy_weight * -entropy.sum()
        return self.reinforce.weight * policy + of_entropy + error / 2


def rewards_to_go(log_p: Tensor, mask: Tensor, discount: float) -> tuple[Tensor, Tensor]:
    """Return, per real target word i, sum_{k >= i} discount^(k-i) log p(y_k) (N,).

    The reward of a draw is the log-probability of the words from there on, since the drawn context
    enters the state; what came before cannot depend on it. Also returned is the same sum of ones
    (N,): how many words that reward is made of.

    Args:
        log_p: (N,) of real target words.
        mask: (B, Ty).
        discount: From word to word.
    """
    reward = log_p.new_zeros(mask.shape)
    reward[mask] = log_p
    left = mask.to(log_p.dtype)
    for i in reversed(range(mask.shape[1] - 1)):  # padding comes last and adds zero
        reward[:, i] += discount * reward[:, i + 1]
        left[:, i] += discount * left[:, i + 1]
    return reward[mask], left[mask]


def _at(source: Source, positions: Tensor) -> Tensor:
    """Return the values at positions (R,) of their sentences, (R, d)."""
    values, K = source.values, len(positions) // len(source.mask)
    rows = torch.arange(len(values), device=values.device)
    return values[rows.repeat_interleave(K) if K > 1 else rows, positions]
