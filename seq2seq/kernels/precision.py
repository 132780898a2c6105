"""Products in bfloat16 under autocast, everything else in the format of the weights."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

_HAS_ONEDNN = torch.backends.mkldnn.is_available()
P = ParamSpec("P")
R = TypeVar("R")


def product_format(weight: Tensor) -> torch.dtype:
    """Return the format of the factors of products with a weight."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype is torch.float32:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def plus_products(base: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return base + left right for batches (D, b, i) (D, i, j), in the format of `right`."""
    if base.dtype == left.dtype == right.dtype:
        return torch.baddbmm(base, left, right)
    return base + torch.bmm(left.to(right.dtype), right)


_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if _HAS_ONEDNN else None


def dense(x: Tensor, weight: Tensor) -> Tensor:
    """Return x W' (b, j) of (b, i) and (j, i), in the format of the weight. Outside of autograd.

    torch multiplies float32 by MKL, which on some processors is a third slower than the oneDNN that
    it brings, too.
    """
    x = x.to(weight.dtype)
    if _ONEDNN is None or not weight.is_cpu or weight.dtype is torch.float64:
        return x @ weight.T
    found: Tensor = _ONEDNN(x, weight, None, "none", [], "")
    return found


def times(x: Tensor, weight: Tensor) -> Tensor:
    """Return `dense` of one unit's weight (j, i), or x W of D units' (D, b, i) and (D, i, j)."""
    return torch.bmm(x.to(weight.dtype), weight) if x.dim() == 3 else dense(x, weight)


def plus_times(base: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return base and `times` added, in the format of the base."""
    return plus_products(base, x, weight) if x.dim() == 3 else base + dense(x, weight)


def product(left: Tensor, right: Tensor, narrow: torch.dtype) -> Tensor:
    """Return left right in the format of `left`, with factors in another."""
    return torch.matmul(left.to(narrow), right.to(narrow)).to(left.dtype)


def in_own_formats(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method choose the formats of its products, whatever autocast says."""

    @functools.wraps(method)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return method(*args, **kwargs)

    return chosen
