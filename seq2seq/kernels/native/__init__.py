"""Recurrences, search and the cost of words in C, where a compiler is there: on a CPU, in float32.

A thread takes some rows from one end to the other, products included, without waiting for another;
what is no product passes through memory once instead of ten times. The programs are compiled once
for a machine; without a compiler torch's operations run, a line says so, and results agree but for
rounding.
"""

import functools
import logging

import torch
from torch import Tensor, nn

from seq2seq.kernels.native.build import BuildError, Programs, load
from seq2seq.kernels.native.cost import NativeCost
from seq2seq.kernels.native.loops import NativeLoops, Seen
from seq2seq.kernels.native.search import NativeSearch

__all__ = [
    "NativeCost",
    "NativeLoops",
    "NativeSearch",
    "Seen",
    "cost_for",
    "keep_freed_memory",
    "loops_for",
    "name",
    "programs",
    "search_for",
]

log = logging.getLogger(__name__)

_FORMATS = (torch.float32, torch.bfloat16)


@functools.cache
def programs() -> Programs | None:
    """Return the compiled programs; None where it cannot be had. This is tried once."""
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


def loops_for(states: Tensor, narrow: torch.dtype, *, reset_before: bool) -> NativeLoops | None:
    """Return loops in C for float32 states on a CPU; None where they cannot run."""
    found = _programs_for(states, narrow)
    return None if found is None else NativeLoops(found, narrow, reset_before)


def search_for(
    narrow: torch.dtype,
    weights: tuple[Tensor, Tensor],
    last: nn.Linear,
    *,
    reset_before: bool,
    maxout: bool,
) -> NativeSearch | None:
    """Return `NativeSearch.of` float32 weights on a CPU; None where it cannot run."""
    found = _programs_for(last.weight, narrow)
    if found is None:
        return None
    return NativeSearch.of(found, narrow, weights, last, reset_before=reset_before, maxout=maxout)


def cost_for(weight: Tensor, narrow: torch.dtype) -> NativeCost | None:
    """Return the cost in C of an output layer with a float32 weight; None where it cannot run."""
    found = _programs_for(weight, narrow)
    return None if found is None else NativeCost(found)


def _programs_for(states: Tensor, narrow: torch.dtype) -> Programs | None:
    fits = states.device.type == "cpu" and states.dtype == torch.float32 and narrow in _FORMATS
    found = programs() if fits else None
    return found if found is not None and found.multiplies(narrow) else None
