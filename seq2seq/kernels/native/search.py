"""Search steps and the best words in C, matmuls included, by `search.c`."""

from functools import partial

import torch
from torch import Tensor, nn

from seq2seq.kernels.native import int8
from seq2seq.kernels.native.build import Library
from seq2seq.kernels.native.loops import NativeInputs
from seq2seq.kernels.torch_search import SearchWeights
from seq2seq.model.protocols import Barred

_FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
"""`format` of matmul.h."""


class NativeWords:
    """`TorchWords` in C, for float32 on a CPU."""

    def __init__(self, library: Library, last: nn.Linear, dtype: torch.dtype) -> None:
        self.library, self.last, self.format = library, last, _FORMATS[dtype]
        self._pack = int8.packed if dtype is torch.int8 else partial(library.packed, dtype=dtype)
        self.W = self._pack(last.weight)

    def best(self, t: Tensor, count: int, barred: Barred) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits and ids of the best words (R, count), and log-sum-exps (R, 1)."""
        (rows, num_units), num_words = t.shape, len(self.last.weight)
        found = _unset(t, min(count, num_words))
        self.library(
            "best_words",
            *(t.contiguous(), self.W, self.format, self.last.bias, *self._bars(barred), *found),
            *(rows, num_units, num_words, min(count, num_words)),
        )
        return found

    def best_listed(
        self, t: Tensor, lists: Tensor, count: int, barred: Barred
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same as `best`, of the words in the lists (B, N), one of each sentence."""
        (rows, num_units), (sentences, size) = t.shape, lists.shape
        found = _unset(t, min(count, size))
        self.library(
            "best_listed",
            *(t.contiguous(), self.last.weight, self.last.bias, lists.contiguous()),
            *(*self._bars(barred), *found),
            *(sentences, rows // sentences, num_units, size, min(count, size)),
        )
        return found

    def _bars(self, barred: Barred) -> tuple[Tensor, int, Tensor]:
        """Return a byte for each word (K,), 1 where it is barred, and what is said of the end."""
        bytes_of_words = torch.zeros(len(self.last.weight), dtype=torch.uint8)
        bytes_of_words[barred.words] = 1
        return bytes_of_words, barred.eos, barred.too_early.contiguous()

    def logits_of(self, t: Tensor, words: Tensor) -> Tensor:
        """Return the logits of words (R, k) in float32, given t (R, l)."""
        found, (rows, count) = t.new_empty(words.shape), words.shape
        given = t.contiguous(), self.last.weight, self.last.bias, words.contiguous(), found
        self.library("logits_of", *given, rows, count, t.shape[1])
        return found


class NativeSearch(NativeWords):
    """`TorchSearch` in C, for float32 on a CPU."""

    def __init__(self, library: Library, weights: SearchWeights) -> None:
        super().__init__(library, weights.last, weights.dtype)
        self.reset_before, self.maxout = weights.reset_before, weights.maxout
        self.from_state, self.U = self._pack(weights.from_state), self._pack(weights.U)

    def share(self, keys: Tensor, adds: Tensor, mask: Tensor, v_a: Tensor) -> NativeInputs:
        """Prepare the inputs of attention."""
        return NativeInputs.of(keys, adds, mask, v_a)

    def predict(
        self, s: Tensor, word: Tensor, shared: NativeInputs, slots: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `TorchSearch.predict`; here the gate terms are always (R, 3n)."""
        (rows, n), w, (Tx, n_align) = s.shape, word.shape[1], shared.keys[0].shape[1:]
        drive, alpha = s.new_empty(rows, 3 * n), s.new_empty(rows, Tx)
        t = s.new_empty(rows, w // 2 if self.maxout else w)
        self.library(
            "predict",
            *(s.contiguous(), self.from_state, word.contiguous(), *shared.keys, shared.v_a),
            *(shared.mask, shared.Ch, shared.sentences, drive, alpha, t, self.maxout),
            *(self.format, rows, slots, Tx, n_align, n, w),
        )
        return t, drive, alpha

    def advance(self, s: Tensor, drive: Tensor, word: Tensor) -> Tensor:
        """Return s_i (R, n) from `predict`'s gate terms and those of a word (R, 3n)."""
        rows, n = s.shape
        found = torch.empty_like(s, memory_format=torch.contiguous_format)
        self.library(
            "advance",
            *(s.contiguous(), drive.contiguous(), word.contiguous(), self.U, self.reset_before),
            *(found, self.format, rows, n),
        )
        return found


def _unset(t: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return memory for the values, words (R, count) and log-sum-exps (R, 1) of rows t (R, l)."""
    values = t.new_empty(len(t), count)
    return values, values.new_empty(values.shape, dtype=torch.int64), t.new_empty(len(t), 1)
