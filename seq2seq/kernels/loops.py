"""The steps of scans one after the other, forth and back.

`StepLoops` takes all sentences through a step before the next one, on any device; `native.loops`
has C take some sentences through all steps. `loops_for` says which of the two run.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from seq2seq.kernels.packing import Packing, slices
from seq2seq.kernels.precision import Factor
from seq2seq.kernels.steps import Kept, Looked, Steps, steps_for


@dataclass(frozen=True)
class LookedBack:
    """Gradients of `AttentiveScan`, but for those of weights."""

    d_words: Tensor  # (N, 3n)
    d_from_state: Tensor  # (N, n' + 2n) of what s_{i-1} gives to query, z and r
    d_start: Tensor  # (B, n)
    d_keys: Tensor  # (B, Tx, n')
    d_v: Tensor  # (n')
    d_values: Tensor  # (B, Tx, 3n)


class Loops(Protocol):
    """Loops over the steps of a packing, for one format of products and one place of the reset.

    words, Ch, and the gradients of these and of what comes from the state, are in the format of
    the products; states and all else in that of the weights.
    """

    def gated(
        self,
        words: Tensor,
        start: Tensor,
        weights: tuple[Tensor, Tensor],
        sizes: tuple[int, ...],
        states: Tensor,
        kept: Kept,
    ) -> None:
        """Fill states (D, N, n) and `kept`.

        Args:
            words: (D, N, 3n).
            start: (D, B, n) first states.
            weights: U (D, n, n) and [U_z, U_r] (D, 2n, n).
            sizes: Of the packing.
            states: To be filled.
            kept: Likewise.
        """

    def gated_back(
        self,
        d_states: Tensor,
        before: Tensor,
        weights: tuple[Tensor, Tensor],
        sizes: tuple[int, ...],
        kept: Kept,
    ) -> tuple[Tensor, Tensor]:
        """Return gradients of words and first states, given the states before each word."""

    def attentive(
        self,
        words: Tensor,
        weights: tuple[Tensor, Tensor],
        packing: Packing,
        states: Tensor,
        kept: Kept,
        looked: Looked,
    ) -> None:
        """Fill states s_{i-1} (N, n), of which the first step's are there, `kept` and `looked`.

        The weights are U (n, n) and [W_a, U_z, U_r] (n' + 2n, n).
        """

    def attentive_back(
        self,
        d_states: Tensor,
        d_alphas: Tensor,
        weights: tuple[Tensor, Tensor],
        packing: Packing,
        states: Tensor,
        kept: Kept,
        looked: Looked,
    ) -> LookedBack:
        """Return all gradients but those of weights."""


@dataclass(frozen=True)
class StepLoops:
    """`Loops` in Python."""

    steps: Steps
    narrow: torch.dtype
    reset_before: bool

    def gated(  # noqa: D102
        self,
        words: Tensor,
        start: Tensor,
        weights: tuple[Tensor, Tensor],
        sizes: tuple[int, ...],
        states: Tensor,
        kept: Kept,
    ) -> None:
        factors = [Factor(weight, self.narrow) for weight in weights]
        unit = self.steps.unit(kept, *factors, reset_before=self.reset_before)
        h, words = start, words.to(start.dtype)
        for step, size in zip(slices(sizes), sizes, strict=True):
            h = unit(words[:, step], h[:, :size], None, step, states[:, step])

    def gated_back(  # noqa: D102
        self,
        d_states: Tensor,
        before: Tensor,
        weights: tuple[Tensor, Tensor],
        sizes: tuple[int, ...],
        kept: Kept,
    ) -> tuple[Tensor, Tensor]:
        D, N, n = before.shape
        d_words = before.new_empty(D, N, 3 * n)
        U_T, U_gates_T = (Factor(weight.mT, self.narrow) for weight in weights)
        unit = self.steps.unit_back(kept, before, U_T, d_words, reset_before=self.reset_before)
        d_start = before.new_zeros(D, sizes[0], n)  # holds the gradient of the state along the way
        for step, size in zip(reversed([*slices(sizes)]), reversed(sizes), strict=True):
            d_h = unit(d_start[:, :size], step, d_states[:, step], None)
            d_start[:, :size] = U_gates_T.plus(d_h, d_words[:, step, n:])
        return d_words.to(self.narrow), d_start

    def attentive(  # noqa: D102
        self,
        words: Tensor,
        weights: tuple[Tensor, Tensor],
        packing: Packing,
        states: Tensor,
        kept: Kept,
        looked: Looked,
    ) -> None:
        n, n_align, words = states.shape[-1], looked.keys.shape[-1], words.to(states.dtype)
        look = self.steps.look(replace(looked, Ch=looked.Ch.to(states.dtype)))
        U, state = (Factor(weight, self.narrow) for weight in weights)
        unit = self.steps.unit(kept, U, None, reset_before=self.reset_before)
        s = states[: packing.sizes[0]]
        for step, following in pairwise(slices((*packing.sizes, 0))):
            s = s[: step.stop - step.start]
            query, from_s = state(s).split([n_align, 2 * n], dim=-1)
            drive = look(query, words[step], step)
            s = unit(drive, s, from_s, step, states[following])

    def attentive_back(  # noqa: D102
        self,
        d_states: Tensor,
        d_alphas: Tensor,
        weights: tuple[Tensor, Tensor],
        packing: Packing,
        states: Tensor,
        kept: Kept,
        looked: Looked,
    ) -> LookedBack:
        looked = replace(looked, Ch=looked.Ch.to(states.dtype))
        n, n_align = states.shape[-1], looked.keys.shape[-1]
        d_words = states.new_empty(len(states), 3 * n)  # candidate, z, r
        d_from_state = states.new_empty(len(states), n_align + 2 * n)  # query, z, r
        U_T, from_state_T = (Factor(weight.T, self.narrow) for weight in weights)
        unit = self.steps.unit_back(kept, states, U_T, d_words, reset_before=self.reset_before)
        look = self.steps.look_back(looked, d_words, d_alphas, d_from_state[:, :n_align])
        d_start = states.new_zeros(packing.sizes[0], n)  # the gradient of the state on the way
        for step, size in zip(reversed(packing.slices()), reversed(packing.sizes), strict=True):
            d_s = unit(d_start[:size], step, None, d_states[step])
            look(step)
            d_from_state[step, n_align:] = d_words[step, n:]
            d_start[:size] = from_state_T.plus(d_s, d_from_state[step])
        alphas, d_drive = (packing.unpack(x, packing.ranked) for x in (looked.alphas, d_words))
        d_values = torch.bmm(alphas.mT, d_drive)
        narrowed = d_words.to(self.narrow), d_from_state.to(self.narrow)
        return LookedBack(*narrowed, d_start, *look.sums(), d_values.to(self.narrow))


def loops_for(states: Tensor, narrow: torch.dtype, *, reset_before: bool) -> Loops:
    """Return what fits the device and format of states, and the format of products."""
    from seq2seq.kernels import native  # says itself where it cannot run

    found = native.loops_for(states, narrow, reset_before=reset_before)
    return found or StepLoops(steps_for(states, narrow), narrow, reset_before)
