"""A Transformer as a model of CTranslate2, through the specifications of its own converters.

y_0 is the zero vector (`start_from_zero_embedding`), as in Marian's models. Positions are a table,
so that sinusoids, interleaved here and side by side there, are ours.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seq2seq.data.tokenizer import EOS, PAD, UNK
from seq2seq.export.bundle import Bundle
from seq2seq.model import transformer
from seq2seq.model.embedding import WordEmbedding
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError

MOST_POSITIONS = 2048  # length of the tables of positions; CTranslate2 refuses longer sentences


@torch.no_grad()
def save(bundle: Bundle, out: RunDir) -> None:
    """Write the model of a run for CTranslate2, with its vocabularies.

    Raises:
        ConfigError: it is not a Transformer, or needs more than SentencePiece around it.
    """
    from ctranslate2 import specs

    if bundle.special is not None:
        what = f"CTranslate2 cannot translate with this model: {bundle.special}"
        raise ConfigError("config", what, "Use --format onnx or --format model.")
    encoder, decoder = bundle.model.encoder, bundle.model.decoder
    if not isinstance(encoder, transformer.SelfAttentionEncoder):
        raise unknown(encoder)
    if not isinstance(decoder, transformer.TransformerDecoder):
        raise unknown(decoder)

    # Encoder and decoder
    kinds = [_kind(stack, stack.layers) for stack in (encoder, decoder)]
    spec = specs.TransformerSpec(
        specs.TransformerEncoderSpec(**kinds[0]), specs.TransformerDecoderSpec(**kinds[1])
    )
    _words(spec.encoder.embeddings[0], encoder.embedding)
    _words(spec.decoder.embeddings, decoder.embedding)
    spec.decoder.start_from_zero_embedding = True
    for own, stack in ((spec.encoder, encoder), (spec.decoder, decoder)):
        # Beyond the positions that were learned, the last one
        table = stack.words.positions(0, MOST_POSITIONS, torch.zeros(()))
        own.position_encodings.encodings = _array(table)
        if isinstance(stack.norm, nn.LayerNorm):
            _norm(own.layer_norm, stack.norm)
    for own, of_encoder in zip(spec.encoder.layer, encoder.layers, strict=True):
        _encoder_layer(own, of_encoder)
    for own, of_decoder in zip(spec.decoder.layer, decoder.layers, strict=True):
        _decoder_layer(own, of_decoder)
    _linear(spec.decoder.projection, decoder.words_layer)

    # Vocabularies
    source, target = (x.pieces(range(len(x))) for x in bundle.pretrained.tokenizers)
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    spec.config.unk_token, spec.config.eos_token = target[UNK], target[EOS]
    spec.config.bos_token = spec.config.decoder_start_token = target[PAD]
    spec.config.add_source_eos = True
    spec.validate()
    spec.optimize()
    spec.save(str(out.root))
    bundle.write(out, {})


def unknown(part: object) -> ConfigError:
    """Return the error of a part that CTranslate2 does not have."""
    what = f"CTranslate2 has no {type(part).__name__}, only Transformers"
    return ConfigError("config", what, "Use --format onnx.")


def _kind(
    stack: transformer.Stack, layers: Sequence[transformer.EncoderLayer | transformer.DecoderLayer]
) -> dict[str, Any]:
    from ctranslate2.specs import common_spec

    first = layers[0]
    gelu = first.feed_forward.gelu
    return {
        "num_layers": len(layers),
        "num_heads": first.self_attention.heads,
        "pre_norm": first.residuals[0].pre_norm,
        "activation": common_spec.Activation.GELU if gelu else common_spec.Activation.RELU,
    }


def _words(spec: Any, embedding: WordEmbedding) -> None:
    weight, bias = embedding.E.weight, embedding.bias
    spec.weight = _array(weight if bias is None else weight + bias)


def _encoder_layer(spec: Any, layer: transformer.EncoderLayer) -> None:
    of_attention, of_network = layer.residuals
    _attention(spec.self_attention, layer.self_attention, of_attention)
    _network(spec.ffn, layer.feed_forward, of_network)


def _decoder_layer(spec: Any, layer: transformer.DecoderLayer) -> None:
    of_self, of_attention, of_network = layer.residuals
    _attention(spec.self_attention, layer.self_attention, of_self)
    _attention(spec.attention, layer.attention, of_attention)
    _network(spec.ffn, layer.feed_forward, of_network)


def _attention(
    spec: Any, attention: transformer.HeadsAttention, residual: transformer.Residual
) -> None:
    """Set projections: Q, K and V of self-attention are one matrix, K and V of the other one."""
    _norm(spec.layer_norm, residual.norm)
    inputs = [attention.W_Q, attention.W_KV]
    if len(spec.linear) == 2:
        spec.linear[0].weight = _array(torch.cat([layer.weight for layer in inputs]))
        spec.linear[0].bias = _array(torch.cat([layer.bias for layer in inputs]))
    else:
        _linear(spec.linear[0], inputs[0])
        _linear(spec.linear[1], inputs[1])
    _linear(spec.linear[-1], attention.W_O)


def _network(spec: Any, network: transformer.FeedForward, residual: transformer.Residual) -> None:
    _norm(spec.layer_norm, residual.norm)
    _linear(spec.linear_0, network.W_1)
    _linear(spec.linear_1, network.W_2)


def _norm(spec: Any, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _array(norm.weight), _array(norm.bias)


def _linear(spec: Any, layer: nn.Linear) -> None:
    spec.weight = _array(layer.weight)
    if layer.bias is not None:
        spec.bias = _array(layer.bias)


def _array(x: Tensor) -> Any:
    return x.detach().float().contiguous().numpy()
