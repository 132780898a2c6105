"""`kernels.steps` on Triton, for float32 states: two to four launches per step plus matmuls."""

import torch
import triton
from torch import Tensor

from seq2seq.kernels.gpu import triton_kernels
from seq2seq.kernels.matmul import PackedWeight
from seq2seq.kernels.steps import Attending, Saved, Steps, TorchUnit

BLOCK_T = 16
"""Source positions per block."""
BLOCK_N = 64
"""Units per block."""


def _blocks(size: int) -> int:
    return -(-size // BLOCK_N)


def _in_rows(x: Tensor) -> tuple[Tensor, int]:
    """Return x (b, w) or (D, b, w) with contiguous rows, and the stride of D (0 without D)."""
    x = x if x.stride(-1) == 1 and x.stride(-2) == x.shape[-1] else x.contiguous()
    return x, x.stride(0) if x.dim() == 3 else 0


class TritonUnit(TorchUnit):
    """`TorchUnit` on Triton; the matmul with U is torch's."""

    def __call__(  # noqa: D102
        self, drive: Tensor, s: Tensor, from_s: Tensor | None, step: slice, out: Tensor
    ) -> Tensor:
        # Outputs and arguments
        saved, (*_, b, n) = self.saved, s.shape
        rounded = s.to(self.U.dtype)
        if from_s is None:
            assert self.U_gates is not None
            from_s = self.U_gates(rounded)
        new = s.new_empty(s.shape)
        rs = torch.empty_like(new, dtype=rounded.dtype)
        grid = new.shape[:-1].numel(), _blocks(n)
        from_s_d = from_s.stride(0) if from_s.dim() == 3 else 0
        placed = *_in_rows(drive), *_in_rows(s)
        results = saved.candidates, new, *_in_rows(out)
        sizes = step.start, b, out.shape[-2], saved.gates.shape[-2], n
        # Gates; then the new state, which needs U (r s) if the reset gate acts before U
        triton_kernels.gates[grid](
            *(*placed, from_s, from_s_d, from_s.stride(-2)),
            *(rs if self.reset_before else self.U(rounded), saved.gates, rs, saved.Us),
            *(*results, *sizes),
            RESET_BEFORE=self.reset_before,
            BLOCK_N=BLOCK_N,
        )
        if self.reset_before:
            triton_kernels.move[grid](
                *(*placed, self.U(rs), saved.gates, *results, *sizes), BLOCK_N=BLOCK_N
            )
        return new


class TritonUnitBackward:
    """`TorchUnitBackward` on Triton; the matmul with U' is torch's."""

    def __init__(
        self,
        saved: Saved,
        s_prev: Tensor,
        U_T: PackedWeight,
        d_drive: Tensor,
        *,
        reset_before: bool,
    ) -> None:
        self.saved, self.s_prev, self.U_T = saved, s_prev.contiguous(), U_T
        self.d_drive, self.reset_before = d_drive, reset_before

    def __call__(  # noqa: D102
        self, d_s: Tensor, step: slice, at_new: Tensor | None, at_old: Tensor | None
    ) -> Tensor:
        saved, (*_, b, n) = self.saved, d_s.shape
        d_old = d_s.new_empty(d_s.shape)
        operand = torch.empty_like(d_old, dtype=self.U_T.dtype)
        grid = d_s.shape[:-1].numel(), _blocks(n)
        sizes = step.start, b, saved.gates.shape[-2], n
        given = [_in_rows(d_s if x is None else x) for x in (d_s, at_new, at_old)]
        # Back to the candidate and the gates; then through the matmul with U
        triton_kernels.gates_backward[grid](
            *(*given[0], *given[1], *given[2]),
            *(saved.gates, saved.candidates, self.s_prev, saved.Us),
            *(self.d_drive, operand, d_old, *sizes),
            HAS_NEW=at_new is not None,
            HAS_OLD=at_old is not None,
            RESET_BEFORE=self.reset_before,
            BLOCK_N=BLOCK_N,
        )
        if not self.reset_before:
            return self.U_T.plus(d_old, operand)
        triton_kernels.reset_backward[grid](
            *(self.U_T(operand), saved.gates, self.s_prev, self.d_drive, d_old, *sizes),
            BLOCK_N=BLOCK_N,
        )
        return d_old


class TritonAttend:
    """`TorchAttend` on Triton."""

    def __init__(self, inputs: Attending) -> None:
        self.inputs = inputs
        self.keys, self.Ch = inputs.keys.contiguous(), inputs.Ch.contiguous()
        self.mask, self.v_a = inputs.mask.to(torch.uint8), inputs.v_a.contiguous()
        self.energy = self.keys.new_empty(self.mask.shape, dtype=torch.float32)

    def __call__(self, query: Tensor, base: Tensor, step: slice) -> Tensor:  # noqa: D102
        (b, n_align), Tx = query.shape, self.mask.shape[1]
        base = base.contiguous()
        drive = torch.empty_like(base)
        triton_kernels.energies[b, triton.cdiv(Tx, BLOCK_T)](
            *(query, query.stride(0), self.keys, self.mask, self.v_a),
            *(self.energy, self.inputs.queries, step.start, Tx, n_align),
            BLOCK_T=BLOCK_T,
            BLOCK_N=BLOCK_N,
        )
        triton_kernels.context[b, _blocks(base.shape[1])](
            *(self.energy, self.mask, self.Ch, base, drive, self.inputs.alphas),
            *(step.start, Tx, base.shape[1]),
            BLOCK_TX=triton.next_power_of_2(Tx),
            BLOCK_T=BLOCK_T,
            BLOCK_N=BLOCK_N,
        )
        return drive


class TritonAttendBackward:
    """`TorchAttendBackward` on Triton; sums v_a's gradients per sentence, then in a fixed order."""

    def __init__(
        self, inputs: Attending, d_drive: Tensor, d_alphas: Tensor, d_queries: Tensor
    ) -> None:
        self.inputs, self.d_drive, self.d_queries = inputs, d_drive, d_queries
        self.keys, self.Ch = inputs.keys.contiguous(), inputs.Ch.contiguous()
        self.mask, self.v_a = inputs.mask.to(torch.uint8), inputs.v_a.contiguous()
        self.d_alphas = d_alphas.contiguous()
        rows, _, n_align = self.keys.shape
        self.d_alpha = torch.empty(self.mask.shape, dtype=torch.float32, device=self.keys.device)
        self.d_keys = torch.zeros_like(self.keys, dtype=torch.float32)
        self.d_v = self.d_keys.new_zeros(rows, n_align)

    def __call__(self, step: slice) -> None:  # noqa: D102
        inputs, b, (Tx, n_align) = self.inputs, step.stop - step.start, self.keys.shape[1:]
        width = self.d_drive.shape[1]
        triton_kernels.context_backward[b, triton.cdiv(Tx, BLOCK_T)](
            *(self.d_drive, self.Ch, self.mask, self.d_alphas, self.d_alpha),
            *(step.start, Tx, width),
            BLOCK_T=BLOCK_T,
            BLOCK_N=BLOCK_N,
        )
        triton_kernels.energies_backward[b, _blocks(n_align)](
            *(inputs.alphas, self.d_alpha, inputs.queries, self.keys, self.mask, self.v_a),
            *(self.d_queries, self.d_queries.stride(0), self.d_keys, self.d_v),
            *(step.start, Tx, n_align),
            BLOCK_TX=triton.next_power_of_2(Tx),
            BLOCK_T=BLOCK_T,
            BLOCK_N=BLOCK_N,
        )

    def sums(self) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.d_keys * self.v_a, self.d_v.sum(dim=0)


TRITON = Steps(TritonUnit, TritonUnitBackward, TritonAttend, TritonAttendBackward)
"""The steps on Triton."""
