"""The fast way to the numbers of `model/`: recurrences as single autograd functions.

Nothing needs this directory: without it `model.backend: auto` runs the reference, and a test builds
and trains with its import blocked. What it computes is proven equal, values and gradients.
"""

from seq2seq.kernels.backend import Fused
from seq2seq.model.backend import BACKENDS

BACKENDS["fused"] = Fused
