"""Matmuls for the kernels: bfloat16 under autocast, and oneDNN where it is faster.

Everything else is computed in the dtype of the weights.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from seq2seq.kernels.native import onednn
from seq2seq.model.intervention import with_parts

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=nn.Module)


def compute_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype of matmuls with a weight, which autocast may lower."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype is torch.float32:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def rounded(rows: int) -> int:
    """Round up a number of rows by up to a sixteenth, for matmuls padded to that size.

    oneDNN compiles a matmul for each distinct number of rows, which takes longer than many matmuls,
    and its cache is limited.
    """
    step = max(8, 1 << max(0, rows.bit_length() - 5))
    return -(-rows // step) * step


def padded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x (..., b, i) in a dtype, padded with rows of zeros to `rounded(b)` on a CPU."""
    *outer, rows, width = x.shape
    if not x.is_cpu or (wide := rounded(rows)) == rows:
        return x.to(dtype)
    y = x.new_empty(*outer, wide, width, dtype=dtype)
    y[..., :rows, :] = x
    y[..., rows:, :] = 0
    return y


class PackedWeight:
    """Weights W packed once for many matmuls x W', outside autograd.

    Args:
        weight: (j, i), or (D, j, i) for D units.
        dtype: Dtype of the matmuls and of their results.
        often: Whether there are enough matmuls of few rows for packing to pay off.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype, *, often: bool = True) -> None:
        self.dtype = dtype
        self.weight = weight.to(dtype)
        parts = weight if weight.dim() == 3 else ()
        self.parts = [PackedWeight(part, dtype, often=often) for part in parts]
        self._packed: Tensor | None = None  # None: use torch's own matmul
        if not self.parts and weight.is_cpu and weight.numel() and onednn.multiplies(dtype):
            self._packed = onednn.packed(self.weight) if often else self.weight

    def __call__(self, x: Tensor) -> Tensor:
        """Return x W': (b, j) from (b, i), or (D, b, j) from (D, b, i)."""
        if self._packed is None:
            return x.to(self.dtype) @ self.weight.mT
        return onednn.linear(padded(x, self.dtype), self._packed)[: len(x)]

    def plus(self, base: Tensor, x: Tensor) -> Tensor:
        """Return base + x W' in the dtype of the base, which may be overwritten."""
        if self.parts and self.parts[0]._packed is not None:
            for added, part, own in zip(base, self.parts, x, strict=True):
                added += part(own)
            return base
        if self.parts and base.dtype == self.dtype:
            return torch.baddbmm(base, x.to(self.dtype), self.weight.mT)
        return base.add_(self(x))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`functional.linear`, which respects autocast, by oneDNN where `PackedWeight` uses it."""
    dtype = compute_dtype(weight)
    if not by_onednn(x, weight, dtype):
        return functional.linear(x, weight, bias)
    if not torch.is_grad_enabled():  # autograd takes longer than a matmul of few rows
        return matmul(padded(rows_of(x), dtype), weight.to(dtype), bias, x.shape)
    y: Tensor = Linear.apply(x, weight, bias, dtype)  # type: ignore[no-untyped-call]
    return y


def by_onednn(x: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
    """Return whether oneDNN multiplies x by a weight in a dtype."""
    known = weight.dtype is torch.float32 and x.dtype in (weight.dtype, dtype)
    return known and x.is_cpu and x.numel() > 0 and onednn.multiplies(dtype)


def rows_of(x: Tensor) -> Tensor:
    """Return x (..., i) as a matrix."""
    return x.reshape(-1, x.shape[-1])


def matmul(rows: Tensor, W: Tensor, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """Return x W' + b (..., j) of an x of this shape, given its padded rows, all in one dtype."""
    b = None if bias is None else bias.to(W.dtype)
    *outer, _ = shape
    return onednn.linear(rows, W, b)[: math.prod(outer)].view(*outer, -1)


class FusedLinear(nn.Linear):
    """A linear layer by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return x W' + b."""
        return linear(input, self.weight, self.bias)


class PackedLinear(nn.Linear):
    """A linear layer for search: it packs the weight of another at the first use of each dtype."""

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self._packed: dict[torch.dtype, Tensor] = {}

    def forward(self, input: Tensor) -> Tensor:
        """Return x W' + b, outside autograd."""
        dtype = compute_dtype(self.weight)
        if not by_onednn(input, self.weight, dtype):
            return functional.linear(input, self.weight, self.bias)
        if dtype not in self._packed:
            self._packed[dtype] = onednn.packed(self.weight.detach().to(dtype))
        rows = padded(rows_of(input), dtype)
        return matmul(rows, self._packed[dtype], self.bias, input.shape)


def with_packed_weights(model: M) -> M:
    """Return a copy that shares all weights, and whose linear layers are `PackedLinear`."""
    if isinstance(model, FusedLinear):
        return PackedLinear(model)  # type: ignore[return-value]
    parts = [(name, part) for name, part in model._modules.items() if part is not None]
    return with_parts(model, **{name: with_packed_weights(part) for name, part in parts})


class Linear(torch.autograd.Function):
    """x W' + b with x (..., i), W (j, i) and b (j), in the dtype of the matmul."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        rows, W = padded(rows_of(x), dtype), weight.to(dtype)
        ctx.save_for_backward(rows, W)
        ctx.shape, ctx.dtypes = x.shape, (x.dtype, weight.dtype, dtype)
        return matmul(rows, W, bias, x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        rows, W = ctx.saved_tensors
        of_x, of_weight, dtype = ctx.dtypes
        wants_x, wants_weight, wants_bias, _ = ctx.needs_input_grad
        grads = padded(rows_of(grad), dtype)
        d_x = d_weight = d_bias = None
        if wants_x:
            d_x = onednn.linear(grads, W.T)[: ctx.shape[:-1].numel()].view(ctx.shape).to(of_x)
        if wants_weight:
            d_weight = (grads.T @ rows).to(of_weight)
        if wants_bias:
            d_bias = grads.sum(dim=0, dtype=of_weight)
        return d_x, d_weight, d_bias, None


def sum_over_rows(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """Return left' right (..., a, b), given (..., N, a) and (..., N, b), by a matmul in `dtype`."""
    if dtype is torch.bfloat16:
        left, right = padded(left, dtype), padded(right, dtype)
    return left.to(dtype).mT @ right.to(dtype)


def without_autocast(method: Callable[P, R]) -> Callable[P, R]:
    """Run a method with autocast disabled, so that it chooses the dtypes of its matmuls itself."""

    @functools.wraps(method)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return method(*args, **kwargs)

    return chosen
