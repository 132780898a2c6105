"""The interfaces between the parts of a translation model, and between a model and its users.

Search, forced scoring, training, diagnostics and export depend on `TranslationModel` alone. All
that one step hands to the next is inside its `State`: s and c of a recurrent decoder, keys and
values of a Transformer. B sentences of K hypotheses are R = B K rows, the first sentence's first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.initialization import Scheme

CellState = tuple[Tensor, ...]
"""All that a cell hands to its next step, (B, any) each; its output is computed from them."""

Layer = type[nn.Linear]
"""The class of linear layers, which the backend chooses."""

LossTerm = Callable[[Tensor], Tensor]
"""Computes a term () of the loss from log p (N,) of real target tokens, which has no gradient."""

Maps = Callable[[], Mapping[str, Tensor]]
"""Returns the attention of every layer and head, (layers, B, h, rows, columns) each.

`heads` (Ty rows, Tx columns): to the source. `encoder` (Tx, Tx): within the source. `decoder`
(Ty, Ty): to the words before; row i predicts word i, column 0 is y_0. Kinds of attention that the
model lacks are left out; `dict` stands for a model that has none of them.
"""


class Part(Protocol):
    """What every module of a model implements."""

    def initialize(self, scheme: Scheme) -> None:
        """Draw all weights, part by part, in the order in which the parts were created."""


# The whole model ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Best:
    """The best words of each row."""

    log_probs: Tensor  # (R, count) in descending order; -inf where words run out
    words: Tensor  # (R, count) ids


@dataclass(frozen=True)
class Barred:
    """The words that must not be chosen."""

    words: Tensor  # ids, for every row
    eos: int  # the end symbol
    too_early: Tensor  # (R,) bool, True where the end symbol is barred, too


class Prediction(Protocol):
    """A model's distribution over the next word of each row."""

    @property
    def alpha(self) -> Tensor:
        """Attention (R, Tx)."""

    def log_probs(self) -> Tensor:
        """Return log p of every word (R, K_y)."""

    def best(self, count: int, barred: Barred, lists: Tensor | None = None) -> Best:
        """Return the best `count` words of each row, at most all K_y (or N) of them.

        They are exact even where other matmuls run in low precision. With `lists` (B, N) of
        ascending ids, one of each sentence, only these words take part, and probabilities are
        normalised over the list.
        """


class State(Protocol):
    """The state of all hypotheses before a step. The source is stored once per sentence."""

    def select(self, sentences: Tensor, slots: int, rows: Tensor) -> "State":
        """Return the state of some `sentences` (B',), ascending, with K' = `slots` hypotheses each.

        `rows` (B' K',) says which current row each new row copies.
        """


class Stepper(Protocol):
    """The part of a model that search uses."""

    def begin(self, src: Tensor, mask: Tensor) -> State:
        """Read source ids (B, Tx); the state has one hypothesis per sentence."""

    def step(self, y: Tensor, state: Any) -> tuple[Prediction, State]:
        """Predict the words after y (R,), y_0 at the first step, from this model's own state."""


@dataclass(frozen=True)
class Followed:
    """A model run along known targets, up to its output layer.

    The logits are left out, so that the loss can compute them in chunks. The rows of t belong to
    the real target tokens, sentence after sentence.
    """

    t: Tensor  # (N, l)
    weights: Callable[[], Tensor]  # computes alpha on demand; training does not need it
    losses: Mapping[str, LossTerm] = field(default_factory=dict)
    maps: Maps = dict

    @property
    def alpha(self) -> Tensor:
        """Attention (B, Ty, Tx) at each real target position."""
        return self.weights()


@dataclass(frozen=True)
class Probes:
    """Internal values of a model along a batch, for diagnostics."""

    gates: Mapping[str, tuple[Tensor, Tensor]]  # by name: (B, T, n) between 0 and 1, mask (B, T)
    alpha: Tensor | None  # (B, Ty, Tx); None if it does not depend on weights


class OutputLayer(Protocol):
    """Maps the last hidden layer to words."""

    num_words: int  # K_y

    def logits(self, t: Tensor) -> Tensor:
        """Return the logits (N, K_y) of t (N, l)."""

    def output_loss(
        self, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Return the summed -log p (nats) of targets (N,), and the same with smoothed targets.

        Only the second has a gradient.
        """


class TranslationModel(Stepper, OutputLayer, Protocol):
    """The part of a model that forced scoring, training and export use."""

    def for_search(self, *, int8: bool = False) -> Stepper:
        """Return a stepper for search, in 8 bits or else in the autocast dtype at this time.

        It is valid as long as the weights do not change.
        """

    def follow(self, src: Tensor, src_mask: Tensor, y: Tensor, y_mask: Tensor) -> Followed:
        """Run along targets y (B, Ty): teacher forcing."""

    def probes(self, src: Tensor, src_mask: Tensor, y: Tensor, y_mask: Tensor) -> Probes:
        """Return internal values along targets, in evaluation mode."""

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings of source words (K_x, m) and of target words (K_y, m)."""


# Parts of a model that encodes, attends and decodes -----------------------------------------------


@dataclass(frozen=True)
class Memory:
    """The encoded source, once per sentence."""

    states: Tensor  # (B, Tx, d)
    summary: Tensor  # (B, k)  initializes a recurrent decoder
    mask: Tensor  # (B, Tx) bool, True on real tokens, the end symbol included
    maps: Maps = dict  # attention within the source


class Encoder(Part, Protocol):
    """Reads the source."""

    embedding: WordEmbedding
    state_size: int  # d
    summary_size: int  # k

    def __call__(self, src: Tensor, mask: Tensor) -> Memory:
        """Encode ids (B, Tx)."""

    def probes(self, src: Tensor, memory: Memory) -> Mapping[str, Tensor]:
        """Return gates by name, (B, Tx, n); empty if the encoder has no gates."""


class Cell(Part, Protocol):
    """A recurrent unit: the paper's, an LSTM, ... Its state may hold more than its output.

    A cell that needs no loop along a known sequence also has `run(x, mask, start, *, backward)`,
    which returns the same as `recurrence.run_cell`.
    """

    hidden_size: int  # n, width of the output

    def begin(self, h: Tensor) -> CellState:
        """Return the initial state, whose output is h (B, n)."""

    def project(self, x: Tensor) -> Tensor:
        """Return the input projections of x (..., m), computed for whole sequences at once."""

    def step(self, x: Tensor, state: CellState, c: Tensor | None = None) -> CellState:
        """Take a step with a `project`ed input and, in a decoder, the context c (B, d)."""

    def output(self, state: CellState) -> Tensor:
        """Return h (B, n)."""

    def gates(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> Mapping[str, Tensor]:
        """Return gates by letter, for diagnostics, from projected inputs and previous outputs."""


@dataclass(frozen=True)
class Source:
    """What an attention precomputes from the source, once per sentence."""

    keys: Tensor  # (B, Tx, n')
    values: Tensor  # (B, Tx, d)
    mask: Tensor  # (B, Tx)
    fertility: Tensor | None = None  # (B, Tx)  expected target words per source word; coverage only

    def select(self, sentences: Tensor) -> "Source":
        """Return a subset of the sentences, ascending; no copy is made if it is all of them."""
        if len(sentences) == len(self.mask):
            return self
        fertility = None if self.fertility is None else self.fertility[sentences]
        keys, values = self.keys[sentences], self.values[sentences]
        return Source(keys, values, self.mask[sentences], fertility)


@dataclass(frozen=True)
class Draw:
    """What an attention drew at a step, and the losses it learns from over a whole target."""

    values: tuple[Tensor, ...]  # (R,) each
    losses: Callable[[Sequence[Tensor], Tensor], Mapping[str, LossTerm]]
    """Takes the values of all steps, (B, Ty) each, and the mask of the target."""


@dataclass(frozen=True)
class Attended:
    """The result of an attention step."""

    c: Tensor  # (R, d)      context, Eq. (5)
    alpha: Tensor  # (R, Tx) weights, Eq. (6); rows sum to 1 (`local`: at most), 0 on padding
    state: Tensor | None = None  # (R, any)  the attention's own state, such as coverage
    heads: Tensor | None = None  # (R, h, Tx)  weights of each head, if there are several
    draw: Draw | None = None  # in training, of an attention that draws


class Attention(Part, Protocol):
    """(query, keys, values, mask) -> (context, weights)."""

    context_size: int  # d
    learned: ClassVar[bool]  # whether alpha depends on weights
    sequential: ClassVar[bool]  # whether a step depends on the previous one, by a state or by draws

    def prepare(self, memory: Memory) -> Source:
        """Project the states of the source, once per sentence."""

    def __call__(self, query: Tensor, source: Source, state: Tensor | None = None) -> Attended:
        """Attend with queries (R, n); `state` comes from the previous step, None at the first."""


class Decoder(Part, OutputLayer, Protocol):
    """Predicts words from a memory."""

    embedding: WordEmbedding

    @property
    def words_layer(self) -> nn.Linear:
        """The layer whose rows are target words (K_y, any), which `model.tied` shares."""

    def begin(self, memory: Memory) -> State:
        """Return the state before the first word, with one hypothesis per sentence."""

    def step(self, y: Tensor, state: Any) -> tuple[Prediction, State]:
        """See `Stepper.step`."""

    def follow(self, memory: Memory, y: Tensor, mask: Tensor) -> Followed:
        """See `TranslationModel.follow`."""

    def probes(self, memory: Memory, y: Tensor, mask: Tensor) -> Probes:
        """See `TranslationModel.probes`."""
