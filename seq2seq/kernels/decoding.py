"""The decoder a word at a time, for search: the numbers of `predict` and `advance`, faster.

What belongs to a sentence is kept once, not once a hypothesis; what annotations and words add to
the gates and to the readout is computed before the search; products with the state are one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

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
        self.from_context = torch.cat(
            [unit.C.weight, unit.C_z.weight, unit.C_r.weight, decoder.C_o.weight]
        ).to(narrow)  # (3n + w, 2n)
        self.U = Factor(unit.U.weight, narrow)
        from_word = torch.cat([unit.W.weight, unit.W_z.weight, unit.W_r.weight])
        self.bias = from_word.new_zeros(3 * n + width)
        self.from_word = Factor(torch.cat([from_word, decoder.V_o.weight]), narrow)  # (3n + w, m)
        if unit.W.bias is not None:
            self.bias[:n] = unit.W.bias
            self.bias[3 * n :] = decoder.U_o.bias
        *self.before, last = (
            decoder.W_o if isinstance(decoder.W_o, nn.Sequential) else [decoder.W_o]
        )
        assert isinstance(last, nn.Linear)
        self.last = last
        self.W_last = Factor(last.weight, narrow)
        self.table: Tensor | None = None
        self.words_seen = 0

    @in_own_formats
    def stepping(self, source: Annotations, times: int) -> "FusedStepping":
        """Begin the translation of a batch."""
        exact = self.v_a.dtype
        adds = functional.linear(source.values.to(self.narrow), self.from_context).to(exact)
        energies = Energies(source.keys.to(exact), self.v_a)
        s_0 = self.decoder.initial_state(source).s.to(exact)
        return FusedStepping(self, s_0, adds, energies, ~source.mask, times)

    def word(self, y: Tensor) -> Tensor:
        """Return what words (rows,) add to gates and readout, (rows, 3n + w)."""
        if self.table is None:
            self.words_seen += len(y)
            if not self._table_pays():
                return self._add(self.decoder.embedding(y))
            every = torch.arange(len(self.last.weight), device=y.device)
            self.table = self._add(self.decoder.embedding(every))
        return self.table.index_select(0, y)

    def _table_pays(self) -> bool:
        num_words = len(self.last.weight)
        fits = num_words * len(self.bias) * self.bias.itemsize <= _TABLE_BYTES
        return fits and self.words_seen > num_words

    def exact(self, t: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what computes logits of words (rows, k) in the format of the weights."""

        def logits(words: Tensor) -> Tensor:
            found = torch.einsum("rl,rkl->rk", t, self.last.weight[words])
            return found if self.last.bias is None else found + self.last.bias[words]

        return logits

    def _add(self, Ey: Tensor) -> Tensor:
        return self.from_word(Ey).to(self.bias.dtype) + self.bias


@dataclass(frozen=True)
class FusedStepping:
    """`Stepping` whose hypotheses share the annotations of their sentence."""

    of: FusedDecoder
    s_0: Tensor  # (B, n)
    adds: Tensor  # (B, Tx, 3n + w)  [C, C_z, C_r, C_o] h_j
    energies: Energies
    blocked: Tensor  # (B, Tx) bool, True on padding
    times: int

    def initial_state(self) -> DecoderState:
        """Return s_0 of every hypothesis."""
        return DecoderState(self.s_0.repeat_interleave(self.times, dim=0))

    def select(self, sentences: Tensor, times: int) -> "FusedStepping":
        """Go on with some of the sentences."""
        s_0, adds, blocked = (x[sentences] for x in (self.s_0, self.adds, self.blocked))
        return FusedStepping(self.of, s_0, adds, self.energies.select(sentences), blocked, times)

    @in_own_formats
    def predict(self, y_prev: Tensor, state: DecoderState) -> Prediction:
        """Score every next word; `c` is what context and state add to the gates."""
        of, s = self.of, state.s
        n = of.n
        products = of.from_state(s).to(s.dtype)
        query, from_s, t_tilde, *Us = products.split(of.parts, dim=-1)
        energy = self.energies.of_hypotheses(query.unflatten(0, (-1, self.times)))
        energy.masked_fill_(self.blocked[:, None], -torch.inf)  # (B, times, Tx)
        alpha = torch.softmax(energy, dim=-1)
        adds = torch.bmm(alpha, self.adds).flatten(0, 1)  # (rows, 3n + w)
        adds[:, n : 3 * n] += from_s
        t_tilde = t_tilde + adds[:, 3 * n :] + of.word(y_prev)[:, 3 * n :]
        t = max_of_pairs(t_tilde) if of.decoder.maxout else torch.tanh(t_tilde)
        for layer in of.before:
            t = layer(t)
        logits = of.W_last(t)
        if of.last.bias is not None:
            logits = logits + of.last.bias  # in the wider of the two formats
        exact = of.exact(t) if of.narrow != t.dtype else None
        drive = torch.cat([adds[:, : 3 * n], *Us], dim=-1)
        return Prediction(logits, drive, alpha.flatten(0, 1), exact)

    @in_own_formats
    def advance(self, state: DecoderState, c: Tensor, *, y_prev: Tensor, y: Tensor) -> DecoderState:
        """Move every hypothesis on by a word."""
        of, s = self.of, state.s
        n = of.n
        word = of.word(y if of.decoder.moved_by_emitted else y_prev)
        drive = c[:, : 3 * n] + word[:, : 3 * n]
        z, r = drive[:, n:].sigmoid_().chunk(2, dim=-1)
        if of.decoder.unit.reset_before:
            s_tilde = (drive[:, :n] + of.U(r * s)).tanh_()
        else:
            s_tilde = (drive[:, :n] + r * c[:, 3 * n :]).tanh_()
        return DecoderState(torch.lerp(s, s_tilde, z))
