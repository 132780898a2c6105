"""Mixed precision: the compute dtype of matmuls."""

import contextlib

import torch

from seq2seq.config.schema import DecodePrecision, Precision


def autocast(
    device: torch.device, precision: Precision | DecodePrecision
) -> contextlib.AbstractContextManager[None]:
    """Run matmuls in bfloat16 if asked; softmax, energies and loss stay in float32.

    int8 leaves some matmuls in bfloat16, but only on processors that have it.
    """
    slow = precision == DecodePrecision.int8 and not torch.cpu._is_avx512_bf16_supported()
    if precision == Precision.fp32 or slow:
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
