"""Recurrences, search and the output loss in C, for float32 on a CPU; needs a C compiler.

Each thread processes its rows from start to end, matmuls included, without waiting for others, and
elementwise work passes through memory once instead of ten times. The native library is compiled
once per machine. Without a compiler torch operations run, and a line is logged; results agree up
to rounding.
"""

import functools
import logging

from seq2seq.kernels.native.build import Library, load
from seq2seq.kernels.native.compiler import BuildError

log = logging.getLogger(__name__)


@functools.cache
def library() -> Library | None:
    """Return the native library; None if it is not available. Tried once per process."""
    try:
        return load()
    except BuildError as error:
        reason = str(error).partition("\n")[0]
        log.info("steps of recurrences run as torch's operations, not compiled: %s", reason)
        return None


def name() -> str:
    """Return the name of the implementation on a CPU; others may differ in the last bits."""
    found = library()
    return "torch" if found is None else f"C {found.path.stem}"


def keep_freed_memory() -> None:
    """Let this process keep freed memory for later allocations; needs the native library."""
    found = library()
    if found is not None:
        found("keep_freed_memory")
