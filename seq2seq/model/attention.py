"""The attention family: one protocol, (query, keys, values, mask) -> (context, weights).

Outside this file the words are *query* (decoder state before the word is emitted), *keys*
(projected annotations) and *values* (annotations). Inside each class the letters are the paper's.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from seq2seq.model.encoder import Encoded


@dataclass(frozen=True)
class Annotations:
    """What the source leaves for the decoder; computed once per sentence."""

    keys: Tensor  # (B, Tx, n')    projected annotations, U_a h_j in A.1.2
    values: Tensor  # (B, Tx, 2n)  annotations h_j, Eq. (7)
    start: Tensor  # (B, n)        what s_0 is made from
    mask: Tensor  # (B, Tx)        bool, True on real tokens

    def select(self, rows: Tensor) -> "Annotations":
        """Return the given sentences, in the given order; rows may repeat."""
        return Annotations(self.keys[rows], self.values[rows], self.start[rows], self.mask[rows])


@dataclass(frozen=True)
class Attended:
    """What one look at the source gives."""

    c: Tensor  # (B, 2n)     expected annotation, Eq. (5)
    alpha: Tensor  # (B, Tx) weights, Eq. (6); rows sum to 1, 0 on padding


class Attention(Protocol):
    """Any way to look at the source."""

    context_size: int  # width of c

    def annotate(self, encoded: Encoded) -> Annotations:
        """Project the annotations once per sentence."""
        ...

    def __call__(self, query: Tensor, source: Annotations) -> Attended:
        """Look at the source with a query (B, n)."""
        ...


class AdditiveAttention(nn.Module):
    """Alignment model and expected annotation, A.1.2 and Eqs. (5)-(6). No biases.

    e_ij     = v_a' tanh(W_a s_{i-1} + U_a h_j)
    alpha_ij = exp(e_ij) / sum_k exp(e_ik)          (6)
    c_i      = sum_j alpha_ij h_j                   (5)
    """

    def __init__(self, query_size: int, annotation_size: int, align_size: int) -> None:
        super().__init__()
        self.context_size = annotation_size
        # (n', n): A.1.2 prints (n, n), which only fits because both are 1000 there; see A.2.2.
        self.W_a = nn.Linear(query_size, align_size, bias=False)
        self.U_a = nn.Linear(annotation_size, align_size, bias=False)
        self.v_a = nn.Linear(align_size, 1, bias=False)

    def annotate(self, encoded: Encoded) -> Annotations:
        """Compute U_a h_j, which does not depend on i (A.1.2, last paragraph)."""
        return Annotations(self.U_a(encoded.h), encoded.h, encoded.start, encoded.mask)

    def forward(self, query: Tensor, source: Annotations) -> Attended:
        """Look at the source with s_{i-1} (B, n)."""
        hidden = torch.tanh(self.W_a(query)[:, None] + source.keys)  # (B, Tx, n')
        energy = self.v_a(hidden).squeeze(-1)  # (B, Tx)
        alpha = masked_softmax(energy, source.mask)
        c = torch.bmm(alpha[:, None].to(source.values.dtype), source.values).squeeze(1)
        return Attended(c, alpha)


def masked_softmax(energy: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where `mask` is True, exactly 0 elsewhere, in float32 up.

    Every row needs one True: a source always has its end symbol.
    """
    wide = torch.promote_types(energy.dtype, torch.float32)
    return torch.softmax(energy.to(wide).masked_fill(~mask, -torch.inf), dim=-1)
