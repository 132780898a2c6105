"""An encoder of several recurrent layers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from seq2seq.model.backend import Backend
from seq2seq.model.dropout import Dropout
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.encoder import gates_along, pick
from seq2seq.model.initialization import Scheme
from seq2seq.model.protocols import Cell, Memory


class RecurrentLayer(nn.Module):
    """One unit per direction, over the input after dropout."""

    def __init__(
        self, units: Sequence[Cell], *, residual: bool, dropout: float, backend: Backend
    ) -> None:
        super().__init__()
        self.forward_unit, self.backward_unit = units[0], units[1] if len(units) == 2 else None
        self.residual, self.backend = residual, backend
        self.dropout = Dropout(dropout)

    @property
    def units(self) -> list[Cell]:
        """The forward and, if there is one, the backward unit."""
        return [unit for unit in (self.forward_unit, self.backward_unit) if unit is not None]

    def read(self, x: Tensor, mask: Tensor) -> list[Tensor]:
        """Return h_fwd and, with two units, h_bwd along x (B, Tx, any)."""
        return self.backend.read(self.units, self.dropout(x), mask)

    def join(self, x: Tensor, directions: Sequence[Tensor]) -> Tensor:
        """Return the output of the layer (B, Tx, d), from its input and its directions."""
        h = torch.cat([*directions], dim=-1)
        return x + h if self.residual else h


class StackedEncoder(nn.Module):
    """A stack of layers, all of width d, each of which reads the output of the layer below.

        h_{l,j} = [h_fwd_{l,j}; h_bwd_{l,j}] of layer l along x_l, or h_fwd_{l,j} alone
        x_1     = E x,  x_{l+1} = h_l,  or h_l + x_l for l > 1 with residuals

    Either every layer reads in both directions, n units each, or only the first does and the layers
    above it are forward units of d = 2n (Wu et al. 2016, 3.2). Dropout applies to x_l for l > 1,
    but not to its residual copy. The states of its memory are x_{L+1}; its summary is the final
    state of the last layer: h_bwd_{L,1} or, without a backward unit, h_fwd_{L,Tx}.
    """

    weight_groups: ClassVar[Mapping[str, str]] = {"embedding": "embeddings"}

    def __init__(
        self,
        embedding: WordEmbedding,
        layers: Sequence[RecurrentLayer],
        *,
        embedding_dropout: float,
        word_dropout: float,
        annotation_dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers = cast("Sequence[RecurrentLayer]", nn.ModuleList(layers))
        self.embedding_dropout = Dropout(embedding_dropout)
        self.word_dropout = Dropout(word_dropout)
        self.annotation_dropout = Dropout(annotation_dropout)
        last = layers[-1].units
        self.summary_size, self.state_size = last[-1].hidden_size, sum(u.hidden_size for u in last)

    @property
    def units(self) -> list[Cell]:
        """The units of all layers, from the first to the last."""
        return [unit for layer in self.layers for unit in layer.units]

    def initialize(self, scheme: Scheme) -> None:
        """Draw the embedding, then layer by layer the forward and the backward unit."""
        self.embedding.initialize(scheme)
        for unit in self.units:
            unit.initialize(scheme)

    def forward(self, src: Tensor, mask: Tensor) -> Memory:
        """Encode ids (B, Tx); `mask` (B, Tx) is True on real tokens."""
        x = self.embedding_dropout(self.word_dropout.of_words(self.embedding(src)))
        for layer in self.layers:
            h_fwd, *h_bwd = layer.read(x, mask)
            x = layer.join(x, [h_fwd, *h_bwd])  # (B, Tx, d)
        summary = h_bwd[0][:, 0] if h_bwd else pick(h_fwd, mask.sum(dim=1) - 1)
        return Memory(states=self.annotation_dropout(x), summary=summary, mask=mask)

    def probes(self, src: Tensor, memory: Memory) -> Mapping[str, Tensor]:
        """Return the gates of each layer, numbered from 1: `z1`, `r1`, `z2`, ..."""
        x, gates = self.embedding(src), dict[str, Tensor]()
        for number, layer in enumerate(self.layers, start=1):
            directions = layer.read(x, memory.mask)
            of_layer = gates_along(layer.units, x, directions, memory.mask)
            gates |= {f"{letter}{number}": values for letter, values in of_layer.items()}
            x = layer.join(x, directions)
        return gates
