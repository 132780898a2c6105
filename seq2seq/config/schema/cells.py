"""Recurrent units; `seq2seq/model/gated_unit.py` and `lstm.py` have the equations."""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import number

# Where the reset gate acts: on the state before U, or on the product after it
Reset = StrEnum("Reset", "before after")


@option("cell")
@dataclass(kw_only=True)
class GatedConfig:
    """The gated unit of A.1.1."""

    claims: ClassVar = ("A.1.1",)
    name: str = "gated"
    reset: Reset = Reset.before  # `before` is A.1.1; `after` is torch's GRU


@option("cell")
@dataclass(kw_only=True)
class LSTMConfig:
    """Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000."""

    name: str = "lstm"
    forget_bias: float = number(-10, 10, default=1.0)  # that the bias of the forget gate starts at
