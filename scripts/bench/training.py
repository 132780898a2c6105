"""Updates to be timed: what the trainer does between two log lines."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from bench.measure import peak_memory
from bench.sizes import Size
from seq2seq.config.schema import Backend, Config, Precision
from seq2seq.data.batching import Batch, TokenizedPairs
from seq2seq.data.tokenizer import PAD
from seq2seq.model import build_model
from seq2seq.model.draws import entry_keys
from seq2seq.training.gradient import accumulated_gradient
from seq2seq.training.optim import build_optimizer, clip_gradients


@dataclass(frozen=True)
class Contender:
    """One way to train."""

    backend: Backend
    precision: Precision

    @classmethod
    def named(cls, way: str) -> "Contender":
        """Read `fused bf16`."""
        backend, precision = way.split()
        return cls(Backend[backend], Precision[precision])

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.backend.name} {self.precision.name}"


class Training:
    """A model in training.

    Args:
        size: Of the model.
        contender: How it is trained.
        cfg: All else: optimizer, clipping, smoothing.
        batches: Made when they are asked for, as in training; never at an end.
        device: Where.
    """

    def __init__(
        self,
        size: Size,
        contender: Contender,
        cfg: Config,
        batches: Iterator[Batch],
        device: torch.device,
    ) -> None:
        trainer = replace(cfg.trainer, precision=contender.precision)
        self.size, self.contender, self.batches, self.device = size, contender, batches, device
        self.cfg = replace(size.apply_to(cfg, contender.backend), trainer=trainer)
        torch.manual_seed(1)
        self.model = build_model(
            self.cfg, num_source=size.vocabulary, num_target=size.vocabulary, pad=PAD
        ).to(device)
        self.optimizer = build_optimizer(self.model, cfg.optimizer)
        self.operations = 0  # of the last `updates`

    def updates(self, count: int) -> float:
        """Make `count` updates; return their target tokens, end symbols included."""
        self.operations = 0
        return float(sum(self.update(next(self.batches)) for _ in range(count)))

    def update(self, batch: Batch) -> int:
        """Make one update; return its target tokens."""
        batch = batch.to(self.device)
        keys = entry_keys(self.cfg.seed, 1, batch.num_sentences).to(self.device)
        gradient = accumulated_gradient(self.model, batch, keys, 1, self.cfg)
        clip_gradients(self.model, self.cfg.trainer.clip_norm)
        gradient.total.item()
        self.optimizer.step()
        self.operations += self._operations(batch)
        return gradient.tokens

    def _operations(self, batch: Batch) -> int:
        source, target = batch.src_mask.sum(dim=1), batch.tgt_mask.sum(dim=1)
        looks = int((source * target).sum())
        return self.size.training_operations(int(source.sum()), int(target.sum()), looks)


def batches_of(pairs: TokenizedPairs, plan: Sequence[Sequence[int]]) -> Iterator[Batch]:
    """Make the batches of a plan in turn, again and again."""
    return (pairs.batch(rows, PAD) for rows in itertools.cycle(plan))


def update_memory(
    size: Size, contender: Contender, cfg: Config, batch: Batch, device: torch.device
) -> int | None:
    """Return the peak of an update in bytes, above weights, gradients and optimizer."""
    training = Training(size, contender, cfg, itertools.repeat(batch), device)
    few = Batch(*(x[:1, :2] for x in vars(batch).values()))
    training.update(few)  # now gradients and the optimizer's state are there
    return peak_memory(lambda: training.update(batch), device)
