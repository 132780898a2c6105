"""Settings of training objectives."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from seq2seq.config.registry import option
from seq2seq.config.schema.inference import Utility
from seq2seq.config.schema.ranges import at_least, number, share
from seq2seq.run.errors import ConfigError


def check_attention(_self: Any, config: Any) -> None:
    """Check that the model has no loss of its own."""
    if config.attention.name == "hard":
        what = f"objective={config.objective.name} cannot train attention=hard, which has its own"
        raise ConfigError("config", what, "Use objective=likelihood.")


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

    check = check_attention


@option("objective")
@dataclass(kw_only=True)
class SimCutConfig:
    """SimCut: a pass without some of the words must agree with a full one (arXiv:2206.02368)."""

    name: str = "simcut"
    weight: float = at_least(0, default=3.0)  # weight of the divergence, their alpha
    # Fraction of words on both sides whose embeddings are zeroed in the second pass, their p_cut
    cutoff: float = share(0.05)

    check = check_attention


@option("objective")
@dataclass(kw_only=True)
class GuidedAlignmentConfig:
    """Likelihood, and attention that follows given word links (arXiv:1607.01628, 1909.02074)."""

    name: str = "guided_alignment"
    # Weight of the cross entropy, in nats, between the links of `data.links` and the attention
    weight: float = at_least(0, default=0.1)

    def check(self, config: Any) -> None:
        """Check that links can be matched with tokens, and that there is attention to guide."""
        data, attention = config.data, config.attention.name
        unfit = {
            f"attention={attention}": attention in ("hard", "fixed", "uniform"),
            "tokenizer.sampling": getattr(config.tokenizer, "sampling", 0.0) > 0,
            "data.corpora": bool(data.corpora),
            "data.placeholders": bool(data.placeholders),
            "data.target_order=right_to_left": data.target_order == "right_to_left",
        }
        for setting in (setting for setting, given in unfit.items() if given):
            what = f"objective=guided_alignment cannot be combined with {setting}"
            raise ConfigError("config", what, "Leave one of them out.")


# Where candidates come from: the beam, or samples of the model
Candidates = StrEnum("Candidates", "beam samples")


@option("objective")
@dataclass(kw_only=True)
class MinimumRiskConfig:
    """The expected risk, 1 - score, of some translations of a trained model (arXiv:1512.02433)."""

    name: str = "minimum_risk"
    # Sentence BLEU (smoothed) or chrF of a candidate against the reference
    score: Utility = Utility.bleu
    candidates: Candidates = Candidates.beam
    # The beam or the number of samples; candidates are then distinct, so there may be fewer
    count: int = number(2, 1000, default=16)
    reference: bool = False  # whether the reference is a candidate, too
    # Candidates are weighted by p^sharpness, their alpha: 1 is the model's own distribution
    sharpness: float = number(0, default=1.0, open_ends="low")
    # Share of the likelihood of the references; the risk has the rest (arXiv:1711.04956)
    weight: float = number(0, 1, default=0.3)

    check = check_attention
