"""What an update makes smaller."""

from dataclasses import dataclass
from typing import Any

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import at_least, share
from seq2seq.run.errors import ConfigError


@option("objective")
@dataclass(kw_only=True)
class LikelihoodConfig:
    """The nats of the references, (2.1); with `trainer.label_smoothing`, of smoothed ones."""

    name: str = "likelihood"


@option("objective")
@dataclass(kw_only=True)
class RDropConfig:
    """R-Drop: two passes that drop different numbers have to agree (arXiv:2106.14448)."""

    name: str = "rdrop"
    # Of the divergence between the passes, their alpha: 5 for their translations
    weight: float = at_least(0, default=5.0)

    def check(self, config: Any) -> None:
        """See that the model has no loss of its own."""
        _check_attention(config)


@option("objective")
@dataclass(kw_only=True)
class SimCutConfig:
    """SimCut: a pass without some of the words has to agree with one (arXiv:2206.02368)."""

    name: str = "simcut"
    weight: float = at_least(0, default=3.0)  # of the divergence, their alpha
    # Share of the words of both sides whose vectors are zero in the second pass, their p_cut
    cutoff: float = share(0.05)

    def check(self, config: Any) -> None:
        """See that the model has no loss of its own."""
        _check_attention(config)


def _check_attention(config: Any) -> None:
    if config.attention.name == "hard":
        what = f"objective={config.objective.name} cannot train attention=hard, which has its own"
        raise ConfigError("config", what, "Use objective=likelihood.")
