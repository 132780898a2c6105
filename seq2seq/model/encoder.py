"""The bidirectional encoder, A.2.1."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.gated_unit import GatedUnit


@dataclass(frozen=True)
class Encoded:
    """What the encoder says about a batch of source sentences."""

    h: Tensor  # (B, Tx, 2n)  annotations h_j = [h_fwd_j; h_bwd_j], Eq. (7)
    start: Tensor  # (B, n)   what s_0 is made from: h_bwd_1
    mask: Tensor  # (B, Tx)   bool, True on real tokens, end symbol included


Read = Callable[[GatedUnit, GatedUnit, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Runs the forward and the backward unit over E x (B, Tx, m) with its mask (B, Tx)."""


class RecurrentEncoder(nn.Module):
    """Two gated units that read the source in both directions, sharing one embedding, A.2.1.

    h_fwd_j = unit(E x_j, h_fwd_{j-1}),  h_fwd_0      = 0
    h_bwd_j = unit(E x_j, h_bwd_{j+1}),  h_bwd_{Tx+1} = 0
    h_j     = [h_fwd_j; h_bwd_j]                                  (7)
    """

    def __init__(
        self,
        embedding: WordEmbedding,
        forward_unit: GatedUnit,
        backward_unit: GatedUnit,
        *,
        embedding_dropout: float,
        annotation_dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.forward_unit = forward_unit
        self.backward_unit = backward_unit
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.annotation_dropout = nn.Dropout(annotation_dropout)
        self.read: Read = read  # `kernels.read_fused` gives the same, faster

    def forward(self, src: Tensor, mask: Tensor) -> Encoded:
        """Encode ids (B, Tx); `mask` (B, Tx) is True on real tokens."""
        Ex = self.embedding_dropout(self.embedding(src))  # (B, Tx, m)
        h_fwd, h_bwd = self.read(self.forward_unit, self.backward_unit, Ex, mask)
        h = self.annotation_dropout(torch.cat([h_fwd, h_bwd], dim=-1))  # (B, Tx, 2n)
        return Encoded(h=h, start=h_bwd[:, 0], mask=mask)


def read(
    forward_unit: GatedUnit, backward_unit: GatedUnit, Ex: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Return h_fwd and h_bwd, (B, Tx, n) each."""
    positions = range(mask.shape[1])
    h_fwd = run_unit(forward_unit, Ex, mask, positions)
    h_bwd = run_unit(backward_unit, Ex, mask, reversed(positions))
    return h_fwd, h_bwd


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
