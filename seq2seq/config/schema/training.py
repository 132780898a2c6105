"""Optimizer, schedule and the training loop: Appendix B and what came later."""

from dataclasses import dataclass
from enum import Enum

from seq2seq.config.schema.ranges import at_least, number, share


class OptimizerKind(Enum):
    """Which rule moves the weights."""

    adadelta = "adadelta"
    adam = "adam"


@dataclass(kw_only=True)
class AdadeltaConfig:
    """Zeiler's rule, the paper's B.2."""

    name: OptimizerKind
    lr: float = number(0, open_ends="low")
    rho: float = number(0, 1, open_ends="both")
    eps: float = number(0, open_ends="low")
    weight_decay: float = at_least(0)


@dataclass(kw_only=True)
class AdamConfig:
    """Adam with decoupled weight decay."""

    name: OptimizerKind
    lr: float = number(0, open_ends="low")
    beta1: float = share()
    beta2: float = share()
    eps: float = number(0, open_ends="low")
    weight_decay: float = at_least(0)


class SchedulerKind(Enum):
    """How the learning rate changes."""

    constant = "constant"
    plateau = "plateau"
    linear = "linear"
    inverse_sqrt = "inverse_sqrt"
    cosine = "cosine"


@dataclass(kw_only=True)
class ConstantConfig:
    """The optimizer's rate, unchanged."""

    name: SchedulerKind


@dataclass(kw_only=True)
class PlateauConfig:
    """Multiply the rate by `factor` after `patience` validations without a better score."""

    name: SchedulerKind
    factor: float = number(0, 1, open_ends="both")
    patience: int = at_least(0)
    min_factor: float = number(0, 1)
    """Never below this share of the optimizer's rate."""


@dataclass(kw_only=True)
class DecayConfig:
    """Warm up linearly, then fall: to `final_factor` at the last update, or as 1/sqrt(update)."""

    name: SchedulerKind
    warmup: int = at_least(0)
    """Updates until the full rate."""
    final_factor: float = number(0, 1)
    """Share of the rate that is left at `trainer.max_updates`."""


class Normalize(Enum):
    """What the summed cost is divided by before the backward pass."""

    none = "none"
    sentences = "sentences"
    words = "words"


class Precision(Enum):
    """Number format of matrix products; softmax, energies and loss stay in float32."""

    fp32 = "fp32"
    bf16 = "bf16"


class BatchOrder(Enum):
    """Order of the batches cut from one sorted pool."""

    shortest_first = "shortest_first"
    shuffled = "shuffled"


class OnOutOfMemory(Enum):
    """What becomes of an update for which memory does not suffice."""

    stop = "stop"
    split = "split"


class SelectBy(Enum):
    """The validation figure that decides which checkpoint is best."""

    loss = "loss"
    bleu = "bleu"


@dataclass(kw_only=True)
class TrainerConfig:
    """Batches, cost, clipping, validation, limits."""

    batch_sentences: int | None = at_least(1)
    """Sentences a batch; null when `batch_tokens` counts instead."""
    batch_tokens: int | None = at_least(1)
    """Padded tokens a batch, the longer side; null when `batch_sentences` counts instead."""
    pool_batches: int = at_least(1)
    """So many batches are drawn together, sorted by length and cut."""
    batch_order: BatchOrder
    reshuffle: bool
    """Shuffle anew in each epoch; otherwise once."""
    normalize: Normalize
    clip_norm: float = number(0, open_ends="low")
    """Greatest gradient norm over all parameters."""
    label_smoothing: float = share()
    precision: Precision
    on_out_of_memory: OnOutOfMemory
    """Stop, or compute the gradient in parts of the batch, halved until they fit.

    It is the same gradient up to rounding and random draws, so such a run is not exact: metrics
    name every update that was split."""
    ema_decay: float = share()
    """Decay per update of the averaged weights that are validated and decoded; 0 is off."""
    max_updates: int = at_least(1)
    max_epochs: int | None = at_least(1)
    max_minutes: float | None = number(0, open_ends="low")
    """Stop after so many minutes of this process; the run can be resumed (exit code 75)."""
    validate_every: int = at_least(1)
    """Updates between validations; a checkpoint is written at each."""
    checkpoint_every: int = at_least(1)
    """Updates between further checkpoints."""
    keep_checkpoints: int = at_least(2)
    """Newest checkpoints that are kept, besides the best."""
    select_by: SelectBy
    patience: int | None = at_least(1)
    """Stop after so many validations without a better score; null never stops."""
    validation_sentences: int | None = at_least(1)
    """Decode only the first so many validation sentences; the loss uses all."""
    validation_beam: int = number(1, 1000)
    """Beam of the decoding in validation."""
