"""Hard (stochastic) attention, trained with REINFORCE as in Xu et al. 2015, 4.1."""

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
    """Coefficients of the loss terms of hard attention."""

    weight: float
    discount: float
    entropy_weight: float


class HardAttention(AdditiveAttention, Drawing):
    """Stochastic attention to one position, Xu et al. 2015, 4.1, over the paper's energies.

    In training the context is one annotation, drawn with probabilities alpha_i; for a share of
    the steps (`soft_share`, their variance reduction) it is the expectation. The draw has no
    gradient: the `reinforce` loss learns from its log-probability. At test time the context is
    the most likely annotation, or the expectation. `alpha` is always the distribution. In
    training the attention's state is the step number.
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
        if not self.training:
            return super().forward(query, source)
        alpha = self.weigh(query, source)
        expected = expectation(alpha, source)
        step = query.new_zeros(len(query), 1, dtype=torch.int64) if state is None else state
        position, soft = self.draw(alpha.detach(), step)
        c = torch.where(soft[:, None], expected, _at(source, position))
        log_alpha = alpha.clamp_min(torch.finfo(alpha.dtype).tiny).log()
        log_prob = log_alpha.gather(1, position[:, None]).squeeze(1)
        drawn = (
            torch.where(soft, 0.0, log_prob),  # steps that take the expectation draw nothing
            -(alpha * log_alpha).sum(dim=-1),
            self.baseline(query.detach()).squeeze(-1),
        )
        return Attended(c, alpha, step + 1, draw=Draw(drawn, self.losses))

    def attended(self, alpha: Tensor, source: Source, state: Tensor | None = None) -> Attended:
        """Return the context at test time."""
        if self.take_most_likely:
            return Attended(_at(source, alpha.argmax(dim=-1)), alpha)
        return super().attended(alpha, source)

    def draw(self, alpha: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Return a position (R,) for each row of alpha (R, Tx), and where to take the expectation.

        A row is a sentence, with two draws at each `step` (R, 1): the first decides between
        position and expectation, the second picks the position by the cumulative sums of alpha.
        """
        sentences = torch.arange(len(alpha), device=alpha.device)
        draws = self.uniform(sentences, 2 * step.squeeze(1), 2)
        sums = alpha.double().cumsum(dim=-1)
        chosen = torch.searchsorted(sums, draws[:, 1:] * sums[:, -1:], right=True)
        return chosen.squeeze(1), draws[:, 0] < self.soft_share

    def losses(self, drawn: Sequence[Tensor], mask: Tensor) -> Mapping[str, LossTerm]:
        """Return the `reinforce` loss of log-probability, entropy and baseline, (B, Ty) each."""
        log_prob, entropy, baseline = (values[mask] for values in drawn)
        return {"reinforce": partial(self._loss, mask, log_prob, entropy, baseline)}

    def _loss(
        self, mask: Tensor, log_prob: Tensor, entropy: Tensor, baseline: Tensor, log_p: Tensor
    ) -> Tensor:
        """Return a surrogate loss () for the draws, to be added to the summed loss.

        Its gradient estimates that of the expected loss: each draw's log-probability is weighted
        by (reward - baseline). Later words say less about a draw and add noise, so they may be
        discounted. The baseline is learned: it predicts, from the decoder state, the mean reward
        of a word to come. Only the gradient has a meaning, not the value.
        """
        reward, left = rewards_to_go(log_p, mask, self.reinforce.discount)
        advantage = reward - left * baseline.detach()
        policy = -(advantage * log_prob).sum()
        error = (baseline - reward / left).square().sum()
        of_entropy = self.reinforce.entropy_weight * -entropy.sum()
        return self.reinforce.weight * policy + of_entropy + error / 2


def rewards_to_go(log_p: Tensor, mask: Tensor, discount: float) -> tuple[Tensor, Tensor]:
    """Return, per real target word i, sum_{k >= i} discount^(k-i) log p(y_k) (N,).

    The reward of a draw is the log-probability of the words from there on, because the drawn
    context enters the state and earlier words cannot depend on it. Also returned is the same sum
    over ones (N,), the discounted number of words in that reward. `mask` (B, Ty) is True on real
    words, those of log_p (N,).
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
    values, K = source.values, positions.shape[0] // source.mask.shape[0]
    rows = torch.arange(values.shape[0], device=values.device)
    return values[rows.repeat_interleave(K) if K > 1 else rows, positions]
