"""The steps of recurrences as Triton kernels, for CUDA devices.

torch for CUDA installs Triton, which needs a C compiler once, for its launch code. At the first use
on a device, `verdict` compares all kernels with torch operations. If one of them fails or differs,
or Triton or the compiler is missing, torch operations run, and a line is logged.
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
    """Return the Triton steps if all kernels equal torch operations; asked once per device."""
    try:
        from seq2seq.kernels.gpu.steps import TRITON
        from seq2seq.kernels.gpu.verdict import CheckError, problem
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        log.info("steps of recurrences run as torch's operations, not Triton's: %s", reason)
        return None
    try:
        found = problem(device)
    except CheckError as error:
        found = f"the check could not run: {error}"
    if found is not None:
        log.warning("torch operations run on %s instead of the Triton kernels: %s", device, found)
    return TRITON if found is None else None
