"""`kernels.loops.Loops` in C: a thread takes some sentences from the first step to the last."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seq2seq.kernels.energies import is_small
from seq2seq.kernels.loops import LookedBack
from seq2seq.kernels.native.build import Programs
from seq2seq.kernels.native.products import laid_out
from seq2seq.kernels.packing import Packing
from seq2seq.kernels.steps import Kept, Looked

_ROWS = 8
"""A thread has at least so many sentences."""


@dataclass(frozen=True)
class NativeLoops:
    """`Loops` for float32 states on a CPU."""

    programs: Programs
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
        D, N, n = states.shape
        self.programs(
            "gated_scan",
            *(words.contiguous(), start.contiguous(), *map(self._laid_out, weights)),
            *(*_steps(sizes), states, *self._noted(kept)),
            *(self.narrow is torch.bfloat16, _shares(D, sizes), D, N, n),
        )

    def gated_back(  # noqa: D102
        self,
        d_states: Tensor,
        before: Tensor,
        weights: tuple[Tensor, Tensor],
        sizes: tuple[int, ...],
        kept: Kept,
    ) -> tuple[Tensor, Tensor]:
        D, N, n = before.shape
        d_words = before.new_empty(D, N, 3 * n, dtype=self.narrow)
        d_start = before.new_zeros(D, sizes[0], n)
        self.programs(
            "gated_scan_back",
            *(d_states.contiguous(), before.contiguous(), *map(self._back, weights)),
            *(*_steps(sizes), *self._noted(kept), d_words, d_start),
            *(self.narrow is torch.bfloat16, _shares(D, sizes), D, N, n),
        )
        return d_words, d_start

    def attentive(  # noqa: D102
        self,
        words: Tensor,
        weights: tuple[Tensor, Tensor],
        packing: Packing,
        states: Tensor,
        kept: Kept,
        looked: Looked,
    ) -> None:
        seen = Seen.of(looked.keys, looked.Ch, looked.mask, looked.v_a)
        self.programs(
            "attentive_scan",
            *(words.contiguous(), *map(self._laid_out, weights)),
            *(*seen.keys, seen.v_a, seen.mask, seen.Ch, *_steps(packing.sizes)),
            *(states, looked.queries, looked.alphas, *self._noted(kept)),
            *(self.narrow is torch.bfloat16, _shares(1, packing.sizes)),
            *(*looked.keys.shape[1:], states.shape[1]),
        )

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
        (N, n), (B, _, n_align) = states.shape, looked.keys.shape
        seen = Seen.of(looked.keys, looked.Ch, looked.mask, looked.v_a)
        found = LookedBack(
            d_words=states.new_empty(N, 3 * n, dtype=self.narrow),
            d_from_state=states.new_empty(N, n_align + 2 * n, dtype=self.narrow),
            d_start=states.new_zeros(packing.sizes[0], n),
            d_keys=torch.zeros_like(seen.keys[0]),
            d_v=states.new_zeros(B, n_align),
            d_values=torch.zeros_like(seen.Ch),
        )
        self.programs(
            "attentive_scan_back",
            *(d_states.contiguous(), d_alphas.contiguous(), *map(self._back, weights)),
            *(*seen.keys, seen.v_a, seen.mask, seen.Ch, *_steps(packing.sizes)),
            *(states, looked.queries, looked.alphas, *self._noted(kept)),
            *(found.d_words, found.d_from_state, found.d_start),
            *(found.d_keys, found.d_v, found.d_values),
            *(self.narrow is torch.bfloat16, _shares(1, packing.sizes)),
            *(*looked.keys.shape[1:], n),
        )
        return replace(found, d_keys=found.d_keys.mul_(looked.v_a), d_v=found.d_v.sum(dim=0))

    def _noted(self, kept: Kept) -> tuple[Tensor, Tensor, Tensor | None]:
        return kept.gates, kept.candidates, None if self.reset_before else kept.products

    def _laid_out(self, weight: Tensor) -> Tensor:
        return laid_out(self.programs, weight, self.narrow)

    def _back(self, weight: Tensor) -> Tensor:
        return laid_out(self.programs, weight, self.narrow, forth=False)


def _steps(sizes: tuple[int, ...]) -> tuple[Tensor, int]:
    return torch.tensor(sizes), len(sizes)


def _shares(D: int, sizes: tuple[int, ...]) -> int:
    """Return how many shares the sentences of each of D directions are cut into."""
    return max(1, min(-(-torch.get_num_threads() // D), sizes[0] // _ROWS))


@dataclass(frozen=True)
class Seen:
    """What attention reads, as the programs take it."""

    keys: tuple[Tensor, Tensor, bool]  # (B, Tx, n'), exp of twice that, whether it exists
    Ch: Tensor  # (B, Tx, width)
    mask: Tensor  # (B, Tx)
    v_a: Tensor  # (n')
    sentences: Tensor  # (B',) those that a search goes on with; nothing is copied for them

    @classmethod
    def of(cls, keys: Tensor, Ch: Tensor, mask: Tensor, v_a: Tensor) -> "Seen":
        """Prepare arrays of any layout."""
        keys = keys.contiguous()
        small = is_small(keys)
        powers = keys.mul(2).exp_() if small else keys
        arrays = (x.contiguous() for x in (Ch, mask, v_a))
        return cls((keys, powers, small), *arrays, torch.arange(len(keys)))

    def select(self, sentences: Tensor) -> "Seen":
        """Go on with some of the sentences."""
        if len(sentences) == len(self.sentences):
            return self
        return replace(self, sentences=self.sentences[sentences])
