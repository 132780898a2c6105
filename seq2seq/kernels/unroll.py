"""The decoder along a known target, as one autograd function with a hand-derived backward pass.

Against autograd over the reference loop: products with the state are merged, weight gradients are
one product over all steps, the gradient of the annotations is one batched product, and the tanh
energies (B, Tx, n') of a step are computed again instead of kept, so memory does not grow with
Tx x Ty x n'.
"""

from typing import Any

import torch
from torch import Tensor

from seq2seq.kernels.scan import scan
from seq2seq.model.attention import AdditiveAttention, Annotations, FixedContext
from seq2seq.model.decoder import RecurrentDecoder, Unrolled


def unroll_fused(
    decoder: RecurrentDecoder, Ey_prev: Tensor, Ey: Tensor, source: Annotations
) -> Unrolled:
    """Run a decoder along a target; equals `decoder.unroll`.

    Args:
        decoder: With additive attention or a fixed context; its weights are used as they are.
        Ey_prev: (B, Ty, m) E y_{i-1}.
        Ey: (B, Ty, m) E y_i.
        source: Annotations of the batch.
    """
    words = decoder.unit.project(Ey if decoder.moved_by_emitted else Ey_prev)  # (B, Ty, 3n)
    if isinstance(decoder.attention, FixedContext):
        return _unroll_fixed(decoder, decoder.attention, words, source)
    assert type(decoder.attention) is AdditiveAttention
    return _unroll_additive(decoder, decoder.attention, words, source)


def _unroll_fixed(
    decoder: RecurrentDecoder, attention: FixedContext, words: Tensor, source: Annotations
) -> Unrolled:
    """The context never changes: what it adds to the words is known before the loop."""
    unit, s_0 = decoder.unit, decoder.initial_state(source).s
    attended = attention(query=s_0, source=source)
    from_context = torch.cat([unit.C(attended.c), unit.C_z(attended.c), unit.C_r(attended.c)], -1)
    [s] = scan([unit], (words + from_context[:, None])[None], s_0[None])  # (B, Ty, n)
    s_prev = torch.cat([s_0.to(s.dtype)[:, None], s[:, :-1]], dim=1)
    num_words = words.shape[1]
    c, alpha = (x[:, None].expand(-1, num_words, -1) for x in (attended.c, attended.alpha))
    return Unrolled(s_prev, c, alpha)


def _unroll_additive(
    decoder: RecurrentDecoder, attention: AdditiveAttention, words: Tensor, source: Annotations
) -> Unrolled:
    unit = decoder.unit
    from_state = torch.cat(
        [attention.W_a.weight, unit.U_z.weight, unit.U_r.weight]
    ).T  # (n, n' + 2n)
    from_context = torch.cat([unit.C.weight, unit.C_z.weight, unit.C_r.weight]).T  # (2n, 3n)
    exact = unit.U.weight.dtype  # under autocast the recurrence keeps the type of the weights
    with torch.autocast(words.device.type, enabled=False):
        s_prev, c, alpha = AttentiveScan.apply(  # type: ignore[no-untyped-call]
            words.to(exact).transpose(0, 1),
            source.keys.to(exact),
            source.values.to(exact),
            source.mask,
            decoder.initial_state(source).s.to(exact),
            from_state,
            unit.U.weight.T,
            from_context,
            attention.v_a.weight[0],
            unit.reset_before,
        )
    return Unrolled(s_prev.transpose(0, 1), c.transpose(0, 1), alpha.transpose(0, 1))


class AttentiveScan(torch.autograd.Function):
    """Additive attention (A.1.2) and the gated unit (A.2.2) along a target.

    Inputs, time first: projected words (Ty, B, 3n), keys (B, Tx, n'), values (B, Tx, 2n),
    mask (B, Tx), s_0 (B, n), [W_a, U_z, U_r] (n, n' + 2n), U (n, n), [C, C_z, C_r] (2n, 3n), all
    transposed, v_a (n'), and whether the reset gate acts before U.
    Outputs: s_{i-1} (Ty, B, n), c_i (Ty, B, 2n), alpha_i (Ty, B, Tx).
    """

    @staticmethod
    def forward(  # noqa: D102, PLR0913 - autograd functions take tensors one by one
        ctx: Any,
        projected: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
        s: Tensor,
        from_state: Tensor,
        U: Tensor,
        from_context: Tensor,
        v_a: Tensor,
        reset_before: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, n_align = s.shape[-1], keys.shape[-1]
        blocked = ~mask
        rows: dict[str, list[Tensor]] = {}
        for word in projected:
            query, gates = (s @ from_state).split([n_align, 2 * n], dim=-1)
            energy = torch.matmul(torch.tanh_(query[:, None] + keys), v_a)
            alpha = torch.softmax(energy.masked_fill_(blocked, -torch.inf), dim=-1)
            c = torch.bmm(alpha[:, None], values)[:, 0]
            drive = torch.addmm(word, c, from_context)
            z_r = gates.add(drive[:, n:]).sigmoid_()
            z, r = z_r.chunk(2, dim=-1)
            Us = s @ U if not reset_before else (r * s) @ U
            s_tilde = torch.tanh_(drive[:, :n] + (Us if reset_before else r * Us))
            step = {"s": s, "c": c, "alpha": alpha, "query": query, "z_r": z_r, "tilde": s_tilde}
            for name, value in step.items():
                rows.setdefault(name, []).append(value)
            if not reset_before:
                rows.setdefault("Us", []).append(Us)
            s = torch.lerp(s, s_tilde, z)  # (1 - z) s + z s_tilde
        kept = {name: torch.stack(values) for name, values in rows.items()}
        weights = (from_state, U, from_context, v_a)
        ctx.names = list(kept)
        ctx.reset_before = reset_before
        ctx.save_for_backward(keys, values, *weights, *kept.values())
        return kept["s"], kept["c"], kept["alpha"]

    @staticmethod
    def backward(  # noqa: D102
        ctx: Any, d_s_all: Tensor, d_c_all: Tensor, d_alpha_all: Tensor
    ) -> tuple[Tensor | None, ...]:
        keys, values, from_state, U, from_context, v_a, *rest = ctx.saved_tensors
        kept = dict(zip(ctx.names, rest, strict=True))
        s_all, c_all, alpha_all = kept["s"], kept["c"], kept["alpha"]
        num_steps, num_rows, n = s_all.shape
        n_align = keys.shape[-1]
        z, r = kept["z_r"].chunk(2, dim=-1)
        # What multiplies the incoming gradient at each step does not depend on it: all at once.
        to_gate = (kept["tilde"] - s_all) * z * (1 - z)
        to_candidate = z * (1 - kept["tilde"].square())
        r_slope = r * (1 - r) * (s_all if ctx.reset_before else kept["Us"])
        d_drive = s_all.new_empty(num_steps, num_rows, 3 * n)  # candidate, z, r
        d_state = s_all.new_empty(num_steps, num_rows, n_align + 2 * n)  # query, z, r
        d_context = torch.empty_like(c_all)
        d_keys, d_v = torch.zeros_like(keys), torch.zeros_like(v_a)
        from_context_T, from_state_T = from_context.T.contiguous(), from_state.T.contiguous()
        U_T, values_T = U.T.contiguous(), values.mT
        d_s = torch.zeros_like(s_all[0])  # nothing looks at the state after the last word
        for i in reversed(range(num_steps)):
            d_candidate = torch.mul(d_s, to_candidate[i], out=d_drive[i, :, :n])
            torch.mul(d_s, to_gate[i], out=d_drive[i, :, n : 2 * n])
            d_s = d_s * (1 - z[i]) + d_s_all[i]
            if ctx.reset_before:
                d_rs = d_candidate @ U_T
                torch.mul(d_rs, r_slope[i], out=d_drive[i, :, 2 * n :])
                d_s.addcmul_(d_rs, r[i])
            else:
                torch.mul(d_candidate, r_slope[i], out=d_drive[i, :, 2 * n :])
                d_s.addmm_(d_candidate * r[i], U_T)
            d_c = torch.addmm(d_c_all[i], d_drive[i], from_context_T, out=d_context[i])
            d_alpha = torch.bmm(d_c[:, None], values_T)[:, 0].add_(d_alpha_all[i])
            alpha = alpha_all[i]
            d_energy = alpha * (d_alpha - (alpha * d_alpha).sum(dim=-1, keepdim=True))
            hidden = torch.tanh_(kept["query"][i][:, None] + keys)  # again: never stored
            d_v.addmv_(hidden.flatten(0, 1).T, d_energy.flatten())
            slope = torch.square_(hidden).neg_().add_(1)  # of tanh
            d_keys.addcmul_(slope, d_energy[..., None])  # v_a comes in after the loop
            d_state[i, :, :n_align] = torch.bmm(d_energy[:, None], slope)[:, 0] * v_a
            d_state[i, :, n_align:] = d_drive[i, :, n:]
            d_s.addmm_(d_state[i], from_state_T)
        d_values = torch.bmm(alpha_all.permute(1, 2, 0), d_context.transpose(0, 1))
        flat_s, flat_drive = s_all.flatten(0, 1), d_drive.flatten(0, 1)
        d_from_state = flat_s.T @ d_state.flatten(0, 1)
        d_from_context = c_all.flatten(0, 1).T @ flat_drive
        d_candidates = d_drive[..., :n]
        if ctx.reset_before:
            d_U = (r * s_all).flatten(0, 1).T @ d_candidates.flatten(0, 1)
        else:
            d_U = flat_s.T @ (d_candidates * r).flatten(0, 1)
        return (
            d_drive,
            d_keys * v_a,
            d_values,
            None,
            d_s,
            d_from_state,
            d_U,
            d_from_context,
            d_v,
            None,
        )
