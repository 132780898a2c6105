"""The base class of all decoders: the output layer W_o, from the last hidden state to words."""

import torch
from torch import Tensor, nn

from seq2seq.model.backend import Backend


class WordOutput(nn.Module):
    """`OutputLayer` of a decoder with W_o, one linear layer or a sequence of them."""

    W_o: nn.Module
    backend: Backend

    @property
    def words_layer(self) -> nn.Linear:
        """The last layer of W_o, whose rows are words."""
        [*_, last] = (part for part in self.W_o.modules() if isinstance(part, nn.Linear))
        return last

    def logits(self, t: Tensor) -> Tensor:
        """Return W_o t + b (..., K_y)."""
        logits: Tensor = self.W_o(t)
        return logits

    def exact_logits(self, t: Tensor) -> Tensor:
        """Return the logits in the dtype of the weights, even under low-precision autocast."""
        with torch.autocast(t.device.type, enabled=False):
            return self.logits(t.to(self.words_layer.weight.dtype))

    def output_loss(
        self, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Return the summed -log p of targets (N,) given t (N, l), without and with smoothing."""
        return self.backend.output_loss(self.W_o, t, targets, label_smoothing)
