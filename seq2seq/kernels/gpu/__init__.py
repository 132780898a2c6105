"""The steps of recurrences as Triton kernels, for CUDA devices.

torch for CUDA installs Triton, which needs a C compiler once, for its launch code. Without either,
torch operations run, and a line is logged.
"""

import functools
import logging

import torch
from torch import Tensor

from seq2seq.kernels.steps import Steps

log = logging.getLogger(__name__)


def steps_for(states: Tensor, dtype: torch.dtype) -> Steps | None:
    """Return the Triton steps for states on a CUDA device; None if they cannot run."""
    if states.dtype != torch.float32 or dtype not in (torch.float32, torch.bfloat16):
        return None
    if states.device.index != torch.cuda.current_device():  # Triton launches on the current one
        return None
    return steps_on(states.device)


@functools.cache
def steps_on(device: torch.device) -> Steps | None:
    """Return the Triton steps if a first launch succeeds; tried once per device."""
    try:
        from seq2seq.kernels.gpu.steps import TRITON, try_out

        try_out(device)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        log.info("steps of recurrences run as torch's operations, not Triton's: %s", reason)
        return None
    return TRITON
