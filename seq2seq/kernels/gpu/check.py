"""Compares each Triton kernel with torch operations: small odd sizes, forward and backward.

Inputs and sizes are as in `loops.StepLoops`: a decoder's rows, and those of an encoder's two
directions. `verdict` runs this in a separate process, since a wrong kernel may end it.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor

from seq2seq.kernels.gpu.steps import TRITON, TritonAttend, TritonAttendBackward
from seq2seq.kernels.matmul import PackedWeight
from seq2seq.kernels.steps import TORCH, Attending, Saved, Steps

Value = tuple[str, str, Tensor]
"""A kernel, what it computed, and the result."""

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.02}
"""Largest difference, in parts of the largest value, by dtype of the matmuls."""


@dataclass(frozen=True)
class Case:
    """Sizes, and the dtype of matmuls; every use draws the same inputs."""

    outer: tuple[int, ...]  # (D,) of an encoder's directions, () in a decoder
    n: int
    n_align: int
    Tx: int
    dtype: torch.dtype
    device: torch.device

    def draws(self) -> Callable[..., Tensor]:
        """Return a function that draws normal numbers of a shape, from the start."""
        generator = torch.Generator().manual_seed(1)
        return lambda *shape: torch.randn(shape, generator=generator).to(self.device)

    def unset(self, *shape: int) -> Tensor:
        """Return NaN of a shape, to be overwritten."""
        return torch.full(shape, torch.nan, device=self.device)

    def mask(self) -> Tensor:
        """Return real positions (4, Tx): all, one, all but the first, half."""
        ends = torch.tensor([self.Tx, 1, self.Tx, self.Tx // 2])
        mask = torch.arange(self.Tx) < ends[:, None]
        mask[2, 0] = False
        return mask.to(self.device)


SIZES = [((), 65, 70, 19), ((2,), 64, 64, 16)]
"""Of cases: a little more than a block of units (64) and positions (16); exactly a block."""


class Operands(PackedWeight):
    """Weights that record the operand of their matmul, which a kernel has computed."""

    def __call__(self, x: Tensor) -> Tensor:  # noqa: D102
        self.operand = x
        return super().__call__(x)

    def plus(self, base: Tensor, x: Tensor) -> Tensor:  # noqa: D102
        return base.add_(self(x))


# What each class of steps computes: values of a kernel before those that depend on it -----------


def unit(steps: Steps, case: Case, *, reset_before: bool) -> Iterator[Value]:
    """Yield the results of a step of 4 rows whose last new state is not saved."""
    draw, outer, n, N = case.draws(), case.outer, case.n, 8
    shape = (0,) if reset_before else (N, n)
    saved = Saved(
        states=case.unset(*outer, N, n),
        gates=case.unset(*outer, N, 2 * n),
        candidates=case.unset(*outer, N, n),
        Us=case.unset(*outer, *shape),
    )
    drive, s, wide = draw(*outer, 4, 3 * n), draw(*outer, 4, n), draw(4, 7 + 2 * n)
    U = Operands(draw(*outer, n, n) * n**-0.5, case.dtype)
    U_gates = PackedWeight(draw(*outer, 2 * n, n) * n**-0.5, case.dtype) if outer else None
    from_s = None if outer else wide.to(case.dtype)[:, 7:]
    # The step, and its results in the order in which kernels depend on each other
    step, out = slice(2, 6), saved.states[..., 2:5, :]
    new = steps.unit(saved, U, U_gates, reset_before=reset_before)(drive, s, from_s, step, out)
    yield "gates", "z and r", saved.gates
    yield "gates", "the operand of U", U.operand
    last = "move" if reset_before else "gates"
    if not reset_before:
        yield last, "U s", saved.Us
    yield last, "the candidate", saved.candidates
    yield last, "the new state", new
    yield last, "the saved state", saved.states


def unit_backward(steps: Steps, case: Case, *, reset_before: bool) -> Iterator[Value]:
    """Yield the gradients of a step of 4 rows."""
    draw, outer, n, N = case.draws(), case.outer, case.n, 8
    saved = Saved(
        states=draw(*outer, N, n),
        gates=draw(*outer, N, 2 * n).sigmoid(),
        candidates=draw(*outer, N, n).tanh(),
        Us=draw(*outer, N, n),
    )
    U_T = Operands(draw(*outer, n, n) * n**-0.5, case.dtype)
    d_drive, step = case.unset(*outer, N, 3 * n), slice(2, 6)
    added = draw(*outer, N, n)[..., 2:6, :]
    # The step: an encoder's scan returns s_i, a decoder's s_{i-1}.
    backward = steps.unit_backward(saved, saved.states, U_T, d_drive, reset_before=reset_before)
    d_s = draw(*outer, 6, n)[..., :4, :]
    d_old = backward(d_s, step, *((added, None) if outer else (None, added)))
    d_candidate_and_z, d_r = d_drive.split([2 * n, n], dim=-1)
    last = "reset_backward" if reset_before else "gates_backward"
    yield "gates_backward", "the operand of U'", U_T.operand
    yield "gates_backward", "the gradients of the candidate and z", d_candidate_and_z
    yield last, "the gradient of r", d_r
    yield last, "the gradient of the state", d_old


def attending(case: Case, queries: Tensor, alphas: Tensor) -> Attending:
    """Return keys and values of 4 sentences."""
    draw, n_align = case.draws(), case.n_align
    keys, Ch = draw(4, case.Tx, n_align), draw(4, case.Tx, 3 * case.n)
    return Attending(keys, Ch, case.mask(), draw(n_align) * n_align**-0.5 * 4, queries, alphas)


def attend(steps: Steps, case: Case) -> Iterator[Value]:
    """Yield the results of steps of 4 and 2 sentences."""
    draw, n_align = case.draws(), case.n_align
    inputs = attending(case, case.unset(6, n_align), case.unset(6, case.Tx))
    step_of = steps.attend(inputs)
    for step in (slice(0, 4), slice(4, 6)):
        b = step.stop - step.start
        query, base = draw(b, n_align + 3).to(case.dtype)[:, :n_align], draw(b, 3 * case.n)
        drive = step_of(query, base, step)
        if isinstance(step_of, TritonAttend):
            energy = step_of.energy[:b]
        else:
            energy = step_of.energies(inputs.queries[step])
        energy = energy.masked_fill(~inputs.mask[:b], -torch.inf)
        yield "energies", "the query", inputs.queries
        yield "energies", "the softmax of the energies", energy.softmax(dim=-1)
        yield "context", "alpha", inputs.alphas
        yield "context", "the context", drive


def attend_backward(steps: Steps, case: Case) -> Iterator[Value]:
    """Yield the gradients of steps of 4 and 2 sentences."""
    draw, n_align = case.draws(), case.n_align
    mask = case.mask()[[0, 1, 2, 3, 0, 1]]
    alphas = draw(6, case.Tx).masked_fill(~mask, -torch.inf).softmax(dim=-1)
    inputs = attending(case, draw(6, n_align), alphas)
    d_drive, d_alphas = draw(6, 3 * case.n), draw(6, case.Tx)
    d_queries = case.unset(6, n_align + 3)[:, :n_align]
    backward = steps.attend_backward(inputs, d_drive, d_alphas, d_queries)
    for step in (slice(4, 6), slice(0, 4)):
        backward(step)
        b = step.stop - step.start
        if isinstance(backward, TritonAttendBackward):
            d_alpha = backward.d_alpha[:b]
        else:
            d_alpha = torch.bmm(inputs.Ch[:b], d_drive[step, :, None])[..., 0] + d_alphas[step]
        yield "context_backward", "the gradient of alpha", d_alpha * inputs.mask[:b]
    names = "the gradient of the query", "the gradient of the keys", "the gradient of v_a"
    for name, value in zip(names, (d_queries, *backward.sums()), strict=True):
        yield "energies_backward", name, value


PARTS: list[tuple[str, Callable[[Steps, Case], Iterator[Value]]]] = [
    ("gates", partial(unit, reset_before=False)),
    ("gates, move", partial(unit, reset_before=True)),
    ("gates_backward", partial(unit_backward, reset_before=False)),
    ("gates_backward, reset_backward", partial(unit_backward, reset_before=True)),
    ("energies, context", attend),
    ("context_backward, energies_backward", attend_backward),
]
"""Kernels and the function that compares them; those that others need come first."""


# The comparison ---------------------------------------------------------------------------------


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference in parts of the largest value; NaN must be where NaN is."""
    found, expected = found.float(), expected.float()
    unset = expected.isnan()
    apart = (found - expected).abs().masked_fill(unset & found.isnan(), 0)
    return float(apart.nan_to_num(nan=torch.inf).max() / expected[~unset].abs().max())


def problem(device: torch.device) -> str | None:
    """Return the first kernel that fails or differs from torch operations; None if all agree.

    Raises:
        torch.OutOfMemoryError: The device is full, which says nothing about the kernels.
    """
    for (kernels, part), sizes, dtype in product(PARTS, SIZES, TOLERANCES):
        case, name = Case(*sizes, dtype, device), str(dtype).removeprefix("torch.")
        try:
            for (kernel, value, found), (*_, expected) in zip(
                part(TRITON, case), part(TORCH, case), strict=True
            ):
                difference = largest_difference(found, expected)
                if difference > TOLERANCES[dtype]:
                    return f"{kernel}: {value} differs by {difference:.2g} ({name})"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Triton, its compilers and the driver raise anything
            reason = str(getattr(error, "error_message", None) or error).partition("\n")[0]
            return f"{kernels}: {error.__class__.__name__}: {reason} ({name})"
    return None


def main(place: str) -> None:
    """Print the problem of a device as JSON."""
    device = torch.device(place)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # Triton launches on the current one
        torch.empty(1, device=device)  # a busy device is no problem of a kernel
    sys.stdout.write(f"\n{json.dumps(problem(device))}\n")
