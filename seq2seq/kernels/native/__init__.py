"""Recurrences, search and the loss of words in C, where a compiler is there: on a CPU, in float32.

A thread takes some rows from one end to the other, matmuls included, without waiting for another;
all else passes through memory once instead of ten times. The native library is compiled once for a
machine; without a compiler torch's operations run, a line says so, and results agree but for
rounding.
"""

import functools
import logging

from seq2seq.kernels.native.build import BuildError, Library, load

log = logging.getLogger(__name__)


@functools.cache
def library() -> Library | None:
    """Return the native library; None where it cannot be had. This is tried once."""
    try:
        return load()
    except BuildError as error:
        reason = str(error).partition("\n")[0]
        log.info("steps of recurrences run as torch's operations, not compiled: %s", reason)
        return None


def name() -> str:
    """Return what steps on a CPU run as; another name may differ in the last bits."""
    found = library()
    return "torch" if found is None else f"C {found.path.stem}"


def keep_freed_memory() -> None:
    """Let this process hold on to what it frees for its next request, where that helps."""
    found = library()
    if found is not None:
        found("keep_freed_memory")
