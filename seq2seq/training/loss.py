"""The cost of a batch: nats summed over real target tokens, and what it is divided by."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from seq2seq.config import Normalize
from seq2seq.data.batching import Batch
from seq2seq.model import DecoderOutput


@dataclass(frozen=True)
class Loss:
    """Cost of a batch in nats, summed over target tokens, end symbols included."""

    nll: Tensor  # ()  -log p of the references
    smoothed: Tensor  # ()  the same against smoothed targets; equals nll without smoothing
    sentences: int
    words: int

    def objective(self, normalize: Normalize) -> Tensor:
        """Return what the gradient is taken of.

        The authors take the sum over all words of the batch; clipping at norm 1 then acts on
        nearly every update.
        """
        match normalize:
            case Normalize.none:
                return self.smoothed
            case Normalize.sentences:
                return self.smoothed / self.sentences
            case Normalize.words:
                return self.smoothed / self.words


def nll(output: DecoderOutput, batch: Batch, label_smoothing: float = 0.0) -> Loss:
    """Return the cost of predictions made along the targets of a batch."""
    targets = batch.tgt[batch.tgt_mask]  # (N,)
    log_p = F.log_softmax(output.logits.float(), dim=-1)  # (N, K_y)
    total = F.nll_loss(log_p, targets, reduction="sum")
    smoothed = total
    if label_smoothing:
        spread = -log_p.mean(dim=-1).sum()
        smoothed = (1 - label_smoothing) * total + label_smoothing * spread
    return Loss(total, smoothed, batch.num_sentences, len(targets))
