"""`kernels.steps` on the programs of `steps.c`: one to three calls a step beside the products."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq.kernels.energies import is_small
from seq2seq.kernels.native.build import Programs, is_narrow
from seq2seq.kernels.precision import Factor
from seq2seq.kernels.steps import Kept, LookBack, Looked, LookForth, UnitBack, UnitForth


@dataclass(frozen=True)
class NativeSteps:
    """`Steps` for float32 states on a CPU; directions go one after the other."""

    programs: Programs

    def unit(  # noqa: D102
        self, kept: Kept, U: Factor, U_gates: Factor | None, *, reset_before: bool
    ) -> UnitForth:
        if not U.parts:
            return NativeUnit(self.programs, kept, U, U_gates, reset_before)
        assert U_gates is not None
        parts = zip(kept.directions(), U.parts, U_gates.parts, strict=True)
        return UnitsForth([self.unit(k, u, g, reset_before=reset_before) for k, u, g in parts])

    def unit_back(  # noqa: D102
        self, kept: Kept, s_prev: Tensor, U_T: Factor, d_drive: Tensor, *, reset_before: bool
    ) -> UnitBack:
        if not U_T.parts:
            return NativeUnitBack(
                self.programs, kept, s_prev.contiguous(), U_T, d_drive, reset_before
            )
        parts = zip(kept.directions(), s_prev, U_T.parts, d_drive, strict=True)
        units = [self.unit_back(*part, reset_before=reset_before) for part in parts]
        return UnitsBack(units)

    def look(self, looked: Looked) -> LookForth:  # noqa: D102
        return NativeLook(self.programs, looked)

    def look_back(  # noqa: D102
        self, looked: Looked, d_drive: Tensor, d_alphas: Tensor, d_queries: Tensor
    ) -> LookBack:
        return NativeLookBack(self.programs, looked, d_drive, d_alphas, d_queries)


@dataclass(frozen=True)
class UnitsForth:
    """`UnitForth` of D directions."""

    units: Sequence[UnitForth]

    def __call__(  # noqa: D102
        self, drive: Tensor, s: Tensor, from_s: Tensor | None, step: slice, out: Tensor
    ) -> Tensor:
        for d, unit in enumerate(self.units):
            unit(drive[d], s[d], None if from_s is None else from_s[d], step, out[d])
        return out


@dataclass(frozen=True)
class UnitsBack:
    """`UnitBack` of D directions."""

    units: Sequence[UnitBack]

    def __call__(  # noqa: D102
        self, d_s: Tensor, step: slice, at_new: Tensor | None, at_old: Tensor | None
    ) -> Tensor:
        each = range(len(self.units))
        parts = (
            self.units[d](d_s[d], step, *(x if x is None else x[d] for x in (at_new, at_old)))
            for d in each
        )
        return torch.stack([*parts])


@dataclass(frozen=True)
class NativeUnit:
    """`UnitForth`."""

    programs: Programs
    kept: Kept
    U: Factor
    U_gates: Factor | None
    reset_before: bool

    def __call__(  # noqa: D102
        self, drive: Tensor, s: Tensor, from_s: Tensor | None, step: slice, out: Tensor
    ) -> Tensor:
        kept, (b, n) = self.kept, s.shape
        if from_s is None:
            assert self.U_gates is not None
            from_s = self.U_gates(s)
        drive, s, num_out = drive.contiguous(), s.contiguous(), len(out)
        given = drive, from_s, is_narrow(from_s), from_s.stride(0), s
        gates, candidates = kept.gates[step], kept.candidates[step]
        if not self.reset_before:
            Us = self.U(s)
            written = gates, kept.products[step], candidates, out
            self.programs("gates_after", *given, Us, is_narrow(Us), *written, b, num_out, n)
            return out
        rs = s.new_empty(b, n, dtype=self.U.dtype)
        self.programs("gates_before", *given, gates, rs, is_narrow(rs), b, n)
        U_rs = self.U(rs)
        moved = drive, s, U_rs, is_narrow(U_rs), gates, candidates, out
        self.programs("move", *moved, b, num_out, n)
        return out


@dataclass(frozen=True)
class NativeUnitBack:
    """`UnitBack`."""

    programs: Programs
    kept: Kept
    s_prev: Tensor
    U_T: Factor
    d_drive: Tensor
    reset_before: bool

    def __call__(  # noqa: D102
        self, d_s: Tensor, step: slice, at_new: Tensor | None, at_old: Tensor | None
    ) -> Tensor:
        kept, (b, n) = self.kept, d_s.shape
        gates, s_prev, d_drive = kept.gates[step], self.s_prev[step], self.d_drive[step]
        factor, d_old = d_s.new_empty(b, n, dtype=self.U_T.dtype), d_s.new_empty(b, n)
        incoming = (x if x is None else x.contiguous() for x in (d_s, at_new, at_old))
        self.programs(
            "gates_back",
            *(*incoming, gates, kept.candidates[step], s_prev),
            None if self.reset_before else kept.products[step],
            *(d_drive, factor, is_narrow(factor), d_old, b, n),
        )
        from_U = self.U_T(factor)
        if not self.reset_before:
            return d_old.add_(from_U)
        self.programs("reset_back", from_U, is_narrow(from_U), gates, s_prev, d_drive, d_old, b, n)
        return d_old


class NativeLook:
    """`LookForth`."""

    def __init__(self, programs: Programs, looked: Looked) -> None:
        self.programs, self.looked = programs, looked
        self.seen = Seen.of(looked.keys, looked.Ch, looked.mask, looked.v_a)

    def __call__(self, query: Tensor, base: Tensor, step: slice) -> Tensor:  # noqa: D102
        (b, n_align), looked, seen = query.shape, self.looked, self.seen
        base = base.contiguous()
        drive = torch.empty_like(base)
        self.programs(
            "look",
            *(query, is_narrow(query), query.stride(0), *seen.keys, seen.v_a, seen.mask, seen.Ch),
            *(None, base, drive, looked.queries[step], looked.alphas[step]),
            *(b, 1, seen.mask.shape[1], n_align, base.shape[1]),
        )
        return drive


class NativeLookBack:
    """`LookBack`: gradients of v_a are summed by sentence, and in one order at the end."""

    def __init__(
        self,
        programs: Programs,
        looked: Looked,
        d_drive: Tensor,
        d_alphas: Tensor,
        d_queries: Tensor,
    ) -> None:
        self.programs, self.looked = programs, looked
        self.seen = Seen.of(looked.keys, looked.Ch, looked.mask, looked.v_a)
        self.d_drive, self.d_alphas, self.d_queries = d_drive, d_alphas.contiguous(), d_queries
        rows, _, n_align = looked.keys.shape
        self.d_keys = looked.keys.new_zeros(looked.keys.shape)
        self.d_v = looked.keys.new_zeros(rows, n_align)

    def __call__(self, step: slice) -> None:  # noqa: D102
        looked, seen, d_queries = self.looked, self.seen, self.d_queries[step]
        self.programs(
            "look_back",
            *(self.d_drive[step], self.d_alphas[step], looked.alphas[step], looked.queries[step]),
            *(*seen.keys, seen.v_a, seen.Ch, d_queries, d_queries.stride(0)),
            *(self.d_keys, self.d_v, len(d_queries), looked.keys.shape[1]),
            *(looked.keys.shape[2], self.d_drive.shape[1]),
        )

    def sums(self) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.d_keys * self.looked.v_a, self.d_v.sum(dim=0)


@dataclass(frozen=True)
class Seen:
    """What attention reads, as the programs take it."""

    keys: tuple[Tensor, Tensor, bool]  # (B, Tx, n'), exp of twice that, whether it exists
    Ch: Tensor  # (B, Tx, width)
    mask: Tensor  # (B, Tx)
    v_a: Tensor  # (n')

    @classmethod
    def of(cls, keys: Tensor, Ch: Tensor, mask: Tensor, v_a: Tensor) -> "Seen":
        """Prepare arrays of any layout."""
        keys = keys.contiguous()
        small = is_small(keys)
        powers = keys.mul(2).exp_() if small else keys
        return cls((keys, powers, small), *(x.contiguous() for x in (Ch, mask, v_a)))
