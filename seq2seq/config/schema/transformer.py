"""Settings of the Transformer (Vaswani et al. 2017, base sizes); `seq2seq/model/transformer.py`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import number, share, size
from seq2seq.run.errors import ConfigError

# LayerNorm before each sub-layer, or after the sum as printed (3.1)
Norm = StrEnum("Norm", "pre post")
Activation = StrEnum("Activation", "relu gelu")  # of the feed-forward networks; `relu` is 3.3
# Position encodings; `sinusoidal` is 3.5
PositionKind = StrEnum("PositionKind", "sinusoidal learned")


@dataclass(kw_only=True)
class LayersConfig:
    """A stack of layers; its width is `model.hidden_size`."""

    has_cells: ClassVar = False
    layers: int = size(6)  # pairs of sub-layers
    inner_size: int = size(2048)  # d_ff, of the feed-forward networks
    norm: Norm = Norm.post
    activation: Activation = Activation.relu
    positions: PositionKind = PositionKind.sinusoidal
    longest: int = size(1024)  # number of learned positions; later ones use the last
    dropout: float = share(0.1)  # on the output of each sub-layer (5.4)
    inner_dropout: float = share(0.0)  # inside the feed-forward networks
    attention_dropout: float = share(0.0)  # on attention weights


@option("encoder")
@dataclass(kw_only=True)
class SelfAttentionConfig(LayersConfig):
    """Every word attends to all words of the source (3.1)."""

    name: str = "self_attention"
    heads: int = size(8)  # of each attention sub-layer

    def check(self, config: Any) -> None:
        """Check that the sizes match."""
        check_width(config, "encoder.heads", self.heads)


@option("decoder")
@dataclass(kw_only=True)
class TransformerDecoderConfig(LayersConfig):
    """Every word attends to the words before it and to the source (3.1)."""

    name: str = "transformer"

    def check(self, config: Any) -> None:
        """Check that the attention is the one in the decoder's layers."""
        if config.attention.name != "layers":
            what = f"decoder=transformer attends in its layers, not by {config.attention.name}"
            raise ConfigError("config", what, "Use attention=layers.")


@option("attention")
@dataclass(kw_only=True)
class LayersAttentionConfig:
    """Multi-head attention to the source in each layer of a Transformer's decoder (3.2.2).

    `layer` and `head` choose the weights shown as the attention: in heatmaps, alignments and the
    report, and used to replace unknown words.
    """

    name: str = "layers"
    heads: int = size(8)  # of each attention sub-layer
    layer: int | None = number(1, 1000, default=None)  # the first is 1; null: the last
    head: int | None = number(1, 1000, default=None)  # the first is 1; null: the mean of all

    def check(self, config: Any) -> None:
        """Check that the sizes match, and that the layer and the head exist."""
        if config.decoder.name != "transformer":
            foreign = (
                f"attention=layers is a Transformer's, and the decoder is {config.decoder.name}"
            )
            raise ConfigError("config", foreign, "Use decoder=transformer, or another attention.")
        check_width(config, "attention.heads", self.heads)
        most = (("layer", self.layer, config.decoder.layers), ("head", self.head, self.heads))
        for name, chosen, count in most:
            if chosen is not None and chosen > count:
                what = f"attention.{name}={chosen} does not exist: there are {count}"
                raise ConfigError("config", what, "Choose one of them, or null.")


def check_width(config: Any, key: str, heads: int) -> None:
    """Check that embeddings are as wide as the layers, and that heads divide that width."""
    width, embedding = config.model.hidden_size, config.model.embedding_size
    if embedding != width:
        unequal = f"model.embedding_size={embedding} is not model.hidden_size={width}"
        raise ConfigError("config", unequal, "Layers of attention need them equal.")
    if width % heads:
        what = f"{key}={heads} does not divide model.hidden_size={width}"
        raise ConfigError("config", what, "Choose a divisor.")
