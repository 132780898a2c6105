"""Matmuls in 8 bits for search: x W' from whole numbers, whose sums are exact.

A column of W' is about scale w_q, with w_q from -127 to 127. A row of x is about least + scale u,
with u from 0 to 255 (`matmul.c`). A row's result depends on no other row, nor on an order of sums.
"""

import torch
from torch import Tensor
from torch.nn import functional

from seq2seq.kernels import native
from seq2seq.kernels.native.build import PANEL
from seq2seq.run.errors import PlatformError

_FOURS = 4  # in_fours of matmul.h
_LONGEST = 65_536
"""The largest i of weights (j, i): a sum of i products of at most 255 x 127 fits into 32 bits."""


def require(weight: Tensor) -> None:
    """Check that there are such matmuls for weights like this one.

    Raises:
        PlatformError: there are none.
    """
    if (reason := lacking(weight)) is not None:
        fix = "Use decode.precision=bf16 or decode.precision=fp32."
        raise PlatformError("decode.precision", reason, fix)


def lacking(weight: Tensor) -> str | None:
    """Return why there are no such matmuls for weights like this one; None if there are."""
    if weight.dtype is not torch.float32 or not weight.is_cpu:
        return f"int8 matmuls need float32 weights on a CPU, not {weight.dtype} on {weight.device}"
    if not torch.cpu._is_vnni_supported():
        return "this processor has no int8 matmuls (AVX512-VNNI)"
    library = native.library()
    if library is None:
        return "int8 matmuls need the native library, so a C compiler"
    return None if library.multiplies(torch.int8) else "int8 matmuls of oneDNN are switched off"


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return w_q (j, i) int8 and the scales (j,) of a weight (j, i) = scale w_q, rounded."""
    scale = weight.abs().amax(dim=1) / 127
    steps = torch.where(scale > torch.finfo(scale.dtype).tiny, 1 / scale, 0)
    return (weight * steps[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def packed(weight: Tensor) -> Tensor:
    """Return a weight (j, i) as `matmul.c` reads it: scales, sums of scale w_q, panels; as bytes.

    x w is about (scale of x) scale (u w_q) + least (sum of scale w_q). A panel has the inputs in
    fours, and PANEL of these side by side.
    """
    assert weight.shape[1] <= _LONGEST
    w_q, scale = quantized(weight)
    sums = scale * w_q.sum(dim=1, dtype=torch.int32)
    j, i = weight.shape
    columns, inputs = -j % PANEL, -i % _FOURS
    panels = functional.pad(w_q, (0, inputs, 0, columns)).unflatten(0, (-1, PANEL))
    panels = panels.unflatten(2, (-1, _FOURS)).transpose(1, 2)
    header = (functional.pad(x, (0, columns)).view(torch.int8) for x in (scale, sums))
    return torch.cat([*header, panels.flatten()])
