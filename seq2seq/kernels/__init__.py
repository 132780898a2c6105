"""The fast way to the numbers of `model/`: recurrences as single autograd functions.

Nothing needs this folder: without it `model.backend: auto` runs the reference, and a test builds
and trains with its import blocked. What it computes is proven equal, values and gradients.
"""

from seq2seq.kernels.decoding import FusedDecoder
from seq2seq.kernels.output import nll_fused
from seq2seq.kernels.precision import layer_forward
from seq2seq.kernels.scan import read_fused
from seq2seq.kernels.unroll import unroll_fused
from seq2seq.model.attention import AdditiveAttention, Attention, FixedContext

__all__ = ["FusedDecoder", "layer_forward", "nll_fused", "obstacle", "read_fused", "unroll_fused"]


def obstacle(attention: Attention) -> str | None:
    """Return why a model with this attention cannot be fused; None if it can."""
    if type(attention) not in (AdditiveAttention, FixedContext):  # subclasses change the rules
        return f"{type(attention).__name__} has no fused kernel"
    return None
