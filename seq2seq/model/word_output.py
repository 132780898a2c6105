"""The base class of all decoders: the output layer W_o, from the last hidden state to words."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq.model.backend import Backend
from seq2seq.model.output import LogitsPrediction
from seq2seq.model.protocols import Barred, Best


class WordOutput(nn.Module):
    """`OutputLayer` of a decoder with W_o, one linear layer or a sequence of them."""

    W_o: nn.Module
    backend: Backend

    @property
    def words_layer(self) -> nn.Linear:
        """The last layer of W_o, whose rows are words."""
        return self._layers()[-1]

    @property
    def layers_before(self) -> Sequence[nn.Linear]:
        """The layers of W_o before it."""
        return self._layers()[:-1]

    def _layers(self) -> list[nn.Linear]:
        return [part for part in self.W_o.modules() if isinstance(part, nn.Linear)]

    def logits(self, t: Tensor) -> Tensor:
        """Return W_o t + b (..., K_y)."""
        logits: Tensor = self.W_o(t)
        return logits

    def exact_logits(self, t: Tensor) -> Tensor:
        """Return the logits in the dtype of the weights, even under low-precision autocast."""
        with torch.autocast(t.device.type, enabled=False):
            return self.logits(t.to(self.words_layer.weight.dtype))

    def prediction(self, t: Tensor, alpha: Tensor) -> "WordPrediction":
        """Return the prediction of a step, given t (R, l) and the attention weights (R, Tx)."""
        return WordPrediction(self, t, alpha)

    def output_loss(
        self, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Return the summed -log p of targets (N,) given t (N, l), without and with smoothing."""
        return self.backend.output_loss(self.W_o, t, targets, label_smoothing)


@dataclass(frozen=True)
class WordPrediction:
    """A `Prediction` that computes all logits when they are asked for."""

    output: WordOutput
    t: Tensor  # (R, l)
    alpha: Tensor  # (R, Tx)

    def input_of_last(self) -> Tensor:
        """Return the input of the last layer of W_o, in the dtype of the weights."""
        t = self.t.to(self.output.words_layer.weight.dtype)
        with torch.autocast(t.device.type, enabled=False):
            for layer in self.output.layers_before:
                t = layer(t)
        return t

    def _logits(self) -> LogitsPrediction:
        return LogitsPrediction(self.output.exact_logits(self.t), self.alpha)

    def log_probs(self) -> Tensor:
        """Return log p of every word (R, K_y)."""
        return self._logits().log_probs()

    def best(self, count: int, barred: Barred, lists: Tensor | None = None) -> Best:
        """See `Prediction.best`."""
        return self._logits().best(count, barred, lists)
