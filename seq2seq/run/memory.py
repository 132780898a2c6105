"""Running out of memory: distinguished from other failures, and freed before it is reported."""

import errno
import re

_TEXTS = re.compile(
    r"DefaultCPUAllocator|can't allocate memory|ALLOC_FAILED|bad_alloc|out of memory"
)
"""torch's allocators say it with a plain RuntimeError, cuBLAS and cuDNN with a status."""

ADVICE = "Lower decode.batch_sentences, or use a machine with more memory."
"""For work that says nothing more exact."""


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees: each update of a training asks for as much again.

    Given back, it comes as fresh pages, which costs a tenth of the time of an update.
    """
    try:
        from seq2seq.kernels import native
    except ImportError:  # nothing needs the kernels
        return
    native.keep_freed_memory()


class OutOfMemory:
    """Catches memory running out: true after `with OutOfMemory() as oom:` if it did.

    The error is dropped with the block: its traceback holds every frame below, and with them the
    graph and its tensors, for as long as anyone holds the error or one that was raised from it.
    """

    message: str | None = None

    def __enter__(self) -> "OutOfMemory":
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if error is None or not is_out_of_memory(error):
            return False
        self.message = " ".join(str(error).split())[:200]
        return True

    def __bool__(self) -> bool:
        return self.message is not None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether this is how python, torch or the system say that memory is exhausted."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_TEXTS.search(str(error)))
