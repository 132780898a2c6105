"""Settings of stacked decoders; `seq2seq/model/stacked_decoder.py` has the equations."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from seq2seq.config.registry import option
from seq2seq.config.schema.model import Readout
from seq2seq.config.schema.ranges import share, size
from seq2seq.run.errors import ConfigError

# The attention query: a state halfway through a step (Sennrich et al. 2017), the bottom layer (Wu
# et al. 2016), or the top layer (Luong et al. 2015)
Attend = StrEnum("Attend", "between bottom top")


@option("decoder")
@dataclass(kw_only=True)
class StackedDecoderConfig:
    """Layers that update their state before predicting: conditional GRU, GNMT, Luong et al."""

    name: str = "stacked"
    layers: int = size(1)  # recurrent layers
    attend: Attend = Attend.between
    # With `attend=top`: the readout of the previous word is an input, too (Luong et al. 3.3)
    input_feeding: bool = False
    residual: bool = False  # from the second layer on, add the input to the output
    dropout: float = share(0.0)  # between layers
    readout: Readout = Readout.tanh
    output_rank: int | None = size(None)  # as in `decoder=recurrent`
    readout_dropout: float = share(0.0)  # of the readout t_i

    def check(self, _config: Any) -> None:
        """Check that input feeding is used with attention of the top layer."""
        if self.input_feeding and self.attend is not Attend.top:
            what = f"decoder.input_feeding needs decoder.attend=top, and it is {self.attend.name}"
            raise ConfigError("config", what, "Change one of them.")
