"""Several models that predict as one: each goes on in its own state, and what they say is mixed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.output import LogitsPrediction, log_softmax
from seq2seq.model.protocols import Followed, Prediction, State, Stepper


@dataclass(frozen=True)
class Mixture:
    """How predictions become one.

    p(y) = sum_m w_m p_m(y), or, of logs, log p(y) = sum_m w_m log p_m(y) + a constant, by which
    the probabilities of all words sum to 1 again.
    """

    weights: Sequence[float]  # w_m; their sum is 1
    of_logs: bool

    def logits(self, log_probs: Sequence[Tensor]) -> Tensor:
        """Return the logits of the mixture from log p_m (any, K_y) of each member."""
        stacked = torch.stack(list(log_probs))
        w = stacked.new_tensor(self.weights)[:, None, None]
        return (w * stacked).sum(dim=0) if self.of_logs else (w.log() + stacked).logsumexp(dim=0)

    def alpha(self, alphas: Sequence[Tensor]) -> Tensor:
        """Return the mean of the members' attention."""
        return torch.stack([w * alpha for w, alpha in zip(self.weights, alphas, strict=True)]).sum(
            0
        )


class Ensemble(nn.Module):
    """What search and forced scoring know of a model, of members with the same vocabularies."""

    def __init__(self, members: "Sequence[Decodable]", mixture: Mixture) -> None:
        super().__init__()
        self.members = cast("Sequence[Decodable]", nn.ModuleList(members))
        self.mixture = mixture

    def for_search(self) -> Stepper:
        """Return what to search with while the weights stay as they are."""
        return EnsembleStepper([member.for_search() for member in self.members], self.mixture)

    def follow(self, src: Tensor, src_mask: Tensor, y: Tensor, y_mask: Tensor) -> Followed:
        """Run along targets y (B, Ty); `t` (N, K_y) is what `logits` returns."""
        every = [member.follow(src, src_mask, y, y_mask) for member in self.members]
        log_probs = [
            log_softmax(member.logits(followed.t))
            for member, followed in zip(self.members, every, strict=True)
        ]
        return Followed(
            t=self.mixture.logits(log_probs),
            weights=lambda: self.mixture.alpha([followed.alpha for followed in every]),
        )

    def logits(self, t: Tensor) -> Tensor:
        """Return the logits of the mixture (N, K_y)."""
        return t


Decodable = EncoderDecoder | Ensemble
"""What translates and scores."""


@dataclass(frozen=True)
class EnsembleState:
    """The states of all members before a step."""

    states: Sequence[State]

    def select(self, sentences: Tensor, slots: int, rows: Tensor) -> "EnsembleState":
        """Go on with some sentences, so many hypotheses each, made of these rows."""
        return EnsembleState([state.select(sentences, slots, rows) for state in self.states])


@dataclass(frozen=True)
class EnsembleStepper:
    """`Stepper` of those of all members."""

    members: Sequence[Stepper]
    mixture: Mixture

    def begin(self, src: Tensor, mask: Tensor) -> EnsembleState:
        """Read source ids (B, Tx); one hypothesis a sentence."""
        return EnsembleState([member.begin(src, mask) for member in self.members])

    def step(self, y: Tensor, state: Any) -> tuple[Prediction, EnsembleState]:
        """Predict the word after y (R,)."""
        pairs = zip(self.members, state.states, strict=True)
        predictions, states = zip(*(m.step(y, s) for m, s in pairs), strict=True)
        logits = self.mixture.logits([prediction.log_probs() for prediction in predictions])
        alpha = self.mixture.alpha([prediction.alpha for prediction in predictions])
        return LogitsPrediction(logits, alpha), EnsembleState(states)
