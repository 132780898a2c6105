"""The paper's decoder, A.2.2: update the state with the previous word, attend, predict."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seq2seq.model.backend import Backend
from seq2seq.model.dropout import Dropout
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.initialization import Scheme, draw_layers
from seq2seq.model.output import max_of_pairs
from seq2seq.model.protocols import Attention, Cell, CellState, Followed, Memory, Probes, Source
from seq2seq.model.recurrence import Unrolled
from seq2seq.model.word_output import WordOutput, WordPrediction


class ReadoutDecoder(WordOutput):
    """Base of recurrent decoders: embedding, attention, a unit, initial state, deep output."""

    weight_groups: ClassVar[Mapping[str, str]] = {
        **{"embedding": "embeddings", "attention": "attention"},
        **dict.fromkeys(("U_o", "V_o", "C_o", "W_o"), "readout"),
    }

    def __init__(  # noqa: PLR0913 - four parts, two sizes, a backend, five settings
        self,
        embedding: WordEmbedding,
        attention: Attention,
        unit: Cell,
        W_o: nn.Module,
        *,
        summary_size: int,
        readout_size: int,
        maxout: bool,
        bias: bool,
        embedding_dropout: float,
        word_dropout: float,
        readout_dropout: float,
        backend: Backend,
    ) -> None:
        super().__init__()
        n, m, linear = unit.hidden_size, embedding.E.embedding_dim, backend.linear
        self.embedding, self.attention, self.unit = embedding, attention, unit
        self.maxout = maxout
        width = 2 * readout_size if maxout else readout_size
        self.W_s = linear(summary_size, n, bias=bias)
        self.U_o = linear(n, width, bias=bias)
        self.V_o = linear(m, width, bias=False)
        self.C_o = linear(attention.context_size, width, bias=False)
        self.W_o = W_o
        self.num_words = embedding.E.num_embeddings
        self.embedding_dropout = Dropout(embedding_dropout)
        self.word_dropout = Dropout(word_dropout)
        self.readout_dropout = Dropout(readout_dropout)
        self.backend = backend

    def initialize(self, scheme: Scheme) -> None:
        """Draw embedding, attention, unit, W_s, U_o, V_o, C_o, W_o."""
        for part in (self.embedding, self.attention, self.unit):
            part.initialize(scheme)
        draw_layers(scheme, self.W_s, self.U_o, self.V_o, self.C_o, self.W_o)

    def start(self, memory: Memory) -> Tensor:
        """Return s_0 = tanh(W_s h_bwd_1 + b_s) (B, n)."""
        # Under autocast the state keeps the dtype of the weights: slow gates need the precision.
        return torch.tanh(self.W_s(memory.summary)).to(self.W_s.weight.dtype)

    def embed(self, y: Tensor) -> Tensor:
        """Return E y (..., m); the id of y_0 gives the zero vector."""
        embedded: Tensor = self.embedding(y)
        return embedded

    def readout(self, s: Tensor, Ey: Tensor, c: Tensor) -> Tensor:
        """Return t_i (..., l) from a state (..., n), E y_{i-1} (..., m), c_i (..., 2n)."""
        return self.activate(self.U_o(s) + self.V_o(Ey) + self.C_o(c))

    def activate(self, t_tilde: Tensor) -> Tensor:
        """Return t_i (..., l)."""
        return max_of_pairs(t_tilde) if self.maxout else torch.tanh(t_tilde)

    def embed_targets(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return E y_i and E y_{i-1} (B, Ty, m) of targets (B, Ty)."""
        Ey = self.embedding_dropout(self.word_dropout.of_words(self.embed(y)))
        # y_0 is the zero vector. Both uses of a word share one dropout mask.
        return Ey, torch.cat([torch.zeros_like(Ey[:, :1]), Ey[:, :-1]], dim=1)

    def followed(
        self, along: Unrolled, Ey_prev: Tensor, mask: Tensor, t: Tensor | None = None
    ) -> Followed:
        """Return the result of a run along targets, which may already have t (B, Ty, l)."""
        if t is None:
            t = self.readout(*of_real_words(mask, along.s, Ey_prev, along.c))
        else:
            [t] = of_real_words(mask, t)
        t = self.readout_dropout(t, *mask.nonzero(as_tuple=True))
        heads = {} if along.heads is None else {"heads": along.heads[None]}
        alpha = along.alpha  # the rest of `along` need not stay
        return Followed(t, lambda: alpha, along.losses, lambda: heads)

    def probed(self, gates: Mapping[str, Tensor], along: Unrolled, mask: Tensor) -> Probes:
        """Return gates (B, Ty, n) by letter, and the weights of the attention."""
        alpha = along.alpha if self.attention.learned else None
        return Probes({letter: (values, mask) for letter, values in gates.items()}, alpha)


def of_real_words(mask: Tensor, *along: Tensor) -> list[Tensor]:
    """Return the rows of real target words, (N, ...) each, of tensors (B, Ty, ...)."""
    real = mask.flatten().nonzero()[:, 0]
    return [x.flatten(0, 1).index_select(0, real) for x in along]


@dataclass(frozen=True)
class RecurrentState:
    """Hypotheses before step i: s_{i-2}, and what is needed to compute s_{i-1} from it."""

    source: Source  # once per sentence
    cell: CellState  # (R, any) each
    c: Tensor | None = None  # (R, 2n) c_{i-1}; None at s_0, which the first step uses unchanged
    y: Tensor | None = None  # (R,) y_{i-2}, the word before the last
    attention: Tensor | None = None  # (R, any)

    def select(self, sentences: Tensor, slots: int, rows: Tensor) -> "RecurrentState":
        """See `State.select`."""
        c, y, attention = (x if x is None else x[rows] for x in (self.c, self.y, self.attention))
        cell = tuple(x[rows] for x in self.cell)
        return RecurrentState(self.source.select(sentences), cell, c, y, attention)


class RecurrentDecoder(ReadoutDecoder):
    """Decoder with attention and deep output, A.2.2.

        s_0       = tanh(W_s h_bwd_1 + b_s)
        c_i       = attention(s_{i-1}, h)                                        (5)
        t_tilde_i = U_o s_{i-1} + V_o E y_{i-1} + C_o c_i + b_o
        t_i       = [max(t_tilde_{i,2j-1}, t_tilde_{i,2j})]  for j = 1..l        `maxout`
                    or tanh(t_tilde_i), l wide: common, not the paper's          `tanh`
        p(y_i)    = softmax(W_o t_i + b)
        s_i       = unit(E y, s_{i-1}, c_i)   y = y_i     authors' code, `emitted`
                                              y = y_{i-1} A.2.2 as printed, `previous`

    t_i reads s_{i-1}, not s_i, as in A.2.2 and the authors' code, although Eq. (4) writes s_i. The
    biases b_s, b_o, b come from the authors' code; the paper prints none.
    """

    def __init__(self, *args: Any, moved_by_emitted: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.moved_by_emitted = moved_by_emitted

    # Word by word

    def begin(self, memory: Memory) -> RecurrentState:
        """Return s_0 of each sentence, with one hypothesis each."""
        return RecurrentState(self.attention.prepare(memory), self.unit.begin(self.start(memory)))

    def step(self, y: Tensor, state: RecurrentState) -> tuple[WordPrediction, RecurrentState]:
        """Predict the words after y_{i-1} (R,), after computing s_{i-1}, which may depend on it."""
        cell = state.cell
        if state.c is not None:
            word = y if self.moved_by_emitted else state.y
            assert word is not None
            cell = self.unit.step(self.unit.project(self.embed(word)), cell, state.c)
        s = self.unit.output(cell)
        attended = self.attention(s, state.source, state.attention)
        t = self.readout(s, self.embed(y), attended.c)
        after = RecurrentState(state.source, cell, attended.c, y, attended.state)
        return self.prediction(t, attended.alpha), after

    # Along known targets

    def follow(self, memory: Memory, y: Tensor, mask: Tensor) -> Followed:
        """Run along targets (B, Ty); `mask` is True on real words."""
        Ey, Ey_prev = self.embed_targets(y)
        return self.followed(self._unroll(memory, Ey, Ey_prev, mask), Ey_prev, mask)

    def probes(self, memory: Memory, y: Tensor, mask: Tensor) -> Probes:
        """Return the gates of the unit and the weights of the attention along targets."""
        Ey, Ey_prev = self.embed_targets(y)
        steps = self._unroll(memory, Ey, Ey_prev, mask)
        words = self.unit.project(Ey if self.moved_by_emitted else Ey_prev)
        return self.probed(self.unit.gates(words, steps.s, steps.c), steps, mask)

    def _unroll(self, memory: Memory, Ey: Tensor, Ey_prev: Tensor, mask: Tensor) -> Unrolled:
        words = Ey if self.moved_by_emitted else Ey_prev
        source, s_0 = self.attention.prepare(memory), self.start(memory)
        return self.backend.unroll(self.unit, self.attention, words, s_0, source, mask)
