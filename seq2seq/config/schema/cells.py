"""Recurrent units; `seq2seq/model/gated_unit.py` and `lstm.py` have the equations."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import number, share

# Where the reset gate acts: on the state before U, or on the product after it
Reset = StrEnum("Reset", "before after")


@dataclass(kw_only=True)
class UnitConfig:
    """What gated units and LSTMs have in common."""

    # Share of the state that recurrent matrices do not see: one mask for all steps of a sentence
    # (Gal & Ghahramani 2016)
    recurrent_dropout: float = share(0.0)
    layer_norm: bool = (
        False  # of what input, state and context add, each by itself (Ba et al. 2016)
    )


@option("cell")
@dataclass(kw_only=True)
class GatedConfig(UnitConfig):
    """The gated unit of A.1.1."""

    claims: ClassVar = ("A.1.1",)
    name: str = "gated"
    reset: Reset = Reset.before  # `before` is A.1.1; `after` is torch's GRU


@option("cell")
@dataclass(kw_only=True)
class LSTMConfig(UnitConfig):
    """Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000."""

    name: str = "lstm"
    forget_bias: float = number(-10, 10, default=1.0)  # that the bias of the forget gate starts at
