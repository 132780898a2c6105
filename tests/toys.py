"""The smallest thing that can be saved: one layer, its optimizer, its average, its progress."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from seq2seq.run.directory import RunDir
from seq2seq.training import checkpoint
from seq2seq.training.averaging import WeightAverage
from seq2seq.training.checkpoint import Progress, TrainingState

FILES = (
    "average.safetensors",
    "config.yaml",
    "manifest.json",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
)


@dataclass
class Toy:
    """A run with a state that `update()` changes in every part."""

    run: RunDir
    state: TrainingState

    def update(self) -> None:
        progress = self.state.progress
        progress.update += 1
        torch.manual_seed(progress.update)
        self.state.optimizer.zero_grad()
        self.state.model(torch.randn(3, 4)).square().sum().backward()
        self.state.optimizer.step()
        self.state.average.update(self.state.model, progress.update)
        progress.best_update, progress.best_score = progress.update, float(progress.update)

    def save(self, step: int, *, best: bool = False) -> None:
        while self.state.progress.update < step:
            self.update()
        checkpoint.save(self.run, self.state)
        if best:
            checkpoint.mark_best(self.run, self.state.progress.best_update, "bleu", 1.0)

    def tensors(self) -> list[list[float]]:
        model, optimizer = self.state.model, self.state.optimizer.state_dict()["state"]
        moments = [each[key] for _, each in sorted(optimizer.items()) for key in sorted(each)]
        every = [*model.parameters(), *moments, *self.state.average.weights.values()]
        return [t.detach().flatten().tolist() for t in every]


def toy(root: Path) -> Toy:
    root.mkdir(exist_ok=True)
    if not (root / "config.yaml").exists():
        (root / "config.yaml").write_text("name: toy\nseed: 1\n", "utf-8")
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    state = TrainingState(model, optimizer, WeightAverage(model, 0.9), Progress())
    return Toy(RunDir(root), state)


def loaded(root: Path) -> Toy:
    fresh = toy(root)
    path = checkpoint.newest(fresh.run)
    assert path is not None
    checkpoint.load(fresh.run, path, fresh.state)
    return fresh


def weights_of(made: Toy) -> tuple[int, list[float]]:
    model = nn.Linear(4, 2)
    step = checkpoint.load_weights(made.run, model)
    return step, model.weight.detach().flatten().tolist()


def folder(root: Path, step: int) -> Path:
    return root / f"checkpoints/update-{step:08d}"


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
