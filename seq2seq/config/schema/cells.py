"""Settings of recurrent units; `seq2seq/model/gated_unit.py` and `lstm.py` have the equations."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import number, share
from seq2seq.run.errors import ConfigError

# Where the reset gate applies: to the state before U, or to the product after it
Reset = StrEnum("Reset", "before after")


@dataclass(kw_only=True)
class UnitConfig:
    """Settings shared by gated units and LSTMs."""

    name: str = ""  # set by each option; here so that it is first in a run's config
    # Dropout on the state that recurrent matrices see: one mask for all steps of a sentence
    # (Gal & Ghahramani 2016)
    recurrent_dropout: float = share(0.0)
    # Cells chained within a time step; the first takes the input (Miceli Barone et al. 2017)
    transitions: int = number(1, 100, default=1)
    # Applied separately to the terms of input, state and context (Ba et al. 2016)
    layer_norm: bool = False


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
    forget_bias: float = number(-10, 10, default=1.0)  # initial bias of the forget gate


@option("cell")
@dataclass(kw_only=True)
class MinGRUConfig:
    """A unit whose gate does not see the state (Feng et al. 2024); trained by a parallel scan."""

    name: str = "min_gru"

    def check(self, config: Any) -> None:
        """Check that the decoder does not feed a context to the cell."""
        decoder = config.decoder
        without = getattr(decoder, "attend", None), getattr(decoder, "input_feeding", True)
        if getattr(decoder, "has_cells", True) and without != ("top", False):
            what = f"cell=min_gru takes no context, and decoder={decoder.name} gives it one"
            fix = "Set decoder=stacked decoder.attend=top decoder.input_feeding=false."
            raise ConfigError("config", what, fix)
