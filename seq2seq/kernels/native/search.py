"""What search does besides its products, on the programs of `steps.c`."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from seq2seq.kernels.native.build import Programs, is_narrow
from seq2seq.kernels.native.steps import Seen
from seq2seq.kernels.precision import Factor

_SHARES = 16
"""Rows are worked on in so many parts, each with room for the logits of a row."""
_CHUNK_BYTES = 4 << 20
"""Of logits: they do not leave the processor's cache."""


@dataclass(frozen=True)
class NativeLooks:
    """`kernels.decoding.Looks` of float32 annotations."""

    programs: Programs
    seen: Seen
    sentences: Tensor | None = None  # (b,)  which are asked; all if not given. Nothing is copied

    def __call__(self, query: Tensor, times: int) -> tuple[Tensor, Tensor]:
        """Return what contexts add (rows, width), and alpha (rows, Tx)."""
        seen, (rows, n_align) = self.seen, query.shape
        Tx, width = seen.Ch.shape[1:]
        adds, alpha = seen.Ch.new_empty(rows, width), seen.Ch.new_empty(rows, Tx)
        self.programs(
            "look",
            *(query, is_narrow(query), query.stride(0), *seen.keys, seen.v_a, seen.mask, seen.Ch),
            *(self.sentences, None, adds, None, alpha),
            *(rows // times, times, Tx, n_align, width),
        )
        return adds, alpha

    def select(self, sentences: Tensor) -> "NativeLooks":
        """Go on with some of the sentences."""
        chosen = sentences if self.sentences is None else self.sentences[sentences]
        return replace(self, sentences=chosen)


@dataclass(frozen=True)
class NativeBestWords:
    """`model.decoder.BestWords` of the output layer, some rows at a time."""

    programs: Programs
    W: Factor
    bias: Tensor | None
    t: Tensor  # (rows, l)

    def __call__(
        self, count: int, *, forbidden: Tensor, eos: int, too_early: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits and ids of the best words (rows, count), and log sums (rows, 1)."""
        (rows, _), num_words = self.t.shape, len(self.W.weight)
        count = min(count, num_words)
        values, words = self.t.new_empty(rows, count), forbidden.new_empty(rows, count)
        log_sums, room = values.new_empty(rows, 1), values.new_empty(_SHARES, num_words)
        blocked = torch.zeros(num_words, dtype=torch.uint8)
        blocked[forbidden] = 1
        size = max(16, _CHUNK_BYTES // (num_words * self.W.dtype.itemsize))
        for first in range(0, rows, size):
            part = slice(first, first + size)
            logits = self.W(self.t[part])
            self.programs(
                "best_words",
                *(logits, is_narrow(logits), self.bias, blocked, eos, too_early[part]),
                *(values[part], words[part], log_sums[part], room, _SHARES),
                *(len(logits), num_words, count),
            )
        return values, words, log_sums


def logits_of(programs: Programs, t: Tensor, layer: nn.Linear, words: Tensor) -> Tensor:
    """Return the logits of some words (rows, k) from t (rows, l)."""
    found = t.new_empty(words.shape)
    given = t.contiguous(), layer.weight, layer.bias, words.contiguous(), found
    programs("logits_of", *given, *words.shape, t.shape[1])
    return found
