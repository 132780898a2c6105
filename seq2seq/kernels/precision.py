"""Products in bfloat16 under autocast, everything else in the format of the weights."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

P = ParamSpec("P")
R = TypeVar("R")


def product_format(weight: Tensor) -> torch.dtype:
    """Return the format of the factors of products with a weight."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype is torch.float32:
        return torch.get_autocast_dtype(device)
    return weight.dtype


class Factor:
    """Weights W that many x are multiplied by, outside of autograd: x W', laid out once for all.

    torch multiplies float32 by MKL, which on some processors is a third slower than the oneDNN that
    it brings, too.

    Args:
        weight: (j, i), or (D, j, i) of D units side by side.
        dtype: Format of the factors of the products, and of the products.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.weight = weight.to(dtype)
        self.parts = [Factor(part, dtype) for part in weight] if weight.dim() == 3 else []
        self._packed = None if self.parts else _packed(self.weight)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x W' (b, j) of (b, i), or (D, b, j) of (D, b, i)."""
        x = x.to(self.dtype)
        if self._packed is not None:
            found: Tensor = torch.ops.mkldnn._linear_pointwise(
                x, self._packed, None, "none", [], ""
            )
            return found
        return x @ self.weight.mT

    def plus(self, base: Tensor, x: Tensor) -> Tensor:
        """Return base + x W' in the format of the base, which may be overwritten."""
        if self.parts and self.parts[0]._packed is not None:
            for added, part, own in zip(base, self.parts, x, strict=True):
                added += part(own)
            return base
        if self.parts and base.dtype == self.dtype:
            return torch.baddbmm(base, x.to(self.dtype), self.weight.mT)
        return base.add_(self(x))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `functional.linear`, by oneDNN where `Factor` would take that for float32."""
    is_plain = x.dtype is weight.dtype is torch.float32 and not torch.is_autocast_enabled("cpu")
    if not (is_plain and weight.is_cpu and _has_onednn(x.dtype)):
        return functional.linear(x, weight, bias)
    found: Tensor = Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return found


def layer_forward(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return what a layer makes of x, by `linear`."""
    return linear(x, layer.weight, layer.bias)


class Linear(torch.autograd.Function):
    """x W' + b of x (..., i), W (j, i) and b (j)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x, weight)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        d_x = None
        if wants_x:
            d_x = torch.ops.mkldnn._linear_pointwise(grad, weight.T, None, "none", [], "")
        d_weight = rows.T @ x.reshape(-1, x.shape[-1]) if wants_weight else None
        return d_x, d_weight, rows.sum(dim=0) if wants_bias else None


def _packed(weight: Tensor) -> Tensor | None:
    """Return a weight as oneDNN likes it best; None where torch's product is better."""
    if not (weight.is_cpu and weight.numel() and _has_onednn(weight.dtype)):
        return None
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return found


@functools.cache
def _has_onednn(dtype: torch.dtype) -> bool:
    """Return whether oneDNN multiplies this format here. Another torch may not have its ops."""
    if not torch.backends.mkldnn.is_available() or dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        one = torch.ones(1, 1, dtype=dtype)
        packed = torch.ops.mkldnn._reorder_linear_weight(one)
        torch.ops.mkldnn._linear_pointwise(one, packed, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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
