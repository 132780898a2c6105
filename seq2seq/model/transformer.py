"""The Transformer, Vaswani et al. 2017, whose section numbers are cited below.

The paper's symbols: d is the width of the model, h the number of heads, d_k = d / h. Layers read
x (B, T, d). LayerNorm comes before each sub-layer (`pre`, Wang et al. 2019) or after the residual
sum (`post`, as printed).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from seq2seq.model.backend import Backend
from seq2seq.model.dropout import Dropout
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.initialization import Scheme, draw_layers
from seq2seq.model.protocols import Followed, Memory, Probes
from seq2seq.model.word_output import WordOutput, WordPrediction

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of all heads, (B, h, T, d_k) each."""


@dataclass(frozen=True)
class Shape:
    """Sizes and settings shared by all layers of a stack."""

    width: int  # d
    heads: int  # h
    inner: int  # d_ff
    layers: int
    pre_norm: bool
    gelu: bool  # else ReLU
    dropout: float  # on the output of each sub-layer
    inner_dropout: float  # between the two layers of the feed-forward network
    attention_dropout: float  # on the attention weights
    linear: type[nn.Linear]


class HeadsAttention(nn.Module):
    """Multi-head attention, 3.2.2: Concat(head_1, ..., head_h) W_O.

    head_i = softmax(Q_i K_i' / sqrt(d_k)) V_i with Q_i = x W_Q_i, K_i = y W_K_i, V_i = y W_V_i.
    """

    def __init__(self, shape: Shape, memory_width: int) -> None:
        super().__init__()
        self.heads = shape.heads
        self.W_Q = shape.linear(shape.width, shape.width)
        self.W_KV = shape.linear(memory_width, 2 * shape.width)
        self.W_O = shape.linear(shape.width, shape.width)
        self.dropout = Dropout(shape.attention_dropout)

    def initialize(self, scheme: Scheme) -> None:
        """Draw W_Q, W_KV, W_O."""
        draw_layers(scheme, self.W_Q, self.W_KV, self.W_O)

    def prepare(self, y: Tensor) -> KeysValues:
        """Return the keys and values of y (B, S, memory width), the sequence attended to."""
        keys, values = self.W_KV(y).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(
        self, x: Tensor, past: KeysValues, mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        """Attend with x (B, T, d) to keys and values (B, h, S, d_k); return (B, T, d).

        `mask` (B, 1, 1, S) is True on real tokens; if `causal`, position i attends to the first
        i + 1 positions only.
        """
        if self.training and self.dropout.p:
            if mask is None:
                mask = x.new_ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
            return self.joined(self.dropout.of_weights(self.weights(x, past, mask)), past)
        q = self._split(self.W_Q(x))
        with torch.autocast(x.device.type, enabled=False):  # in the dtype of `_split`
            c = functional.scaled_dot_product_attention(q, *past, attn_mask=mask, is_causal=causal)
        out: Tensor = self.W_O(c.transpose(1, 2).flatten(2))
        return out

    def joined(self, alpha: Tensor, past: KeysValues) -> Tensor:
        """Return the output (B, T, d) of all heads for weights (B, h, T, S)."""
        c = alpha.to(past[1].dtype) @ past[1]
        out: Tensor = self.W_O(c.transpose(1, 2).flatten(2))
        return out

    def weights(self, x: Tensor, past: KeysValues, mask: Tensor) -> Tensor:
        """Return the attention weights (B, h, T, S) of `forward`, in float32 or wider."""
        q, keys = self._split(self.W_Q(x)), past[0]
        wide = torch.promote_types(q.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            energy = q.to(wide) @ keys.to(wide).transpose(-1, -2) / math.sqrt(q.shape[-1])
        alpha: Tensor = energy.masked_fill(~mask, -torch.inf).softmax(dim=-1)
        return alpha

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        # torch's attention on a CPU takes eight times as long in bfloat16 as in float32.
        return heads.to(torch.promote_types(x.dtype, torch.float32)) if x.is_cpu else heads


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2, 3.3, or GELU in place of the maximum."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gelu = shape.gelu
        self.W_1 = shape.linear(shape.width, shape.inner)
        self.W_2 = shape.linear(shape.inner, shape.width)
        self.dropout = Dropout(shape.inner_dropout)

    def initialize(self, scheme: Scheme) -> None:
        """Draw W_1, W_2."""
        draw_layers(scheme, self.W_1, self.W_2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, d) to (B, T, d)."""
        inner = self.W_1(x)
        inner = functional.gelu(inner) if self.gelu else torch.relu(inner)
        out: Tensor = self.W_2(self.dropout(inner))
        return out


class Residual(nn.Module):
    """LayerNorm around a sub-layer f: x + f(norm(x)) if `pre`, norm(x + f(x)) as printed (3.1)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.pre_norm = shape.pre_norm
        self.norm = nn.LayerNorm(shape.width)
        self.dropout = Dropout(shape.dropout)

    def before(self, x: Tensor) -> Tensor:
        """Return the input of the sub-layer."""
        return self.norm(x) if self.pre_norm else x

    def after(self, x: Tensor, added: Tensor) -> Tensor:
        """Add the output of the sub-layer; return the input of the next residual."""
        total: Tensor = x + self.dropout(added)
        return total if self.pre_norm else self.norm(total)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, 3.1."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attention = HeadsAttention(shape, shape.width)
        self.feed_forward = FeedForward(shape)
        self.residuals = cast(
            "Sequence[Residual]", nn.ModuleList(Residual(shape) for _ in range(2))
        )

    def initialize(self, scheme: Scheme) -> None:
        """Draw self-attention, feed-forward network."""
        self.self_attention.initialize(scheme)
        self.feed_forward.initialize(scheme)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x (B, T, d) to (B, T, d); `mask` (B, 1, 1, T) is True on real tokens."""
        of_attention, of_network = self.residuals
        seen = of_attention.before(x)
        x = of_attention.after(
            x, self.self_attention(seen, self.self_attention.prepare(seen), mask)
        )
        read: Tensor = of_network.after(x, self.feed_forward(of_network.before(x)))
        return read


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the source, and a feed-forward network, 3.1."""

    def __init__(self, shape: Shape, memory_width: int) -> None:
        super().__init__()
        self.self_attention = HeadsAttention(shape, shape.width)
        self.attention = HeadsAttention(shape, memory_width)
        self.feed_forward = FeedForward(shape)
        self.residuals = cast(
            "Sequence[Residual]", nn.ModuleList(Residual(shape) for _ in range(3))
        )

    def initialize(self, scheme: Scheme) -> None:
        """Draw self-attention, attention, feed-forward network."""
        for part in (self.self_attention, self.attention, self.feed_forward):
            part.initialize(scheme)

    def forward(
        self, x: Tensor, past: KeysValues | None, source: KeysValues, mask: Tensor
    ) -> tuple[Tensor, KeysValues, Tensor]:
        """Process all words of targets (B, T, d), or one word of each hypothesis (R, 1, d).

        Args:
            x: Output of the layer below.
            past: Keys and values of the previous words (R, h, t, d_k); None for whole targets and
                before the first word.
            source: Keys and values of the source, once per sentence (B, h, Tx, d_k).
            mask: (B, 1, 1, Tx), True on real source tokens.

        Returns:
            The output, the keys and values up to and including x, and the queries to the source.
        """
        of_self, of_attention, of_network = self.residuals
        seen = of_self.before(x)
        now = self.self_attention.prepare(seen)
        if past is not None:
            now = torch.cat([past[0], now[0]], dim=2), torch.cat([past[1], now[1]], dim=2)
        x = of_self.after(x, self.self_attention(seen, now, causal=past is None))
        # The hypotheses of a sentence query its source as if they were its positions.
        query = of_attention.before(x).reshape(mask.shape[0], -1, x.shape[-1])
        x = of_attention.after(x, self.attention(query, source, mask).view_as(x))
        return of_network.after(x, self.feed_forward(of_network.before(x))), now, query


class Positions(nn.Module):
    """Positional encodings, added to embedded words: sinusoids (3.5) or learned vectors."""

    def __init__(self, width: int, longest: int | None) -> None:
        super().__init__()
        self.width = width
        self.learned = None if longest is None else nn.Parameter(torch.zeros(longest, width))
        self._table = torch.zeros(0, width)  # cached sinusoids, extended on demand

    @torch.no_grad()
    def initialize(self, scheme: Scheme) -> None:
        """Draw learned vectors."""
        if self.learned is not None:
            scheme.embedding(self.learned)

    def forward(self, first: int, count: int, like: Tensor) -> Tensor:
        """Return the vectors (count, d) of positions from `first` on."""
        if self.learned is None:
            table = self._table  # another thread may replace it by a shorter one
            if len(table) < first + count or table.device != like.device:
                most = 1 << (first + count).bit_length()
                self._table = table = sinusoids(most, self.width).to(like.device)
            return table[first : first + count].to(like.dtype)
        places = torch.arange(first, first + count, device=like.device)
        # Positions beyond the longest training sentence use the last vector.
        return self.learned[places.clamp_max(len(self.learned) - 1)]


def sinusoids(count: int, width: int) -> Tensor:
    """PE(p, 2i) = sin(p / 10000^(2i/d)), PE(p, 2i+1) = cos(p / 10000^(2i/d)), 3.5."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


class WordsAndPositions(nn.Module):
    """E y sqrt(d) plus positions, 3.4 and 3.5."""

    def __init__(
        self, embedding: WordEmbedding, positions: Positions, *, word_dropout: float, dropout: float
    ) -> None:
        super().__init__()
        self.embedding, self.positions = embedding, positions
        self.word_dropout, self.dropout = Dropout(word_dropout), Dropout(dropout)

    def initialize(self, scheme: Scheme) -> None:
        """Draw the embedding, then the positions."""
        self.embedding.initialize(scheme)
        self.positions.initialize(scheme)

    def forward(self, ids: Tensor, first: int = 0) -> Tensor:
        """Embed ids (B, T) as (B, T, d); the first id is at position `first`."""
        words = self.word_dropout.of_words(self.embedding(ids))
        Ey = words * math.sqrt(self.positions.width)
        embedded: Tensor = self.dropout(Ey + self.positions(first, ids.shape[1], Ey))
        return embedded


class Stack(nn.Module):
    """Embedded words, a stack of layers and, for pre-norm, the final LayerNorm."""

    layers: Any  # a ModuleList; subclasses declare its element type

    def __init__(self, words: WordsAndPositions, layers: nn.ModuleList, shape: Shape) -> None:
        super().__init__()
        self.words, self.layers = words, layers
        self.norm = nn.LayerNorm(shape.width) if shape.pre_norm else nn.Identity()

    @property
    def embedding(self) -> WordEmbedding:
        """The word embedding."""
        return self.words.embedding

    def initialize(self, scheme: Scheme) -> None:
        """Draw the words, then layer by layer."""
        self.words.initialize(scheme)
        for layer in self.layers:
            layer.initialize(scheme)


class SelfAttentionEncoder(Stack):
    """A stack of encoder layers, 3.1. Its summary is the mean of its states."""

    layers: Sequence[EncoderLayer]
    weight_groups: ClassVar[Mapping[str, str]] = {"words": "embeddings"}

    def __init__(self, words: WordsAndPositions, shape: Shape) -> None:
        layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers))
        super().__init__(words, layers, shape)
        self.state_size = self.summary_size = shape.width

    def forward(self, src: Tensor, mask: Tensor) -> Memory:
        """Encode ids (B, Tx); `mask` (B, Tx) is True on real tokens."""
        x = self.words(src)
        for layer in self.layers:
            x = layer(x, mask[:, None, None])
        x = self.norm(x) * mask[..., None]
        summary = x.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return Memory(x, summary, mask, lambda: self.attention_maps(src, mask))

    def probes(self, src: Tensor, memory: Memory) -> Mapping[str, Tensor]:
        """Return nothing: there are no gates."""
        return {}

    def attention_maps(self, src: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
        """Return `protocols.Maps`: attention within the source. Call in evaluation mode."""
        x, found = self.words(src), []
        for layer in self.layers:
            seen = layer.residuals[0].before(x)
            attention = layer.self_attention
            found.append(attention.weights(seen, attention.prepare(seen), mask[:, None, None]))
            x = layer(x, mask[:, None, None])
        return {"encoder": torch.stack(found)}


@dataclass(frozen=True)
class TransformerState:
    """Hypotheses before a step: keys and values of the source and of the words so far."""

    source: Sequence[KeysValues]  # per layer (B, h, Tx, d_k), once per sentence
    mask: Tensor  # (B, 1, 1, Tx)
    past: Sequence[KeysValues] | None = None  # per layer (R, h, t, d_k); None before the first word

    def select(self, sentences: Tensor, slots: int, rows: Tensor) -> "TransformerState":
        """See `State.select`."""
        past = self.past and [(keys[rows], values[rows]) for keys, values in self.past]
        if len(sentences) == len(self.mask):
            return TransformerState(self.source, self.mask, past)
        source = [(keys[sentences], values[sentences]) for keys, values in self.source]
        return TransformerState(source, self.mask[sentences], past)


@dataclass(frozen=True)
class Shown:
    """The weights reported as `alpha`: those of one layer, of one head or the mean of its heads."""

    layer: int  # from 0
    head: int | None

    def of(self, weights: Tensor) -> Tensor:
        """Return (B, T, Tx) from the weights (B, h, T, Tx) of this layer."""
        return weights.mean(dim=1) if self.head is None else weights[:, self.head]


class TransformerDecoder(Stack, WordOutput):
    """A stack of decoder layers and the output layer, 3.1 and 3.4. y_0 is the zero vector."""

    layers: Sequence[DecoderLayer]
    weight_groups: ClassVar[Mapping[str, str]] = {"words": "embeddings", "W_o": "embeddings"}

    def __init__(
        self,
        words: WordsAndPositions,
        shape: Shape,
        memory_width: int,
        W_o: nn.Linear,
        *,
        shown: Shown,
        backend: Backend,
    ) -> None:
        layers = nn.ModuleList(DecoderLayer(shape, memory_width) for _ in range(shape.layers))
        super().__init__(words, layers, shape)
        self.W_o = W_o
        self.num_words = words.embedding.E.num_embeddings
        self.shown, self.backend = shown, backend

    def initialize(self, scheme: Scheme) -> None:
        """Draw the words, the layers one by one, and W_o."""
        super().initialize(scheme)
        draw_layers(scheme, self.W_o)

    # Word by word

    def begin(self, memory: Memory) -> TransformerState:
        """Return the keys and values of the source, with one hypothesis per sentence."""
        source = [layer.attention.prepare(memory.states) for layer in self.layers]
        return TransformerState(source, memory.mask[:, None, None])

    def step(self, y: Tensor, state: TransformerState) -> tuple[WordPrediction, TransformerState]:
        """Predict the words after y_{i-1} (R,)."""
        first = 0 if state.past is None else state.past[0][0].shape[2]
        x, past, weights = self._through(self.words(y[:, None], first), state)
        t = self.norm(x).squeeze(1)
        # `DecoderLayer` treats hypotheses as positions of their sentence: (B, K, Tx) -> (R, Tx).
        alpha = weights().flatten(0, 1)
        after = TransformerState(state.source, state.mask, past)
        return self.prediction(t, alpha), after

    # Along known targets

    def follow(self, memory: Memory, y: Tensor, mask: Tensor) -> Followed:
        """Run along targets (B, Ty); `mask` is True on real words."""
        x, _, weights = self._through(self._shifted(y), self.begin(memory))
        return Followed(self.norm(x[mask]), weights, maps=lambda: self.attention_maps(memory, y))

    def probes(self, memory: Memory, y: Tensor, mask: Tensor) -> Probes:
        """Return the attention weights along targets; there are no gates."""
        return Probes({}, self.follow(memory, y, mask).alpha)

    def attention_maps(self, memory: Memory, y: Tensor) -> Mapping[str, Tensor]:
        """Return `protocols.Maps`: to the source and to the prefix. Call in evaluation mode."""
        state, x = self.begin(memory), self._shifted(y)
        before = torch.ones(y.shape[1], y.shape[1], dtype=torch.bool, device=y.device).tril()
        to_source, to_words = [], []
        for layer, source in zip(self.layers, state.source, strict=True):
            seen = layer.residuals[0].before(x)
            x, words, query = layer(x, None, source, state.mask)
            to_source.append(layer.attention.weights(query, source, state.mask))
            to_words.append(layer.self_attention.weights(seen, words, before))
        return {"heads": torch.stack(to_source), "decoder": torch.stack(to_words)}

    def _shifted(self, y: Tensor) -> Tensor:
        """Embed y_0, ..., y_{Ty-1}."""
        y_prev = functional.pad(y[:, :-1], (1, 0), value=self.embedding.zero_id)
        embedded: Tensor = self.words(y_prev)
        return embedded

    def _through(
        self, x: Tensor, state: TransformerState
    ) -> tuple[Tensor, list[KeysValues], Callable[[], Tensor]]:
        """Return the last layer's output, the words' keys and values, and a function for alpha."""
        now, queries = [], []
        for number, layer in enumerate(self.layers):
            past = state.past and state.past[number]
            x, of_words, query = layer(x, past, state.source[number], state.mask)
            now.append(of_words)
            queries.append(query)
        asked, shown = queries[self.shown.layer], self.shown.layer

        def weights() -> Tensor:
            attention = self.layers[shown].attention
            return self.shown.of(attention.weights(asked, state.source[shown], state.mask))

        return x, now, weights
