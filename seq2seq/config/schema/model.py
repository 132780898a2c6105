"""The model: Appendix A, its sizes (A.2.3) and its switches."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import number, share, size
from seq2seq.run.errors import ConfigError

InitialWeights = StrEnum("InitialWeights", "paper glorot")  # how weights start
# How recurrences run in training: the readable loops, or the fused kernels (same numbers)
Backend = StrEnum("Backend", "auto reference fused")


# Output layer and target embeddings are one matrix, or those and the source embeddings
Tied = StrEnum("Tied", "none target all")


@option("model")
@dataclass(kw_only=True)
class ModelConfig:
    """What encoder, attention and decoder share."""

    claims: ClassVar = ("3",)
    name: str = "rnnsearch"
    embedding_size: int = size(620)  # m, word embedding (A.2.3)
    # n, gated units: per direction of the encoder, and of the decoder (A.2.3)
    hidden_size: int = size(1000)
    align_size: int = size(1000)  # n', hidden units of the alignment model (A.2.3)
    # l, units of the readout; maxout takes the larger of two for each (A.2.3)
    readout_size: int = size(500)
    # Biases of the candidate state, the start state, the readout and the output: "all biases start
    # at zero" (B.1), though the equations print none
    bias: bool = True
    embedding_bias: bool = False  # A bias on embedded words, as in the authors' code
    tied: Tied = Tied.none
    init: InitialWeights = InitialWeights.paper  # `paper` is B.1
    embedding_dropout: float = share(0.0)
    # Share of the words of either side whose whole embedding is 0 in an update
    word_dropout: float = share(0.0)
    backend: Backend = Backend.auto  # `auto` takes the fused kernels where they fit

    def check(self, config: Any) -> None:
        """See that words that share their vectors are the same words."""
        if self.tied is Tied.all and not getattr(config.tokenizer, "joint", False):
            what = "model.tied=all needs one vocabulary for both sides"
            raise ConfigError("config", what, "Set tokenizer.joint=true, or model.tied=target.")


@option("encoder")
@dataclass(kw_only=True)
class RecurrentEncoderConfig:
    """Annotations from both directions (3.2)."""

    claims: ClassVar = ("A.2.1",)
    name: str = "recurrent"
    annotation_dropout: float = share(0.0)


# Which layers of a stack read in both directions: the first alone, or all of them
Bidirectional = StrEnum("Bidirectional", "bottom all")


@option("encoder")
@dataclass(kw_only=True)
class StackedEncoderConfig:
    """Recurrent layers on top of each other, all as wide as both directions of the first."""

    name: str = "stacked"
    layers: int = number(1, 100, default=2)
    # `bottom` is GNMT's (Wu et al. 2016, 3.2); forward units above it have twice
    # `model.hidden_size`
    bidirectional: Bidirectional = Bidirectional.bottom
    residual: bool = False  # a layer adds to its input, from the second on
    dropout: float = share(0.0)  # of what a layer hands to the next
    annotation_dropout: float = share(0.0)


# The word that moves the decoder state from s_{i-1} to s_i
StateWord = StrEnum("StateWord", "emitted previous")
# What stands between state, word and context and the output matrix
Readout = StrEnum("Readout", "maxout tanh")


@option("decoder")
@dataclass(kw_only=True)
class RecurrentDecoderConfig:
    """The decoder of A.2.2."""

    claims: ClassVar = ("A.2.2",)
    name: str = "recurrent"
    # `emitted` is the authors' code; A.2.2 prints y_{i-1}: `previous`
    state_word: StateWord = StateWord.emitted
    # `maxout` is A.2.2; `tanh` is what later systems took instead
    readout: Readout = Readout.maxout
    # Factor W_o into (l, rank)(rank, K_y); null keeps it whole, as printed. The authors' code
    # factors it through 620.
    output_rank: int | None = size(None)
    readout_dropout: float = share(0.0)
