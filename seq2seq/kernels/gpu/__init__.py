"""Steps of the recurrences as Triton kernels, where a CUDA device and Triton are there.

torch for CUDA brings Triton along. It needs a C compiler once, for the code that launches; without
one, as without Triton, torch's operations run, and a line says so.
"""

import functools
import logging

import torch
from torch import Tensor

from seq2seq.kernels.steps import Steps

log = logging.getLogger(__name__)


def steps_for(states: Tensor, dtype: torch.dtype) -> Steps | None:
    """Return steps on Triton for states on a CUDA device; None where they cannot run."""
    if states.dtype != torch.float32 or dtype not in (torch.float32, torch.bfloat16):
        return None
    if states.device.index != torch.cuda.current_device():  # Triton launches on the current one
        return None
    return steps_on(states.device)


@functools.cache
def steps_on(device: torch.device) -> Steps | None:
    """Return steps on Triton if its first launch succeeds; this is tried once."""
    try:
        from seq2seq.kernels.gpu.steps import TRITON, try_out

        try_out(device)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        log.info("steps of recurrences run as torch's operations, not Triton's: %s", reason)
        return None
    return TRITON
