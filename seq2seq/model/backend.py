"""The interface to the code that runs a model's recurrences, output loss and search.

The backend is chosen once, when the model is built. Weights live in the modules of this directory
and do not depend on it. Every backend gives the values and gradients of the reference, and falls
back to the reference for whatever it does not implement.
"""

from collections.abc import Callable

from torch import Tensor, nn

from seq2seq.model import recurrence
from seq2seq.model.output import smoothed_loss
from seq2seq.model.protocols import Decoder, Encoder, Stepper


class Backend:
    """The `reference` backend: readable loops of torch operations, which other backends override.

    The values that `read` and `unroll` return at padding are undefined.
    """

    linear: type[nn.Linear] = nn.Linear  # the class of all linear layers
    read = staticmethod(recurrence.read)
    unroll = staticmethod(recurrence.unroll)

    def obstacle(self, encoder: Encoder, decoder: Decoder) -> str | None:
        """Return why part of a model falls back to the reference; None if nothing falls back."""
        return None

    def output_loss(
        self, W_o: nn.Module, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """See `TranslationModel.output_loss`; here all logits are computed at once."""
        return smoothed_loss(W_o(t), targets, label_smoothing)

    def for_search(
        self, encoder: Encoder, decoder: Decoder, *, int8: bool = False
    ) -> Stepper | None:
        """Return a stepper that searches faster than the model itself; None if there is none.

        With `int8`, its matmuls run in 8 bits.
        """
        return None

    def packed(self, model: Stepper) -> Stepper:
        """Return a faster stepper for a model that `for_search` has none for, or the model."""
        return model


BACKENDS: dict[str, Callable[[], Backend]] = {"reference": Backend}
"""Constructors of the backends, by their name in `model.backend`."""
