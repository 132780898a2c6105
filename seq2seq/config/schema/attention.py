"""The attention family; `seq2seq/model/attention.py` has the formulas."""

from dataclasses import dataclass
from enum import Enum

from seq2seq.config.schema.ranges import at_least, number, size


class AttentionKind(Enum):
    """How the decoder looks at the source; `seq2seq/model/attention.py` has the formulas."""

    additive = "additive"
    dot = "dot"
    scaled_dot = "scaled_dot"
    general = "general"
    multi_head = "multi_head"
    hard = "hard"
    local = "local"
    fixed = "fixed"


@dataclass(kw_only=True)
class AttentionConfig:
    """A kind without options: additive (the paper's), dot, scaled_dot, general, fixed."""

    name: AttentionKind


@dataclass(kw_only=True)
class MultiHeadConfig:
    """Several scaled dot products side by side, Vaswani et al. 2017."""

    name: AttentionKind
    heads: int = size()
    """Divides `model.align_size` and twice `model.hidden_size`."""


class HardInference(Enum):
    """What hard attention takes at test time."""

    most_likely = "most_likely"
    expectation = "expectation"


@dataclass(kw_only=True)
class HardConfig:
    """One position is drawn and learnt by REINFORCE, Xu et al. 2015, 4.1."""

    name: AttentionKind
    inference: HardInference
    soft_share: float = number(0.0, 1.0)
    """Share of the looks that take the expectation in training, against variance."""
    reinforce_weight: float = at_least(0)
    """Weight of the draws' gradient; 1, undiscounted, makes it that of the expected cost."""
    discount: float = number(0.0, 1.0)
    """What a word counts in the reward of the look before: 1 in full, 0 not at all."""
    entropy_weight: float = at_least(0)
    """Reward per nat of entropy of the weights, so that they do not settle too early."""


@dataclass(kw_only=True)
class LocalConfig:
    """A window around a predicted position, local-p of Luong et al. 2015."""

    name: AttentionKind
    window: int = size()
    """D: words on either side."""


AnyAttentionConfig = AttentionConfig | MultiHeadConfig | HardConfig | LocalConfig
