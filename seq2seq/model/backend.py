"""What runs the heavy parts of a model: chosen once, when it is built, and asked by its modules.

Weights live in the modules of this folder and do not know which backend ran them. Another backend
gives the same values and gradients; whatever it does not know it leaves to the reference.
"""

from collections.abc import Callable

from torch import Tensor, nn

from seq2seq.model import recurrence
from seq2seq.model.output import smoothed_loss
from seq2seq.model.protocols import Decoder, Encoder, Stepper


class Backend:
    """The readable loops on torch's own operations, `reference`; another one overrides them.

    What `read` and `unroll` return at padding means nothing.
    """

    linear: type[nn.Linear] = nn.Linear  # of which layers are made
    read = staticmethod(recurrence.read)
    unroll = staticmethod(recurrence.unroll)

    def obstacle(self, encoder: Encoder, decoder: Decoder) -> str | None:
        """Return why a part of a model runs on the reference; None if none does, or all."""
        return None

    def output_loss(
        self, W_o: nn.Module, t: Tensor, targets: Tensor, label_smoothing: float
    ) -> tuple[Tensor, Tensor]:
        """See `TranslationModel.output_loss`; here by all logits at once."""
        return smoothed_loss(W_o(t), targets, label_smoothing)

    def for_search(self, encoder: Encoder, decoder: Decoder) -> Stepper | None:
        """Return what searches faster than the model itself; None if nothing does."""
        return None


BACKENDS: dict[str, Callable[[], Backend]] = {"reference": Backend}
"""What makes a backend, by the name that `model.backend` gives it."""
