"""Compiles the native library for this machine, once, and loads it."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from seq2seq.run import writing

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC"]
# Nothing here reads errno or counts on traps; with these, loops with square roots and rounding fit
# the processor's wide registers. What is not a number keeps its meaning.
FLAGS += ["-fno-math-errno", "-fno-trapping-math"]
# The threads are those of torch, whose library is there already: a second one would fight it.
LINK = ["-shared", "-nodefaultlibs", "-lm", "-lc"]
_SECONDS = 120
_PANEL = 64  # PANEL of matmul.h


class BuildError(Exception):
    """There is no compiler, or it says no."""


class Library:
    """The compiled functions; tensors stand for the memory they hold."""

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
        return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")

    def __call__(self, name: str, *given: Tensor | float | None) -> None:
        """Call a function; an int is an int64, a bool an int, None a null."""
        getattr(self._library, name)(*map(_argument, given))

    def packed(self, weight: Tensor, dtype: torch.dtype, *, transposed: bool = True) -> Tensor:
        """Return weights W (..., j, i) packed for matmuls x W' of a dtype, or else for x W."""
        parts = weight.flatten(0, -3) if weight.dim() > 2 else weight[None]
        D, j, i = parts.shape
        K, N = (i, j) if transposed else (j, i)
        pairs = dtype is torch.bfloat16
        size = -(-N // _PANEL) * _PANEL * (K + K % 2 if pairs else K)
        packed = weight.new_empty(D, size, dtype=dtype)
        for part, to in zip(parts, packed, strict=True):
            self("pack_weight", part.contiguous(), transposed, pairs, to, K, N)
        return packed


_KERNELS = (
    "_ZN2at6native7cpublas6brgemmEllllllbPKfS3_Pfb",
    "_ZN2at6native7cpublas6brgemmEllllllbPKN3c108BFloat16ES5_Pfb",
    "_ZN2at6native7cpublas14brgemm_releaseEb",
)
"""torch's names for oneDNN's matmuls by one thread: at::native::cpublas::brgemm."""


@functools.cache
def _kernels() -> tuple[ctypes.c_void_p, ...] | None:
    """Return where torch has `_KERNELS`; None if it does not, as it need not promise them."""
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
    """Load the library, compiled now if it has not been for this machine.

    Raises:
        BuildError: No compiler, it fails, or what it made cannot be stored or loaded.
    """
    try:
        return _load(shlex.split(os.environ.get("CC", "cc")))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # No directory anywhere, a CC that is no command line, a compiler that hangs.
        raise BuildError(str(error)) from error


def _load(compiler: list[str]) -> Library:
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"no C compiler ({compiler[0]})")
    path = _directory() / f"steps-{_key(compiler)}.so"
    if path.exists():
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            raise BuildError(f"{path.name} belongs to somebody else")
        return Library(path)
    with TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        files = [str(x) for x in SOURCES if x.suffix == ".c"]
        _run([*compiler, *FLAGS, *files, "-o", str(made), *LINK])
        try:
            _store(made, path)
        except OSError:  # no home, or a full one: then for this process alone
            return Library(made)
        return Library(path)


def _directory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "seq2seq"
    except RuntimeError as error:
        raise BuildError(str(error)) from error


def _store(made: Path, path: Path) -> None:
    if not path.parent.is_dir():
        writing.make_directory(path.parent)
    part = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
    try:
        writing.write_new(part, made.read_bytes())
        writing.rename(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            writing.delete(part)
        raise


def _key(compiler: list[str]) -> str:
    """Return a name for all that decides what is compiled, the processor included."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_bytes().splitlines() if cpuinfo.exists() else []
    known = [line for line in lines if line.startswith((b"flags", b"model", b"Features"))][:4]
    machine = [platform.machine(), platform.processor(), "" if known else platform.node()]
    parts = [*FLAGS, *LINK, *machine, *compiler]
    told = [*(x.read_bytes() for x in SOURCES), *known, _run([*compiler, "--version"])]
    return hashlib.sha256(b"\0".join([*told, *(part.encode() for part in parts)])).hexdigest()[:16]


def _run(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise BuildError(f"{command[0]} fails: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
