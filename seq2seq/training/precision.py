"""Mixed precision: the compute dtype of matmuls."""

import contextlib

import torch

from seq2seq.config.schema import Precision


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """Run matmuls in bfloat16 if asked; softmax, energies and loss stay in float32."""
    if precision is Precision.fp32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
