"""Detects running out of memory, and frees the memory before it is reported."""

import errno
import re

_TEXTS = re.compile(
    r"DefaultCPUAllocator|can't allocate memory|ALLOC_FAILED|bad_alloc|out of memory"
)
"""Texts of RuntimeErrors from torch's allocators, and status names of cuBLAS and cuDNN."""

ADVICE = "Lower decode.batch_sentences, or use a machine with more memory."
"""The fix to suggest where nothing more specific is known."""


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, since every update needs the same amount again.

    Returning it to the system means fresh pages, which cost a tenth of the time of an update.
    """
    try:
        from seq2seq.kernels import native
    except ImportError:  # the kernels are optional
        return
    native.keep_freed_memory()


class OutOfMemory:
    """Catches out-of-memory errors: true after `with OutOfMemory() as oom:` if there was one.

    The error is dropped at the end of the block: its traceback would keep every frame below, and so
    the graph and its tensors, alive as long as the error or one raised from it.
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
    """Return whether an error of Python, torch or the system means that memory is exhausted."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_TEXTS.search(str(error)))
