"""A step of a search, products included, on the programs of `search.c`."""

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

    def share(self, keys: Tensor, adds: Tensor, mask: Tensor, v_a: Tensor) -> Seen:
        """Prepare what attention reads."""
        return Seen.of(keys, adds, mask, v_a)

    def predict(
        self, s: Tensor, word: Tensor, seen: Seen, slots: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return t (R, l), what context and state add to the gates (R, 3n), and alpha (R, Tx).

        Args:
            s: (R, n) s_{i-1}.
            word: (R, w) what y_{i-1} adds to the readout.
            seen: Of a batch, [C, C_z, C_r, C_o] h_j among them, and which sentences have rows.
            slots: Rows of each.
        """
        (rows, n), w, (Tx, n_align) = s.shape, word.shape[1], seen.keys[0].shape[1:]
        drive, alpha = s.new_empty(rows, 3 * n), s.new_empty(rows, Tx)
        t = s.new_empty(rows, w // 2 if self.maxout else w)
        self.programs(
            "predict",
            *(s.contiguous(), self.from_state, word.contiguous(), *seen.keys, seen.v_a),
            *(seen.mask, seen.Ch, seen.sentences, drive, alpha, t, self.maxout),
            *(self.narrow is torch.bfloat16, rows, slots, Tx, n_align, n, w),
        )
        return t, drive, alpha

    def advance(self, s: Tensor, drive: Tensor, word: Tensor) -> Tensor:
        """Return s_i (R, n), given what `predict` told and what a word adds to gates (R, 3n)."""
        rows, n = s.shape
        found = torch.empty_like(s, memory_format=torch.contiguous_format)
        self.programs(
            "advance",
            *(s.contiguous(), drive.contiguous(), word.contiguous(), self.U, self.reset_before),
            *(found, self.narrow is torch.bfloat16, rows, n),
        )
        return found

    def best(
        self, t: Tensor, count: int, *, forbidden: Tensor, eos: int, too_early: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits and ids of the best words (R, count), and log sums (R, 1)."""
        (rows, num_units), num_words = t.shape, len(self.last.weight)
        count = min(count, num_words)
        values, words = t.new_empty(rows, count), forbidden.new_empty(rows, count)
        log_sums, blocked = values.new_empty(rows, 1), torch.zeros(num_words, dtype=torch.uint8)
        blocked[forbidden] = 1
        self.programs(
            "best_words",
            *(t.contiguous(), self.W, self.narrow is torch.bfloat16, self.last.bias),
            *(blocked, eos, too_early.contiguous(), values, words, log_sums),
            *(rows, num_units, num_words, count),
        )
        return values, words, log_sums

    def logits_of(self, t: Tensor, words: Tensor) -> Tensor:
        """Return the logits of words (R, k) in float32, given t (R, l)."""
        found, (rows, count) = t.new_empty(words.shape), words.shape
        given = t.contiguous(), self.last.weight, self.last.bias, words.contiguous(), found
        self.programs("logits_of", *given, rows, count, t.shape[1])
        return found
