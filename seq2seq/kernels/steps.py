"""What a step of a recurrence does besides its large products, forth and back.

Here by torch's operations, for any device and format; `gpu/` has the same four classes with these
operations fused, and `steps_for` says which of the two run.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seq2seq.kernels.energies import Energies
from seq2seq.kernels.precision import Factor


@dataclass(frozen=True)
class Kept:
    """What units note on the way forth, by packed word; of D directions in scans of encoders."""

    gates: Tensor  # (N, 2n) or (D, N, 2n)  z, r
    candidates: Tensor  # (N, n) or (D, N, n)
    products: Tensor  # the same, U s_{i-1}, where the reset gate acts on it; else empty

    @classmethod
    def empty(cls, states: Tensor, *, reset_before: bool) -> "Kept":
        """Make room for N words whose states are (..., N, n)."""
        *outer, n = states.shape
        return cls(
            gates=states.new_empty(*outer, 2 * n),
            candidates=states.new_empty(*outer, n),
            products=states.new_empty(*outer[:-1], 0) if reset_before else torch.empty_like(states),
        )

    def directions(self) -> list["Kept"]:
        """Return the D scans of an encoder one by one."""
        return [
            Kept(*parts) for parts in zip(self.gates, self.candidates, self.products, strict=True)
        ]


@dataclass(frozen=True)
class Looked:
    """What attention reads and notes, sentences in the order of the packing."""

    keys: Tensor  # (B, Tx, n')
    Ch: Tensor  # (B, Tx, 3n)  [C, C_z, C_r] h_j
    mask: Tensor  # (B, Tx) bool, True on real tokens
    v_a: Tensor  # (n')
    queries: Tensor  # (N, n')
    alphas: Tensor  # (N, Tx)


class UnitForth(Protocol):
    """Gated units forth."""

    def __call__(
        self, drive: Tensor, s: Tensor, from_s: Tensor | None, step: slice, out: Tensor
    ) -> Tensor:
        """Put as many s_i as `out` has room for there; return these (..., b or fewer, n), or all.

        Args:
            drive: (..., b, 3n) what word and context add to candidate, z and r.
            s: (..., b, n) s_{i-1}.
            from_s: (..., b, 2n) what s_{i-1} adds to z and r, if it is known already.
            step: Rows among packed words.
            out: (..., up to b, n).
        """


class UnitBack(Protocol):
    """Gated units back; writes the gradients of `drive`."""

    def __call__(
        self, d_s: Tensor, step: slice, at_new: Tensor | None, at_old: Tensor | None
    ) -> Tensor:
        """Return the gradient of s_{i-1} (..., b, n), but for what comes by z and r.

        Args:
            d_s: (..., b, n) gradient of s_i from later steps.
            step: Rows among packed words.
            at_new: (..., b, n) more of the gradient of s_i, where s_i is what the scan returns.
            at_old: (..., b, n) more of the gradient of s_{i-1}, where s_{i-1} is.
        """


class LookForth(Protocol):
    """Attention forth."""

    def __call__(self, query: Tensor, base: Tensor, step: slice) -> Tensor:
        """Return base (b, 3n) + sum_j alpha_j [C, C_z, C_r] h_j for a query (b, n')."""


class LookBack(Protocol):
    """Attention back; sums the gradients of keys and v_a over steps."""

    def __call__(self, step: slice) -> None:
        """Write the gradient of a query, with that of `drive` known."""

    def sums(self) -> tuple[Tensor, Tensor]:
        """Return the gradients of keys (B, Tx, n') and v_a (n'), after the last step."""


class Steps(Protocol):
    """Makes the four for one scan."""

    def unit(
        self, kept: Kept, U: Factor, U_gates: Factor | None, *, reset_before: bool
    ) -> UnitForth:
        """Return units with U (n, n) and maybe [U_z, U_r] (2n, n), each of D directions."""

    def unit_back(
        self, kept: Kept, s_prev: Tensor, U_T: Factor, d_drive: Tensor, *, reset_before: bool
    ) -> UnitBack:
        """Return units that fill d_drive (..., N, 3n), with states s_{i-1} (..., N, n)."""

    def look(self, looked: Looked) -> LookForth:
        """Return attention that fills queries and alphas."""

    def look_back(
        self, looked: Looked, d_drive: Tensor, d_alphas: Tensor, d_queries: Tensor
    ) -> LookBack:
        """Return attention that fills d_queries (N, n'), given d_alphas (N, Tx)."""


class TorchSteps:
    """`Steps` by torch's operations."""

    def unit(  # noqa: D102
        self, kept: Kept, U: Factor, U_gates: Factor | None, *, reset_before: bool
    ) -> UnitForth:
        return TorchUnit(kept, U, U_gates, reset_before)

    def unit_back(  # noqa: D102
        self, kept: Kept, s_prev: Tensor, U_T: Factor, d_drive: Tensor, *, reset_before: bool
    ) -> UnitBack:
        return TorchUnitBack(kept, s_prev, U_T, d_drive, reset_before=reset_before)

    def look(self, looked: Looked) -> LookForth:  # noqa: D102
        return TorchLook(looked)

    def look_back(  # noqa: D102
        self, looked: Looked, d_drive: Tensor, d_alphas: Tensor, d_queries: Tensor
    ) -> LookBack:
        return TorchLookBack(looked, d_drive, d_alphas, d_queries)


@dataclass(frozen=True)
class TorchUnit:
    """`UnitForth`, A.1.1 and A.2.2."""

    kept: Kept
    U: Factor
    U_gates: Factor | None
    reset_before: bool

    def __call__(  # noqa: D102
        self, drive: Tensor, s: Tensor, from_s: Tensor | None, step: slice, out: Tensor
    ) -> Tensor:
        kept, n = self.kept, s.shape[-1]
        if from_s is None:
            assert self.U_gates is not None
            z_r = self.U_gates.plus(drive[..., n:].clone(), s).sigmoid_()
        else:
            z_r = (drive[..., n:] + from_s).sigmoid_()
        kept.gates[..., step, :] = z_r
        z, r = z_r.chunk(2, dim=-1)
        if self.reset_before:
            s_tilde = self.U.plus(drive[..., :n].clone(), r * s).tanh_()
        else:
            kept.products[..., step, :] = Us = self.U(s)
            s_tilde = (drive[..., :n] + r * Us).tanh_()
        kept.candidates[..., step, :] = s_tilde
        s = torch.lerp(s, s_tilde, z)  # (1 - z) s + z s_tilde
        out.copy_(s[..., : out.shape[-2], :])
        return s


class TorchUnitBack:
    """`UnitBack`."""

    def __init__(
        self, kept: Kept, s_prev: Tensor, U_T: Factor, d_drive: Tensor, *, reset_before: bool
    ) -> None:
        self.U_T, self.reset_before, n = U_T, reset_before, s_prev.shape[-1]
        self.z, self.r = z, r = kept.gates.chunk(2, dim=-1)
        # What multiplies the incoming gradient at each step does not depend on it: all at once.
        self.to_gate = (kept.candidates - s_prev) * z * (1 - z)  # d s / d (z before the sigmoid)
        self.to_candidate = z * (1 - kept.candidates.square())
        self.r_slope = r * (1 - r) * (s_prev if reset_before else kept.products)
        self.d_candidate, self.d_z, self.d_r = d_drive.split(n, dim=-1)

    def __call__(  # noqa: D102
        self, d_s: Tensor, step: slice, at_new: Tensor | None, at_old: Tensor | None
    ) -> Tensor:
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


class TorchLook:
    """`LookForth`, A.1.2."""

    def __init__(self, looked: Looked) -> None:
        self.looked = looked
        self.energies, self.blocked = Energies(looked.keys, looked.v_a), ~looked.mask

    def __call__(self, query: Tensor, base: Tensor, step: slice) -> Tensor:  # noqa: D102
        size, looked = len(query), self.looked
        looked.queries[step] = query
        energy = self.energies(looked.queries[step])
        energy.masked_fill_(self.blocked[:size], -torch.inf)
        looked.alphas[step] = alpha = torch.softmax(energy, dim=-1)
        return base + torch.bmm(alpha[:, None], looked.Ch[:size])[:, 0]


class TorchLookBack:
    """`LookBack`."""

    def __init__(
        self, looked: Looked, d_drive: Tensor, d_alphas: Tensor, d_queries: Tensor
    ) -> None:
        self.looked, self.energies = looked, Energies(looked.keys, looked.v_a)
        self.d_drive, self.d_alphas, self.d_queries = d_drive, d_alphas, d_queries

    def __call__(self, step: slice) -> None:  # noqa: D102
        looked = self.looked
        alpha = looked.alphas[step]
        d_alpha = torch.bmm(self.d_drive[step, None], looked.Ch[: len(alpha)].mT)[:, 0]
        d_alpha += self.d_alphas[step]
        d_energy = alpha * (d_alpha - (alpha * d_alpha).sum(dim=-1, keepdim=True))
        self.d_queries[step] = self.energies.backward(looked.queries[step], d_energy)

    def sums(self) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.energies.d_keys(), self.energies.d_v


def steps_for(states: Tensor, narrow: torch.dtype) -> Steps:
    """Return what fits the device and format of states, and the format of products."""
    from seq2seq.kernels import gpu  # says itself where it cannot run

    found = gpu.steps_for(states, narrow) if states.device.type == "cuda" else None
    return found or TorchSteps()
