"""The decoder, A.2.2: predict a word, then move the state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor, nn

from seq2seq.model.attention import Annotations, Attended, Attention, Draw
from seq2seq.model.dropout import Dropout
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.gated_unit import GatedUnit


@dataclass(frozen=True)
class DecoderState:
    """All that one word hands to the next."""

    s: Tensor  # (B, n)

    def select(self, rows: Tensor) -> "DecoderState":
        """Return the given rows, in the given order; rows may repeat."""
        return DecoderState(self.s[rows])


@dataclass(frozen=True)
class Prediction:
    """What the decoder says about the next word."""

    logits: Tensor | None  # (B, K_y)
    c: Tensor  # (B, 2n)
    alpha: Tensor  # (B, Tx)
    best: "BestWords | None" = None
    """Stands for the logits where they are not all there at once."""
    exact: Callable[[Tensor], Tensor] | None = None
    """Computes the logits of some words of each row (B, k) again, if the others are rounded."""


class BestWords(Protocol):
    """Finds the best words of each row of logits, its own way."""

    def __call__(
        self, count: int, *, forbidden: Tensor, eos: int, too_early: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return their logits, falling, their ids (B, count), and log sum exp over all (B, 1).

        Args:
            count: At most all words.
            forbidden: Ids that are not returned but where there are no others, with -inf.
            eos: The end symbol.
            too_early: (B,) bool, where the end symbol is forbidden, too.
        """


@dataclass(frozen=True)
class Unrolled:
    """The decoder along a known target: row i is what `predict` sees at word i."""

    s_prev: Tensor  # (B, Ty, n)   s_{i-1}
    c: Tensor  # (B, Ty, 2n)       c_i
    alpha: Tensor  # (B, Ty, Tx)   alpha_i
    draw: Draw | None = None  # (B, Ty) each; hard attention in training


class Stepping(Protocol):
    """A decoder with a batch of sentences before it, several hypotheses each.

    Rows of states, words and predictions are hypotheses: the first sentence's, the second's, ...
    """

    def initial_state(self) -> DecoderState:
        """Return the state before the first word."""
        ...

    def predict(self, y_prev: Tensor, state: DecoderState) -> Prediction:
        """Look at the source and score every next word."""
        ...

    def advance(self, state: DecoderState, c: Tensor, *, y_prev: Tensor, y: Tensor) -> DecoderState:
        """Move the state past the word y, with the c of the prediction."""
        ...

    def select(self, sentences: Tensor, times: int) -> "Stepping":
        """Go on with some of the sentences, and so many hypotheses each."""
        ...


class Decoder(Protocol):
    """All that search asks of a decoder."""

    def stepping(self, source: Annotations, times: int) -> Stepping:
        """Begin the translation of a batch, with so many hypotheses for each sentence."""
        ...


Unroll = Callable[["RecurrentDecoder", Tensor, Tensor, Annotations, Tensor], Unrolled]
"""Runs a decoder along E y_{i-1} and E y_i (B, Ty, m), with the mask (B, Ty) of real words."""


class RecurrentDecoder(nn.Module):
    """Decoder with attention and deep output, A.2.2.

        s_0       = tanh(W_s h_bwd_1 + b_s)
        c_i       = attention(s_{i-1}, h)                                        (5)
        t_tilde_i = U_o s_{i-1} + V_o E y_{i-1} + C_o c_i + b_o
        t_i       = [max(t_tilde_{i,2j-1}, t_tilde_{i,2j})]  for j = 1..l        `maxout`
                    or tanh(t_tilde_i), l wide: common, not the paper's          `tanh`
        p(y_i)    = softmax(W_o t_i + b)
        s_i       = unit(E y, s_{i-1}, c_i)   y = y_i     authors' code, `emitted`
                                              y = y_{i-1} A.2.2 as printed, `previous`

    Biases b_s, b_o, b are the authors'; the paper prints none.
    """

    def __init__(  # noqa: PLR0913 - four parts, a size, five switches
        self,
        embedding: WordEmbedding,
        attention: Attention,
        unit: GatedUnit,
        W_o: nn.Module,
        *,
        readout_size: int,
        maxout: bool,
        moved_by_emitted: bool,
        bias: bool,
        embedding_dropout: float,
        readout_dropout: float,
    ) -> None:
        super().__init__()
        n, m = unit.hidden_size, embedding.E.embedding_dim
        self.embedding = embedding
        self.attention = attention
        self.unit = unit
        self.maxout = maxout
        self.moved_by_emitted = moved_by_emitted
        width = 2 * readout_size if maxout else readout_size
        self.W_s = nn.Linear(n, n, bias=bias)
        self.U_o = nn.Linear(n, width, bias=bias)
        self.V_o = nn.Linear(m, width, bias=False)
        self.C_o = nn.Linear(attention.context_size, width, bias=False)
        self.W_o = W_o
        self.embedding_dropout = Dropout(embedding_dropout)
        self.readout_dropout = Dropout(readout_dropout)
        self.unroll: Unroll = unroll  # `kernels.unroll_fused` gives the same, faster

    def initial_state(self, source: Annotations) -> DecoderState:
        """Return s_0 = tanh(W_s h_bwd_1 + b_s)."""
        return DecoderState(torch.tanh(self.W_s(source.start)))

    def embed(self, y: Tensor) -> Tensor:
        """Return E y (..., m); the id of y_0 gives the zero vector."""
        embedded: Tensor = self.embedding_dropout(self.embedding(y))
        return embedded

    def stepping(self, source: Annotations, times: int) -> "Repeated":
        """Begin a search over hypotheses, each with its own copy of the annotations."""
        return Repeated(self, source, times)

    def readout(self, s_prev: Tensor, Ey: Tensor, c: Tensor) -> Tensor:
        """Return t_i (..., l) from s_{i-1} (..., n), E y_{i-1} (..., m), c_i (..., 2n)."""
        # s_{i-1}, not s_i: A.2.2 and the authors' code, although Eq. (4) writes s_i.
        t_tilde = self.U_o(s_prev) + self.V_o(Ey) + self.C_o(c)
        t = max_of_pairs(t_tilde) if self.maxout else torch.tanh(t_tilde)
        dropped: Tensor = self.readout_dropout(t)
        return dropped

    def predict(self, y_prev: Tensor, state: DecoderState, source: Annotations) -> Prediction:
        """Score every next word after y_{i-1} (B,), from s_{i-1}."""
        attended = self.attention(query=state.s, source=source)
        t = self.readout(state.s, self.embed(y_prev), attended.c)
        return Prediction(self.W_o(t), attended.c, attended.alpha)

    def advance(self, state: DecoderState, c: Tensor, *, y_prev: Tensor, y: Tensor) -> DecoderState:
        """Move s_{i-1} to s_i with the c_i that `predict` returned."""
        word = y if self.moved_by_emitted else y_prev
        return DecoderState(self.unit(self.unit.project(self.embed(word)), state.s, c))


class Repeated:
    """`Stepping` with any attention: the annotations of a sentence once for each hypothesis."""

    def __init__(self, decoder: RecurrentDecoder, source: Annotations, times: int) -> None:
        self.decoder, self.source = decoder, source
        rows = torch.arange(len(source.mask), device=source.mask.device)
        self.rows = source.select(rows.repeat_interleave(times))

    def initial_state(self) -> DecoderState:
        """Return s_0 of every hypothesis."""
        return self.decoder.initial_state(self.rows)

    def predict(self, y_prev: Tensor, state: DecoderState) -> Prediction:
        """Score every next word of every hypothesis."""
        return self.decoder.predict(y_prev, state, self.rows)

    def advance(self, state: DecoderState, c: Tensor, *, y_prev: Tensor, y: Tensor) -> DecoderState:
        """Move every hypothesis on by a word."""
        return self.decoder.advance(state, c, y_prev=y_prev, y=y)

    def select(self, sentences: Tensor, times: int) -> "Repeated":
        """Go on with some of the sentences."""
        return Repeated(self.decoder, self.source.select(sentences), times)


def max_of_pairs(t_tilde: Tensor) -> Tensor:
    """Return the larger of each adjacent pair, (..., l) of (..., 2l)."""
    t: Tensor = t_tilde.unflatten(-1, (-1, 2)).amax(dim=-1)
    return t


def unroll(
    decoder: RecurrentDecoder, Ey_prev: Tensor, Ey: Tensor, source: Annotations, mask: Tensor
) -> Unrolled:
    """Run along a known target, given E y_{i-1} and E y_i (B, Ty, m).

    The same attention and the same unit as `predict` and `advance`; what does not depend on the
    state is computed before the loop. `mask` lets kernels leave padding out; here it is run, too.
    """
    unit = decoder.unit
    projected = unit.project(Ey if decoder.moved_by_emitted else Ey_prev)  # (B, Ty, 3n)
    s = decoder.initial_state(source).s
    states: list[Tensor] = []
    looks: list[Attended] = []
    for i in range(Ey.shape[1]):
        states.append(s)
        looks.append(decoder.attention(query=s, source=source))  # asks with s_{i-1}
        s = unit(projected[:, i], s, looks[-1].c)
    c, alpha = (torch.stack([getattr(look, k) for look in looks], dim=1) for k in ("c", "alpha"))
    return Unrolled(torch.stack(states, dim=1), c, alpha, stack_draws(looks))


def stack_draws(looks: Sequence[Attended]) -> Draw | None:
    """Put what hard attention drew at each step side by side, (B, Ty); None if it drew nothing."""
    draws = [look.draw for look in looks if look.draw is not None]
    if not draws:
        return None
    parts = ([getattr(draw, f.name) for draw in draws] for f in fields(Draw))
    return Draw(*(torch.stack(part, dim=1) for part in parts))
