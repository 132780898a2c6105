"""Faster implementations of the computations in `model/`: recurrences as single autograd functions.

Nothing requires this package: without it `model.backend: auto` runs the reference, and a test
builds and trains a model with its import blocked. Tests prove values and gradients equal.
"""

from seq2seq.kernels.backend import Fused
from seq2seq.model.backend import BACKENDS

BACKENDS["fused"] = Fused
