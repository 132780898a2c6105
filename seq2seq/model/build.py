"""From a config to a model: the only file of this folder that sees config.

One function a part, each taking its config, the sizes of its neighbours and the backend. Parts are
made in one order, and drawn in one order: a seed gives the same weights as ever.
"""

import logging

from torch import nn

from seq2seq.config.schema import (
    AnyAttentionConfig,
    AttentionConfig,
    AttentionKind,
    HardConfig,
    HardInference,
    LocalConfig,
    ModelConfig,
    MultiHeadConfig,
    Readout,
    Reset,
    StateWord,
)
from seq2seq.model.attention import (
    AdditiveAttention,
    DotAttention,
    FixedContext,
    GeneralAttention,
    LocalAttention,
    MultiHeadAttention,
)
from seq2seq.model.backend import BACKENDS, Backend
from seq2seq.model.decoder import RecurrentDecoder
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.encoder import RecurrentEncoder
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.model.hard_attention import HardAttention, Reinforce
from seq2seq.model.initialization import SCHEMES
from seq2seq.model.protocols import Attention, Cell, Encoder
from seq2seq.model.rnnsearch import RNNSearch
from seq2seq.run.errors import ConfigError

log = logging.getLogger(__name__)


def build_model(
    cfg: ModelConfig, attention: AnyAttentionConfig, *, num_source: int, num_target: int, pad: int
) -> RNNSearch:
    """Build and initialise the model of a config, from torch's global random state.

    Args:
        cfg: Sizes and switches.
        attention: Options of the attention, by its class.
        num_source: K_x, special symbols included.
        num_target: K_y, special symbols included.
        pad: Id of padding and of y_0.
    """
    backend, reason = choose_backend(cfg.backend.name)
    encoder = build_encoder(cfg, attention, num_source, pad, backend)
    decoder = build_decoder(cfg, attention, encoder, num_target, pad, backend)
    model = RNNSearch(encoder, decoder, backend)
    reason = reason or backend.obstacle(model)
    if reason is not None:
        if cfg.backend.name not in ("auto", "reference"):
            what = f"model.backend={cfg.backend.name}: {reason}"
            raise ConfigError("config", what, "Use model.backend=auto.")
        log.info("the decoder trains on the reference backend: %s", reason)
    model.initialize(SCHEMES[cfg.init.name])
    return model


def choose_backend(name: str) -> tuple[Backend, str | None]:
    """Make the backend of a name; without kernels `auto` is the reference, and says why."""
    missing = None
    if name != "reference":
        try:
            import seq2seq.kernels  # noqa: F401 - they register themselves
        except ImportError as error:
            missing = str(error)
    made = BACKENDS.get("fused" if name == "auto" else name, BACKENDS["reference"])
    return made(), missing


def build_encoder(
    cfg: ModelConfig,
    attention: AnyAttentionConfig,
    num_source: int,
    pad: int,
    backend: Backend,
) -> RecurrentEncoder:
    """Build the encoder; the RNNencdec, with its fixed context, has no backward unit."""
    directions = 1 if attention.name is AttentionKind.fixed else 2
    forward_unit, *backward_unit = (build_cell(cfg, 0, backend) for _ in range(directions))
    return RecurrentEncoder(
        WordEmbedding(num_source, cfg.embedding_size, bias=cfg.embedding_bias, zero_id=pad),
        forward_unit,
        backward_unit[0] if backward_unit else None,
        embedding_dropout=cfg.embedding_dropout,
        annotation_dropout=cfg.annotation_dropout,
        backend=backend,
    )


def build_decoder(
    cfg: ModelConfig,
    attention: AnyAttentionConfig,
    encoder: Encoder,
    num_target: int,
    pad: int,
    backend: Backend,
) -> RecurrentDecoder:
    """Build the decoder of an encoder."""
    attending = build_attention(cfg, attention, encoder.state_size, backend)
    unit = build_cell(cfg, attending.context_size, backend)
    return RecurrentDecoder(
        WordEmbedding(num_target, cfg.embedding_size, bias=cfg.embedding_bias, zero_id=pad),
        attending,
        unit,
        build_output(cfg, num_target, backend),
        summary_size=encoder.summary_size,
        readout_size=cfg.readout_size,
        maxout=cfg.readout is Readout.maxout,
        moved_by_emitted=cfg.state_word is StateWord.emitted,
        bias=cfg.bias,
        embedding_dropout=cfg.embedding_dropout,
        readout_dropout=cfg.readout_dropout,
        backend=backend,
    )


def build_cell(cfg: ModelConfig, context_size: int, backend: Backend) -> Cell:
    """Build a recurrent unit, with a context in decoders."""
    return GatedUnit(
        cfg.embedding_size,
        cfg.hidden_size,
        context_size,
        reset_before=cfg.reset is Reset.before,
        bias=cfg.bias,
        linear=backend.linear,
    )


def build_attention(
    cfg: ModelConfig, attention: AnyAttentionConfig, annotation: int, backend: Backend
) -> Attention:
    """Build the attention that a config names, over annotations of a size."""
    query, align, linear = cfg.hidden_size, cfg.align_size, backend.linear
    match attention:
        case MultiHeadConfig(heads=heads):
            return MultiHeadAttention(query, annotation, align, heads, linear=linear)
        case LocalConfig(window=window):
            return LocalAttention(query, annotation, window, linear=linear)
        case HardConfig() as hard:
            return HardAttention(
                query,
                annotation,
                align,
                soft_share=hard.soft_share,
                take_most_likely=hard.inference is HardInference.most_likely,
                reinforce=Reinforce(hard.reinforce_weight, hard.discount, hard.entropy_weight),
                linear=linear,
            )
        case AttentionConfig(name=AttentionKind.general):
            return GeneralAttention(query, annotation, linear=linear)
        case AttentionConfig(name=AttentionKind.fixed):
            return FixedContext(annotation)
        case AttentionConfig(name=AttentionKind.dot | AttentionKind.scaled_dot as kind):
            scaled = kind is AttentionKind.scaled_dot
            return DotAttention(query, annotation, scaled=scaled)
        case _:
            return AdditiveAttention(query, annotation, align, linear=linear)


def build_output(cfg: ModelConfig, num_target: int, backend: Backend) -> nn.Module:
    """W_o: (K_y, l) as printed, or low-rank through `output_rank` as in the authors' code."""
    if cfg.output_rank is None:
        return backend.linear(cfg.readout_size, num_target, bias=cfg.bias)
    return nn.Sequential(
        backend.linear(cfg.readout_size, cfg.output_rank, bias=False),
        backend.linear(cfg.output_rank, num_target, bias=cfg.bias),
    )
