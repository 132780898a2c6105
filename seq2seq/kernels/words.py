"""The best words by an output layer, whose logits may be rounded, for any decoder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seq2seq.kernels.choice import words_for
from seq2seq.kernels.matmul import compute_dtype, with_packed_weights, without_autocast
from seq2seq.kernels.native.search import NativeWords
from seq2seq.kernels.torch_search import TorchWords
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.protocols import Barred, Best, Prediction, State
from seq2seq.model.word_output import WordOutput, WordPrediction


class PackedSearch:
    """`Stepper` of a model whose decoder has no kernel: packs its weights, and finds the words.

    Args:
        model: In evaluation mode; later changes of its weights have no effect.
    """

    def __init__(self, model: EncoderDecoder) -> None:
        self.model = with_packed_weights(model)
        self.words: Words | None = None
        if isinstance(model.decoder, WordOutput):
            last = model.decoder.words_layer
            dtype = compute_dtype(last.weight)
            self.words = Words(words_for(last, dtype), dtype != last.weight.dtype)

    def begin(self, src: Tensor, mask: Tensor) -> State:
        """Read source ids (B, Tx)."""
        return self.model.begin(src, mask)

    def step(self, y: Tensor, state: Any) -> tuple[Prediction, State]:
        """Predict the word after y (R,)."""
        found, after = self.model.step(y, state)
        if self.words is None or not isinstance(found, WordPrediction):
            return found, after
        return FusedPrediction(self.words, found.input_of_last(), found.alpha), after


@dataclass(frozen=True)
class Words:
    """An output layer to search."""

    engine: TorchWords | NativeWords
    rounds: bool  # logits, which are then recomputed for the best words

    @property
    def last(self) -> nn.Linear:
        """The layer."""
        return self.engine.last


@dataclass(frozen=True)
class FusedPrediction:
    """A `Prediction` that computes its logits on demand."""

    words: Words
    t: Tensor  # (R, l or rank) input of the last layer
    alpha: Tensor  # (R, Tx)

    @without_autocast
    def log_probs(self) -> Tensor:
        """Return log p of every word (R, K_y), in the dtype of the weights."""
        return torch.log_softmax(self.words.last(self.t), dim=-1)

    @without_autocast
    def best(self, count: int, barred: Barred, lists: Tensor | None = None) -> Best:
        """See `Prediction.best`."""
        engine = self.words.engine
        find = partial(engine.best, self.t, barred=barred)
        if lists is not None:  # always in the dtype of the weights
            values, words, log_sum = engine.best_listed(self.t, lists, count, barred)
        elif self.words.rounds:
            return rescored(find, partial(engine.logits_of, self.t), count)
        else:
            values, words, log_sum = find(count)
        return Best(values - log_sum, words)


def rescored(
    find: Callable[[int], tuple[Tensor, Tensor, Tensor]],
    exact: Callable[[Tensor], Tensor],
    count: int,
) -> Best:
    """Return the best words by exact logits, where `find` only has rounded ones.

    Rounded logits suffice to find candidates that include the best words, and for the probability
    of all other words.

    Args:
        find: Returns the k best logits, their words (R, k) and the log-sum-exp of all (R, 1).
        exact: Computes the exact logits of words (R, k).
        count: Number of words per row, capped at the number of candidates.
    """
    rounded, words, log_sum = find(2 * count)
    logits = exact(words).float().masked_fill(rounded == -torch.inf, -torch.inf)
    others = 1 - (rounded - log_sum).exp().sum(dim=-1, keepdim=True)
    log_sum = log_sum + (others.clamp_min(0) + (logits - log_sum).exp().sum(-1, keepdim=True)).log()
    values, order = logits.topk(min(count, logits.shape[1]), dim=-1)
    return Best(values - log_sum, words.gather(1, order))
