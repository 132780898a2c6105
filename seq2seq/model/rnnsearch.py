"""The whole model, and the only file of this folder that sees config."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from seq2seq.config.schema import (
    Backend,
    Config,
    DotConfig,
    FixedConfig,
    GeneralConfig,
    HardConfig,
    HardInference,
    InitialWeights,
    LocalConfig,
    MultiHeadConfig,
    Readout,
    Reset,
    ScaledDotConfig,
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


def build_model(cfg: Config, *, num_source: int, num_target: int, pad: int) -> RNNSearch:
    """Build and initialise the model of a config, from torch's global random state.

    Args:
        cfg: Of it model, cell, encoder, decoder and attention are read.
        num_source: K_x, special symbols included.
        num_target: K_y, special symbols included.
        pad: Id of padding and of y_0.
    """
    model = RNNSearch(
        _build_encoder(cfg, num_source, pad), _build_decoder(cfg, num_target, pad), pad
    )
    choose_backend(model, cfg.model.backend)
    match cfg.model.init:
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


def _directions(cfg: Config) -> int:
    """Return how many ways the source is read: the RNNencdec has no backward unit."""
    return 1 if getattr(cfg.attention, "forward_only", False) else 2


def _build_encoder(cfg: Config, num_source: int, pad: int) -> RecurrentEncoder:
    sizes = cfg.model
    forward_unit, *backward_unit = (
        GatedUnit(
            sizes.embedding_size,
            sizes.hidden_size,
            reset_before=cfg.cell.reset is Reset.before,
            bias=sizes.bias,
        )
        for _ in range(_directions(cfg))
    )
    return RecurrentEncoder(
        WordEmbedding(num_source, sizes.embedding_size, bias=sizes.embedding_bias, zero_id=pad),
        forward_unit,
        backward_unit[0] if backward_unit else None,
        embedding_dropout=sizes.embedding_dropout,
        annotation_dropout=cfg.encoder.annotation_dropout,
    )


def _build_decoder(cfg: Config, num_target: int, pad: int) -> RecurrentDecoder:
    sizes, attention = cfg.model, _build_attention(cfg)
    unit = GatedUnit(
        sizes.embedding_size,
        sizes.hidden_size,
        attention.context_size,
        reset_before=cfg.cell.reset is Reset.before,
        bias=sizes.bias,
    )
    return RecurrentDecoder(
        WordEmbedding(num_target, sizes.embedding_size, bias=sizes.embedding_bias, zero_id=pad),
        attention,
        unit,
        _build_output(cfg, num_target),
        readout_size=sizes.readout_size,
        maxout=cfg.decoder.readout is Readout.maxout,
        moved_by_emitted=cfg.decoder.state_word is StateWord.emitted,
        bias=sizes.bias,
        embedding_dropout=sizes.embedding_dropout,
        readout_dropout=cfg.decoder.readout_dropout,
    )


def _build_attention(cfg: Config) -> Attention:
    query, align = cfg.model.hidden_size, cfg.model.align_size
    annotation = _directions(cfg) * query
    match cfg.attention:
        case MultiHeadConfig(heads=heads):
            return MultiHeadAttention(query, annotation, align, heads)
        case LocalConfig(window=window):
            return LocalAttention(query, annotation, window)
        case HardConfig(soft_share=soft_share, inference=inference):
            return HardAttention(
                query,
                annotation,
                align,
                soft_share=soft_share,
                take_most_likely=inference is HardInference.most_likely,
            )
        case GeneralConfig():
            return GeneralAttention(query, annotation)
        case FixedConfig():
            return FixedContext(annotation)
        case DotConfig() | ScaledDotConfig() as dot:
            return DotAttention(query, annotation, scaled=isinstance(dot, ScaledDotConfig))
        case _:
            return AdditiveAttention(query, annotation, align)


def _build_output(cfg: Config, num_target: int) -> nn.Module:
    """W_o: (K_y, l) as printed, or two factors through `output_rank` as in the authors' code."""
    rank, sizes = cfg.decoder.output_rank, cfg.model
    if rank is None:
        return nn.Linear(sizes.readout_size, num_target, bias=sizes.bias)
    return nn.Sequential(
        nn.Linear(sizes.readout_size, rank, bias=False),
        nn.Linear(rank, num_target, bias=sizes.bias),
    )
