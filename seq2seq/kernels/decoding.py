"""The decoder a word at a time, for search: the numbers of `predict` and `advance`, faster.

What belongs to a sentence is kept once, not once a hypothesis; what annotations and words add to
the gates and to the readout is computed before the search; products with the state are one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq.kernels import native
from seq2seq.kernels.energies import Energies
from seq2seq.kernels.precision import Factor, in_own_formats
from seq2seq.model.attention import AdditiveAttention, Annotations
from seq2seq.model.decoder import (
    DecoderState,
    Prediction,
    RecurrentDecoder,
    Stepping,
    max_of_pairs,
)

_TABLE_BYTES = 128 << 20
"""Of what all words add to gates and readout; a larger table is computed word by word."""


class FusedDecoder:
    """A `Decoder` for search, with additive attention.

    Args:
        decoder: In evaluation mode; what it holds at the time is used to the end.
        narrow: Format of the factors of products; with bfloat16 the output layer finds the best
            words in it, and their logits are computed again in that of the weights.
    """

    def __init__(self, decoder: RecurrentDecoder, narrow: torch.dtype) -> None:
        attention, unit = decoder.attention, decoder.unit
        assert type(attention) is AdditiveAttention
        self.decoder, self.narrow = decoder, narrow
        self.v_a = attention.v_a.weight[0]
        self.n = n = unit.hidden_size
        width = len(decoder.U_o.weight)
        state = [attention.W_a.weight, unit.U_z.weight, unit.U_r.weight, decoder.U_o.weight]
        from_state = torch.cat(state)  # (n' + 2n + w, n)
        context = [unit.C.weight, unit.C_z.weight, unit.C_r.weight, decoder.C_o.weight]
        self.from_context = Factor(torch.cat(context), narrow)  # (3n + w, 2n)
        into_gates = torch.cat([unit.W.weight, unit.W_z.weight, unit.W_r.weight])  # (3n, m)
        self.from_word = Factor(decoder.V_o.weight, narrow), Factor(into_gates, narrow)
        self.bias = into_gates.new_zeros(width), into_gates.new_zeros(3 * n)
        if unit.W.bias is not None:
            self.bias[0][:] = decoder.U_o.bias
            self.bias[1][:n] = unit.W.bias
        *self.before, last = (
            decoder.W_o if isinstance(decoder.W_o, nn.Sequential) else [decoder.W_o]
        )
        assert isinstance(last, nn.Linear)
        self.last = last
        self.native = native.search_for(
            narrow,
            (from_state, unit.U.weight),
            last,
            reset_before=unit.reset_before,
            maxout=decoder.maxout,
        )
        if self.native is None:
            self.torch = TorchSearch.of(self, from_state)
        self.table: tuple[Tensor, Tensor] | None = None  # what all words add to readout and gates
        self.words_seen = 0

    @in_own_formats
    def stepping(self, source: Annotations, times: int) -> Stepping:
        """Begin the translation of a batch."""
        exact = self.v_a.dtype
        adds = self.from_context(source.values.flatten(0, 1)).to(exact)
        adds, keys = adds.view(*source.mask.shape, -1), source.keys.to(exact)
        s_0 = self.decoder.initial_state(source).s.to(exact)
        if self.native is None:
            looks = Looks(Energies(keys, self.v_a), adds, ~source.mask)
            return TorchStepping(self, self.torch, s_0, looks, times)
        seen = native.Seen.of(keys, adds, source.mask, self.v_a)
        return NativeStepping(self, self.native, s_0, seen, torch.arange(len(s_0)), times)

    def word(self, y: Tensor, *, gates: bool) -> Tensor:
        """Return what words (rows,) add to gates (rows, 3n), or else to the readout (rows, w)."""
        if self.table is None:
            self.words_seen += len(y)
            if not self._table_pays():
                return self._add(self.decoder.embedding(y), gates)
            Ey = self.decoder.embedding(torch.arange(len(self.last.weight), device=y.device))
            self.table = self._add(Ey, False), self._add(Ey, True)
        return self.table[gates].index_select(0, y)

    def _table_pays(self) -> bool:
        num_words = len(self.last.weight)
        fits = num_words * sum(bias.nbytes for bias in self.bias) <= _TABLE_BYTES
        return fits and self.words_seen > num_words

    def readout(self, t: Tensor) -> Tensor:
        """Return what the last layer sees of t (rows, l)."""
        for layer in self.before:
            t = layer(t)
        return t

    def logits_of(self, t: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what computes logits of words (rows, k) in the format of the weights."""

        def logits(words: Tensor) -> Tensor:
            found = torch.einsum("rl,rkl->rk", t, self.last.weight[words])
            return found if self.last.bias is None else found + self.last.bias[words]

        return logits

    def _add(self, Ey: Tensor, gates: bool) -> Tensor:
        bias = self.bias[gates]
        return self.from_word[gates](Ey).to(bias.dtype) + bias


@dataclass(frozen=True)
class Looks:
    """Attention of hypotheses that share the annotations of their sentence."""

    energies: Energies
    adds: Tensor  # (B, Tx, 3n + w)  [C, C_z, C_r, C_o] h_j
    blocked: Tensor  # (B, Tx) bool, True on padding

    def __call__(self, query: Tensor, times: int) -> tuple[Tensor, Tensor]:
        """Return sum_j alpha_j [C, C_z, C_r, C_o] h_j (rows, 3n + w), and alpha (rows, Tx).

        Args:
            query: (rows, n'), `times` rows a sentence.
            times: Hypotheses of each sentence.
        """
        query = query.to(self.adds.dtype).unflatten(0, (-1, times))
        energy = self.energies.of_hypotheses(query)
        energy.masked_fill_(self.blocked[:, None], -torch.inf)  # (B, times, Tx)
        alpha = torch.softmax(energy, dim=-1)
        return torch.bmm(alpha, self.adds).flatten(0, 1), alpha.flatten(0, 1)

    def select(self, sentences: Tensor) -> "Looks":
        """Go on with some of the sentences."""
        chosen = self.adds[sentences], self.blocked[sentences]
        return Looks(self.energies.select(sentences), *chosen)


@dataclass(frozen=True)
class TorchSearch:
    """Weights for torch's products with states and with what the output layer sees."""

    from_state: Factor  # [W_a, U_z, U_r, U_o], and U where the reset gate acts on its product
    parts: list[int]  # widths of these
    U: Factor
    W: Factor

    @classmethod
    def of(cls, decoder: FusedDecoder, from_state: Tensor) -> "TorchSearch":
        """Lay out [W_a, U_z, U_r, U_o] and the other weights of a decoder."""
        U, n, narrow = decoder.decoder.unit.U.weight, decoder.n, decoder.narrow
        parts = [len(decoder.v_a), 2 * n, len(decoder.bias[0])]
        if not decoder.decoder.unit.reset_before:
            from_state, parts = torch.cat([from_state, U]), [*parts, n]
        factors = (Factor(weight, narrow) for weight in (from_state, U, decoder.last.weight))
        first, *others = factors
        return cls(first, parts, *others)


@dataclass(frozen=True)
class TorchStepping:
    """`Stepping` whose hypotheses share the annotations of their sentence."""

    of: FusedDecoder
    search: TorchSearch
    s_0: Tensor  # (B, n)
    looks: Looks
    times: int

    def initial_state(self) -> DecoderState:
        """Return s_0 of every hypothesis."""
        return DecoderState(self.s_0.repeat_interleave(self.times, dim=0))

    def select(self, sentences: Tensor, times: int) -> "TorchStepping":
        """Go on with some of the sentences."""
        chosen = self.s_0[sentences], self.looks.select(sentences)
        return TorchStepping(self.of, self.search, *chosen, times)

    @in_own_formats
    def predict(self, y_prev: Tensor, state: DecoderState) -> Prediction:
        """Score every next word; `c` is what context and state add to the gates."""
        of, s = self.of, state.s
        n = of.n
        parts = self.search.from_state(s).split(self.search.parts, dim=-1)
        query, from_s, t_tilde, *Us = parts
        adds, alpha = self.looks(query, self.times)
        drive = torch.cat([adds[:, : 3 * n], *Us], dim=-1)
        drive[:, n : 3 * n] += from_s
        t_tilde = adds[:, 3 * n :].add_(t_tilde).add_(of.word(y_prev, gates=False))
        t = of.readout(max_of_pairs(t_tilde) if of.decoder.maxout else torch.tanh(t_tilde))
        logits = self.search.W(t)
        if of.last.bias is not None:
            logits = logits + of.last.bias  # in the wider of the two formats
        exact = of.logits_of(t) if of.narrow != t.dtype else None
        return Prediction(logits, drive, alpha, None, exact)

    @in_own_formats
    def advance(self, state: DecoderState, c: Tensor, *, y_prev: Tensor, y: Tensor) -> DecoderState:
        """Move every hypothesis on by a word."""
        of, s = self.of, state.s
        n = of.n
        drive = of.word(y if of.decoder.moved_by_emitted else y_prev, gates=True)
        drive += c[:, : 3 * n]
        z, r = drive[:, n:].sigmoid_().chunk(2, dim=-1)
        if of.decoder.unit.reset_before:
            s_tilde = self.search.U.plus(drive[:, :n], r * s).tanh_()
        else:
            s_tilde = (drive[:, :n] + r * c[:, 3 * n :]).tanh_()
        return DecoderState(torch.lerp(s, s_tilde, z))


@dataclass(frozen=True)
class NativeStepping:
    """The same in C."""

    of: FusedDecoder
    search: native.NativeSearch
    s_0: Tensor  # (B, n)
    seen: native.Seen
    sentences: Tensor  # (B,)  places in `seen`, of which nothing is copied
    times: int

    def initial_state(self) -> DecoderState:
        """Return s_0 of every hypothesis."""
        return DecoderState(self.s_0.repeat_interleave(self.times, dim=0))

    def select(self, sentences: Tensor, times: int) -> "NativeStepping":
        """Go on with some of the sentences."""
        chosen = self.s_0[sentences], self.seen, self.sentences[sentences]
        return NativeStepping(self.of, self.search, *chosen, times)

    @in_own_formats
    def predict(self, y_prev: Tensor, state: DecoderState) -> Prediction:
        """Score every next word; `c` is what context and state add to the gates."""
        of, word = self.of, self.of.word(y_prev, gates=False)
        t, drive, alpha = self.search.predict(state.s, word, self.seen, self.sentences, self.times)
        t = of.readout(t)
        exact = self.search.logits_of(t) if of.narrow != t.dtype else None
        return Prediction(None, drive, alpha, self.search.best_words(t), exact)

    @in_own_formats
    def advance(self, state: DecoderState, c: Tensor, *, y_prev: Tensor, y: Tensor) -> DecoderState:
        """Move every hypothesis on by a word."""
        word = self.of.word(y if self.of.decoder.moved_by_emitted else y_prev, gates=True)
        return DecoderState(self.search.advance(state.s, c, word))
