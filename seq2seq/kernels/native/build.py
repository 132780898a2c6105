"""Compiles the native library once per machine, or takes a wheel's, caches it, and loads it."""

import contextlib
import ctypes
import functools
import hashlib
import logging
import math
import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from seq2seq.kernels.native.compiler import (
    LEVELS,
    SECONDS,
    BuildError,
    checksum,
    checksum_file,
    compile_library,
    key,
    prebuilt,
)
from seq2seq.run import writing

log = logging.getLogger(__name__)

PANEL = 64  # PANEL of matmul.h


class Library:
    """The compiled functions; tensors are passed as pointers to their data."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self.kernels = _kernels()
        if self.kernels is not None:
            self._library.take_kernels(*self.kernels)

    def multiplies(self, dtype: torch.dtype) -> bool:
        """Return whether oneDNN has matmuls of this dtype for this processor."""
        limited = any(f"{name}_MAX_CPU_ISA" in os.environ for name in ("ONEDNN", "DNNL"))
        if self.kernels is None or limited or not torch.backends.mkldnn.enabled:
            return False
        if dtype is torch.bfloat16:
            return torch.cpu._is_avx512_bf16_supported()
        if dtype is torch.int8:
            return torch.cpu._is_vnni_supported()
        return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")

    def __call__(self, name: str, *given: Tensor | float | None) -> None:
        """Call a function; an int becomes an int64, a bool an int, None a null pointer."""
        getattr(self._library, name)(*map(_argument, given))

    def packed(self, weight: Tensor, dtype: torch.dtype, *, transposed: bool = True) -> Tensor:
        """Return weights W (..., j, i) packed for matmuls x W' in `dtype`, or else for x W."""
        parts = weight.flatten(0, -3) if weight.dim() > 2 else weight[None]
        D, j, i = parts.shape
        K, N = (i, j) if transposed else (j, i)
        pairs = dtype is torch.bfloat16
        size = -(-N // PANEL) * PANEL * (K + K % 2 if pairs else K)
        packed = weight.new_empty(D, size, dtype=dtype)
        for part, to in zip(parts, packed, strict=True):
            self("pack_weight", part.contiguous(), transposed, pairs, to, K, N)
        return packed


_KERNELS = (
    "_ZN2at6native7cpublas6brgemmEllllllbPKfS3_Pfb",
    "_ZN2at6native7cpublas6brgemmEllllllbPKN3c108BFloat16ES5_Pfb",
    "_ZN2at6native7cpublas6brgemmEllllllbPKhPKaPib",
    "_ZN2at6native7cpublas14brgemm_releaseEb",
)
"""torch's symbols for oneDNN's single-threaded matmuls, at::native::cpublas::brgemm."""


@functools.cache
def _kernels() -> tuple[ctypes.c_void_p, ...] | None:
    """Return the addresses of `_KERNELS` in torch; None if it lacks these private symbols."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return tuple(ctypes.cast(getattr(library, x), ctypes.c_void_p) for x in _KERNELS)
    except (OSError, AttributeError):
        return None


def _argument(x: Tensor | float | None) -> object:
    if isinstance(x, Tensor):
        return ctypes.c_void_p(x.data_ptr())
    if isinstance(x, bool):
        return ctypes.c_int(x)
    if isinstance(x, int):
        return ctypes.c_int64(x)
    return x if x is None else ctypes.c_float(x)


def load() -> Library:
    """Load the library: an installed wheel's, else one compiled for this machine.

    Both are kept in the cache, and made if it has none.

    A cached library is loaded only if it matches its checksum file, which is written only after a
    separate process has loaded and used the library. A damaged library is compiled again; one that
    crashes is not used.

    Raises:
        BuildError: There is no compiler, it fails, or its result cannot be stored or loaded.
    """
    try:
        if (given := _prebuilt()) is not None:
            content = hashlib.sha256(given.read_bytes()).hexdigest()[:16]
            return _load(content, partial(shutil.copyfile, given))
        compiler = shlex.split(os.environ.get("CC", "cc"))
        if not compiler or shutil.which(compiler[0]) is None:
            raise BuildError(f"no C compiler ({compiler[0] if compiler else 'CC is empty'})")
        return _load(key(compiler), partial(compile_library, compiler))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # No writable directory, an invalid command line in CC, or a compiler that hangs.
        raise BuildError(str(error)) from error


def _prebuilt() -> Path | None:
    """Return the library for this processor that the wheel has; None if there is no whole one."""
    level = LEVELS.get(torch.backends.cpu.get_cpu_capability())
    path = prebuilt(level) if level is not None else None
    if path is None or not path.exists():
        return None
    if checksum_file(path).read_bytes() == checksum(path.read_bytes()):
        return path
    log.warning("%s differs from its checksum and is not used: install the wheel again", path.name)
    return None


def _load(name: str, make: Callable[[Path], object]) -> Library:
    path = directory() / f"steps-{name}.so"
    if path.exists():
        if (problem := _problem(path)) is None:
            return Library(path)
        log.warning("the native library %s is made again: it %s", path, problem)
    with TemporaryDirectory() as scratch:
        made = Path(scratch) / path.name
        make(made)
        _try(made)
        try:
            _store(made.read_bytes(), path)
        except OSError:  # no home directory, or a full one: use it for this process only
            return Library(made)
        return Library(path)


def _problem(path: Path) -> str | None:
    """Return why a cached library must not be loaded; None if it may be.

    Raises:
        BuildError: another user owns the library or its directory.
    """
    for place in (path.parent, path):
        info = place.stat()
        if hasattr(os, "getuid") and info.st_uid != os.getuid():
            raise BuildError(f"{place.name} belongs to somebody else")
        if hasattr(os, "getuid") and info.st_mode & 0o022:
            return f"could be changed by others (mode {stat.S_IMODE(info.st_mode):o} of {place})"
    beside = checksum_file(path)
    if not beside.exists():
        return "has no checksum beside it"
    return (
        None if beside.read_bytes() == checksum(path.read_bytes()) else "differs from its checksum"
    )


def _try(made: Path) -> None:
    """Load and use a new library in a separate process, which may crash.

    Raises:
        BuildError: the process failed.
    """
    done = run_apart(f"from {__name__} import test; test({str(made)!r})")
    if done.returncode:
        what = f"ends a process that uses it ({done.returncode})"
        raise BuildError(f"the library made by the compiler {what}")


def run_apart(statement: str) -> subprocess.CompletedProcess[str]:
    """Run a statement of Python in a new process, which may crash.

    Raises:
        TimeoutError: The process hangs.
    """
    try:
        return subprocess.run(
            [sys.executable, "-c", statement],
            cwd=Path(__file__).resolve().parents[3],  # `-c` imports from the working directory
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"a process takes more than {SECONDS} seconds") from error


def test(path: str) -> None:
    """Use a library as training does: compute the loss of a sentence of one word."""
    library = Library(Path(path))
    logits, target = torch.zeros(1, 64), torch.zeros(1, dtype=torch.int64)
    loss, spread, d_b, work = torch.zeros(1), torch.zeros(1), torch.zeros(1, 64), torch.zeros(1, 64)
    sizes = (1, 1, 64)  # shares, rows, words
    outputs = (loss, spread, d_b, work)
    library("output_loss", logits, False, None, target, 0.0, True, *outputs, *sizes)
    assert abs(loss.item() - math.log(64)) < 1e-5


def directory() -> Path:
    """Return the directory of what is made once per machine.

    Raises:
        BuildError: there is no home directory.
    """
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "seq2seq"
    except RuntimeError as error:
        raise BuildError(str(error)) from error


def _store(library: bytes, path: Path) -> None:
    """Put a working library into the cache, its checksum last."""
    writing.delete(checksum_file(path))
    store(path, library)
    store(checksum_file(path), checksum(library))


def store(path: Path, data: bytes) -> None:
    """Put a file into the cache, complete or not at all."""
    if not path.parent.is_dir():
        writing.make_directory(path.parent)
    writing.restrict(path.parent)
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        writing.write_new(part, data, 0o600)
        writing.rename(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            writing.delete(part)
        raise
