"""The paper's bidirectional encoder, A.2.1."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from seq2seq.model.backend import Backend
from seq2seq.model.dropout import Dropout
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.initialization import Scheme
from seq2seq.model.protocols import Cell, Memory


class RecurrentEncoder(nn.Module):
    """Two recurrent units that read the source in both directions, sharing one embedding, A.2.1.

    h_fwd_j = unit(E x_j, h_fwd_{j-1}),  h_fwd_0      = 0
    h_bwd_j = unit(E x_j, h_bwd_{j+1}),  h_bwd_{Tx+1} = 0
    h_j     = [h_fwd_j; h_bwd_j]                                  (7)

    The states of its memory are the annotations h_j (B, Tx, 2n); its summary is h_bwd_1. Without a
    backward unit it is the encoder of the RNNencdec, the paper's baseline: states h_fwd_j and
    summary h_fwd_Tx.
    """

    weight_groups: ClassVar[Mapping[str, str]] = {"embedding": "embeddings"}

    def __init__(
        self,
        embedding: WordEmbedding,
        forward_unit: Cell,
        backward_unit: Cell | None,
        *,
        backend: Backend,
        embedding_dropout: float,
        word_dropout: float,
        annotation_dropout: float,
    ) -> None:
        super().__init__()
        self.embedding, self.backend = embedding, backend
        self.forward_unit, self.backward_unit = forward_unit, backward_unit
        self.embedding_dropout = Dropout(embedding_dropout)
        self.word_dropout = Dropout(word_dropout)
        self.annotation_dropout = Dropout(annotation_dropout)
        self.summary_size = forward_unit.hidden_size
        self.state_size = len(self.units) * forward_unit.hidden_size

    @property
    def units(self) -> list[Cell]:
        """The forward and, if there is one, the backward unit."""
        return [unit for unit in (self.forward_unit, self.backward_unit) if unit is not None]

    def initialize(self, scheme: Scheme) -> None:
        """Draw embedding, forward unit, backward unit."""
        self.embedding.initialize(scheme)
        for unit in self.units:
            unit.initialize(scheme)

    def forward(self, src: Tensor, mask: Tensor) -> Memory:
        """Encode ids (B, Tx); `mask` (B, Tx) is True on real tokens."""
        words = self.word_dropout.of_words(self.embedding(src))
        Ex = self.embedding_dropout(words)  # (B, Tx, m)
        h_fwd, *h_bwd = self.backend.read(self.units, Ex, mask)
        summary = h_bwd[0][:, 0] if h_bwd else pick(h_fwd, mask.sum(dim=1) - 1)
        h = self.annotation_dropout(torch.cat([h_fwd, *h_bwd], dim=-1))  # (B, Tx, 2n)
        return Memory(states=h, summary=summary, mask=mask)

    def probes(self, src: Tensor, memory: Memory) -> Mapping[str, Tensor]:
        """Return the gates of both units, concatenated, at all positions."""
        directions = memory.states.split(self.summary_size, dim=-1)
        return gates_along(self.units, self.embedding(src), directions, memory.mask)


def gates_along(
    units: Sequence[Cell], x: Tensor, directions: Sequence[Tensor], mask: Tensor
) -> Mapping[str, Tensor]:
    """Return the gates of one or two units, concatenated, from inputs and outputs (B, Tx, any)."""
    # Each direction starts from 0. Outputs at padding are undefined, so they are zeroed first.
    h_fwd, *h_bwd = (torch.where(mask[..., None], h, 0.0) for h in directions)
    before = [functional.pad(h_fwd, (0, 0, 1, -1))]
    before += [functional.pad(states, (0, 0, -1, 1)) for states in h_bwd]
    gates = [u.gates(u.project(x), h) for u, h in zip(units, before, strict=True)]
    return {k: torch.cat([each[k] for each in gates], dim=-1) for k in gates[0]}


def pick(values: Tensor, positions: Tensor) -> Tensor:
    """Return the values (B, d) at one position (B,) of each sentence, from (B, Tx, d)."""
    return values[torch.arange(values.shape[0], device=values.device), positions]
