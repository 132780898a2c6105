"""Memory that runs out: told apart from other failures, and given back before anything is said."""

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_TEXTS = re.compile(
    r"DefaultCPUAllocator|can't allocate memory|ALLOC_FAILED|bad_alloc|out of memory"
)
"""torch's allocators say it with a plain RuntimeError, cuBLAS and cuDNN with a status."""

ADVICE = "Lower decode.batch_sentences, or use a machine with more memory."
"""For work that says nothing more exact."""


@dataclass(frozen=True)
class NoRoom:
    """What became of a step that memory did not suffice for."""

    what: str


def keep_freed() -> None:
    """Let this process keep the memory it frees: each update of a training asks for as much again.

    Given back, it comes as fresh pages, which costs a tenth of the time of an update.
    """
    try:
        from seq2seq.kernels import native
    except ImportError:  # nothing needs the kernels
        return
    native.keep_freed_memory()


def attempt(step: Callable[[], T]) -> T | NoRoom:
    """Take a step; if memory runs out, free all that it held and say so.

    The error is dropped here: its traceback holds every frame of the step, and with them the
    graph and its tensors, for as long as anyone holds the error or one that was raised from it.
    """
    try:
        return step()
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        what = " ".join(str(error).split())[:200]
    return NoRoom(what)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether this is how python, torch or the system say that memory is exhausted."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_TEXTS.search(str(error)))
