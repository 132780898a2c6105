"""An LSTM and a bag of words, as somebody outside of the package writes them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq.config.registry import builds, option
from seq2seq.config.schema.ranges import share
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.initialization import draw_layers
from seq2seq.model.protocols import Memory


@option("cell")
@dataclass(kw_only=True)
class LSTMConfig:
    name: str = "lstm"


@builds(LSTMConfig)
class LSTM(nn.Module):
    """Hochreiter and Schmidhuber 1997, with a forget gate; its state is (h, memory)."""

    def __init__(self, own, cfg, context_size, backend) -> None:
        super().__init__()
        self.hidden_size = n = cfg.model.hidden_size
        sizes = (cfg.model.embedding_size, n, context_size)
        self.W, self.U, self.C = (nn.Linear(m, 4 * n) if m else None for m in sizes)

    def initialize(self, scheme) -> None:
        draw_layers(scheme, *self.children())

    def begin(self, h) -> tuple[Tensor, ...]:
        return h, torch.zeros_like(h)

    def project(self, x: Tensor) -> Tensor:
        return self.W(x)

    def step(self, x, state, c=None) -> tuple[Tensor, ...]:
        i, f, o, new = self.sums(x, state[0], c)
        memory = f.sigmoid() * state[1] + i.sigmoid() * new.tanh()
        return o.sigmoid() * memory.tanh(), memory

    def output(self, state) -> Tensor:
        return state[0]

    def sums(self, x, h, c) -> tuple[Tensor, ...]:
        return (x + self.U(h) + (0 if c is None else self.C(c))).chunk(4, dim=-1)

    def gates(self, x, h, c=None) -> dict[str, Tensor]:
        return dict(zip("ifo", map(torch.sigmoid, self.sums(x, h, c)), strict=False))


@option("encoder")
@dataclass(kw_only=True)
class BagOfWordsConfig:
    name: str = "bag_of_words"
    annotation_dropout: float = share(0.0)


@builds(BagOfWordsConfig)
class BagOfWords(nn.Module):
    """Embeddings as states, their mean as summary."""

    def __init__(self, own, cfg, num_words, pad, backend) -> None:
        super().__init__()
        self.state_size = self.summary_size = cfg.model.embedding_size
        self.embedding = WordEmbedding(num_words, self.state_size, bias=False, zero_id=pad)
        self.dropout = nn.Dropout(own.annotation_dropout)

    def initialize(self, scheme) -> None:
        self.embedding.initialize(scheme)

    def forward(self, src: Tensor, mask: Tensor) -> Memory:
        states = self.dropout(self.embedding(src)) * mask[..., None]
        return Memory(states, states.sum(dim=1) / mask.sum(dim=1, keepdim=True), mask)

    def probes(self, src, memory) -> dict[str, Tensor]:
        return {}
