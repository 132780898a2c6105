"""Settings of the model of Appendix A: sizes (A.2.3), variants, and stacks of layers."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import number, share, size
from seq2seq.run.errors import ConfigError

InitialWeights = StrEnum("InitialWeights", "paper glorot")  # how weights start
# How recurrences run in training: the readable loops, or the fused kernels (same numbers)
Backend = StrEnum("Backend", "auto reference fused")


# Which matrices are shared: output layer and target embeddings, or also source embeddings
Tied = StrEnum("Tied", "none target all")


@option("model")
@dataclass(kw_only=True)
class ModelConfig:
    """Settings shared by encoder, attention and decoder."""

    claims: ClassVar = ("3",)
    name: str = "rnnsearch"
    embedding_size: int = size(620)  # m, word embedding (A.2.3)
    # n, gated units: per direction of the encoder, and of the decoder (A.2.3)
    hidden_size: int = size(1000)
    align_size: int = size(1000)  # n', hidden units of the alignment model (A.2.3)
    # l, units of the readout; each maxout unit takes the larger of two (A.2.3)
    readout_size: int = size(500)
    # Biases of the candidate state, the start state, the readout and the output: "all biases start
    # at zero" (B.1), though the equations print none
    bias: bool = True
    embedding_bias: bool = False  # a bias on embedded words, as in the authors' code
    tied: Tied = Tied.none
    init: InitialWeights = InitialWeights.paper  # `paper` is B.1
    embedding_dropout: float = share(0.0)  # of embedded words
    # Fraction of words on either side whose whole embedding is zeroed in an update
    word_dropout: float = share(0.0)
    backend: Backend = Backend.auto  # `auto` takes the fused kernels where they apply

    def check(self, config: Any) -> None:
        """Check that sides with shared embeddings share a vocabulary."""
        if self.tied is Tied.all and not getattr(config.tokenizer, "joint", False):
            what = "model.tied=all needs one vocabulary for both sides"
            raise ConfigError("config", what, "Set tokenizer.joint=true, or model.tied=target.")


@option("encoder")
@dataclass(kw_only=True)
class RecurrentEncoderConfig:
    """Annotations from both directions (3.2)."""

    claims: ClassVar = ("A.2.1",)
    name: str = "recurrent"
    annotation_dropout: float = share(0.0)  # of the annotations h_j


# Which layers of a stack are bidirectional: only the first, or all of them
Bidirectional = StrEnum("Bidirectional", "bottom all")


@option("encoder")
@dataclass(kw_only=True)
class StackedEncoderConfig:
    """Stacked recurrent layers, all as wide as both directions of the first."""

    name: str = "stacked"
    layers: int = number(1, 100, default=2)  # recurrent layers
    # `bottom` is GNMT's (Wu et al. 2016, 3.2); forward units above it have twice
    # `model.hidden_size`
    bidirectional: Bidirectional = Bidirectional.bottom
    residual: bool = False  # from the second layer on, add the input to the output
    dropout: float = share(0.0)  # between layers
    annotation_dropout: float = share(0.0)  # of the annotations h_j


# The word that moves the decoder state from s_{i-1} to s_i
StateWord = StrEnum("StateWord", "emitted previous")
# The layer between (state, word, context) and the output matrix
Readout = StrEnum("Readout", "maxout tanh")


@option("decoder")
@dataclass(kw_only=True)
class RecurrentDecoderConfig:
    """The decoder of A.2.2."""

    claims: ClassVar = ("A.2.2",)
    name: str = "recurrent"
    # `emitted` is the authors' code; A.2.2 prints y_{i-1}: `previous`
    state_word: StateWord = StateWord.emitted
    # `maxout` is A.2.2; later systems use `tanh`
    readout: Readout = Readout.maxout
    # Factor W_o into (l, rank)(rank, K_y); null keeps it whole, as printed. The authors' code
    # factors it through 620.
    output_rank: int | None = size(None)
    readout_dropout: float = share(0.0)  # of the readout t_i


# The attention query: a state halfway through a step (Sennrich et al. 2017), the bottom layer (Wu
# et al. 2016), or the top layer (Luong et al. 2015)
Attend = StrEnum("Attend", "between bottom top")


@option("decoder")
@dataclass(kw_only=True)
class StackedDecoderConfig:
    """Layers that update their state before predicting: conditional GRU, GNMT, Luong et al."""

    name: str = "stacked"
    layers: int = size(1)  # recurrent layers
    attend: Attend = Attend.between
    # With `attend=top`: the readout of the previous word is an input, too (Luong et al. 3.3)
    input_feeding: bool = False
    residual: bool = False  # from the second layer on, add the input to the output
    dropout: float = share(0.0)  # between layers
    readout: Readout = Readout.tanh
    output_rank: int | None = size(None)  # as in `decoder=recurrent`
    readout_dropout: float = share(0.0)  # of the readout t_i

    def check(self, _config: Any) -> None:
        """Check that input feeding is used with attention of the top layer."""
        if self.input_feeding and self.attend is not Attend.top:
            what = f"decoder.input_feeding needs decoder.attend=top, and it is {self.attend.name}"
            raise ConfigError("config", what, "Change one of them.")
