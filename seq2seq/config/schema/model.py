"""The model: Appendix A and its switches."""

from dataclasses import dataclass
from enum import Enum

from seq2seq.config.schema.ranges import share, size


class StateWord(Enum):
    """The word that moves the decoder state from s_{i-1} to s_i."""

    emitted = "emitted"
    previous = "previous"


class Reset(Enum):
    """Where the reset gate acts: on the state before U, or on the product after it."""

    before = "before"
    after = "after"


class Readout(Enum):
    """What stands between state, word and context and the output matrix."""

    maxout = "maxout"
    tanh = "tanh"


class InitialWeights(Enum):
    """How weights start."""

    paper = "paper"
    glorot = "glorot"


class Backend(Enum):
    """How recurrences run in training: the readable loops, or the fused kernels (same numbers)."""

    auto = "auto"
    reference = "reference"
    fused = "fused"


@dataclass(kw_only=True)
class ModelConfig:
    """RNNsearch, Appendix A; sizes of A.2.3."""

    embedding_size: int = size()
    """m, word embedding."""
    hidden_size: int = size()
    """n, gated units: per direction of the encoder, and of the decoder."""
    align_size: int = size()
    """n', hidden units of the alignment model."""
    readout_size: int = size()
    """l, units of the readout; maxout takes the larger of two for each."""
    readout: Readout
    state_word: StateWord
    reset: Reset
    bias: bool
    """Biases of the candidate state, the start state, the readout and the output."""
    embedding_bias: bool
    """A bias on embedded words, as in the authors' code."""
    output_rank: int | None = size()
    """Factor W_o into (l, rank)(rank, K_y); null keeps it whole."""
    init: InitialWeights
    embedding_dropout: float = share()
    annotation_dropout: float = share()
    readout_dropout: float = share()
    backend: Backend
