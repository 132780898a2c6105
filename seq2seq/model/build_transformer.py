"""Builds the parts of a Transformer from a config."""

from torch import nn

from seq2seq.config import schema
from seq2seq.config.registry import builds
from seq2seq.config.schema import Config
from seq2seq.model import transformer
from seq2seq.model.backend import Backend
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.protocols import Encoder


@builds(schema.SelfAttentionConfig)
def self_attention_encoder(
    own: schema.SelfAttentionConfig, cfg: Config, num_words: int, pad: int, backend: Backend
) -> transformer.SelfAttentionEncoder:
    """Build the encoder."""
    shape = shape_of(own, own.heads, cfg, backend.linear)
    return transformer.SelfAttentionEncoder(words_and_positions(own, cfg, num_words, pad), shape)


@builds(schema.TransformerDecoderConfig)
def transformer_decoder(
    own: schema.TransformerDecoderConfig,
    cfg: Config,
    encoder: Encoder,
    num_words: int,
    pad: int,
    backend: Backend,
) -> transformer.TransformerDecoder:
    """Build the decoder of an encoder."""
    attention = cfg.attention
    assert isinstance(attention, schema.LayersAttentionConfig)
    return transformer.TransformerDecoder(
        words_and_positions(own, cfg, num_words, pad),
        shape_of(own, attention.heads, cfg, backend.linear),
        encoder.state_size,
        backend.linear(cfg.model.hidden_size, num_words, bias=cfg.model.bias),
        shown=transformer.Shown(
            (attention.layer or own.layers) - 1, attention.head and attention.head - 1
        ),
        backend=backend,
    )


def words_and_positions(
    own: schema.LayersConfig, cfg: Config, num_words: int, pad: int
) -> transformer.WordsAndPositions:
    """Build the input of the first layer."""
    sizes = cfg.model
    words = WordEmbedding(num_words, sizes.embedding_size, bias=sizes.embedding_bias, zero_id=pad)
    longest = own.longest if own.positions is schema.PositionKind.learned else None
    positions = transformer.Positions(sizes.hidden_size, longest)
    dropouts = {"word_dropout": sizes.word_dropout, "dropout": sizes.embedding_dropout}
    return transformer.WordsAndPositions(words, positions, **dropouts)


def shape_of(
    own: schema.LayersConfig, heads: int, cfg: Config, linear: type[nn.Linear]
) -> transformer.Shape:
    """Return the sizes and settings that the layers of a stack share."""
    return transformer.Shape(
        width=cfg.model.hidden_size,
        heads=heads,
        inner=own.inner_size,
        layers=own.layers,
        pre_norm=own.norm is schema.Norm.pre,
        gelu=own.activation is schema.Activation.gelu,
        dropout=own.dropout,
        inner_dropout=own.inner_dropout,
        attention_dropout=own.attention_dropout,
        linear=linear,
    )
