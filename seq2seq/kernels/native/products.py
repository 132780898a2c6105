"""Weights as the programs in C multiply by them."""

import torch
from torch import Tensor

from seq2seq.kernels.native.build import Programs

_PANEL = 64
"""PANEL of products.h."""


def laid_out(
    programs: Programs, weight: Tensor, narrow: torch.dtype, *, forth: bool = True
) -> Tensor:
    """Return weights (..., j, i) for products x W' with factors of a format, or back for x W."""
    parts = weight.flatten(0, -3) if weight.dim() > 2 else weight[None]
    D, j, i = parts.shape
    K, N = (i, j) if forth else (j, i)
    pairs = narrow is torch.bfloat16
    room = -(-N // _PANEL) * _PANEL * (K + K % 2 if pairs else K)
    found = weight.new_empty(D, room, dtype=narrow)
    for part, to in zip(parts, found, strict=True):
        programs("lay_out", part.contiguous(), forth, pairs, to, K, N)
    return found
