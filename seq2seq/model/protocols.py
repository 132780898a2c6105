"""What the parts of a translation model know of each other, and all that others know of a model.

Search, forced scoring, training, diagnostics and export know `TranslationModel`. Whatever one step
hands to the next is inside its `State`: s and c of a recurrent decoder, the keys and values of
another. B sentences, K hypotheses each: R = B K rows, those of the first sentence first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.initialization import Scheme

CellState = tuple[Tensor, ...]
"""All that a cell hands to its next step, (B, any) each; its output is made of them."""

Layer = type[nn.Linear]
"""What makes linear layers: the backend's choice."""

LossTerm = Callable[[Tensor], Tensor]
"""An addition () to the loss, from log p (N,) of real target tokens, which has no gradient."""

Maps = Callable[[], Mapping[str, Tensor]]
"""Asked for the attention of every layer and head, (layers, B, h, rows, columns) each.

`heads` (Ty rows, Tx columns) to the source; `encoder` (Tx, Tx) within the source; `decoder`
(Ty, Ty) to the words before, row i from where word i is predicted, column 0 being y_0. Nothing of
what a model has not; `dict` where that is all.
"""


class Part(Protocol):
    """What every module of a model tells about itself."""

    def initialize(self, scheme: Scheme) -> None:
        """Draw all weights, part by part in the order in which the parts were made."""


# The whole model ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Best:
    """The best words of each row."""

    log_probs: Tensor  # (R, count) falling; -inf where words run out
    words: Tensor  # (R, count) ids


class Prediction(Protocol):
    """What a model says about the next word of each row."""

    @property
    def alpha(self) -> Tensor:
        """Attention (R, Tx)."""

    def log_probs(self) -> Tensor:
        """Return log p of every word (R, K_y)."""

    def best(self, count: int, *, forbidden: Tensor, eos: int, too_early: Tensor) -> Best:
        """Return the best words, exact also where matmuls have low precision.

        Args:
            count: At most all words are returned.
            forbidden: Ids that must not be returned.
            eos: The end symbol.
            too_early: (R,) bool, where the end symbol is forbidden, too.
        """


class State(Protocol):
    """Hypotheses before a step. The source is held once per sentence."""

    def select(self, sentences: Tensor, slots: int, rows: Tensor) -> "State":
        """Go on with some sentences, so many hypotheses each, made of these rows.

        Args:
            sentences: (B',) rising.
            slots: K'.
            rows: (B' K',) of today's rows.
        """


class Stepper(Protocol):
    """All that search knows of a model."""

    def begin(self, src: Tensor, mask: Tensor) -> State:
        """Read source ids (B, Tx); one hypothesis a sentence."""

    def step(self, y: Tensor, state: Any) -> tuple[Prediction, State]:
        """Predict the words after y (R,), of which the first are y_0, from a state of its own."""


@dataclass(frozen=True)
class Followed:
    """A model along known targets, before its output layer: a loss in chunks never has all logits.

    Rows t are those of real target tokens, sentence after sentence.
    """

    t: Tensor  # (N, l)
    weights: Callable[[], Tensor]  # asked for alpha, which training does not need
    losses: Mapping[str, LossTerm] = field(default_factory=dict)
    maps: Maps = dict

    @property
    def alpha(self) -> Tensor:
        """Attention (B, Ty, Tx) at each real target position."""
        return self.weights()


@dataclass(frozen=True)
class Probes:
    """What a model shows of its inside along a batch."""

    gates: Mapping[str, tuple[Tensor, Tensor]]  # by name: (B, T, n) between 0 and 1, mask (B, T)
    alpha: Tensor | None  # (B, Ty, Tx); None where attention has nothing to learn


class OutputLayer(Protocol):
    """From the last hidden layer to words."""

    num_words: int  # K_y

    def logits(self, t: Tensor) -> Tensor:
        """Return the output layer of t, (N, K_y)."""

    def output_loss(
        self, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Return the summed -log p (nats) of targets (N,), and the same with smoothed targets.

        The second has a gradient.
        """


class TranslationModel(Stepper, OutputLayer, Protocol):
    """All that forced scoring, training and export know of a model."""

    def for_search(self) -> Stepper:
        """Return what to search with while the weights stay as they are."""

    def follow(self, src: Tensor, src_mask: Tensor, y: Tensor, y_mask: Tensor) -> Followed:
        """Run along targets y (B, Ty): teacher forcing."""

    def probes(self, src: Tensor, src_mask: Tensor, y: Tensor, y_mask: Tensor) -> Probes:
        """Look inside along targets, in evaluation mode."""

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the vectors of source words (K_x, m) and of target words (K_y, m)."""


# Parts of a model that encodes, attends and decodes -----------------------------------------------


@dataclass(frozen=True)
class Memory:
    """What the source leaves behind, once per sentence."""

    states: Tensor  # (B, Tx, d)
    summary: Tensor  # (B, k)  what a recurrent decoder starts from
    mask: Tensor  # (B, Tx) bool, True on real tokens, the end symbol included
    maps: Maps = dict  # of attention within the source


class Encoder(Part, Protocol):
    """Reads the source."""

    embedding: WordEmbedding
    state_size: int  # d
    summary_size: int  # k

    def __call__(self, src: Tensor, mask: Tensor) -> Memory:
        """Encode ids (B, Tx)."""

    def probes(self, src: Tensor, memory: Memory) -> Mapping[str, Tensor]:
        """Return gates by name, (B, Tx, n); none where there are none."""


class Cell(Part, Protocol):
    """A recurrent unit: the paper's, an LSTM, ... State and output are two things.

    A cell that needs no loop along a known sequence has `run(x, mask, start, *, backward)`, too,
    which returns what `recurrence.run_cell` does.
    """

    hidden_size: int  # n, width of the output

    def begin(self, h: Tensor) -> CellState:
        """Return the first state, whose output is h (B, n)."""

    def project(self, x: Tensor) -> Tensor:
        """Return what inputs (..., m) add, computed for whole sequences before the loop."""

    def step(self, x: Tensor, state: CellState, c: Tensor | None = None) -> CellState:
        """Take a step with a `project`ed input and, in a decoder, the context c (B, d)."""

    def output(self, state: CellState) -> Tensor:
        """Return h (B, n)."""

    def gates(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> Mapping[str, Tensor]:
        """Return gates by letter, to be looked at, from projected inputs and outputs before."""


@dataclass(frozen=True)
class Source:
    """What an attention prepares of the source, once per sentence."""

    keys: Tensor  # (B, Tx, n')
    values: Tensor  # (B, Tx, d)
    mask: Tensor  # (B, Tx)
    fertility: Tensor | None = None  # (B, Tx)  target words that each word asks for, in coverage

    def select(self, sentences: Tensor) -> "Source":
        """Go on with some of the sentences, rising; nothing is copied if it is all of them."""
        if len(sentences) == len(self.mask):
            return self
        fertility = None if self.fertility is None else self.fertility[sentences]
        keys, values = self.keys[sentences], self.values[sentences]
        return Source(keys, values, self.mask[sentences], fertility)


@dataclass(frozen=True)
class Draw:
    """What an attention drew at a step, and what it learns from the draws of a whole target."""

    values: tuple[Tensor, ...]  # (R,) each
    losses: Callable[[Sequence[Tensor], Tensor], Mapping[str, LossTerm]]
    """From these of all steps, (B, Ty) each, and the mask of the target."""


@dataclass(frozen=True)
class Attended:
    """What attention gives at a step."""

    c: Tensor  # (R, d)      context, Eq. (5)
    alpha: Tensor  # (R, Tx) weights, Eq. (6); rows sum to 1 (`local`: at most), 0 on padding
    state: Tensor | None = None  # (R, any)  of the attention itself, as for coverage
    heads: Tensor | None = None  # (R, h, Tx)  weights of each head, where there are several
    draw: Draw | None = None  # where it draws, in training


class Attention(Part, Protocol):
    """(query, keys, values, mask) -> (context, weights)."""

    context_size: int  # d
    learned: ClassVar[bool]  # whether alpha depends on weights
    sequential: ClassVar[bool]  # whether a step depends on the one before: a state, or draws

    def prepare(self, memory: Memory) -> Source:
        """Project the states of the source, once per sentence."""

    def __call__(self, query: Tensor, source: Source, state: Tensor | None = None) -> Attended:
        """Attend with queries (R, n); `state` is that of the step before, None at the first."""


class Decoder(Part, OutputLayer, Protocol):
    """Predicts words from a memory."""

    embedding: WordEmbedding

    @property
    def words_layer(self) -> nn.Linear:
        """The layer whose rows are target words (K_y, any), which `model.tied` shares."""

    def begin(self, memory: Memory) -> State:
        """Return the state before the first word, one hypothesis a sentence."""

    def step(self, y: Tensor, state: Any) -> tuple[Prediction, State]:
        """See `Stepper.step`."""

    def follow(self, memory: Memory, y: Tensor, mask: Tensor) -> Followed:
        """See `TranslationModel.follow`."""

    def probes(self, memory: Memory, y: Tensor, mask: Tensor) -> Probes:
        """See `TranslationModel.probes`."""
