"""Compiles the programs in C for this machine, once, and loads them."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from seq2seq import fsops

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC"]
# No program reads errno or counts on traps; with these, loops with square roots and rounding fit
# the processor's wide registers. What is not a number keeps its meaning.
FLAGS += ["-fno-math-errno", "-fno-trapping-math"]
# The threads are those of torch, whose library is there already: a second one would fight it.
LINK = ["-shared", "-nodefaultlibs", "-lm", "-lc"]
_SECONDS = 120
_NO_OPENMP = re.compile(r"-fopenmp|omp\.h|-lg?omp\b")
"""In what Apple's clang says, or a compiler without its OpenMP package."""


class BuildError(Exception):
    """There is no compiler, or it says no."""


class Programs:
    """The compiled functions; tensors stand for the memory they hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self.kernels = _kernels()
        if self.kernels is not None:
            self._library.take_kernels(*self.kernels)

    def multiplies(self, narrow: torch.dtype) -> bool:
        """Return whether oneDNN has products of this format for this processor."""
        limited = any(f"{name}_MAX_CPU_ISA" in os.environ for name in ("ONEDNN", "DNNL"))
        if self.kernels is None or limited or not torch.backends.mkldnn.enabled:
            return False
        if narrow is torch.bfloat16:
            return torch.cpu._is_avx512_bf16_supported()
        return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")

    def __call__(self, name: str, *given: Tensor | float | None) -> None:
        """Call a function; an int is an int64, a bool an int, None a null."""
        getattr(self._library, name)(*map(_argument, given))


_KERNELS = (
    "_ZN2at6native7cpublas6brgemmEllllllbPKfS3_Pfb",
    "_ZN2at6native7cpublas6brgemmEllllllbPKN3c108BFloat16ES5_Pfb",
    "_ZN2at6native7cpublas14brgemm_releaseEb",
)
"""torch's names for oneDNN's products by one thread: at::native::cpublas::brgemm."""


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


def is_narrow(x: Tensor) -> bool:
    """Return what the programs call narrow."""
    return x.dtype is torch.bfloat16


def load() -> Programs:
    """Load the programs, compiled now if they have not been for this machine.

    Raises:
        BuildError: No compiler, it fails, or what it made cannot be kept or loaded.
    """
    try:
        return _load(shlex.split(os.environ.get("CC", "cc")))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # No folder anywhere, a CC that is no command line, a compiler that hangs.
        raise BuildError(str(error)) from error


def _load(compiler: list[str]) -> Programs:
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"no C compiler ({compiler[0]})")
    kept = _folder() / f"steps-{_key(compiler)}.so"
    if kept.exists():
        if hasattr(os, "getuid") and kept.stat().st_uid != os.getuid():
            raise BuildError(f"{kept.name} belongs to somebody else")
        return Programs(kept)
    with TemporaryDirectory() as folder:
        made = Path(folder) / kept.name
        files = [str(x) for x in SOURCES if x.suffix == ".c"]
        _run([*compiler, *FLAGS, *files, "-o", str(made), *LINK])
        try:
            _keep(made, kept)
        except OSError:  # no home, or a full one: then for this process alone
            return Programs(made)
        return Programs(kept)


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "seq2seq"
    except RuntimeError as error:
        raise BuildError(str(error)) from error


def _keep(made: Path, kept: Path) -> None:
    if not kept.parent.is_dir():
        fsops.make_folder(kept.parent)
    part = kept.with_name(f"{kept.stem}.{os.getpid()}.tmp")
    try:
        fsops.write_new(part, made.read_bytes())
        fsops.rename(part, kept)
    except OSError:
        with contextlib.suppress(OSError):
            fsops.delete(part)
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
        said = done.stderr.decode(errors="replace").strip()
        if _NO_OPENMP.search(said):
            raise BuildError(f"{command[0]} has no OpenMP")
        raise BuildError(f"{command[0]} fails: {said}")
    return done.stdout
