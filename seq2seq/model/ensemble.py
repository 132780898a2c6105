"""Ensembles: several models, each with its own state, whose predictions are mixed into one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.output import LogitsPrediction, log_softmax
from seq2seq.model.protocols import Followed, Prediction, State, Stepper
from seq2seq.model.shortlist import Shortlist


@dataclass(frozen=True)
class Mixture:
    """The rule that mixes the members' predictions.

    p(y) = sum_m w_m p_m(y), or, with `of_logs`, log p(y) = sum_m w_m log p_m(y) + a constant that
    makes the probabilities sum to 1.
    """

    weights: Sequence[float]  # w_m, which sum to 1
    of_logs: bool

    def logits(self, log_probs: Sequence[Tensor]) -> Tensor:
        """Return the logits of the mixture from log p_m (any, K_y) of each member."""
        if self.of_logs:
            return self.mean(log_probs)
        p = self.mean([log_p.exp() for log_p in log_probs])
        if p.amin() >= torch.finfo(p.dtype).tiny:
            return p.log_()
        # Some p has underflowed: three times slower, and exact.
        terms = zip(self.weights, log_probs, strict=True)
        return torch.stack([log_p + math.log(w) for w, log_p in terms]).logsumexp(dim=0)

    def mean(self, values: Sequence[Tensor]) -> Tensor:
        """Return the weighted mean of a value of each member."""
        total = torch.zeros_like(values[0])
        for w, value in zip(self.weights, values, strict=True):
            total.add_(value, alpha=w)
        return total


class Ensemble(nn.Module):
    """A model for search and forced scoring, made of members with the same vocabularies.

    Attributes:
        shortlist: See `EncoderDecoder`; those of the members do not count.
    """

    shortlist: Shortlist | None = None

    def __init__(self, members: "Sequence[Decodable]", mixture: Mixture) -> None:
        super().__init__()
        self.members = cast("Sequence[Decodable]", nn.ModuleList(members))
        self.mixture = mixture

    def for_search(self, *, int8: bool = False) -> Stepper:
        """See `TranslationModel.for_search`."""
        steppers = [member.for_search(int8=int8) for member in self.members]
        return EnsembleStepper(steppers, self.mixture)

    def follow(self, src: Tensor, src_mask: Tensor, y: Tensor, y_mask: Tensor) -> Followed:
        """Run along targets y (B, Ty); `t` (N, K_y) already holds the logits."""
        every = [member.follow(src, src_mask, y, y_mask) for member in self.members]
        log_probs = [
            log_softmax(member.logits(followed.t))
            for member, followed in zip(self.members, every, strict=True)
        ]
        return Followed(
            t=self.mixture.logits(log_probs),
            weights=lambda: self.mixture.mean([followed.alpha for followed in every]),
        )

    def logits(self, t: Tensor) -> Tensor:
        """Return the logits of the mixture (N, K_y)."""
        return t


Decodable = EncoderDecoder | Ensemble
"""A model or an ensemble: anything that translates and scores."""


@dataclass(frozen=True)
class EnsembleState:
    """The states of all members before a step."""

    states: Sequence[State]

    def select(self, sentences: Tensor, slots: int, rows: Tensor) -> "EnsembleState":
        """See `State.select`."""
        return EnsembleState([state.select(sentences, slots, rows) for state in self.states])


@dataclass(frozen=True)
class EnsembleStepper:
    """A `Stepper` that combines the steppers of all members."""

    members: Sequence[Stepper]
    mixture: Mixture

    def begin(self, src: Tensor, mask: Tensor) -> EnsembleState:
        """Read source ids (B, Tx); the state has one hypothesis per sentence."""
        return EnsembleState([member.begin(src, mask) for member in self.members])

    def step(self, y: Tensor, state: Any) -> tuple[Prediction, EnsembleState]:
        """Predict the word after y (R,)."""
        pairs = zip(self.members, state.states, strict=True)
        predictions, states = zip(*(m.step(y, s) for m, s in pairs), strict=True)
        logits = self.mixture.logits([prediction.log_probs() for prediction in predictions])
        alpha = self.mixture.mean([prediction.alpha for prediction in predictions])
        return LogitsPrediction(logits, alpha), EnsembleState(states)
