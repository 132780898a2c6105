"""oneDNN matmuls through torch's private operations, which are checked before use.

For float32 torch uses MKL, which on some processors is a third slower than oneDNN. torch ships
both.
"""

import functools

import torch
from torch import Tensor


def linear(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """Return x W' + b of x (b, i) and W (j, i), which may be packed."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, W, b, "none", [], "")
    return y


def packed(weight: Tensor) -> Tensor:
    """Return a weight in oneDNN's preferred layout."""
    W: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return W


@functools.cache
def multiplies(dtype: torch.dtype) -> bool:
    """Return whether oneDNN matmuls of a dtype work here; other versions of torch may lack them."""
    if not torch.backends.mkldnn.is_available() or dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        one = torch.ones(1, 1, dtype=dtype)
        linear(one, packed(one))
    except (AttributeError, RuntimeError):
        return False
    return dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
