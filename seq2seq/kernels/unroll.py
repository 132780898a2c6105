"""The decoder along a known target, as one autograd function with a hand-derived backward pass.

Differences from autograd over the reference loop: sentences that have ended leave the batch; the
gate terms of the annotations are one matmul before the loop, C h_j for every j instead of C c_i
for every i; weight gradients are one matmul over all steps; and the tanh energies (B, Tx, n') of a
step are recomputed instead of saved, so memory does not grow with Tx x Ty x n'.
"""

from typing import Any

import torch
from torch import Tensor

from seq2seq.kernels.choice import loops_for
from seq2seq.kernels.matmul import compute_dtype, linear, sum_over_rows
from seq2seq.kernels.packing import Packing, shifted
from seq2seq.kernels.scan import project, scan
from seq2seq.kernels.steps import Attending, Saved
from seq2seq.model import recurrence
from seq2seq.model.attention import AdditiveAttention, FixedContext, UniformAttention
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.model.protocols import Attention, Cell, Source
from seq2seq.model.recurrence import Unrolled

KNOWN = {AdditiveAttention, FixedContext, UniformAttention}
"""The attentions that run on kernels."""


def unroll(
    unit: Cell, attention: Attention, words: Tensor, s_0: Tensor, source: Source, mask: Tensor
) -> Unrolled:
    """Run a decoder along targets; equals `recurrence.unroll` on real words, 0 elsewhere."""
    # Match the exact class: a subclass computes something else.
    if unit.__class__ is not GatedUnit or attention.__class__ not in KNOWN:
        return recurrence.unroll(unit, attention, words, s_0, source, mask)
    assert isinstance(unit, GatedUnit)
    packing = Packing.of(mask)
    projected = project(unit, packing.pack(words))
    if isinstance(attention, AdditiveAttention):
        return _additive(unit, attention, projected, s_0, source, packing)
    # A context that is always the same: its gate terms are added to the words' before the loop.
    attended = attention(s_0, source)
    from_context = linear(attended.c, _into_gates(unit))  # (B, 3n)
    rows = packing.places // packing.num_steps  # sentence of each packed word
    projected = projected + from_context.index_select(0, rows)
    start = s_0.index_select(0, packing.order)[None]
    states = scan([unit], projected[None], packing.sizes, start)
    [s_prev] = shifted(start.to(states.dtype), states, packing.sizes)
    c, alpha = (x[:, None].expand(-1, packing.num_steps, -1) for x in (attended.c, attended.alpha))
    return Unrolled(packing.unpack(s_prev), c, alpha)


def _into_gates(unit: GatedUnit) -> Tensor:
    return torch.cat([unit.C.weight, unit.C_z.weight, unit.C_r.weight])  # (3n, 2n)


def _additive(
    unit: GatedUnit,
    attention: AdditiveAttention,
    projected: Tensor,
    s_0: Tensor,
    source: Source,
    packing: Packing,
) -> Unrolled:
    exact = unit.U.weight.dtype  # under autocast, states and attention keep the weights' dtype
    Ch = _of_real_tokens(source, _into_gates(unit), packing)
    from_state = torch.cat([attention.W_a.weight, unit.U_z.weight, unit.U_r.weight])  # (n' + 2n, n)
    dtype = compute_dtype(from_state)
    keys, s_0 = (x.to(exact).index_select(0, packing.order) for x in (source.keys, s_0))
    with torch.autocast(projected.device.type, enabled=False):
        s_prev, alpha = AttentiveScan.apply(  # type: ignore[no-untyped-call]
            *(projected, keys, Ch, s_0, source.mask[packing.order]),
            *(from_state, unit.U.weight, attention.v_a.weight[0]),
            (packing, unit.reset_before, dtype),
        )
        alpha = packing.unpack(alpha)  # (B, Ty, Tx)
        c = torch.bmm(alpha, source.values.to(exact))  # (B, Ty, 2n)
    return Unrolled(packing.unpack(s_prev), c, alpha)


def _of_real_tokens(source: Source, weight: Tensor, packing: Packing) -> Tensor:
    """Return weight h_j (B, Tx, 3n), sentences in the order of the packing; 0 on padding.

    Only real tokens are multiplied: batches are sorted by target length, so a fifth of the source
    may be padding.
    """
    B, Tx = source.mask.shape
    ranked = source.mask[packing.order].flatten().nonzero()[:, 0]
    places = packing.order[ranked // Tx] * Tx + ranked % Tx
    real = linear(source.values.flatten(0, 1).index_select(0, places), weight)  # (N_x, 3n)
    padded = real.new_zeros(B * Tx, real.shape[1])
    return padded.index_copy(0, ranked, real).view(B, Tx, -1)


class AttentiveScan(torch.autograd.Function):
    """Additive attention (A.1.2) and the gated unit (A.2.2) along a target.

    Inputs, sentences in the order of the packing: packed projected words (N, 3n),
    keys (B, Tx, n'), [C, C_z, C_r] h_j (B, Tx, 3n), s_0 (B, n), mask (B, Tx),
    [W_a, U_z, U_r] (n' + 2n, n), U (n, n), v_a (n'), and as options the packing, whether the reset
    gate acts before U, and the dtype of the matmuls.
    Outputs: s_{i-1} (N, n), alpha_i (N, Tx).
    """

    @staticmethod
    def forward(  # noqa: D102, PLR0913 - autograd functions take tensors one by one
        ctx: Any,
        projected: Tensor,
        keys: Tensor,
        Ch: Tensor,
        s_0: Tensor,
        mask: Tensor,
        from_state: Tensor,
        U: Tensor,
        v_a: Tensor,
        options: tuple[Packing, bool, torch.dtype],
    ) -> tuple[Tensor, Tensor]:
        packing, reset_before, dtype = options
        num_words = len(projected)
        queries = s_0.new_empty(num_words, keys.shape[-1])
        alphas = s_0.new_empty(num_words, keys.shape[1])
        inputs = Attending(keys, Ch.to(dtype), mask, v_a, queries, alphas)
        s_all = s_0.new_empty(num_words, s_0.shape[-1])
        s_all[: packing.sizes[0]] = s_0[: packing.sizes[0]]
        saved = Saved.empty(s_all, reset_before=reset_before)
        loops = loops_for(s_all, dtype, reset_before=reset_before)
        loops.attentive(projected.to(dtype), (U, from_state), packing, saved, inputs)
        arrays = *vars(inputs).values(), *vars(saved).values()
        ctx.save_for_backward(from_state, U, *arrays)
        ctx.options = packing, reset_before, dtype, projected.dtype, Ch.dtype
        return s_all, alphas

    @staticmethod
    def backward(  # noqa: D102
        ctx: Any, d_s_all: Tensor, d_alpha_all: Tensor
    ) -> tuple[Tensor | None, ...]:
        from_state, U, *arrays = ctx.saved_tensors
        packing, reset_before, dtype, of_words, of_Ch = ctx.options
        inputs, saved = Attending(*arrays[:6]), Saved(*arrays[6:])
        s_all, r = saved.states, saved.gates[:, saved.states.shape[-1] :]
        loops = loops_for(s_all, dtype, reset_before=reset_before)
        grads = loops.attentive_backward(
            d_s_all, d_alpha_all, (U, from_state), packing, saved, inputs
        )
        d_candidate = grads.d_words[:, : s_all.shape[-1]]
        into, of_state = (d_candidate, r * s_all) if reset_before else (d_candidate * r, s_all)
        d_from_state = sum_over_rows(grads.d_from_state, s_all, dtype)
        d_U = sum_over_rows(into, of_state, dtype)
        of_source = grads.d_keys, grads.d_values.to(of_Ch), grads.d_start, None
        of_weights = d_from_state.to(U.dtype), d_U.to(U.dtype), grads.d_v, None
        return grads.d_words.to(of_words), *of_source, *of_weights
