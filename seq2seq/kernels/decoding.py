"""The decoder a word at a time, for search: the numbers of `predict` and `advance`, faster.

What belongs to a sentence is kept once, not once a hypothesis; what annotations and words add to
the gates and to the readout is computed before the search; products with the state are one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from seq2seq.kernels import native
from seq2seq.kernels.energies import Energies
from seq2seq.kernels.precision import Factor, in_own_formats
from seq2seq.model.attention import AdditiveAttention, Annotations
from seq2seq.model.decoder import DecoderState, Prediction, RecurrentDecoder, max_of_pairs

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
        self.parts = [len(self.v_a), 2 * n, width]
        if not unit.reset_before:  # the gate acts on the product, which can be made with the rest
            state, self.parts = [*state, unit.U.weight], [*self.parts, n]
        self.from_state = Factor(torch.cat(state), narrow)  # (n' + 2n + w, n)
        context = [unit.C.weight, unit.C_z.weight, unit.C_r.weight, decoder.C_o.weight]
        self.from_context = Factor(torch.cat(context), narrow)  # (3n + w, 2n)
        self.U = Factor(unit.U.weight, narrow)
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
        self.W_last = Factor(last.weight, narrow)
        self.table: tuple[Tensor, Tensor] | None = None  # what all words add to readout and gates
        self.words_seen = 0
        self.programs = native.programs_for(self.v_a, narrow)

    @in_own_formats
    def stepping(self, source: Annotations, times: int) -> "FusedStepping":
        """Begin the translation of a batch."""
        exact = self.v_a.dtype
        adds = self.from_context(source.values.flatten(0, 1)).to(exact)
        adds = adds.view(*source.mask.shape, -1)
        seen = source.keys.to(exact), adds, source.mask, self.v_a
        looks: Looks
        if self.programs is None:
            looks = TorchLooks(Energies(seen[0], self.v_a), adds, ~source.mask)
        else:
            looks = native.NativeLooks(self.programs, native.Seen.of(*seen))
        s_0 = self.decoder.initial_state(source).s.to(exact)
        return FusedStepping(self, s_0, looks, times)

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

    def exact(self, t: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what computes logits of words (rows, k) in the format of the weights."""
        if self.programs is not None:
            return partial(native.logits_of, self.programs, t, self.last)

        def logits(words: Tensor) -> Tensor:
            found = torch.einsum("rl,rkl->rk", t, self.last.weight[words])
            return found if self.last.bias is None else found + self.last.bias[words]

        return logits

    def _add(self, Ey: Tensor, gates: bool) -> Tensor:
        bias = self.bias[gates]
        return self.from_word[gates](Ey).to(bias.dtype) + bias


class Looks(Protocol):
    """Attention of hypotheses that share the annotations of their sentence."""

    def __call__(self, query: Tensor, times: int) -> tuple[Tensor, Tensor]:
        """Return sum_j alpha_j [C, C_z, C_r, C_o] h_j (rows, 3n + w), and alpha (rows, Tx).

        Args:
            query: (rows, n'), `times` rows a sentence.
            times: Hypotheses of each sentence.
        """

    def select(self, sentences: Tensor) -> "Looks":
        """Go on with some of the sentences."""


@dataclass(frozen=True)
class TorchLooks:
    """`Looks` by torch's operations."""

    energies: Energies
    adds: Tensor  # (B, Tx, 3n + w)  [C, C_z, C_r, C_o] h_j
    blocked: Tensor  # (B, Tx) bool, True on padding

    def __call__(self, query: Tensor, times: int) -> tuple[Tensor, Tensor]:  # noqa: D102
        query = query.to(self.adds.dtype).unflatten(0, (-1, times))
        energy = self.energies.of_hypotheses(query)
        energy.masked_fill_(self.blocked[:, None], -torch.inf)  # (B, times, Tx)
        alpha = torch.softmax(energy, dim=-1)
        return torch.bmm(alpha, self.adds).flatten(0, 1), alpha.flatten(0, 1)

    def select(self, sentences: Tensor) -> "TorchLooks":  # noqa: D102
        chosen = self.adds[sentences], self.blocked[sentences]
        return TorchLooks(self.energies.select(sentences), *chosen)


@dataclass(frozen=True)
class FusedStepping:
    """`Stepping` whose hypotheses share the annotations of their sentence."""

    of: FusedDecoder
    s_0: Tensor  # (B, n)
    looks: Looks
    times: int

    def initial_state(self) -> DecoderState:
        """Return s_0 of every hypothesis."""
        return DecoderState(self.s_0.repeat_interleave(self.times, dim=0))

    def select(self, sentences: Tensor, times: int) -> "FusedStepping":
        """Go on with some of the sentences."""
        return FusedStepping(self.of, self.s_0[sentences], self.looks.select(sentences), times)

    @in_own_formats
    def predict(self, y_prev: Tensor, state: DecoderState) -> Prediction:
        """Score every next word; `c` is what context and state add to the gates."""
        of, s = self.of, state.s
        n = of.n
        query, from_s, t_tilde, *Us = of.from_state(s).split(of.parts, dim=-1)
        adds, alpha = self.looks(query, self.times)
        drive = torch.cat([adds[:, : 3 * n], *Us], dim=-1)
        drive[:, n : 3 * n] += from_s
        t_tilde = adds[:, 3 * n :].add_(t_tilde).add_(of.word(y_prev, gates=False))
        t = max_of_pairs(t_tilde) if of.decoder.maxout else torch.tanh(t_tilde)
        for layer in of.before:
            t = layer(t)
        exact = of.exact(t) if of.narrow != t.dtype else None
        if of.programs is not None:
            best = native.NativeBestWords(of.programs, of.W_last, of.last.bias, t)
            return Prediction(None, drive, alpha, best, exact)
        logits = of.W_last(t)
        if of.last.bias is not None:
            logits = logits + of.last.bias  # in the wider of the two formats
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
            s_tilde = of.U.plus(drive[:, :n], r * s).tanh_()
        else:
            s_tilde = (drive[:, :n] + r * c[:, 3 * n :]).tanh_()
        return DecoderState(torch.lerp(s, s_tilde, z))
