"""A coupled LSTM and a bag-of-words encoder: docs/extending.md walks through this file."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq.config.registry import builds, option
from seq2seq.config.schema.ranges import number
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.initialization import draw_layers
from seq2seq.model.protocols import Memory


@option("cell")
@dataclass(kw_only=True)
class CoupledConfig:
    """An LSTM that forgets as much as it takes in: Greff et al. 2017, CIFG."""

    name: str = "coupled"
    forget_bias: float = number(-10, 10, default=1.0)


class CoupledCell(nn.Module):
    """f, o = sigmoid(.), g = tanh(.); m = f . m + (1 - f) . g; h = o . tanh(m).  State: (h, m)."""

    def __init__(self, input_size, hidden_size, context_size, forget_bias, linear) -> None:
        super().__init__()
        self.hidden_size, self.forget_bias = hidden_size, forget_bias
        self.W = linear(input_size, 3 * hidden_size)
        self.U = linear(hidden_size, 3 * hidden_size, bias=False)
        self.C = linear(context_size, 3 * hidden_size, bias=False) if context_size else None

    def initialize(self, scheme) -> None:
        draw_layers(scheme, self.W, self.U, *([self.C] if self.C else []))
        nn.init.constant_(self.W.bias.chunk(3)[0], self.forget_bias)

    def begin(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return h, torch.zeros_like(h)

    def project(self, x: Tensor) -> Tensor:
        return self.W(x)

    def step(self, x: Tensor, state, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h, m = state
        f, o, g = (x + self.U(h) + (self.C(c) if c is not None else 0)).chunk(3, dim=-1)
        m = torch.lerp(g.tanh(), m, f.sigmoid())
        return o.sigmoid() * m.tanh(), m

    def output(self, state) -> Tensor:
        return state[0]

    def gates(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> Mapping[str, Tensor]:
        given = x + self.U(h) + (self.C(c) if c is not None else 0)
        return dict(zip("fo", given.sigmoid().chunk(3, dim=-1)[:2], strict=True))


@builds(CoupledConfig)
def coupled(own, cfg, input_size, context_size, backend) -> CoupledCell:
    sizes = input_size, cfg.model.hidden_size, context_size
    return CoupledCell(*sizes, own.forget_bias, backend.linear)


@option("encoder")
@dataclass(kw_only=True)
class BagOfWordsConfig:
    """No order: every word for itself, and their mean to start from."""

    name: str = "bag_of_words"


class BagOfWords(nn.Module):
    """What comes of a source without its order."""

    def __init__(self, embedding: WordEmbedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.state_size = self.summary_size = embedding.E.embedding_dim

    def initialize(self, scheme) -> None:
        self.embedding.initialize(scheme)

    def forward(self, src: Tensor, mask: Tensor) -> Memory:
        Ex = self.embedding(src) * mask[..., None]  # (B, Tx, m)
        return Memory(Ex, Ex.sum(dim=1) / mask.sum(dim=1, keepdim=True), mask)

    def probes(self, src: Tensor, memory: Memory) -> Mapping[str, Tensor]:
        return {}


@builds(BagOfWordsConfig)
def bag_of_words(own, cfg, num_words, pad, backend) -> BagOfWords:
    return BagOfWords(WordEmbedding(num_words, cfg.model.embedding_size, bias=False, zero_id=pad))
