"""Runs cells along whole sequences: the readable loops that every kernel is tested against."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seq2seq.model.protocols import Attended, Attention, Cell, CellState, LossTerm, Source


@dataclass(frozen=True)
class Unrolled:
    """A decoder run along known targets; position i holds what word i is predicted from."""

    s: Tensor  # (B, Ty, n)        s_{i-1}, or s_i of a decoder that moves before it predicts
    c: Tensor  # (B, Ty, 2n)       c_i
    alpha: Tensor  # (B, Ty, Tx)   alpha_i
    losses: Mapping[str, LossTerm] = field(default_factory=dict)  # for an attention that draws
    heads: Tensor | None = None  # (B, h, Ty, Tx)  for an attention with several heads


def read(
    units: Sequence[Cell], x: Tensor, mask: Tensor, start: Tensor | None = None
) -> list[Tensor]:
    """Return h_fwd and, with two units, h_bwd, (B, Tx, n) each.

    Args:
        units: The first reads from left to right, the second from right to left.
        x: (B, Tx, m) inputs.
        mask: (B, Tx) bool, True on real tokens, which come first.
        start: (B, n) output before the first token of a direction; None is 0.
    """
    outputs = []
    for unit, backward in zip(units, (False, True), strict=False):
        positions = range(mask.shape[1])
        if (run := getattr(unit, "run", None)) is not None:  # a cell that needs no loop
            outputs.append(run(x, mask, start, backward=backward))
        else:
            order = reversed(positions) if backward else positions
            outputs.append(run_cell(unit, x, mask, order, start))
    return outputs


def run_cell(
    cell: Cell, x: Tensor, mask: Tensor, order: Iterable[int], start: Tensor | None = None
) -> Tensor:
    """Run a cell over the positions in `order`; return its outputs (B, Tx, n), by position.

    Padded positions copy the state, so a backward unit reaches the last real word in its initial
    state.
    """
    projected = cell.project(x)
    state = cell.begin(x.new_zeros(len(x), cell.hidden_size) if start is None else start)
    outputs: dict[int, Tensor] = {}
    for j in order:
        moved = step_cell(cell, projected[:, j], state, None)
        state = tuple(
            torch.where(mask[:, j, None], new, old) for new, old in zip(moved, state, strict=True)
        )
        outputs[j] = cell.output(state)
    return torch.stack([outputs[j] for j in range(x.shape[1])], dim=1)


def unroll(
    unit: Cell, attention: Attention, words: Tensor, s_0: Tensor, source: Source, mask: Tensor
) -> Unrolled:
    """Run a decoder's unit along targets, with an attention step before each of its steps.

    `words` (B, Ty, m) move s_{i-1} to s_i, from s_0 (B, n); their projections are computed before
    the loop. `mask` (B, Ty) is True on real words, which come first: kernels skip padding, this
    loop runs over it, too.
    """
    projected = unit.project(words)
    state, of_attention = unit.begin(s_0), None
    outputs: list[Tensor] = []
    steps: list[Attended] = []
    for i in range(words.shape[1]):
        s = unit.output(state)
        outputs.append(s)
        attended = attention(s, source, of_attention)  # the query is s_{i-1}
        steps.append(attended)
        of_attention = attended.state
        state = step_cell(unit, projected[:, i], state, attended.c)
    c, alpha, heads = side_by_side(steps)
    return Unrolled(torch.stack(outputs, dim=1), c, alpha, losses_of(steps, mask), heads)


def side_by_side(steps: Sequence[Attended]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Stack steps into c (B, Ty, d), alpha (B, Ty, Tx) and, with several, heads (B, h, Ty, Tx)."""
    c = torch.stack([step.c for step in steps], dim=1)
    alpha = torch.stack([step.alpha for step in steps], dim=1)
    heads = [step.heads for step in steps if step.heads is not None]
    return c, alpha, torch.stack(heads, dim=2) if heads else None


def losses_of(steps: Sequence[Attended], mask: Tensor) -> Mapping[str, LossTerm]:
    """Stack the draws of all steps and return the losses that the attention learns from."""
    draws = [step.draw for step in steps if step.draw is not None]
    if not draws:
        return {}
    drawn = zip(*(draw.values for draw in draws), strict=True)
    return draws[0].losses([torch.stack(values, dim=1) for values in drawn], mask)


def step_cell(cell: Cell, x: Tensor, state: CellState, c: Tensor | None) -> CellState:
    """Take a step of a cell, with a hook that returns to Python during its backward pass.

    The backward pass of a loop is a single C++ call, half a minute at the paper's sizes, during
    which Python could not handle signals.
    """
    moved = cell.step(x, state, c)
    if moved[0].requires_grad:
        moved[0].register_hook(_pass_by)
    return moved


def _pass_by(_gradient: Tensor) -> None:
    """Do nothing, in Python."""
