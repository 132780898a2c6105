"""Steps of the recurrences in C, where a compiler is there: on a CPU, in float32.

What `steps.c` fuses passes through memory once instead of ten times. It is compiled once for a
machine; without a compiler torch's operations run, a line says so, and results agree but for
rounding.
"""

import functools
import logging

import torch
from torch import Tensor

from seq2seq.kernels.native.build import BuildError, Programs, load
from seq2seq.kernels.native.cost import NativeCost
from seq2seq.kernels.native.search import NativeBestWords, NativeLooks, logits_of
from seq2seq.kernels.native.steps import NativeSteps, Seen
from seq2seq.kernels.steps import Steps

__all__ = [
    "NativeBestWords",
    "NativeCost",
    "NativeLooks",
    "NativeSteps",
    "Seen",
    "cost_for",
    "keep_freed_memory",
    "logits_of",
    "name",
    "programs",
    "programs_for",
    "steps_for",
]

log = logging.getLogger(__name__)

_FORMATS = (torch.float32, torch.bfloat16)


@functools.cache
def programs() -> Programs | None:
    """Return the compiled `steps.c`; None where it cannot be had. This is tried once."""
    try:
        return load()
    except BuildError as error:
        reason = str(error).partition("\n")[0]
        log.info("steps of recurrences run as torch's operations, not compiled: %s", reason)
        return None


def name() -> str:
    """Return what steps on a CPU run as; another name may differ in the last bits."""
    found = programs()
    return "torch" if found is None else f"C {found.path.stem}"


def keep_freed_memory() -> None:
    """Let this process keep what it frees for its next request, where that is known to help."""
    found = programs()
    if found is not None:
        found("keep_freed_memory")


def programs_for(states: Tensor, narrow: torch.dtype) -> Programs | None:
    """Return the programs if they can work on these states with products in this format."""
    fits = states.device.type == "cpu" and states.dtype == torch.float32 and narrow in _FORMATS
    return programs() if fits else None


def steps_for(states: Tensor, narrow: torch.dtype) -> Steps | None:
    """Return steps in C for float32 states on a CPU; None where they cannot run."""
    found = programs_for(states, narrow)
    return None if found is None else NativeSteps(found)


def cost_for(weight: Tensor, narrow: torch.dtype) -> NativeCost | None:
    """Return the cost in C of an output layer with a float32 weight; None where it cannot run."""
    found = programs_for(weight, narrow)
    return None if found is None else NativeCost(found)
