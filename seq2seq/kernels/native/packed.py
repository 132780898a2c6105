"""Weights as the native library multiplies by them."""

import torch
from torch import Tensor

from seq2seq.kernels.native.build import Library

_PANEL = 64
"""PANEL of matmul.h."""


def packed_weight(
    library: Library, weight: Tensor, dtype: torch.dtype, *, transposed: bool = True
) -> Tensor:
    """Return weights W (..., j, i) packed for matmuls x W' of a dtype, or else for x W."""
    parts = weight.flatten(0, -3) if weight.dim() > 2 else weight[None]
    D, j, i = parts.shape
    K, N = (i, j) if transposed else (j, i)
    pairs = dtype is torch.bfloat16
    size = -(-N // _PANEL) * _PANEL * (K + K % 2 if pairs else K)
    packed = weight.new_empty(D, size, dtype=dtype)
    for part, to in zip(parts, packed, strict=True):
        library("pack_weight", part.contiguous(), transposed, pairs, to, K, N)
    return packed
