"""Compiles the native library once per machine, caches it, and loads it."""

import contextlib
import ctypes
import functools
import hashlib
import logging
import math
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from seq2seq.run import writing

log = logging.getLogger(__name__)

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC"]
# Nothing here reads errno or relies on traps; with these flags, loops with square roots and
# rounding vectorize. NaN keeps its meaning.
FLAGS += ["-fno-math-errno", "-fno-trapping-math"]
# Use torch's OpenMP library, which is already loaded: a second one would compete with it.
LINK = ["-shared", "-nodefaultlibs", "-lm", "-lc"]
_SECONDS = 120
_PANEL = 64  # PANEL of matmul.h


class BuildError(Exception):
    """There is no compiler, or it fails."""


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
    """Load the library, after compiling it if the cache has none for this machine.

    A cached library is loaded only if it matches its checksum file, which is written only after a
    separate process has loaded and used the library. A damaged library is compiled again; one that
    crashes is not used.

    Raises:
        BuildError: There is no compiler, it fails, or its result cannot be stored or loaded.
    """
    try:
        compiler = shlex.split(os.environ.get("CC", "cc"))
        if not compiler or shutil.which(compiler[0]) is None:
            raise BuildError(f"no C compiler ({compiler[0] if compiler else 'CC is empty'})")
        return _load(compiler)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # No writable directory, an invalid command line in CC, or a compiler that hangs.
        raise BuildError(str(error)) from error


def _load(compiler: list[str]) -> Library:
    path = _directory() / f"steps-{_key(compiler)}.so"
    if path.exists():
        if (problem := _problem(path)) is None:
            return Library(path)
        log.warning("the compiled library %s is compiled again: it %s", path, problem)
    with TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        _compile(compiler, made)
        _try(made)
        try:
            _store(made.read_bytes(), path)
        except OSError:  # no home directory, or a full one: use it for this process only
            return Library(made)
        return Library(path)


def _compile(compiler: list[str], made: Path) -> None:
    files = [str(x) for x in SOURCES if x.suffix == ".c"]
    _run([*compiler, *FLAGS, *files, "-o", str(made), *LINK])


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
    beside = _checksum_file(path)
    if not beside.exists():
        return "has no checksum beside it"
    return None if beside.read_bytes() == _line(path.read_bytes()) else "differs from its checksum"


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _line(library: bytes) -> bytes:
    return f"{hashlib.sha256(library).hexdigest()}\n".encode()


def _try(made: Path) -> None:
    """Load and use a new library in a separate process, which may crash.

    Raises:
        BuildError: the process failed.
    """
    root = Path(__file__).resolve().parents[3]  # `-c` imports from the working directory
    command = [sys.executable, "-c", f"from {__name__} import test; test({str(made)!r})"]
    done = subprocess.run(
        command,
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        what = f"ends a process that uses it ({done.returncode})"
        raise BuildError(f"the library made by the compiler {what}")


def test(path: str) -> None:
    """Use a library as training does: compute the loss of a sentence of one word."""
    library = Library(Path(path))
    logits, target = torch.zeros(1, 64), torch.zeros(1, dtype=torch.int64)
    loss, spread, d_b, work = torch.zeros(1), torch.zeros(1), torch.zeros(1, 64), torch.zeros(1, 64)
    sizes = (1, 1, 64)  # shares, rows, words
    outputs = (loss, spread, d_b, work)
    library("output_loss", logits, False, None, target, 0.0, True, *outputs, *sizes)
    assert abs(loss.item() - math.log(64)) < 1e-5


def _directory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(cache) if cache else Path.home() / ".cache") / "seq2seq"
    except RuntimeError as error:
        raise BuildError(str(error)) from error


def _store(library: bytes, path: Path) -> None:
    """Put a working library into the cache, its checksum last."""
    if not path.parent.is_dir():
        writing.make_directory(path.parent)
    writing.restrict(path.parent)
    writing.delete(_checksum_file(path))
    for place, data in ((path, library), (_checksum_file(path), _line(library))):
        part = place.with_name(f"{place.name}.{os.getpid()}.tmp")
        try:
            writing.write_new(part, data, 0o600)
            writing.rename(part, place)
        except OSError:
            with contextlib.suppress(OSError):
                writing.delete(part)
            raise


def _key(compiler: list[str]) -> str:
    """Return a hash of everything that affects the compiled library, the processor included."""
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
