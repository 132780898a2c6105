"""Recurrent units; `seq2seq/model/gated_unit.py` and `lstm.py` have the equations."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import number, share
from seq2seq.run.errors import ConfigError

# Where the reset gate acts: on the state before U, or on the product after it
Reset = StrEnum("Reset", "before after")


@dataclass(kw_only=True)
class UnitConfig:
    """What gated units and LSTMs have in common."""

    name: str = ""  # of an option; the first line of its group in a run's config
    # Share of the state that recurrent matrices do not see: one mask for all steps of a sentence
    # (Gal & Ghahramani 2016)
    recurrent_dropout: float = share(0.0)
    # Cells behind each other in a time step, of which the first takes the input (Miceli Barone et
    # al. 2017)
    transitions: int = number(1, 100, default=1)
    # Of what input, state and context add, each by itself (Ba et al. 2016)
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
    forget_bias: float = number(-10, 10, default=1.0)  # that the bias of the forget gate starts at


@option("cell")
@dataclass(kw_only=True)
class MinGRUConfig:
    """A unit whose gate does not see the state, Feng et al. 2024: trained by a parallel scan."""

    name: str = "min_gru"

    def check(self, config: Any) -> None:
        """See that no decoder wants to add a context to the input of a cell."""
        decoder = config.decoder
        without = getattr(decoder, "attend", None), getattr(decoder, "input_feeding", True)
        if getattr(decoder, "has_cells", True) and without != ("top", False):
            what = f"cell=min_gru takes no context, and decoder={decoder.name} gives it one"
            fix = "Set decoder=stacked decoder.attend=top decoder.input_feeding=false."
            raise ConfigError("config", what, fix)
