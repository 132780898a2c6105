"""An encoder and a decoder as one model: the paper's, or any others with the same interfaces."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from seq2seq.model.backend import Backend
from seq2seq.model.initialization import Scheme
from seq2seq.model.protocols import Decoder, Encoder, Followed, Prediction, Probes, State, Stepper
from seq2seq.model.shortlist import Shortlist
from seq2seq.run.errors import ConfigError


class EncoderDecoder(nn.Module):
    """A `TranslationModel` made of an encoder and a decoder.

    Attributes:
        shortlist: Restricts the searches of `decoding.translate`, if there is one.
    """

    shortlist: Shortlist | None = None

    def __init__(self, encoder: Encoder, decoder: Decoder, backend: Backend) -> None:
        super().__init__()
        self.encoder, self.decoder, self.backend = encoder, decoder, backend
        self.num_words = decoder.num_words

    @torch.no_grad()
    def initialize(self, scheme: Scheme) -> None:
        """Draw the weights of the encoder, then of the decoder."""
        self.encoder.initialize(scheme)
        self.decoder.initialize(scheme)

    def begin(self, src: Tensor, mask: Tensor) -> State:
        """Read source ids (B, Tx); the state has one hypothesis per sentence."""
        return self.decoder.begin(self.encoder(src, mask))

    def step(self, y: Tensor, state: Any) -> tuple[Prediction, State]:
        """Predict the word after y (R,)."""
        return self.decoder.step(y, state)

    def for_search(self, *, int8: bool = False) -> Stepper:
        """See `TranslationModel.for_search`.

        Raises:
            ConfigError: this model has no search in 8 bits.
            PlatformError: this machine has none.
        """
        found = self.backend.for_search(self.encoder, self.decoder, int8=int8)
        if found is None and int8:
            what = "decode.precision=int8 needs the paper's unit, additive attention, fused kernels"
            raise ConfigError("config", what, "Use decode.precision=bf16.")
        return found or self.backend.packed(self)

    def follow(self, src: Tensor, src_mask: Tensor, y: Tensor, y_mask: Tensor) -> Followed:
        """Run along targets y (B, Ty): each word is predicted from the source and the prefix."""
        memory = self.encoder(src, src_mask)
        followed = self.decoder.follow(memory, y, y_mask)
        return replace(followed, maps=lambda: {**memory.maps(), **followed.maps()})

    def logits(self, t: Tensor) -> Tensor:
        """Return the logits (N, K_y) of t (N, l)."""
        return self.decoder.logits(t)

    def output_loss(
        self, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Return the summed -log p of targets (N,), and the same with smoothed targets."""
        return self.decoder.output_loss(t, targets, label_smoothing)

    def probes(self, src: Tensor, src_mask: Tensor, y: Tensor, y_mask: Tensor) -> Probes:
        """Return gates as `encoder_z`, `decoder_z`, ..., and alpha along targets."""
        memory = self.encoder(src, src_mask)
        of_encoder = self.encoder.probes(src, memory)
        of_decoder = self.decoder.probes(memory, y, y_mask)
        gates = {f"encoder_{letter}": (x, src_mask) for letter, x in of_encoder.items()}
        gates |= {f"decoder_{letter}": x for letter, x in of_decoder.gates.items()}
        return Probes(gates, of_decoder.alpha)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings of source words (K_x, m) and of target words (K_y, m)."""
        return self.encoder.embedding.E.weight, self.decoder.embedding.E.weight
