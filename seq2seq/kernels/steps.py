"""A step of a recurrence without its large matmuls, forward and backward.

These classes use torch operations and run on any device and dtype. `gpu/` has the same four
classes with fused operations; `choice.py` chooses between the two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seq2seq.kernels.energies import Energies
from seq2seq.kernels.matmul import PackedWeight


@dataclass(frozen=True)
class Saved:
    """Saved activations of units, by packed word; with a leading D for directions in an encoder."""

    states: Tensor  # (..., N, n)  s_i in an encoder, s_{i-1} in a decoder
    gates: Tensor  # (..., N, 2n)  z, r
    candidates: Tensor  # (..., N, n)
    Us: Tensor  # (..., N, n)  U s_{i-1}, if the reset gate acts on it; else empty

    @classmethod
    def empty(cls, states: Tensor, *, reset_before: bool) -> "Saved":
        """Allocate for N words whose states are (..., N, n)."""
        *outer, n = states.shape
        return cls(
            states=states,
            gates=states.new_empty(*outer, 2 * n),
            candidates=states.new_empty(*outer, n),
            Us=states.new_empty(*outer[:-1], 0) if reset_before else torch.empty_like(states),
        )


@dataclass(frozen=True)
class Attending:
    """Inputs and saved activations of attention, sentences in the order of the packing."""

    keys: Tensor  # (B, Tx, n')
    Ch: Tensor  # (B, Tx, 3n)  [C, C_z, C_r] h_j
    mask: Tensor  # (B, Tx) bool, True on real tokens
    v_a: Tensor  # (n')
    queries: Tensor  # (N, n')
    alphas: Tensor  # (N, Tx)


@dataclass(frozen=True)
class Steps:
    """The four classes that the steps of a scan consist of; documented in this file."""

    unit: Callable[..., Any]
    unit_backward: Callable[..., Any]
    attend: Callable[..., Any]
    attend_backward: Callable[..., Any]


@dataclass(frozen=True)
class TorchUnit:
    """Gated units, A.1.1 and A.2.2: the next state, given the terms of gates and candidate."""

    saved: Saved
    U: PackedWeight  # (n, n)
    U_gates: PackedWeight | None  # [U_z, U_r] (2n, n), of an encoder
    reset_before: bool

    def __call__(
        self, drive: Tensor, s: Tensor, from_s: Tensor | None, step: slice, out: Tensor
    ) -> Tensor:
        """Return s_i (..., b, n), and copy its first rows to `out`, as many as fit.

        Args:
            drive: (..., b, 3n) terms of word and context in candidate, z and r.
            s: (..., b, n) s_{i-1}.
            from_s: (..., b, 2n) terms of s_{i-1} in z and r, if already computed.
            step: Rows of the packed words.
            out: (..., up to b, n).
        """
        saved, n = self.saved, s.shape[-1]
        if from_s is None:
            assert self.U_gates is not None
            z_r = self.U_gates.plus(drive[..., n:].clone(), s).sigmoid_()
        else:
            z_r = (drive[..., n:] + from_s).sigmoid_()
        saved.gates[..., step, :] = z_r
        z, r = z_r.chunk(2, dim=-1)
        if self.reset_before:
            s_tilde = self.U.plus(drive[..., :n].clone(), r * s).tanh_()
        else:
            saved.Us[..., step, :] = Us = self.U(s)
            s_tilde = (drive[..., :n] + r * Us).tanh_()
        saved.candidates[..., step, :] = s_tilde
        s = torch.lerp(s, s_tilde, z)  # (1 - z) s + z s_tilde
        out.copy_(s[..., : out.shape[-2], :])
        return s


class TorchUnitBackward:
    """Gated units backward: fills d_drive (..., N, 3n), given states s_{i-1} (..., N, n)."""

    def __init__(
        self,
        saved: Saved,
        s_prev: Tensor,
        U_T: PackedWeight,
        d_drive: Tensor,
        *,
        reset_before: bool,
    ) -> None:
        self.U_T, self.reset_before, n = U_T, reset_before, s_prev.shape[-1]
        self.z, self.r = z, r = saved.gates.chunk(2, dim=-1)
        # The factors of the incoming gradient do not depend on it: computed for all steps at once.
        self.to_gate = (saved.candidates - s_prev) * z * (1 - z)  # d s / d (z before the sigmoid)
        self.to_candidate = z * (1 - saved.candidates.square())
        self.r_slope = r * (1 - r) * (s_prev if reset_before else saved.Us)
        self.d_candidate, self.d_z, self.d_r = d_drive.split(n, dim=-1)

    def __call__(
        self, d_s: Tensor, step: slice, at_new: Tensor | None, at_old: Tensor | None
    ) -> Tensor:
        """Return the gradient of s_{i-1} (..., b, n), without the paths through z and r.

        Args:
            d_s: (..., b, n) gradient of s_i from later steps.
            step: Rows of the packed words.
            at_new: (..., b, n) added to the gradient of s_i, if the scan returns s_i.
            at_old: (..., b, n) added to the gradient of s_{i-1}, if the scan returns s_{i-1}.
        """
        r = self.r[..., step, :]
        if at_new is not None:
            d_s = d_s + at_new
        to_candidate, r_slope = self.to_candidate[..., step, :], self.r_slope[..., step, :]
        d_candidate = torch.mul(d_s, to_candidate, out=self.d_candidate[..., step, :])
        torch.mul(d_s, self.to_gate[..., step, :], out=self.d_z[..., step, :])
        d_s = d_s * (1 - self.z[..., step, :])
        if at_old is not None:
            d_s += at_old
        if self.reset_before:
            d_rs = self.U_T(d_candidate)
            torch.mul(d_rs, r_slope, out=self.d_r[..., step, :])
            return d_s.addcmul_(d_rs.to(d_s.dtype), r)
        torch.mul(d_candidate, r_slope, out=self.d_r[..., step, :])
        return self.U_T.plus(d_s, d_candidate * r)


class TorchAttend:
    """Attention, A.1.2; fills `queries` and `alphas`."""

    def __init__(self, inputs: Attending) -> None:
        self.inputs = inputs
        self.energies, self.blocked = Energies(inputs.keys, inputs.v_a), ~inputs.mask

    def __call__(self, query: Tensor, base: Tensor, step: slice) -> Tensor:
        """Return base (b, 3n) + sum_j alpha_j [C, C_z, C_r] h_j for a query (b, n')."""
        size, inputs = len(query), self.inputs
        inputs.queries[step] = query
        energy = self.energies(inputs.queries[step])
        energy.masked_fill_(self.blocked[:size], -torch.inf)
        inputs.alphas[step] = alpha = torch.softmax(energy, dim=-1)
        return base + torch.bmm(alpha[:, None], inputs.Ch[:size])[:, 0]


class TorchAttendBackward:
    """Attention backward; fills d_queries (N, n') and sums gradients of keys and v_a over steps."""

    def __init__(
        self, inputs: Attending, d_drive: Tensor, d_alphas: Tensor, d_queries: Tensor
    ) -> None:
        self.inputs, self.energies = inputs, Energies(inputs.keys, inputs.v_a)
        self.d_drive, self.d_alphas, self.d_queries = d_drive, d_alphas, d_queries

    def __call__(self, step: slice) -> None:
        """Write the gradient of the queries of a step, given that of `drive`."""
        inputs = self.inputs
        alpha = inputs.alphas[step]
        d_alpha = torch.bmm(self.d_drive[step, None], inputs.Ch[: len(alpha)].mT)[:, 0]
        d_alpha += self.d_alphas[step]
        d_energy = alpha * (d_alpha - (alpha * d_alpha).sum(dim=-1, keepdim=True))
        self.d_queries[step] = self.energies.backward(inputs.queries[step], d_energy)

    def sums(self) -> tuple[Tensor, Tensor]:
        """Return the gradients of keys (B, Tx, n') and v_a (n'), after the last step."""
        return self.energies.d_keys(), self.energies.d_v


TORCH = Steps(TorchUnit, TorchUnitBackward, TorchAttend, TorchAttendBackward)
"""The steps in torch operations."""
