"""Changes what a model attends to, or what it reads, without changing the model.

`intervened` changes attention weights at chosen steps; the context follows from the changed
weights. `scaled` multiplies the embeddings of source words. Both return a copy that shares the
weights, for search, forced scoring and gradients. Changed attention runs on the readable code.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from seq2seq.model.attention import WeightedAttention
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.initialization import Scheme
from seq2seq.model.protocols import Attended, Decoder, Memory, Prediction, Source, State
from seq2seq.model.transformer import (
    DecoderLayer,
    HeadsAttention,
    KeysValues,
    Stack,
    TransformerDecoder,
    TransformerState,
)
from seq2seq.run.errors import ConfigError

M = TypeVar("M", bound=nn.Module)

Change = Callable[[Tensor, Tensor, int, int], Tensor]
"""(weights, mask, step, layer) -> the weights to use.

weights: (R, h, Tx) of each head, h = 1 for most kinds. Rows are the hypotheses of the first
    sentence, then those of the next; along known targets there is one of each sentence.
mask: (R, 1, Tx) bool, True on real source tokens, the end symbol included.
step: Number of the target word that the weights are for, from 0.
layer: Of a Transformer's decoder, from 0; else 0.

The result may be broadcast to the shape of the weights. It is used as it is, so rows should sum
to 1. A step may be asked for more than once, so a change is to depend on its arguments alone.
"""


def intervened(model: EncoderDecoder, change: Change) -> EncoderDecoder:
    """Return a model with the weights of another, both in evaluation mode, that attends as changed.

    The change is applied at every step and layer; to leave one be, it returns the weights it gets.

    Raises:
        ConfigError: the attention of the model has no weights.
    """
    assert not model.training
    decoder = model.decoder
    if isinstance(decoder, TransformerDecoder):
        return ChangedTransformer(model, decoder, change)
    attention = getattr(decoder, "attention", None)
    if not isinstance(attention, WeightedAttention):
        what = f"{type(attention or decoder).__name__} has no attention weights to change"
        raise ConfigError("attention", what, "Choose a run that has learnt to attend.")
    changed = with_parts(cast("nn.Module", decoder), attention=ChangedAttention(attention, change))
    return with_parts(model, decoder=changed)


def with_parts(module: M, **parts: nn.Module) -> M:
    """Return a copy of a module that shares its weights but has other parts in some places."""
    other = copy(module)
    other._modules = {**module._modules, **parts}
    return other


def scaled(model: EncoderDecoder, factors: Tensor) -> EncoderDecoder:
    """Return a model that reads f_j E x_j in place of E x_j, for one batch with factors (B, Tx).

    0 erases a word. The derivative by f_j at f = 1 is gradient x input, summed over the embedding.
    """
    encoder = cast("nn.Module", model.encoder)
    holder = encoder.words if isinstance(encoder, Stack) else encoder
    changed = with_parts(holder, embedding=ScaledEmbedding(model.encoder.embedding, factors))
    if isinstance(encoder, Stack):
        changed = with_parts(encoder, words=changed)
    return with_parts(model, encoder=changed)


class ScaledEmbedding(nn.Module):
    """A `WordEmbedding` of one batch whose vectors are multiplied by factors (B, Tx)."""

    def __init__(self, embedding: nn.Module, factors: Tensor) -> None:
        super().__init__()
        self.embedding, self.factors = embedding, factors

    def forward(self, ids: Tensor) -> Tensor:
        """Embed ids (B, Tx) as (B, Tx, m)."""
        embedded: Tensor = self.embedding(ids)
        return embedded * self.factors[..., None].to(embedded.dtype)


class ChangedAttention(nn.Module):
    """An `Attention` whose weights are changed. Its state is the step number and the inner state.

    It is no subclass of the inner attention: kernels and `StackedDecoder.at_once` must not take it
    for that.
    """

    learned: ClassVar[bool] = True
    sequential: ClassVar[bool] = True

    def __init__(self, attention: WeightedAttention, change: Change) -> None:
        super().__init__()
        self.attention, self.change = attention, change
        self.context_size = attention.context_size

    def initialize(self, scheme: Scheme) -> None:
        """Draw the weights of the inner attention."""
        self.attention.initialize(scheme)

    def prepare(self, memory: Memory) -> Source:
        """Project the states of the source."""
        return self.attention.prepare(memory)

    def forward(self, query: Tensor, source: Source, state: Tensor | None = None) -> Attended:
        """Attend with s_{i-1} (R, n)."""
        step = 0 if state is None else int(state[0, 0])
        inner = state[:, 1:] if state is not None and state.shape[1] > 1 else None
        alpha = self.attention.weigh(query, source, inner)
        heads = alpha.view(len(alpha), -1, alpha.shape[-1])
        mask = rows_of(source.mask, len(alpha))
        changed = self.change(heads, mask, step, 0).expand_as(heads).reshape(alpha.shape)
        attended = self.attention.attended(changed, source, inner)
        after = [alpha.new_full((len(alpha), 1), step + 1)]
        after += [] if attended.state is None else [attended.state]
        return replace(attended, state=torch.cat(after, dim=1))


class ChangedTransformer(EncoderDecoder):
    """A Transformer whose attention to the source is changed."""

    def __init__(self, model: EncoderDecoder, decoder: TransformerDecoder, change: Change) -> None:
        changed = cast("Decoder", changed_layers(decoder, change))
        super().__init__(model.encoder, changed, model.backend)
        self.inner, self.change, self.training = decoder, change, model.training
        self.shortlist = model.shortlist

    def step(self, y: Tensor, state: TransformerState) -> tuple[Prediction, State]:
        """Predict the word after y (R,)."""
        step = 0 if state.past is None else state.past[0][0].shape[2]
        return changed_layers(self.inner, self.change, step).step(y, state)


def changed_layers(
    decoder: TransformerDecoder, change: Change, step: int | None = None
) -> TransformerDecoder:
    """Return a decoder whose layers attend to the source as changed; see `ChangedHeads`."""
    layers = []
    for number, layer in enumerate(decoder.layers):
        heads = ChangedHeads(layer.attention, change, number, step)
        layers.append(with_parts(layer, attention=heads))
    return with_parts(decoder, layers=nn.ModuleList(cast("Sequence[DecoderLayer]", layers)))


class ChangedHeads(nn.Module):
    """The attention of a layer to the source, with changed weights.

    Its queries (B, T, d) are the positions of known targets, or, with a `step`, hypotheses there.
    """

    def __init__(
        self, attention: HeadsAttention, change: Change, layer: int, step: int | None
    ) -> None:
        super().__init__()
        self.attention, self.change, self.layer, self.step = attention, change, layer, step

    def prepare(self, y: Tensor) -> KeysValues:
        """Return keys and values."""
        return self.attention.prepare(y)

    def weights(self, x: Tensor, past: KeysValues, mask: Tensor) -> Tensor:
        """Return the changed weights (B, h, T, Tx)."""
        alpha = self.attention.weights(x, past, mask).transpose(1, 2)  # (B, T, h, Tx)
        if self.step is None:
            steps = [self._changed(a, mask, i) for i, a in enumerate(alpha.unbind(dim=1))]
            return torch.stack(steps, dim=2)
        changed = self._changed(alpha.flatten(0, 1), mask, self.step)
        return changed.view_as(alpha).transpose(1, 2)

    def _changed(self, alpha: Tensor, mask: Tensor, step: int) -> Tensor:
        mask = rows_of(mask.flatten(1), len(alpha))
        return self.change(alpha, mask, step, self.layer).expand_as(alpha).contiguous()

    def forward(self, x: Tensor, past: KeysValues, mask: Tensor, *, causal: bool = False) -> Tensor:
        """Attend with x (B, T, d); see `HeadsAttention`."""
        return self.attention.joined(self.weights(x, past, mask), past)


def rows_of(mask: Tensor, rows: int) -> Tensor:
    """Return the mask (B, Tx) of sentences for each of their hypotheses, (R, 1, Tx)."""
    return mask.repeat_interleave(rows // len(mask), dim=0)[:, None]
