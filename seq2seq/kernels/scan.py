"""The encoder's recurrence: both directions in one loop, with a hand-derived backward pass.

Autograd over a loop adds every step's weight gradient to a running sum; here they are one product
over all steps. Both directions advance together, as one batched product a step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seq2seq.model.gated_unit import GatedUnit


def read_fused(units: Sequence[GatedUnit], Ex: Tensor, mask: Tensor) -> list[Tensor]:
    """Run one or two units over a batch; equals `encoder.read` on real positions.

    Each sentence is reversed within its own length for the backward unit, so that padding comes
    last in both directions and needs no mask: its states are never looked at.

    Args:
        units: The first reads from left to right, the second from right to left; of equal sizes.
        Ex: (B, Tx, m) embedded words.
        mask: (B, Tx) bool, True on real tokens, which come first.

    Returns:
        h_fwd and, if there are two units, h_bwd, (B, Tx, n) each.
    """
    flipped = reversal(mask)  # (B, Tx)
    orders = [Ex, take(Ex, flipped)] if len(units) == 2 else [Ex]
    words = torch.stack([unit.project(x) for unit, x in zip(units, orders, strict=True)])
    h_fwd, *h_rev = scan(units, words)
    return [h_fwd, *(take(h, flipped) for h in h_rev)]


def scan(units: Sequence[GatedUnit], words: Tensor, start: Tensor | None = None) -> Tensor:
    """Run D units side by side over `project`ed words (D, B, T, 3n).

    Args:
        units: Without context, or with the context already added to the words.
        words: (D, B, T, 3n).
        start: (D, B, n) first states; zero if not given.

    Returns:
        (D, B, T, n) states after each word.
    """
    exact = units[0].U.weight.dtype  # under autocast the recurrence keeps the weights' type
    if start is None:
        start = words.new_zeros(len(units), words.shape[1], units[0].hidden_size)
    U = torch.stack([unit.U.weight.T for unit in units])  # (D, n, n)
    U_gates = torch.stack([torch.cat([u.U_z.weight, u.U_r.weight]).T for u in units])  # (D, n, 2n)
    with torch.autocast(words.device.type, enabled=False):
        time_first = words.to(exact).transpose(1, 2)
        h: Tensor = GatedScan.apply(  # type: ignore[no-untyped-call]
            time_first, start.to(exact), U, U_gates, units[0].reset_before
        )
    return h.transpose(1, 2)


def reversal(mask: Tensor) -> Tensor:
    """Return, per row, the positions that turn its real tokens round and leave padding in place."""
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    lengths = mask.sum(dim=1, keepdim=True)
    return torch.where(mask, lengths - 1 - positions, positions)


def take(rows: Tensor, positions: Tensor) -> Tensor:
    """Pick positions (B, T) from rows (B, T, d)."""
    return rows.gather(1, positions[..., None].expand(-1, -1, rows.shape[-1]))


class GatedScan(torch.autograd.Function):
    """A gated unit over time, A.1.1 without context, for D directions at once.

    Inputs: projected words (D, T, B, 3n) as `GatedUnit.project` orders them, first states
    (D, B, n), U (D, n, n) and [U_z, U_r] (D, n, 2n), both transposed, and whether the reset gate
    acts before U.
    Output: states (D, T, B, n).
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, projected: Tensor, start: Tensor, U: Tensor, U_gates: Tensor, reset_before: bool
    ) -> Tensor:
        _, num_steps, _, width = projected.shape
        n = width // 3
        We, We_gates = projected.split([n, 2 * n], dim=-1)
        h = start
        states, gates, candidates, products = [], [], [], []
        for j in range(num_steps):
            z_r = torch.baddbmm(We_gates[:, j], h, U_gates).sigmoid_()
            z, r = z_r.chunk(2, dim=-1)
            if reset_before:
                h_tilde = torch.baddbmm(We[:, j], r * h, U).tanh_()
            else:
                products.append(Uh := torch.bmm(h, U))
                h_tilde = torch.addcmul(We[:, j], r, Uh).tanh_()
            h = torch.lerp(h, h_tilde, z)  # (1 - z) h + z h_tilde
            states.append(h)
            gates.append(z_r)
            candidates.append(h_tilde)
        h_all = torch.stack(states, dim=1)
        saved = [torch.stack(part, dim=1) for part in (gates, candidates, products) if part]
        ctx.save_for_backward(start, U, U_gates, h_all, *saved)
        ctx.reset_before = reset_before
        return h_all

    @staticmethod
    def backward(  # noqa: D102
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        start, U, U_gates, h_all, gates, candidates, *products = ctx.saved_tensors
        num_directions, num_steps, num_rows, n = h_all.shape
        h_prev = torch.cat([start[:, None], h_all[:, :-1]], dim=1)
        z, r = gates.chunk(2, dim=-1)
        # What multiplies the incoming gradient at each step does not depend on it: all at once.
        to_gate = (candidates - h_prev) * z * (1 - z)  # d s / d (z before the sigmoid)
        to_candidate = z * (1 - candidates.square())
        r_slope = r * (1 - r) * (h_prev if ctx.reset_before else products[0])
        d_projected = grad.new_empty(num_directions, num_steps, num_rows, 3 * n)
        d_candidate, d_gates = d_projected.split([n, 2 * n], dim=-1)
        U_T, U_gates_T = U.mT.contiguous(), U_gates.mT.contiguous()
        d_h = grad.new_zeros(num_directions, num_rows, n)
        for j in reversed(range(num_steps)):
            d_h = d_h + grad[:, j]
            d_cand = torch.mul(d_h, to_candidate[:, j], out=d_candidate[:, j])
            torch.mul(d_h, to_gate[:, j], out=d_gates[:, j, :, :n])
            d_h = d_h * (1 - z[:, j])
            if ctx.reset_before:
                d_rh = torch.bmm(d_cand, U_T)
                torch.mul(d_rh, r_slope[:, j], out=d_gates[:, j, :, n:])
                d_h.addcmul_(d_rh, r[:, j])
            else:
                torch.mul(d_cand, r_slope[:, j], out=d_gates[:, j, :, n:])
                d_h.baddbmm_(d_cand * r[:, j], U_T)
            d_h.baddbmm_(d_gates[:, j], U_gates_T)
        flat = (num_directions, num_steps * num_rows, -1)
        into_U = (r * h_prev, d_candidate) if ctx.reset_before else (h_prev, d_candidate * r)
        d_U = torch.bmm(into_U[0].reshape(flat).mT, into_U[1].reshape(flat))
        d_U_gates = torch.bmm(h_prev.reshape(flat).mT, d_gates.reshape(flat))
        return d_projected, d_h, d_U, d_U_gates, None
