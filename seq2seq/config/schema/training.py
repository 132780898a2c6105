"""Settings of optimizers, schedules and the training loop: Appendix B and later work."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import at_least, number, share
from seq2seq.run.errors import ConfigError


@option("optimizer")
@dataclass(kw_only=True)
class AdadeltaConfig:
    """Zeiler's rule, the paper's B.2."""

    name: str = "adadelta"
    lr: float = number(0, default=1.0, open_ends="low")  # learning rate
    rho: float = number(0, 1, default=0.95, open_ends="both")  # 0.95 is B.2; torch's default is 0.9
    eps: float = number(0, default=1e-6, open_ends="low")  # 1e-6 is B.2
    weight_decay: float = at_least(0, default=0.0)  # an L2 penalty


@option("optimizer")
@dataclass(kw_only=True)
class AdamConfig:
    """Adam with decoupled weight decay."""

    name: str = "adam"
    lr: float = number(0, default=0.001, open_ends="low")  # learning rate
    beta1: float = share(0.9)  # decay of the mean of gradients
    beta2: float = share(0.98)  # decay of the mean of their squares
    eps: float = number(0, default=1e-8, open_ends="low")  # added to the denominator
    weight_decay: float = at_least(0, default=0.0)  # decoupled


@option("scheduler")
@dataclass(kw_only=True)
class ConstantConfig:
    """The optimizer's rate, unchanged, as in the paper."""

    name: str = "constant"


@option("scheduler")
@dataclass(kw_only=True)
class PlateauConfig:
    """Multiply the rate by `factor` after `patience` validations without a better score."""

    name: str = "plateau"
    factor: float = number(0, 1, default=0.5, open_ends="both")  # multiplies the learning rate
    patience: int = at_least(0, default=1)  # validations without progress before it does
    min_factor: float = number(0, 1, default=0.01)  # lower limit, relative to `lr`


@dataclass(kw_only=True)
class DecayConfig:
    """Linear warmup, then a decay; base of the three schedules below."""

    name: str = ""
    warmup: int = at_least(0, default=200)  # updates until the full rate
    # Fraction of the rate left at the end: `trainer.max_updates`, or `max_epochs` if sooner
    final_factor: float = number(0, 1, default=0.05)


@option("scheduler")
@dataclass(kw_only=True)
class LinearConfig(DecayConfig):
    """Linear decay."""

    name: str = "linear"


@option("scheduler")
@dataclass(kw_only=True)
class InverseSqrtConfig(DecayConfig):
    """Decay as 1/sqrt(update), never below `final_factor`."""

    name: str = "inverse_sqrt"


@option("scheduler")
@dataclass(kw_only=True)
class CosineConfig(DecayConfig):
    """Decay along half a cosine."""

    name: str = "cosine"


# The divisor of the summed loss before the backward pass
Normalize = StrEnum("Normalize", "none sentences words")
# Compute dtype of matmuls; softmax, energies and loss stay in float32
Precision = StrEnum("Precision", "fp32 bf16")
# Order of the batches cut from one sorted pool
BatchOrder = StrEnum("BatchOrder", "shortest_first shuffled")
# How to treat an update that runs out of memory
OnOutOfMemory = StrEnum("OnOutOfMemory", "stop split")
# The validation metric that selects the best checkpoint; the loss until it is above noise, such as
# a BLEU of 1. Of error rates, the lowest is the best.
SelectBy = StrEnum("SelectBy", "loss bleu chrf exact_match character_error_rate symbol_error_rate")


@dataclass(kw_only=True)
class TrainerConfig:
    """Batches, loss, clipping, validation, limits: B.2 and the authors' code."""

    # Sentences per update (80 in B.2); null if `batch_tokens` is set
    batch_sentences: int | None = at_least(1, default=80)
    # Padded tokens per update, on the longer side; null if `batch_sentences` is set
    batch_tokens: int | None = at_least(1, default=None)
    # Number of parts in which the gradient of an update is computed
    accumulate: int = at_least(1, default=1)
    # Batches that are drawn together, sorted by length and cut: 1,600 pairs into 20 (B.2)
    pool_batches: int = at_least(1, default=20)
    batch_order: BatchOrder = BatchOrder.shortest_first  # `shortest_first` is the authors' code
    reshuffle: bool = False  # shuffle in every epoch; otherwise once, before training (B.2)
    # `none`, the sum over all words of the batch, is the authors' code
    normalize: Normalize = Normalize.none
    # Maximal gradient norm over all parameters (1 in B.2)
    clip_norm: float = number(0, default=1.0, open_ends="low")
    # Weights to freeze, by prefixes of their names (`encoder`, `decoder.embedding`) or by patterns
    # (`*.E.weight`)
    freeze: list[str] = field(default_factory=list)
    # Factors of the learning rate, by such names: {encoder: 0.1}; matching factors are multiplied
    lr_factors: dict[str, float] | None = None
    label_smoothing: float = share(0.0)  # share of probability for other words
    precision: Precision = Precision.fp32
    # Precision of gradients as they are summed over processes; bf16 sends half the bytes
    reduce_precision: Precision = Precision.fp32
    # Stop, or compute the gradient in parts of the batch, halved until they fit. The gradient is
    # the same up to rounding, so such a run is not exact: metrics name every update that was split.
    on_out_of_memory: OnOutOfMemory = OnOutOfMemory.stop
    # Decay per update of the averaged weights that are validated and decoded; 0 is off
    ema_decay: float = share(0.0)
    # Instead, the equal mean of the weights since this fraction of the updates (stochastic weight
    # averaging, Izmailov et al. 2018, arXiv:1803.05407; 0.75 there); null is off
    swa_start: float | None = number(0, 1, default=None, open_ends="high")
    max_updates: int = at_least(1, default=288_000)  # 288,000 for RNNsearch-50 (Table 2)
    max_epochs: int | None = at_least(1, default=None)  # passes over the corpus; null sets no limit
    # Stop after n minutes of this process; the run can be resumed (exit code 75)
    max_minutes: float | None = number(0, default=None, open_ends="low")
    # Updates between validations; a checkpoint is written at each
    validate_every: int = at_least(1, default=10_000)
    checkpoint_every: int = at_least(1, default=1000)  # updates between further checkpoints
    # Number of newest checkpoints to keep, besides the best
    keep_checkpoints: int = at_least(2, default=2)
    select_by: SelectBy = SelectBy.loss
    # Stop after n validations without a better score (before the first BLEU of 1: a lower loss);
    # null never stops
    patience: int | None = at_least(1, default=None)
    # Decode only the first n validation sentences; the loss uses all
    validation_sentences: int | None = at_least(1, default=500)
    validation_beam: int = number(1, 1000, default=1)  # beam size in validation

    def check(self, _config: Any) -> None:
        """Check that exactly one setting determines the batch size, and the range of factors."""
        if (self.batch_sentences is None) == (self.batch_tokens is None):
            what = "exactly one of trainer.batch_sentences and trainer.batch_tokens must be given"
            raise ConfigError("config", what, "Set the other to null.")
        for pattern, factor in (self.lr_factors or {}).items():
            if not 0 < factor < math.inf:
                outside = f"trainer.lr_factors: {factor:g} for {pattern} is out of range"
                raise ConfigError("config", outside, "Use (0, inf), or trainer.freeze.")
