"""Search among a short list of target words for each sentence, chosen by its source words.

A list depends on its sentence alone, so translations do not depend on the batch. Probabilities are
normalised over the list: p(y) / sum of p over its words.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seq2seq.model.output import log_softmax
from seq2seq.model.protocols import Barred, Best, Prediction, State, Stepper

_LOWEST = torch.iinfo(torch.int64).min


@dataclass(frozen=True)
class Shortlist:
    """Chooses the words of each sentence by their ranks.

    The most frequent words are in every list. Then come the words with the largest probability
    given any source word and, if there are not enough, the next frequent ones.
    """

    size: int  # N, fewer than K_y
    ranks: Tensor  # (K_y,) int64  of words that no source word suggests; a larger one is better
    words: Tensor  # (K_x, k) int64  the words that a source word suggests
    gains: Tensor  # (K_x, k) int64  their ranks then

    @classmethod
    def of(cls, size: int, order: Tensor, words: Tensor, probabilities: Tensor) -> "Shortlist":
        """Make a shortlist; equal probabilities are ordered by id.

        Args:
            size: N, less than K_y.
            order: (K_y,) all target words, those of every list first (a quarter of N), then by
                frequency.
            words: (K_x, k) those that a source word suggests.
            probabilities: (K_x, k) float32, theirs, from 0 to 1.
        """
        num_words = len(order)
        places = torch.arange(num_words)
        always = places < size // 4
        ranks = torch.empty(num_words, dtype=torch.int64)
        ranks[order] = torch.where(always, torch.iinfo(torch.int64).max - places, -1 - places)
        # The bits of floats that are not negative are in the order of their values.
        bits = probabilities.contiguous().view(torch.int32).long()
        gains = (bits << 32) + num_words - words
        return cls(size, ranks, words, gains.masked_fill(probabilities == 0, _LOWEST))

    def to(self, device: torch.device) -> "Shortlist":
        """Return the same on a device."""
        moved = (x.to(device) for x in (self.ranks, self.words, self.gains))
        return Shortlist(self.size, *moved)

    def lists(self, src: Tensor, mask: Tensor) -> Tensor:
        """Return the ids (B, N), ascending, for each sentence of source ids (B, Tx)."""
        gains = self.gains[src].masked_fill(~mask[..., None], _LOWEST)
        ranks = self.ranks.expand(len(src), -1).clone()
        ranks.scatter_reduce_(1, self.words[src].flatten(1), gains.flatten(1), "amax")
        return ranks.topk(self.size, dim=-1).indices.sort(dim=-1).values


@dataclass(frozen=True)
class ShortlistState:
    """The state of the inner stepper, with the lists of the sentences."""

    inner: State
    lists: Tensor  # (B, N)

    def select(self, sentences: Tensor, slots: int, rows: Tensor) -> "ShortlistState":
        """See `State.select`."""
        own = self.lists if len(sentences) == len(self.lists) else self.lists[sentences]
        return ShortlistState(self.inner.select(sentences, slots, rows), own)


@dataclass(frozen=True)
class ShortlistStepper:
    """A `Stepper` whose predictions are restricted to the lists of a shortlist."""

    inner: Stepper
    shortlist: Shortlist

    def begin(self, src: Tensor, mask: Tensor) -> ShortlistState:
        """Read source ids (B, Tx); the state has one hypothesis per sentence."""
        return ShortlistState(self.inner.begin(src, mask), self.shortlist.lists(src, mask))

    def step(self, y: Tensor, state: Any) -> tuple["ShortlistPrediction", ShortlistState]:
        """Predict the word after y (R,)."""
        prediction, inner = self.inner.step(y, state.inner)
        return ShortlistPrediction(prediction, state.lists), replace(state, inner=inner)


@dataclass(frozen=True)
class ShortlistPrediction:
    """A `Prediction` in which words outside the list of their sentence have no probability."""

    inner: Prediction
    lists: Tensor  # (B, N)

    @property
    def alpha(self) -> Tensor:
        """Attention (R, Tx)."""
        return self.inner.alpha

    def log_probs(self) -> Tensor:
        """Return log p of every word (R, K_y)."""
        log_p = self.inner.log_probs()
        words = self.lists.repeat_interleave(len(log_p) // len(self.lists), dim=0)
        listed = log_softmax(log_p.gather(1, words))
        return torch.full_like(log_p, -torch.inf).scatter_(1, words, listed)

    def best(self, count: int, barred: Barred, lists: Tensor | None = None) -> Best:
        """See `Prediction.best`."""
        assert lists is None, "one list of a sentence is enough"
        return self.inner.best(count, barred, self.lists)
