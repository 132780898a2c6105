"""Settings of the kinds of attention; `seq2seq/model/attention.py` has the formulas."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import at_least, number, size
from seq2seq.run.errors import ConfigError


@option("attention")
@dataclass(kw_only=True)
class AdditiveConfig:
    """The paper's alignment model, A.1.2."""

    claims: ClassVar = ("A.1.2",)
    name: str = "additive"


@option("attention")
@dataclass(kw_only=True)
class CoverageConfig:
    """`additive` with a record of how far each source word is translated, Tu et al. 2016, 3.1.1."""

    name: str = "coverage"
    # N: maximal number of target words per source word; 2 is theirs
    max_fertility: float = number(0, 1000, default=2.0, open_ends="low")


@option("attention")
@dataclass(kw_only=True)
class DotConfig:
    """Luong et al. 2015, 3.1."""

    name: str = "dot"


@option("attention")
@dataclass(kw_only=True)
class ScaledDotConfig:
    """Vaswani et al. 2017, 3.2.1."""

    name: str = "scaled_dot"


@option("attention")
@dataclass(kw_only=True)
class GeneralConfig:
    """Luong et al. 2015, 3.1."""

    name: str = "general"


@option("attention")
@dataclass(kw_only=True)
class MultiHeadConfig:
    """Several scaled dot products in parallel, Vaswani et al. 2017, 3.2.2."""

    name: str = "multi_head"
    heads: int = size(4)  # divides `model.align_size` and the width of annotations

    def check(self, config: Any) -> None:
        """Check that the heads divide `align_size`; the builder checks the annotations."""
        if config.model.align_size % self.heads:
            align = f"model.align_size={config.model.align_size}"
            what = f"attention.heads={self.heads} does not divide {align}"
            raise ConfigError("config", what, "Choose a divisor of both.")


# What hard attention uses at test time; `expectation` averages, like `additive`
HardInference = StrEnum("HardInference", "most_likely expectation")


@option("attention")
@dataclass(kw_only=True)
class HardConfig:
    """Draws one position, and learns by REINFORCE, Xu et al. 2015, 4.1."""

    name: str = "hard"
    inference: HardInference = HardInference.most_likely
    # Fraction of attention steps that use the expectation in training, to reduce variance: "with
    # probability 0.5" (4.1)
    soft_share: float = number(0.0, 1.0, default=0.5)
    # Weight of the draws' gradient; 1, undiscounted, gives the gradient of the expected loss
    reinforce_weight: float = at_least(0, default=1.0)
    # Weight of later words in the reward of an attention step: 1 in full, 0 not at all. If all of
    # them count, noise hides the value of a step.
    discount: float = number(0.0, 1.0, default=0.0)
    # Reward per nat of entropy of the weights, against early convergence
    entropy_weight: float = at_least(0, default=0.002)


@option("attention")
@dataclass(kw_only=True)
class LocalConfig:
    """A window around a predicted position, local-p of Luong et al. 2015, 3.2."""

    name: str = "local"
    window: int = size(10)  # D: words on either side (3.2)


def check_nothing_follows(_self: Any, config: Any) -> None:
    """Check that nothing needs attention weights: they prefer no word."""
    if config.decode.replace_unknown:
        what = f"decode.replace_unknown cannot follow attention={config.attention.name}"
        raise ConfigError("config", what, "Set it to false.")


@option("attention")
@dataclass(kw_only=True)
class FixedConfig:
    """The paper's RNNencdec: no attention, no backward unit."""

    claims: ClassVar = ("RNNencdec",)
    forward_only: ClassVar = True  # the encoder has no backward direction
    name: str = "fixed"

    check = check_nothing_follows


@option("attention")
@dataclass(kw_only=True)
class UniformConfig:
    """Equal weights, to measure what attention is worth, as in Wiegreffe & Pinter 2019, 3.2."""

    name: str = "uniform"

    check = check_nothing_follows
