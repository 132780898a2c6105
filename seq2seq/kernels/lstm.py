"""Runs LSTMs over whole sequences with torch's own C++ loop, which skips padding."""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from seq2seq.model.lstm import LSTMCell


def is_plain(unit: object) -> TypeGuard[LSTMCell]:
    """Return whether torch's loop supports a unit: no LayerNorm, no dropout, and an input."""
    return (
        isinstance(unit, LSTMCell)
        and unit.__class__ is LSTMCell
        and unit.W is not None
        and isinstance(unit.norm_m, torch.nn.Identity)
        and unit.recurrent_dropout.p == 0
    )


def read_lstm(
    units: Sequence[LSTMCell], x: Tensor, mask: Tensor, start: Tensor | None = None
) -> list[Tensor]:
    """See `recurrence.read`; 0 at padding. Matmuls are in the dtype of the weights."""
    weights = [w for unit in units for w in _weights(unit)]
    exact = weights[0].dtype
    with torch.autocast(x.device.type, enabled=False):
        # Packed inputs, and initial states in the packed order
        lengths = mask.sum(dim=1).cpu()
        packed = pack_padded_sequence(x.to(exact), lengths, batch_first=True, enforce_sorted=False)
        m_0 = x.new_zeros(len(units), len(x), units[0].hidden_size, dtype=exact)
        h_0 = m_0
        if start is not None:
            h_0 = start.to(exact)[packed.sorted_indices].expand_as(m_0).contiguous()
        # One call for both directions
        both = len(units) == 2
        settings = True, 1, 0.0, units[0].training, both  # biases; one layer, so no dropout
        h, *_ = torch.lstm(packed.data, packed.batch_sizes, (h_0, m_0), weights, *settings)
        states = PackedSequence(h, *packed[1:])
        padded, _ = pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
    return list(padded.chunk(len(units), dim=-1))


def _weights(unit: LSTMCell) -> list[Tensor]:
    """Return W, U and the biases of both, in torch's order."""
    assert unit.W is not None
    return [unit.W.weight, unit.U.weight, unit.b, torch.zeros_like(unit.b)]
