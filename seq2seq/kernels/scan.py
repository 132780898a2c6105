"""The encoder's recurrence: both directions in one loop, with a hand-derived backward pass.

Autograd over a loop adds every step's weight gradient to a running sum; here they are one product
over all steps. Both directions advance together, as one batched product a step.
"""

from typing import Any

import torch
from torch import Tensor

from seq2seq.model.gated_unit import GatedUnit


def read_fused(
    forward_unit: GatedUnit, backward_unit: GatedUnit, Ex: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Run both units over a batch; equals `encoder.read` on real positions.

    Each sentence is reversed within its own length for the backward unit, so that padding comes
    last in both directions and needs no mask: its states are never looked at.

    Args:
        forward_unit: Reads from left to right.
        backward_unit: Reads from right to left; of the same sizes.
        Ex: (B, Tx, m) embedded words.
        mask: (B, Tx) bool, True on real tokens, which come first.

    Returns:
        h_fwd and h_bwd, (B, Tx, n) each.
    """
    flipped = reversal(mask)  # (B, Tx)
    backwards = backward_unit.project(take(Ex, flipped))
    projected = torch.stack([forward_unit.project(Ex), backwards])  # (2, B, Tx, 3n)
    projected = projected.to(Ex.dtype)  # state products stay in the weights' type under autocast
    units = (forward_unit, backward_unit)
    U = torch.stack([unit.U.weight.T for unit in units])  # (2, n, n)
    U_gates = torch.stack([torch.cat([u.U_z.weight, u.U_r.weight]).T for u in units])  # (2, n, 2n)
    with torch.autocast(Ex.device.type, enabled=False):
        words, reset_before = projected.transpose(1, 2), forward_unit.reset_before
        h = GatedScan.apply(words, U, U_gates, reset_before)  # type: ignore[no-untyped-call]
    h_fwd, h_rev = h.transpose(1, 2)  # (B, Tx, n) each
    return h_fwd, take(h_rev, flipped)


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

    Inputs: projected words (D, T, B, 3n) as `GatedUnit.project` orders them, U (D, n, n) and
    [U_z, U_r] (D, n, 2n), both transposed, and whether the reset gate acts before U.
    Output: states (D, T, B, n).
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any, projected: Tensor, U: Tensor, U_gates: Tensor, reset_before: bool
    ) -> Tensor:
        num_directions, num_steps, num_rows, width = projected.shape
        n = width // 3
        We, We_gates = projected.split([n, 2 * n], dim=-1)
        h = projected.new_zeros(num_directions, num_rows, n)
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
        ctx.save_for_backward(U, U_gates, h_all, *saved)
        ctx.reset_before = reset_before
        return h_all

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # noqa: D102
        U, U_gates, h_all, gates, candidates, *products = ctx.saved_tensors
        num_directions, num_steps, num_rows, n = h_all.shape
        h_prev = torch.cat([h_all.new_zeros(num_directions, 1, num_rows, n), h_all[:, :-1]], dim=1)
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
        return d_projected, d_U, d_U_gates, None
