"""`StepLoops` in C: each thread takes its sentences from the first step to the last."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seq2seq.kernels.energies import is_small
from seq2seq.kernels.loops import AttentiveGradients, Weights
from seq2seq.kernels.native.build import Library
from seq2seq.kernels.packing import Packing, Sizes
from seq2seq.kernels.steps import Attending, Saved

_ROWS = 8
"""The minimum number of sentences per thread."""


@dataclass(frozen=True)
class NativeLoops:
    """The methods of `StepLoops`, for float32 states on a CPU."""

    library: Library
    dtype: torch.dtype  # of matmuls
    reset_before: bool

    def gated(  # noqa: D102
        self, words: Tensor, start: Tensor, weights: Weights, sizes: Sizes, saved: Saved
    ) -> None:
        D, N, n = saved.states.shape
        self.library(
            "gated_scan",
            *(words.contiguous(), start.contiguous(), *self._packed(weights)),
            *(*_steps(sizes), saved.states, *self._saved(saved)),
            *(self._bf16, _shares(D, sizes), D, N, n),
        )

    def gated_backward(  # noqa: D102
        self, d_states: Tensor, before: Tensor, weights: Weights, sizes: Sizes, saved: Saved
    ) -> tuple[Tensor, Tensor]:
        D, N, n = before.shape
        d_words = before.new_empty(D, N, 3 * n, dtype=self.dtype)
        d_start = before.new_zeros(D, sizes[0], n)
        self.library(
            "gated_scan_backward",
            *(d_states.contiguous(), before.contiguous(), *self._packed(weights, backward=True)),
            *(*_steps(sizes), *self._saved(saved), d_words, d_start),
            *(self._bf16, _shares(D, sizes), D, N, n),
        )
        return d_words, d_start

    def attentive(  # noqa: D102
        self, words: Tensor, weights: Weights, packing: Packing, saved: Saved, inputs: Attending
    ) -> None:
        shared = NativeInputs.of(inputs.keys, inputs.Ch, inputs.mask, inputs.v_a)
        self.library(
            "attentive_scan",
            *(words.contiguous(), *self._packed(weights)),
            *(*shared.keys, shared.v_a, shared.mask, shared.Ch, *_steps(packing.sizes)),
            *(saved.states, inputs.queries, inputs.alphas, *self._saved(saved)),
            *(self._bf16, _shares(1, packing.sizes)),
            *(*inputs.keys.shape[1:], saved.states.shape[1]),
        )

    def attentive_backward(  # noqa: D102
        self,
        d_states: Tensor,
        d_alphas: Tensor,
        weights: Weights,
        packing: Packing,
        saved: Saved,
        inputs: Attending,
    ) -> AttentiveGradients:
        states, (B, _, n_align) = saved.states, inputs.keys.shape
        N, n = states.shape
        shared = NativeInputs.of(inputs.keys, inputs.Ch, inputs.mask, inputs.v_a)
        grads = AttentiveGradients(
            d_words=states.new_empty(N, 3 * n, dtype=self.dtype),
            d_from_state=states.new_empty(N, n_align + 2 * n, dtype=self.dtype),
            d_start=states.new_zeros(packing.sizes[0], n),
            d_keys=torch.zeros_like(shared.keys[0]),
            d_v=states.new_zeros(B, n_align),
            d_values=torch.zeros_like(shared.Ch),
        )
        self.library(
            "attentive_scan_backward",
            *(d_states.contiguous(), d_alphas.contiguous(), *self._packed(weights, backward=True)),
            *(*shared.keys, shared.v_a, shared.mask, shared.Ch, *_steps(packing.sizes)),
            *(states, inputs.queries, inputs.alphas, *self._saved(saved)),
            *(grads.d_words, grads.d_from_state, grads.d_start),
            *(grads.d_keys, grads.d_v, grads.d_values),
            *(self._bf16, _shares(1, packing.sizes), *inputs.keys.shape[1:], n),
        )
        # C leaves out the factor v_a of d_keys, and gives d_v per sentence.
        return replace(grads, d_keys=grads.d_keys.mul_(inputs.v_a), d_v=grads.d_v.sum(dim=0))

    @property
    def _bf16(self) -> bool:
        return self.dtype is torch.bfloat16

    def _saved(self, saved: Saved) -> tuple[Tensor, Tensor, Tensor | None]:
        return saved.gates, saved.candidates, None if self.reset_before else saved.Us

    def _packed(self, weights: Weights, *, backward: bool = False) -> list[Tensor]:
        return [self.library.packed(w, self.dtype, transposed=not backward) for w in weights]


def _steps(sizes: Sizes) -> tuple[Tensor, int]:
    return torch.tensor(sizes), len(sizes)


def _shares(D: int, sizes: Sizes) -> int:
    """Return the number of parts into which the sentences of each of D directions are split."""
    return max(1, min(-(-torch.get_num_threads() // D), sizes[0] // _ROWS))


@dataclass(frozen=True)
class NativeInputs:
    """The inputs of attention for the native library."""

    keys: tuple[Tensor, Tensor, bool]  # (B, Tx, n'), exp(2 keys), whether the latter is valid
    Ch: Tensor  # (B, Tx, width)
    mask: Tensor  # (B, Tx)
    v_a: Tensor  # (n')
    sentences: Tensor  # (B',) the sentences that a search still uses; the rest is not copied

    @classmethod
    def of(cls, keys: Tensor, Ch: Tensor, mask: Tensor, v_a: Tensor) -> "NativeInputs":
        """Prepare tensors of any layout."""
        keys = keys.contiguous()
        small = is_small(keys)
        powers = keys.mul(2).exp_() if small else keys
        Ch, mask, v_a = (x.contiguous() for x in (Ch, mask, v_a))
        return cls((keys, powers, small), Ch, mask, v_a, torch.arange(len(keys)))

    def select(self, sentences: Tensor) -> "NativeInputs":
        """Return a subset of the sentences."""
        if len(sentences) == len(self.sentences):
            return self
        return replace(self, sentences=self.sentences[sentences])
