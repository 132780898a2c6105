"""Gated units over whole sequences, with a hand-derived backward pass.

Autograd over a loop adds each step's weight gradient to a running sum; here one matmul covers all
steps. Both directions of an encoder advance together, and sentences that have ended leave the
batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from seq2seq.kernels.choice import loops_for
from seq2seq.kernels.matmul import compute_dtype, linear, sum_over_rows
from seq2seq.kernels.packing import Packing, Sizes, shifted
from seq2seq.kernels.steps import Saved
from seq2seq.model.gated_unit import GatedUnit

Options = tuple[Sizes, bool, torch.dtype]


def read_fused(
    units: Sequence[GatedUnit], Ex: Tensor, mask: Tensor, start: Tensor | None = None
) -> list[Tensor]:
    """See `recurrence.read`, for units of equal sizes; 0 at padding.

    Each sentence is reversed within its own length for the backward unit.
    """
    packing = Packing.of(mask)
    orders = [packing.places, packing.mirrored][: len(units)]
    flat = Ex.flatten(0, 1)
    words = torch.stack(
        [project(u, flat.index_select(0, o)) for u, o in zip(units, orders, strict=True)]
    )
    if start is not None:
        start = start.index_select(0, packing.order).expand(len(units), -1, -1)
    states = scan(units, words, packing.sizes, start)
    return [packing.unpack(h, order) for h, order in zip(states, orders, strict=True)]


def project(unit: GatedUnit, words: Tensor) -> Tensor:
    """Return `unit.project(words)` (..., 3n) by one matmul."""
    weight = torch.cat([unit.W.weight, unit.W_z.weight, unit.W_r.weight])
    bias: Tensor | None = unit.W.bias
    if bias is not None:
        bias = functional.pad(bias, (0, 2 * unit.hidden_size))  # gates have no bias
    return linear(words, weight, bias)


def scan(
    units: Sequence[GatedUnit], words: Tensor, sizes: Sizes, start: Tensor | None = None
) -> Tensor:
    """Return the states (D, N, n) of D units after each projected, packed word (D, N, 3n).

    A context is already added to the words. The first states `start` (D, B, n), in the order of the
    packing, are 0 if not given.
    """
    exact = units[0].U.weight.dtype  # under autocast, the state keeps the weights' dtype
    if start is None:
        start = words.new_zeros(len(units), sizes[0], units[0].hidden_size)
    U = torch.stack([unit.U.weight for unit in units])  # (D, n, n)
    U_gates = torch.stack([torch.cat([u.U_z.weight, u.U_r.weight]) for u in units])  # (D, 2n, n)
    dtype = compute_dtype(U)
    with torch.autocast(words.device.type, enabled=False):
        options = sizes, units[0].reset_before, dtype
        h: Tensor = GatedScan.apply(  # type: ignore[no-untyped-call]
            words, start.to(exact), U, U_gates, options
        )
    return h


class GatedScan(torch.autograd.Function):
    """A gated unit over time, A.1.1 without context, for D directions at once.

    Inputs: packed projected words (D, N, 3n) as `GatedUnit.project` orders them, first states
    (D, B, n), U (D, n, n) and [U_z, U_r] (D, 2n, n), and as options the sizes of the packing,
    whether the reset gate acts before U, and the dtype of the matmuls.
    Output: states (D, N, n).
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, projected: Tensor, start: Tensor, U: Tensor, U_gates: Tensor, options: Options
    ) -> Tensor:
        sizes, reset_before, dtype = options
        h_all = start.new_empty(*projected.shape[:-1], start.shape[-1])
        saved = Saved.empty(h_all, reset_before=reset_before)
        loops = loops_for(h_all, dtype, reset_before=reset_before)
        loops.gated(projected.to(dtype), start, (U, U_gates), sizes, saved)
        ctx.save_for_backward(start, U, U_gates, *vars(saved).values())
        ctx.options = sizes, reset_before, dtype, projected.dtype
        return h_all

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        start, U, U_gates, *activations = ctx.saved_tensors
        sizes, reset_before, dtype, of_words = ctx.options
        n, saved = start.shape[-1], Saved(*activations)
        h_prev = shifted(start, saved.states, sizes)
        loops = loops_for(start, dtype, reset_before=reset_before)
        d_words, d_start = loops.gated_backward(grad, h_prev, (U, U_gates), sizes, saved)
        d_candidate, d_gates = d_words.split([n, 2 * n], dim=-1)
        r = saved.gates[..., n:]
        into_U = (d_candidate, r * h_prev) if reset_before else (d_candidate * r, h_prev)
        d_U = sum_over_rows(*into_U, dtype).to(U.dtype)
        d_U_gates = sum_over_rows(d_gates, h_prev, dtype).to(U.dtype)
        return d_words.to(of_words), d_start, d_U, d_U_gates, None
