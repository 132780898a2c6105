"""Settings of training objectives."""

from dataclasses import dataclass
from typing import Any

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import at_least, share
from seq2seq.run.errors import ConfigError


@option("objective")
@dataclass(kw_only=True)
class LikelihoodConfig:
    """Negative log-likelihood of the references (2.1), smoothed by `trainer.label_smoothing`."""

    name: str = "likelihood"


@option("objective")
@dataclass(kw_only=True)
class RDropConfig:
    """R-Drop: two passes with different dropout must agree (arXiv:2106.14448)."""

    name: str = "rdrop"
    # Weight of the divergence between the passes, their alpha: 5 for their translation models
    weight: float = at_least(0, default=5.0)

    def check(self, config: Any) -> None:
        """Check that the model has no loss of its own."""
        _check_attention(config)


@option("objective")
@dataclass(kw_only=True)
class SimCutConfig:
    """SimCut: a pass without some of the words must agree with a full one (arXiv:2206.02368)."""

    name: str = "simcut"
    weight: float = at_least(0, default=3.0)  # weight of the divergence, their alpha
    # Fraction of words on both sides whose embeddings are zeroed in the second pass, their p_cut
    cutoff: float = share(0.05)

    def check(self, config: Any) -> None:
        """Check that the model has no loss of its own."""
        _check_attention(config)


def _check_attention(config: Any) -> None:
    if config.attention.name == "hard":
        what = f"objective={config.objective.name} cannot train attention=hard, which has its own"
        raise ConfigError("config", what, "Use objective=likelihood.")
