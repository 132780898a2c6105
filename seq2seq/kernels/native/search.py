"""A step of a search, products included, on the programs of `search.c`."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq.kernels.native.build import Programs
from seq2seq.kernels.native.loops import Seen
from seq2seq.kernels.native.products import laid_out


@dataclass(frozen=True)
class NativeSearch:
    """What a decoder with additive attention computes in a search; rows are hypotheses."""

    programs: Programs
    narrow: torch.dtype
    from_state: Tensor  # [W_a, U_z, U_r, U_o], laid out
    U: Tensor  # laid out
    W: Tensor  # the output layer, laid out
    last: nn.Linear  # the output layer
    reset_before: bool
    maxout: bool

    @classmethod
    def of(
        cls,
        programs: Programs,
        narrow: torch.dtype,
        weights: tuple[Tensor, Tensor],
        last: nn.Linear,
        *,
        reset_before: bool,
        maxout: bool,
    ) -> "NativeSearch":
        """Lay out [W_a, U_z, U_r, U_o] and U."""
        from_state, U, W = (laid_out(programs, w, narrow) for w in (*weights, last.weight))
        return cls(programs, narrow, from_state, U, W, last, reset_before, maxout)

    def predict(
        self, s: Tensor, word: Tensor, seen: Seen, sentences: Tensor, times: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Look at the source.

        Args:
            s: (rows, n) s_{i-1}.
            word: (rows, w) what y_{i-1} adds to the readout.
            seen: Annotations of a batch, [C, C_z, C_r, C_o] h_j among them.
            sentences: Those of the batch that have rows.
            times: Rows of each.

        Returns:
            t (rows, l), what the next state is made of (rows, 3n), and alpha (rows, Tx).
        """
        (rows, n), w, (Tx, n_align) = s.shape, word.shape[1], seen.keys[0].shape[1:]
        drive, alpha = s.new_empty(rows, 3 * n), s.new_empty(rows, Tx)
        t = s.new_empty(rows, w // 2 if self.maxout else w)
        self.programs(
            "predict",
            *(s.contiguous(), self.from_state, word.contiguous()),
            *(*seen.keys, seen.v_a, seen.mask, seen.Ch, sentences, drive, alpha, t, self.maxout),
            *(self.narrow is torch.bfloat16, rows, times, Tx, n_align, n, w),
        )
        return t, drive, alpha

    def advance(self, s: Tensor, drive: Tensor, word: Tensor) -> Tensor:
        """Return s_i (rows, n), given what `predict` told and what y_i adds to gates (rows, 3n)."""
        rows, n = s.shape
        found = torch.empty_like(s, memory_format=torch.contiguous_format)
        self.programs(
            "advance",
            *(s.contiguous(), drive.contiguous(), word.contiguous(), self.U, self.reset_before),
            *(found, self.narrow is torch.bfloat16, rows, n),
        )
        return found

    def best_words(self, t: Tensor) -> "NativeBestWords":
        """Return what finds the best words given t (rows, l)."""
        return NativeBestWords(self, t)

    def logits_of(self, t: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what computes logits of words (rows, k), in float32, given t (rows, l)."""

        def logits(words: Tensor) -> Tensor:
            found = t.new_empty(words.shape)
            layer = self.last.weight, self.last.bias
            given = t.contiguous(), *layer, words.contiguous(), found
            self.programs("logits_of", *given, *words.shape, t.shape[1])
            return found

        return logits


@dataclass(frozen=True)
class NativeBestWords:
    """`model.decoder.BestWords` of the output layer, some rows at a time."""

    search: NativeSearch
    t: Tensor  # (rows, l)

    def __call__(
        self, count: int, *, forbidden: Tensor, eos: int, too_early: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits and ids of the best words (rows, count), and log sums (rows, 1)."""
        search, (rows, num_units) = self.search, self.t.shape
        num_words = len(search.last.weight)
        count = min(count, num_words)
        values, words = self.t.new_empty(rows, count), forbidden.new_empty(rows, count)
        log_sums, blocked = values.new_empty(rows, 1), torch.zeros(num_words, dtype=torch.uint8)
        blocked[forbidden] = 1
        search.programs(
            "best_words",
            *(self.t.contiguous(), search.W, search.narrow is torch.bfloat16, search.last.bias),
            *(blocked, eos, too_early.contiguous(), values, words, log_sums),
            *(rows, num_units, num_words, count),
        )
        return values, words, log_sums
