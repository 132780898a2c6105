"""The whole model, and the only file of this folder that sees config."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from seq2seq.config.schema import (
    AnyAttentionConfig,
    AttentionConfig,
    AttentionKind,
    Backend,
    HardConfig,
    HardInference,
    InitialWeights,
    LocalConfig,
    ModelConfig,
    MultiHeadConfig,
    Readout,
    Reset,
    StateWord,
)
from seq2seq.model.attention import (
    AdditiveAttention,
    Annotations,
    Attention,
    DotAttention,
    Draw,
    FixedContext,
    GeneralAttention,
    HardAttention,
    LocalAttention,
    MultiHeadAttention,
)
from seq2seq.model.decoder import Decoder, RecurrentDecoder
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.encoder import RecurrentEncoder
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.model.initialization import initialize_glorot, initialize_paper
from seq2seq.run.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Along:
    """The decoder along known targets, before its output layer."""

    t: Tensor  # (N, l)             one row per real target token, sentence after sentence
    alpha: Tensor  # (B, Ty, Tx)    attention at each real target position
    draw: Draw | None = None  # (B, Ty) each; hard attention in training


@dataclass(frozen=True)
class DecoderOutput:
    """Predictions along known targets."""

    logits: Tensor  # (N, K_y)      one row per real target token, sentence after sentence
    alpha: Tensor  # (B, Ty, Tx)    attention at each real target position
    draw: Draw | None = None  # (B, Ty) each; hard attention in training


NLL = Callable[[nn.Module, Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""Cost of targets (N,) from the output layer and t (N, l), with label smoothing."""
Searching = Callable[[RecurrentDecoder, torch.dtype], Decoder]
"""Makes a faster decoder for search of one in evaluation mode."""


class RNNSearch(nn.Module):
    """Encoder, attention and decoder together.

    Args:
        pad: Id that fills batches and stands for y_0.
    """

    def __init__(self, encoder: RecurrentEncoder, decoder: RecurrentDecoder, pad: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.pad = pad
        # What kernels have instead: the cost without all logits at once, and a faster search.
        self.nll: NLL | None = None
        self.searching: Searching | None = None

    def for_search(self, narrow: torch.dtype) -> Decoder:
        """Return what to search with; kernels take factors of products in the format `narrow`."""
        return self.decoder if self.searching is None else self.searching(self.decoder, narrow)

    def annotate(self, src: Tensor, src_mask: Tensor) -> Annotations:
        """Encode source ids (B, Tx) into what the decoder looks at."""
        return self.decoder.attention.annotate(self.encoder(src, src_mask))

    def forward(
        self, src: Tensor, src_mask: Tensor, tgt: Tensor, tgt_mask: Tensor
    ) -> DecoderOutput:
        """Predict every target token (B, Ty) from the source and the tokens before it."""
        along = self.along(src, src_mask, tgt, tgt_mask)
        return DecoderOutput(self.decoder.W_o(along.t), along.alpha, along.draw)

    def along(self, src: Tensor, src_mask: Tensor, tgt: Tensor, tgt_mask: Tensor) -> Along:
        """Do all that `forward` does but the output layer."""
        source = self.annotate(src, src_mask)
        Ey = self.decoder.embed(tgt)  # (B, Ty, m)
        # y_0 is the zero vector. Dropout draws one mask for a word, for both of its uses.
        Ey_prev = torch.cat([torch.zeros_like(Ey[:, :1]), Ey[:, :-1]], dim=1)
        steps = self.decoder.unroll(self.decoder, Ey_prev, Ey, source, tgt_mask)
        real = tgt_mask.flatten().nonzero()[:, 0]
        words = (x.flatten(0, 1).index_select(0, real) for x in (steps.s_prev, Ey_prev, steps.c))
        return Along(self.decoder.readout(*words), steps.alpha, steps.draw)


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
    encoder = _build_encoder(cfg, num_source, pad, directions=_directions(attention))
    decoder = _build_decoder(cfg, attention, num_target, pad)
    model = RNNSearch(encoder, decoder, pad)
    choose_backend(model, cfg.backend)
    match cfg.init:
        case InitialWeights.paper:
            initialize_paper(model)
        case InitialWeights.glorot:
            initialize_glorot(model)
    return model


def choose_backend(model: RNNSearch, backend: Backend) -> None:
    """Let the recurrences run on the fused kernels, if they can; weights do not know which."""
    if backend is Backend.reference:
        return
    try:
        from seq2seq import kernels
    except ImportError as error:
        reason: str | None = str(error)
    else:
        reason = kernels.obstacle(model.decoder.attention)
        model.encoder.read = kernels.read_fused
        model.nll = kernels.nll_fused
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                layer.forward = partial(kernels.layer_forward, layer)  # type: ignore[method-assign]
        if reason is None:
            model.decoder.unroll = kernels.unroll_fused
        if type(model.decoder.attention) is AdditiveAttention:
            model.searching = kernels.FusedDecoder
    if reason is not None and backend is Backend.fused:
        raise ConfigError("config", f"model.backend=fused: {reason}", "Use model.backend=auto.")
    if reason is not None:
        log.info("the decoder trains on the reference backend: %s", reason)


def _directions(attention: AnyAttentionConfig) -> int:
    """Return how many ways the source is read: the RNNencdec has no backward unit."""
    return 1 if attention.name is AttentionKind.fixed else 2


def _build_encoder(
    cfg: ModelConfig, num_source: int, pad: int, *, directions: int
) -> RecurrentEncoder:
    forward_unit, *backward_unit = (
        GatedUnit(
            cfg.embedding_size,
            cfg.hidden_size,
            reset_before=cfg.reset is Reset.before,
            bias=cfg.bias,
        )
        for _ in range(directions)
    )
    return RecurrentEncoder(
        WordEmbedding(num_source, cfg.embedding_size, bias=cfg.embedding_bias, zero_id=pad),
        forward_unit,
        backward_unit[0] if backward_unit else None,
        embedding_dropout=cfg.embedding_dropout,
        annotation_dropout=cfg.annotation_dropout,
    )


def _build_decoder(
    cfg: ModelConfig, attention: AnyAttentionConfig, num_target: int, pad: int
) -> RecurrentDecoder:
    attention_module = _build_attention(cfg, attention)
    unit = GatedUnit(
        cfg.embedding_size,
        cfg.hidden_size,
        attention_module.context_size,
        reset_before=cfg.reset is Reset.before,
        bias=cfg.bias,
    )
    return RecurrentDecoder(
        WordEmbedding(num_target, cfg.embedding_size, bias=cfg.embedding_bias, zero_id=pad),
        attention_module,
        unit,
        _build_output(cfg, num_target),
        readout_size=cfg.readout_size,
        maxout=cfg.readout is Readout.maxout,
        moved_by_emitted=cfg.state_word is StateWord.emitted,
        bias=cfg.bias,
        embedding_dropout=cfg.embedding_dropout,
        readout_dropout=cfg.readout_dropout,
    )


def _build_attention(cfg: ModelConfig, attention: AnyAttentionConfig) -> Attention:
    query = cfg.hidden_size
    annotation = _directions(attention) * cfg.hidden_size
    match attention:
        case MultiHeadConfig(heads=heads):
            return MultiHeadAttention(query, annotation, cfg.align_size, heads)
        case LocalConfig(window=window):
            return LocalAttention(query, annotation, window)
        case HardConfig():
            return HardAttention(
                query,
                annotation,
                cfg.align_size,
                soft_share=attention.soft_share,
                take_most_likely=attention.inference is HardInference.most_likely,
            )
        case AttentionConfig(name=AttentionKind.general):
            return GeneralAttention(query, annotation)
        case AttentionConfig(name=AttentionKind.fixed):
            return FixedContext(annotation)
        case AttentionConfig(name=AttentionKind.dot | AttentionKind.scaled_dot as kind):
            scaled = kind is AttentionKind.scaled_dot
            return DotAttention(query, annotation, scaled=scaled)
        case _:
            return AdditiveAttention(query, annotation, cfg.align_size)


def _build_output(cfg: ModelConfig, num_target: int) -> nn.Module:
    """W_o: (K_y, l) as printed, or two factors through `output_rank` as in the authors' code."""
    if cfg.output_rank is None:
        return nn.Linear(cfg.readout_size, num_target, bias=cfg.bias)
    return nn.Sequential(
        nn.Linear(cfg.readout_size, cfg.output_rank, bias=False),
        nn.Linear(cfg.output_rank, num_target, bias=cfg.bias),
    )
