"""The bidirectional encoder, A.2.1."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq.model.dropout import Dropout
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.gated_unit import GatedUnit


@dataclass(frozen=True)
class Encoded:
    """What the encoder says about a batch of source sentences."""

    h: Tensor  # (B, Tx, 2n)  annotations h_j = [h_fwd_j; h_bwd_j], Eq. (7); RNNencdec: h_fwd_j
    start: Tensor  # (B, n)   what s_0 is made from: h_bwd_1; RNNencdec: h_fwd_Tx
    mask: Tensor  # (B, Tx)   bool, True on real tokens, end symbol included


Read = Callable[[Sequence[GatedUnit], Tensor, Tensor], list[Tensor]]
"""Runs the forward and, if there is one, the backward unit over E x (B, Tx, m), mask (B, Tx)."""


class RecurrentEncoder(nn.Module):
    """Two gated units that read the source in both directions, sharing one embedding, A.2.1.

    h_fwd_j = unit(E x_j, h_fwd_{j-1}),  h_fwd_0      = 0
    h_bwd_j = unit(E x_j, h_bwd_{j+1}),  h_bwd_{Tx+1} = 0
    h_j     = [h_fwd_j; h_bwd_j]                                  (7)

    Without a backward unit it is the encoder of the RNNencdec, the paper's baseline.
    """

    def __init__(
        self,
        embedding: WordEmbedding,
        forward_unit: GatedUnit,
        backward_unit: GatedUnit | None,
        *,
        embedding_dropout: float,
        annotation_dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.forward_unit = forward_unit
        self.backward_unit = backward_unit
        self.embedding_dropout = Dropout(embedding_dropout)
        self.annotation_dropout = Dropout(annotation_dropout)
        self.read: Read = read  # `kernels.read_fused` gives the same, faster

    def forward(self, src: Tensor, mask: Tensor) -> Encoded:
        """Encode ids (B, Tx); `mask` (B, Tx) is True on real tokens."""
        Ex = self.embedding_dropout(self.embedding(src))  # (B, Tx, m)
        units = [self.forward_unit] + ([self.backward_unit] if self.backward_unit else [])
        h_fwd, *h_bwd = self.read(units, Ex, mask)
        start = h_bwd[0][:, 0] if h_bwd else pick(h_fwd, mask.sum(dim=1) - 1)
        h = self.annotation_dropout(torch.cat([h_fwd, *h_bwd], dim=-1))  # (B, Tx, 2n)
        return Encoded(h=h, start=start, mask=mask)


def read(units: Sequence[GatedUnit], Ex: Tensor, mask: Tensor) -> list[Tensor]:
    """Return h_fwd and, if there are two units, h_bwd, (B, Tx, n) each."""
    positions = range(mask.shape[1])
    orders = (positions, reversed(positions))
    return [run_unit(unit, Ex, mask, order) for unit, order in zip(units, orders, strict=False)]


def run_unit(unit: GatedUnit, Ex: Tensor, mask: Tensor, order: Iterable[int]) -> Tensor:
    """Run a unit over the positions in `order` and return its states (B, Tx, n), by position.

    A padded position copies the state, so the backward pass is still 0 when it meets the last
    real word.
    """
    projected = unit.project(Ex)  # (B, Tx, 3n)
    h = Ex.new_zeros(len(Ex), unit.hidden_size)
    states: dict[int, Tensor] = {}
    for j in order:
        h = torch.where(mask[:, j, None], unit(projected[:, j], h), h)
        states[j] = h
    return torch.stack([states[j] for j in range(Ex.shape[1])], dim=1)


def pick(values: Tensor, positions: Tensor) -> Tensor:
    """Return one position (B,) of each sentence, (B, d) of (B, Tx, d)."""
    return values[torch.arange(len(values), device=values.device), positions]
