"""A faster stepper for search, which computes the same values as `RecurrentDecoder.step`.

Data of a sentence is stored once, not per hypothesis; the terms of annotations and words in gates
and readout are precomputed; all matmuls with the state are a single one.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seq2seq.kernels.choice import search_for
from seq2seq.kernels.matmul import PackedWeight, without_autocast
from seq2seq.kernels.torch_search import SearchWeights
from seq2seq.kernels.words import FusedPrediction, Words
from seq2seq.model.attention import AdditiveAttention
from seq2seq.model.decoder import RecurrentDecoder
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.model.protocols import Encoder

_TABLE_BYTES = 128 << 20
"""The maximum size of the table of all words' terms; if larger, terms are computed per word."""


@dataclass(frozen=True)
class FusedState:
    """Hypotheses before step i."""

    source: Any  # the result of the engine's `share`
    slots: int  # K
    s: Tensor  # (R, n) s_{i-2}, or s_0
    drive: Tensor | None = None  # gate terms from c_{i-1} and s_{i-2}; None: s is s_0
    y: Tensor | None = None  # (R,) y_{i-2}

    def select(self, sentences: Tensor, slots: int, rows: Tensor) -> "FusedState":
        """See `State.select`."""
        drive, y = (x if x is None else x[rows] for x in (self.drive, self.y))
        return FusedState(self.source.select(sentences), slots, self.s[rows], drive, y)


class FusedSearch:
    """`Stepper` of a recurrent decoder with additive attention and gated units.

    Args:
        encoder: In evaluation mode.
        decoder: In evaluation mode; later changes of its weights have no effect.
        dtype: Dtype of matmuls; with bfloat16 the output layer finds the best words in it, and
            their logits are recomputed in the dtype of the weights.
        int8: Matmuls with the state and of the output layer run in 8 bits instead, where
            `native.int8` lacks nothing for it. `dtype` is that of all others.
    """

    def __init__(
        self, encoder: Encoder, decoder: RecurrentDecoder, dtype: torch.dtype, *, int8: bool = False
    ) -> None:
        attention, unit = decoder.attention, decoder.unit
        assert isinstance(attention, AdditiveAttention)
        assert isinstance(unit, GatedUnit)
        self.encoder, self.decoder, self.dtype = encoder, decoder, dtype
        rounds = int8 or dtype != decoder.U_o.weight.dtype  # logits are rounded
        self.v_a = attention.v_a.weight[0]
        self.n = n = unit.hidden_size
        # Stacked weights, by what they multiply
        state = [attention.W_a.weight, unit.U_z.weight, unit.U_r.weight, decoder.U_o.weight]
        context = [unit.C.weight, unit.C_z.weight, unit.C_r.weight, decoder.C_o.weight]
        self.from_context = PackedWeight(torch.cat(context), dtype)  # (3n + w, 2n)
        into_gates = torch.cat([unit.W.weight, unit.W_z.weight, unit.W_r.weight])  # (3n, m)
        self.from_word = PackedWeight(decoder.V_o.weight, dtype), PackedWeight(into_gates, dtype)
        # Biases of readout and gates; of the latter only the candidate has one.
        self.bias = into_gates.new_zeros(len(decoder.U_o.weight)), into_gates.new_zeros(3 * n)
        if unit.W.bias is not None:
            self.bias[0][:] = decoder.U_o.bias
            self.bias[1][:n] = unit.W.bias
        self.before, last = decoder.layers_before, decoder.words_layer
        sizes = len(self.v_a), unit.reset_before, decoder.maxout
        own = torch.int8 if int8 else dtype
        self.engine = search_for(SearchWeights(own, torch.cat(state), unit.U.weight, last, *sizes))
        self.words = Words(self.engine, rounds)
        self.table: tuple[Tensor, Tensor] | None = None  # terms of all words in readout and gates
        self.words_seen = 0

    def begin(self, src: Tensor, mask: Tensor) -> FusedState:
        """Read source ids (B, Tx)."""
        memory = self.encoder(src, mask)
        source = self.decoder.attention.prepare(memory)
        with torch.autocast(src.device.type, enabled=False):
            s_0 = self.decoder.start(memory)
            adds = self.from_context(source.values.flatten(0, 1))  # (B Tx, 3n + w)
        adds, keys, s_0 = (x.to(self.v_a.dtype) for x in (adds, source.keys, s_0))
        adds = adds.view(*mask.shape, -1)
        return FusedState(self.engine.share(keys, adds, mask, self.v_a), 1, s_0)

    @without_autocast
    def step(self, y: Tensor, state: FusedState) -> tuple["FusedPrediction", FusedState]:
        """Update the state with y (R,), attend, and score every next word."""
        s = state.s
        if state.drive is not None:
            word = y if self.decoder.moved_by_emitted else state.y
            assert word is not None
            s = self.engine.advance(s, state.drive, self._word(word, gates=True))
        word = self._word(y, gates=False)
        t, drive, alpha = self.engine.predict(s, word, state.source, state.slots)
        for layer in self.before:
            t = layer(t)
        return FusedPrediction(self.words, t, alpha), FusedState(
            state.source, state.slots, s, drive, y
        )

    def _word(self, y: Tensor, *, gates: bool) -> Tensor:
        """Return the terms of words (R,) in the gates (R, 3n), or else in the readout (R, w)."""
        if self.table is None:
            self.words_seen += len(y)
            num_words = len(self.words.last.weight)
            fits = num_words * sum(bias.nbytes for bias in self.bias) <= _TABLE_BYTES
            if not fits or self.words_seen <= num_words:  # a table does not pay yet
                return self._add(self.decoder.embedding(y), gates)
            Ey = self.decoder.embedding(torch.arange(num_words, device=y.device))
            self.table = self._add(Ey, False), self._add(Ey, True)
        return self.table[gates].index_select(0, y)

    def _add(self, Ey: Tensor, gates: bool) -> Tensor:
        bias = self.bias[gates]
        return self.from_word[gates](Ey).to(bias.dtype) + bias
