"""Settings of a run: stages, device, logging, initial weights, and `Config`, which holds all."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from seq2seq.config.schema.attention import AdditiveConfig
from seq2seq.config.schema.cells import GatedConfig
from seq2seq.config.schema.data import DataConfig, WordsConfig
from seq2seq.config.schema.inference import DecodeConfig, EvaluateConfig
from seq2seq.config.schema.model import ModelConfig, RecurrentDecoderConfig, RecurrentEncoderConfig
from seq2seq.config.schema.objectives import LikelihoodConfig
from seq2seq.config.schema.ranges import at_least, number
from seq2seq.config.schema.training import AdadeltaConfig, ConstantConfig, TrainerConfig
from seq2seq.run.errors import ConfigError

Stage = StrEnum("Stage", "tokenize train decode evaluate")  # the steps of a run, in order


@dataclass(kw_only=True)
class LoggingConfig:
    """What is logged in training; nothing here changes the weights."""

    every: int = at_least(1, default=50)  # updates between log lines
    tensorboard: bool = True  # write curves and pictures for it
    # Validation translations shown in TensorBoard, the first `heatmaps` of them with a heatmap
    samples: int = at_least(0, default=8)
    heatmaps: int = at_least(0, default=2)  # heatmaps in TensorBoard per validation


@dataclass(kw_only=True)
class InitConfig:
    """Initial weights and vocabularies from another run, or vectors from files."""

    # A run, or its `model/`, from which to take the best weights and the vocabularies; RUN@last5 or
    # RUN@update-12000 selects other weights
    run: str | None = None
    # Maximal number of pieces to add to each vocabulary: the most frequent ones of the training
    # text that it cannot write (letters, or words of `tokenizer: words`)
    new_pieces: int = at_least(0, default=0)
    # Which of its weights to take, by prefixes of their names (`encoder`, `decoder.embedding`) or
    # by patterns (`*.E.weight`); null takes all. The others are drawn.
    parts: list[str] | None = None
    # Files of word vectors, in the text format of word2vec and GloVe; as wide as the embeddings
    source_vectors: str | None = None
    target_vectors: str | None = None  # the same for the target side

    def check(self, _config: Any) -> None:
        """Check that parts and new pieces are given with a run."""
        for name in ("parts", "new_pieces"):
            if getattr(self, name) and self.run is None:
                what = f"init.{name} is given and init.run is not"
                raise ConfigError("config", what, "Give both.")


@dataclass(kw_only=True)
class Config:
    """All settings. The defaults are the paper's RNNsearch; groups of type `Any` have options."""

    name: str = "rnnsearch"  # of the run: it goes into outputs/NAME
    # The paper that a preset of another model follows, and where it differs; for `fidelity.md`
    follows: str = ""
    seed: int = at_least(0, default=1)  # of weights, order and dropout
    device: str = "auto"  # cpu, cuda, cuda:N or mps; auto takes CUDA if available
    # CPU threads; null leaves torch's choice. Results are exact only at an equal number.
    threads: int | None = number(1, 1024, default=None)
    stages: list[Stage] = field(default_factory=lambda: list(Stage))
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: Any = field(default_factory=WordsConfig)
    model: Any = field(default_factory=ModelConfig)
    cell: Any = field(default_factory=GatedConfig)
    encoder: Any = field(default_factory=RecurrentEncoderConfig)
    decoder: Any = field(default_factory=RecurrentDecoderConfig)
    attention: Any = field(default_factory=AdditiveConfig)
    init: InitConfig = field(default_factory=InitConfig)
    objective: Any = field(default_factory=LikelihoodConfig)
    optimizer: Any = field(default_factory=AdadeltaConfig)
    scheduler: Any = field(default_factory=ConstantConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
