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


def rounded(rows: int) -> int:
    """Return as many rows or up to a sixteenth more, with which a product is computed instead.

    oneDNN compiles a product for each number of rows that it meets, which takes longer than many
    of them; and keeps only so many.
    """
    step = max(8, 1 << max(0, rows.bit_length() - 5))
    return -(-rows // step) * step


def widened(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x (..., b, i) in a format, with rows of zeros up to `rounded(b)`."""
    *outer, rows, width = x.shape
    if not x.is_cpu or (wide := rounded(rows)) == rows:
        return x.to(dtype)
    found = x.new_empty(*outer, wide, width, dtype=dtype)
    found[..., :rows, :] = x
    found[..., rows:, :] = 0
    return found


class Factor:
    """Weights W that many x are multiplied by, outside of autograd: x W', laid out once for all.

    torch multiplies float32 by MKL, which on some processors is a third slower than the oneDNN that
    it brings, too.

    Args:
        weight: (j, i), or (D, j, i) of D units side by side.
        dtype: Format of the factors of the products, and of the products.
        often: There will be so many products of few rows that it pays to lay the weights out.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype, *, often: bool = True) -> None:
        self.dtype = dtype
        self.weight = weight.to(dtype)
        parts = weight if weight.dim() == 3 else ()
        self.parts = [Factor(part, dtype, often=often) for part in parts]
        self._packed = None if self.parts else _packed(self.weight, often=often)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x W' (b, j) of (b, i), or (D, b, j) of (D, b, i)."""
        if self._packed is None:
            return x.to(self.dtype) @ self.weight.mT
        return _pointwise(widened(x, self.dtype), self._packed)[: len(x)]

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
    """Return `functional.linear`, also under autocast, by oneDNN where `Factor` would take it."""
    narrow = product_format(weight)
    known = weight.dtype is torch.float32 and x.dtype in (weight.dtype, narrow)
    if not (known and x.is_cpu and x.numel() and _has_onednn(narrow)):
        return functional.linear(x, weight, bias)
    found: Tensor = Linear.apply(x, weight, bias, narrow)  # type: ignore[no-untyped-call]
    return found


class FusedLinear(nn.Linear):
    """A layer by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return x W' + b."""
        return linear(input, self.weight, self.bias)


class Linear(torch.autograd.Function):
    """x W' + b of x (..., i), W (j, i) and b (j), in the format of the product."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, narrow: torch.dtype
    ) -> Tensor:
        rows, W = widened(x.reshape(-1, x.shape[-1]), narrow), weight.to(narrow)
        ctx.save_for_backward(rows, W)
        ctx.shape, ctx.formats = x.shape, (x.dtype, weight.dtype, narrow)
        b = None if bias is None else bias.to(narrow)
        return _pointwise(rows, W, b)[: x.shape[:-1].numel()].view(*x.shape[:-1], len(W))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        rows, W = ctx.saved_tensors
        of_x, of_weight, narrow = ctx.formats
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        grads = widened(grad.reshape(-1, grad.shape[-1]), narrow)
        d_x = d_weight = d_bias = None
        if wants_x:
            d_x = _pointwise(grads, W.T)[: ctx.shape[:-1].numel()].view(ctx.shape).to(of_x)
        if wants_weight:
            d_weight = (grads.T @ rows).to(of_weight)
        if wants_bias:
            d_bias = grads.sum(dim=0, dtype=of_weight)
        return d_x, d_weight, d_bias, None


def _pointwise(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, W, b, "none", [], "")
    return found


def _packed(weight: Tensor, *, often: bool) -> Tensor | None:
    """Return a weight as oneDNN takes it; None where torch's product is better."""
    if not (weight.is_cpu and weight.numel() and _has_onednn(weight.dtype)):
        return None
    if not often:
        return weight
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
        _pointwise(one, packed)
    except (AttributeError, RuntimeError):
        return False
    return dtype is torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def sum_over_rows(left: Tensor, right: Tensor, narrow: torch.dtype) -> Tensor:
    """Return left' right (..., a, b) of (..., N, a) and (..., N, b), in the format of factors."""
    if narrow is torch.bfloat16:
        left, right = widened(left, narrow), widened(right, narrow)
    return left.to(narrow).mT @ right.to(narrow)


def in_own_formats(method: Callable[P, R]) -> Callable[P, R]:
    """Let a method choose the formats of its products, whatever autocast says."""

    @functools.wraps(method)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return method(*args, **kwargs)

    return chosen
