"""What runs the heavy parts of a model: chosen once, when it is built, and asked by its modules.

Weights live in the modules of this folder and do not know which backend ran them. Another backend
gives the same values and gradients; whatever it does not know it leaves to the reference.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor, nn

from seq2seq.model import recurrence
from seq2seq.model.output import smoothed_loss
from seq2seq.model.protocols import Attention, Cell, Decoder, Encoder, Source, Stepper
from seq2seq.model.recurrence import Unrolled


class Backend(Protocol):
    """What modules ask for."""

    linear: type[nn.Linear]  # of which layers are made

    def obstacle(self, encoder: Encoder, decoder: Decoder) -> str | None:
        """Return why a part of a model runs on the reference; None if none does."""

    def read(self, units: Sequence[Cell], x: Tensor, mask: Tensor) -> list[Tensor]:
        """See `recurrence.read`; what stands at padding means nothing."""

    def unroll(
        self,
        unit: Cell,
        attention: Attention,
        words: Tensor,
        s_0: Tensor,
        source: Source,
        mask: Tensor,
    ) -> Unrolled:
        """See `recurrence.unroll`; what stands at padding means nothing."""

    def output_loss(
        self, W_o: nn.Module, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """See `TranslationModel.output_loss`."""

    def for_search(self, encoder: Encoder, decoder: Decoder) -> Stepper | None:
        """Return what searches faster than the model itself; None if nothing does."""


class Reference:
    """The readable loops, on torch's own operations."""

    linear = nn.Linear

    def obstacle(self, encoder: Encoder, decoder: Decoder) -> str | None:
        """Return None: it is the reference."""
        return None

    def read(self, units: Sequence[Cell], x: Tensor, mask: Tensor) -> list[Tensor]:
        """See `recurrence.read`."""
        return recurrence.read(units, x, mask)

    def unroll(
        self,
        unit: Cell,
        attention: Attention,
        words: Tensor,
        s_0: Tensor,
        source: Source,
        mask: Tensor,
    ) -> Unrolled:
        """See `recurrence.unroll`."""
        return recurrence.unroll(unit, attention, words, s_0, source, mask)

    def output_loss(
        self, W_o: nn.Module, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of all logits at once."""
        return smoothed_loss(W_o(t), targets, label_smoothing)

    def for_search(self, encoder: Encoder, decoder: Decoder) -> Stepper | None:
        """Return None: the model searches."""
        return None


BACKENDS: dict[str, Callable[[], Backend]] = {"reference": Reference}
"""What makes a backend, by the name that `model.backend` gives it."""
