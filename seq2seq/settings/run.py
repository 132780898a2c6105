"""One run: its stages, its device, what it shows, and all other settings."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from seq2seq.settings.data import DataConfig
from seq2seq.settings.inference import DecodeConfig, EvaluateConfig
from seq2seq.settings.model import ModelConfig
from seq2seq.settings.ranges import at_least, number
from seq2seq.settings.training import TrainerConfig


class Stage(Enum):
    """The steps of a run, in their order."""

    tokenize = "tokenize"
    train = "train"
    decode = "decode"
    evaluate = "evaluate"


@dataclass(kw_only=True)
class LoggingConfig:
    """What is shown while training; nothing here changes the weights."""

    every: int = at_least(1)
    """Updates between lines."""
    tensorboard: bool
    samples: int = at_least(0)
    """Validation translations shown in TensorBoard, the first ones with a heatmap."""
    heatmaps: int = at_least(0)


class Device(Enum):
    """Where tensors live; auto takes CUDA if there is one, else the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"
    """An Apple GPU."""


@dataclass(kw_only=True)
class Config:
    """One run."""

    name: str
    seed: int = at_least(0)
    device: Device
    threads: int | None = number(1, 1024)
    """CPU threads; null leaves torch's choice. Results are exact only at an equal count."""
    stages: list[Stage]
    data: DataConfig
    tokenizer: Any
    model: ModelConfig
    attention: Any
    optimizer: Any
    scheduler: Any
    trainer: TrainerConfig
    decode: DecodeConfig
    evaluate: EvaluateConfig
    logging: LoggingConfig
