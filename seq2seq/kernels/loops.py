"""Runs the steps of a scan in order, forward and backward.

`StepLoops` takes all sentences through a step before the next, on any device; `native.loops` has
the same methods in C, where each thread takes its sentences through all steps.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from seq2seq.kernels.matmul import PackedWeight
from seq2seq.kernels.packing import Packing, Sizes, slices
from seq2seq.kernels.steps import Attending, Saved, Steps

Weights = tuple[Tensor, Tensor]
"""U (n, n) and the other weights on the state: [U_z, U_r] (2n, n), or [W_a, U_z, U_r]."""


@dataclass(frozen=True)
class AttentiveGradients:
    """Gradients of `AttentiveScan`, except those of `Weights`."""

    d_words: Tensor  # (N, 3n)
    d_from_state: Tensor  # (N, n' + 2n) of the terms of s_{i-1} in query, z and r
    d_values: Tensor  # (B, Tx, 3n)
    d_start: Tensor  # (B, n)
    d_keys: Tensor  # (B, Tx, n')
    d_v: Tensor  # (n')


@dataclass(frozen=True)
class StepLoops:
    """Loops over the steps of a packing.

    words, Ch, their gradients and d_from_state are in the dtype of the matmuls; states and
    everything else are in the dtype of the weights.
    """

    steps: Steps
    dtype: torch.dtype  # of matmuls
    reset_before: bool

    def gated(
        self, words: Tensor, start: Tensor, weights: Weights, sizes: Sizes, saved: Saved
    ) -> None:
        """Fill `saved`, including states (D, N, n), from words (D, N, 3n) and start (D, B, n)."""
        packed = [PackedWeight(weight, self.dtype) for weight in weights]
        unit = self.steps.unit(saved, *packed, reset_before=self.reset_before)
        h, words = start, words.to(start.dtype)
        for step, size in zip(slices(sizes), sizes, strict=True):
            h = unit(words[:, step], h[:, :size], None, step, saved.states[:, step])

    def gated_backward(
        self, d_states: Tensor, before: Tensor, weights: Weights, sizes: Sizes, saved: Saved
    ) -> tuple[Tensor, Tensor]:
        """Return gradients of words and initial states; `before` has the state before each word."""
        D, N, n = before.shape
        d_words = before.new_empty(D, N, 3 * n)
        U_T, U_gates_T = (PackedWeight(weight.mT, self.dtype) for weight in weights)
        reset = {"reset_before": self.reset_before}
        unit = self.steps.unit_backward(saved, before, U_T, d_words, **reset)
        d_start = before.new_zeros(D, sizes[0], n)  # in the loop, the gradient of the current state
        for step, size in zip(reversed([*slices(sizes)]), reversed(sizes), strict=True):
            d_h = unit(d_start[:, :size], step, d_states[:, step], None)
            d_start[:, :size] = U_gates_T.plus(d_h, d_words[:, step, n:])
        return d_words.to(self.dtype), d_start

    def attentive(
        self, words: Tensor, weights: Weights, packing: Packing, saved: Saved, inputs: Attending
    ) -> None:
        """Fill `saved` and `inputs`; the states s_{i-1} (N, n) of the first step are given."""
        states = saved.states
        n, n_align, words = states.shape[-1], inputs.keys.shape[-1], words.to(states.dtype)
        attend = self.steps.attend(replace(inputs, Ch=inputs.Ch.to(states.dtype)))
        U, from_state = (PackedWeight(weight, self.dtype) for weight in weights)
        unit = self.steps.unit(saved, U, None, reset_before=self.reset_before)
        s = states[: packing.sizes[0]]
        for step, following in pairwise(slices((*packing.sizes, 0))):
            s = s[: step.stop - step.start]
            query, from_s = from_state(s).split([n_align, 2 * n], dim=-1)
            drive = attend(query, words[step], step)
            s = unit(drive, s, from_s, step, states[following])

    def attentive_backward(
        self,
        d_states: Tensor,
        d_alphas: Tensor,
        weights: Weights,
        packing: Packing,
        saved: Saved,
        inputs: Attending,
    ) -> AttentiveGradients:
        """Return all gradients except those of `weights`."""
        states = saved.states
        inputs = replace(inputs, Ch=inputs.Ch.to(states.dtype))
        n, n_align = states.shape[-1], inputs.keys.shape[-1]
        d_words = states.new_empty(len(states), 3 * n)  # candidate, z, r
        d_from_state = states.new_empty(len(states), n_align + 2 * n)  # query, z, r
        U_T, from_state_T = (PackedWeight(weight.T, self.dtype) for weight in weights)
        reset = {"reset_before": self.reset_before}
        unit = self.steps.unit_backward(saved, states, U_T, d_words, **reset)
        attend = self.steps.attend_backward(inputs, d_words, d_alphas, d_from_state[:, :n_align])
        d_start = states.new_zeros(packing.sizes[0], n)  # in the loop, that of the current state
        sizes = packing.sizes
        for step, size in zip(reversed([*slices(sizes)]), reversed(sizes), strict=True):
            d_s = unit(d_start[:size], step, None, d_states[step])
            attend(step)
            d_from_state[step, n_align:] = d_words[step, n:]
            d_start[:size] = from_state_T.plus(d_s, d_from_state[step])
        # The sums over steps
        alphas, d_drive = (packing.unpack(x, packing.ranked) for x in (inputs.alphas, d_words))
        d_values = torch.bmm(alphas.mT, d_drive)
        d_keys, d_v = attend.sums()
        d_words, d_from_state, d_values = (
            x.to(self.dtype) for x in (d_words, d_from_state, d_values)
        )
        return AttentiveGradients(d_words, d_from_state, d_values, d_start, d_keys, d_v)
