"""Builds a model from a config. Only this file and `build_transformer.py` read the config.

Each option of the groups model, encoder, decoder, cell and attention has a function that builds its
part, here or outside the package. Parts are created, and their weights drawn, in a fixed order, so
that a seed always gives the same weights.
"""

import logging
from dataclasses import replace
from typing import Any, cast

from torch import nn

from seq2seq.config import schema
from seq2seq.config.registry import build, builds
from seq2seq.config.schema import Config, ModelConfig
from seq2seq.model import attention
from seq2seq.model.backend import BACKENDS, Backend
from seq2seq.model.decoder import RecurrentDecoder
from seq2seq.model.draws import name_sites
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.encoder import RecurrentEncoder
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.gated_unit import GatedUnit, RegularizedUnit
from seq2seq.model.hard_attention import HardAttention, Reinforce
from seq2seq.model.initialization import SCHEMES
from seq2seq.model.lstm import LSTMCell
from seq2seq.model.min_gru import MinGRU
from seq2seq.model.protocols import Attention, Cell, Encoder
from seq2seq.model.stacked_decoder import StackedDecoder
from seq2seq.model.stacked_encoder import RecurrentLayer, StackedEncoder
from seq2seq.model.transitions import Transitions
from seq2seq.run.errors import ConfigError

log = logging.getLogger(__name__)


def build_model(cfg: Config, *, num_source: int, num_target: int, pad: int) -> EncoderDecoder:
    """Build and initialise the model of a config, from torch's global random state.

    K_x and K_y include special symbols; `pad` is the id of padding and of y_0.
    """
    model: EncoderDecoder = build(cfg.model, cfg, num_source, num_target, pad)
    name_sites(model)
    return model


@builds(ModelConfig)
def encoder_decoder(
    sizes: ModelConfig, cfg: Config, num_source: int, num_target: int, pad: int
) -> EncoderDecoder:
    """Build an encoder and a decoder that fits it, and draw their weights."""
    backend, reason = choose_backend(sizes.backend.name)
    encoder: Encoder = build(cfg.encoder, cfg, num_source, pad, backend)
    decoder = build(cfg.decoder, cfg, encoder, num_target, pad, backend)
    model = EncoderDecoder(encoder, decoder, backend)
    reason = reason or backend.obstacle(encoder, decoder)
    if reason is not None and sizes.backend.name != "auto":
        what = f"model.backend={sizes.backend.name}: {reason}"
        raise ConfigError("config", what, "Use model.backend=auto.")
    if reason is not None:
        log.info("runs on the reference code in part: %s", reason)
    model.initialize(SCHEMES[sizes.init.name])
    if sizes.tied is not schema.Tied.none:
        tie(model, with_source=sizes.tied is schema.Tied.all)
    return model


def tie(model: EncoderDecoder, *, with_source: bool) -> None:
    """Share the target embeddings with the output layer and, with `with_source`, the encoder.

    Press & Wolf 2017. Called after the weights are drawn; those of the target embeddings stay.

    Raises:
        ConfigError: the sizes differ, or the decoder has no `words_layer`.
    """
    words = model.decoder.embedding
    if not hasattr(model.decoder, "words_layer"):
        what = f"{type(model.decoder).__name__} has no words_layer that could be tied"
        raise ConfigError("config", what, "Use model.tied=none.")
    tied: list[tuple[nn.Linear | nn.Embedding, str]] = [
        (model.decoder.words_layer, "rows of the output layer")
    ]
    if with_source:
        model.encoder.embedding.tied = True
        tied.append((model.encoder.embedding.E, "source embeddings"))
    # One matrix for all: that of the target embeddings.
    for layer, name in tied:
        if layer.weight.shape != words.E.weight.shape:
            own, others = (" x ".join(map(str, part.weight.shape)) for part in (words.E, layer))
            what = f"model.tied: the {name} are {others}, the target embeddings {own}"
            raise ConfigError("config", what, "Make the sizes equal, or use model.tied=none.")
        layer.weight = words.E.weight
    words.tied = True


def choose_backend(name: str) -> tuple[Backend, str | None]:
    """Return the backend of a name; if it cannot be imported, the reference and the reason."""
    if name == "reference":
        return BACKENDS[name](), None
    try:
        import seq2seq.kernels  # noqa: F401 - registers its backend
    except ImportError as error:
        return BACKENDS["reference"](), str(error)
    return BACKENDS["fused" if name == "auto" else name](), None


@builds(schema.RecurrentEncoderConfig)
def recurrent_encoder(
    own: schema.RecurrentEncoderConfig, cfg: Config, num_words: int, pad: int, backend: Backend
) -> RecurrentEncoder:
    """Build the encoder, with a backward unit unless the attention only reads forward."""
    sizes = cfg.model
    forward_unit, *backward_unit = (
        cell(cfg, sizes.embedding_size, 0, backend) for _ in range(directions_of(cfg))
    )
    return RecurrentEncoder(
        WordEmbedding(num_words, sizes.embedding_size, bias=sizes.embedding_bias, zero_id=pad),
        forward_unit,
        backward_unit[0] if backward_unit else None,
        embedding_dropout=sizes.embedding_dropout,
        word_dropout=sizes.word_dropout,
        annotation_dropout=own.annotation_dropout,
        backend=backend,
    )


@builds(schema.StackedEncoderConfig)
def stacked_encoder(
    own: schema.StackedEncoderConfig, cfg: Config, num_words: int, pad: int, backend: Backend
) -> StackedEncoder:
    """Build the layers, all as wide as the first."""
    sizes, directions = cfg.model, directions_of(cfg)
    width = directions * sizes.hidden_size
    wide = replace(cfg, model=replace(sizes, hidden_size=width))
    layers = []
    for depth in range(own.layers):
        input_size = width if depth else sizes.embedding_size
        if depth and own.bidirectional is schema.Bidirectional.bottom:
            units = [cell(wide, input_size, 0, backend)]
        else:
            units = [cell(cfg, input_size, 0, backend) for _ in range(directions)]
        dropout, residual = (own.dropout, own.residual) if depth else (0.0, False)
        layers.append(RecurrentLayer(units, residual=residual, dropout=dropout, backend=backend))
    return StackedEncoder(
        WordEmbedding(num_words, sizes.embedding_size, bias=sizes.embedding_bias, zero_id=pad),
        layers,
        embedding_dropout=sizes.embedding_dropout,
        word_dropout=sizes.word_dropout,
        annotation_dropout=own.annotation_dropout,
    )


def directions_of(cfg: Config) -> int:
    """Return the number of reading directions: 2, or 1 for a forward-only attention."""
    return 1 if getattr(cfg.attention, "forward_only", False) else 2


@builds(schema.RecurrentDecoderConfig)
def recurrent_decoder(
    own: schema.RecurrentDecoderConfig,
    cfg: Config,
    encoder: Encoder,
    num_words: int,
    pad: int,
    backend: Backend,
) -> RecurrentDecoder:
    """Build the decoder of an encoder."""
    sizes = cfg.model
    attends: Attention = build(cfg.attention, cfg, encoder.state_size, backend)
    return RecurrentDecoder(
        WordEmbedding(num_words, sizes.embedding_size, bias=sizes.embedding_bias, zero_id=pad),
        attends,
        cell(cfg, sizes.embedding_size, attends.context_size, backend),
        output_layer(cfg, own.output_rank, num_words, backend),
        moved_by_emitted=own.state_word is schema.StateWord.emitted,
        **_readout(own, cfg, encoder, backend),
    )


@builds(schema.StackedDecoderConfig)
def stacked_decoder(
    own: schema.StackedDecoderConfig,
    cfg: Config,
    encoder: Encoder,
    num_words: int,
    pad: int,
    backend: Backend,
) -> StackedDecoder:
    """Build the decoder of an encoder."""
    sizes, attend = cfg.model, schema.Attend
    embedding, hidden = sizes.embedding_size, sizes.hidden_size
    attends: Attention = build(cfg.attention, cfg, encoder.state_size, backend)
    # What the bottom unit reads besides the word, and the upper ones besides the layer below.
    context = attends.context_size
    fed = context if own.attend is attend.bottom else sizes.readout_size * own.input_feeding
    between, above = own.attend is attend.between, 0 if own.attend is attend.top else context
    return StackedDecoder(
        WordEmbedding(num_words, embedding, bias=sizes.embedding_bias, zero_id=pad),
        attends,
        cell(cfg, embedding, fed, backend),
        output_layer(cfg, own.output_rank, num_words, backend),
        conditional=cell(cfg, context, 0, backend) if between else None,
        upper=nn.ModuleList(
            cast("nn.Module", cell(cfg, hidden, above, backend)) for _ in range(own.layers - 1)
        ),
        attend=own.attend.name,
        fed_size=fed,
        residual=own.residual,
        dropout=own.dropout,
        **_readout(own, cfg, encoder, backend),
    )


def _readout(
    own: schema.RecurrentDecoderConfig | schema.StackedDecoderConfig,
    cfg: Config,
    encoder: Encoder,
    backend: Backend,
) -> dict[str, Any]:
    """Return the keyword arguments of a `ReadoutDecoder` that are common to its subclasses."""
    return {
        "summary_size": encoder.summary_size,
        "readout_size": cfg.model.readout_size,
        "maxout": own.readout is schema.Readout.maxout,
        "bias": cfg.model.bias,
        "embedding_dropout": cfg.model.embedding_dropout,
        "word_dropout": cfg.model.word_dropout,
        "readout_dropout": own.readout_dropout,
        "backend": backend,
    }


def output_layer(cfg: Config, rank: int | None, num_words: int, backend: Backend) -> nn.Module:
    """Build W_o: (K_y, l) as printed, or low-rank as in the authors' code."""
    linear, size, bias = backend.linear, cfg.model.readout_size, cfg.model.bias
    if rank is None:
        return linear(size, num_words, bias=bias)
    return nn.Sequential(linear(size, rank, bias=False), linear(rank, num_words, bias=bias))


def cell(cfg: Config, input_size: int, context_size: int, backend: Backend) -> Cell:
    """Build a recurrent unit; `context_size` is 0 except in decoders."""
    behind = [(0, 0)] * (getattr(cfg.cell, "transitions", 1) - 1)  # no input and no context
    sizes = [(input_size, context_size), *behind]
    cells: list[Cell] = [build(cfg.cell, cfg, *each, backend) for each in sizes]
    return Transitions(cells) if behind else cells[0]


@builds(schema.GatedConfig)
def gated(
    own: schema.GatedConfig, cfg: Config, input_size: int, context_size: int, backend: Backend
) -> GatedUnit:
    """Build the paper's unit, which has kernels, or the regularized one, which has none."""
    sizes = input_size, cfg.model.hidden_size, context_size
    kind: dict[str, Any] = {"reset_before": own.reset is schema.Reset.before}
    kind |= {"bias": cfg.model.bias, "linear": backend.linear}
    if not own.layer_norm and own.recurrent_dropout == 0:
        return GatedUnit(*sizes, **kind)
    kind |= {"layer_norm": own.layer_norm, "recurrent_dropout": own.recurrent_dropout}
    return RegularizedUnit(*sizes, **kind)


@builds(schema.LSTMConfig)
def lstm(
    own: schema.LSTMConfig, cfg: Config, input_size: int, context_size: int, backend: Backend
) -> LSTMCell:
    """Build an LSTM."""
    return LSTMCell(
        input_size,
        cfg.model.hidden_size,
        context_size,
        forget_bias=own.forget_bias,
        layer_norm=own.layer_norm,
        recurrent_dropout=own.recurrent_dropout,
        linear=backend.linear,
    )


@builds(schema.MinGRUConfig)
def min_gru(own: Any, cfg: Config, input_size: int, context_size: int, backend: Backend) -> MinGRU:
    """Build a unit without recurrent weights."""
    assert not context_size, "the config's check lets no context through"
    return MinGRU(input_size, cfg.model.hidden_size, linear=backend.linear)


# Attention. `annotation` is the width of the annotations; queries are states of the decoder.


@builds(schema.AdditiveConfig)
def additive(own: Any, cfg: Config, annotation: int, backend: Backend) -> Attention:
    """Build the paper's alignment model."""
    query, align = cfg.model.hidden_size, cfg.model.align_size
    return attention.AdditiveAttention(query, annotation, align, backend.linear)


@builds(schema.CoverageConfig)
def coverage(
    own: schema.CoverageConfig, cfg: Config, annotation: int, backend: Backend
) -> Attention:
    """Build the paper's alignment model with coverage."""
    sizes = cfg.model.hidden_size, annotation, cfg.model.align_size
    return attention.CoverageAttention(*sizes, own.max_fertility, backend.linear)


@builds(schema.DotConfig)
@builds(schema.ScaledDotConfig)
def dot(own: Any, cfg: Config, annotation: int, backend: Backend) -> Attention:
    """Build an attention without parameters."""
    query = cfg.model.hidden_size
    if annotation % query:
        what = f"attention={own.name} cannot compare a state of {query} numbers with {annotation}"
        raise ConfigError("config", what, "Use attention=general.")
    scaled = isinstance(own, schema.ScaledDotConfig)
    return attention.DotAttention(query, annotation, scaled=scaled)


@builds(schema.GeneralConfig)
def general(own: Any, cfg: Config, annotation: int, backend: Backend) -> Attention:
    """Build a bilinear attention."""
    return attention.GeneralAttention(cfg.model.hidden_size, annotation, backend.linear)


@builds(schema.LocalConfig)
def local(own: schema.LocalConfig, cfg: Config, annotation: int, backend: Backend) -> Attention:
    """Build an attention over a window."""
    query = cfg.model.hidden_size
    return attention.LocalAttention(query, annotation, own.window, backend.linear)


@builds(schema.MultiHeadConfig)
def multi_head(
    own: schema.MultiHeadConfig, cfg: Config, annotation: int, backend: Backend
) -> Attention:
    """Build an attention with several heads."""
    sizes = cfg.model.hidden_size, annotation, cfg.model.align_size
    if annotation % own.heads:
        what = f"attention.heads={own.heads} does not divide the width of annotations, {annotation}"
        raise ConfigError("config", what, "Choose a divisor of both.")
    return attention.MultiHeadAttention(*sizes, own.heads, backend.linear)


@builds(schema.HardConfig)
def hard(own: schema.HardConfig, cfg: Config, annotation: int, backend: Backend) -> Attention:
    """Build an attention that draws one position."""
    return HardAttention(
        cfg.model.hidden_size,
        annotation,
        cfg.model.align_size,
        backend.linear,
        soft_share=own.soft_share,
        take_most_likely=own.inference is schema.HardInference.most_likely,
        reinforce=Reinforce(own.reinforce_weight, own.discount, own.entropy_weight),
    )


@builds(schema.FixedConfig)
def fixed(own: Any, cfg: Config, annotation: int, backend: Backend) -> Attention:
    """Build the context that never changes."""
    return attention.FixedContext(annotation)


@builds(schema.UniformConfig)
def uniform(own: Any, cfg: Config, annotation: int, backend: Backend) -> Attention:
    """Build the attention to all words alike."""
    return attention.UniformAttention(annotation)
