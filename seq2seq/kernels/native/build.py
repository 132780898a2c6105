"""Compiles `steps.c` for this machine, once, and loads it."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from seq2seq import fsops

SOURCE = Path(__file__).with_name("steps.c")
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fopenmp", "-fPIC"]
# No program reads errno or counts on traps; with these, loops with square roots and rounding fit
# the processor's wide registers. What is not a number keeps its meaning.
FLAGS += ["-fno-math-errno", "-fno-trapping-math"]
# The threads are those of torch, whose library is there already: a second one would fight it.
LINK = ["-shared", "-nodefaultlibs", "-lm", "-lc"]
_SECONDS = 120


class BuildError(Exception):
    """There is no compiler, or it says no."""


class Programs:
    """The functions of a compiled `steps.c`; tensors stand for the memory they hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))

    def __call__(self, name: str, *given: Tensor | float | None) -> None:
        """Call a function; an int is an int64, a bool an int, None a null."""
        getattr(self._library, name)(*map(_argument, given))


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
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        # No folder, no home, a CC that is no command line, a compiler that hangs.
        raise BuildError(str(error)) from error


def _load(compiler: list[str]) -> Programs:
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"no C compiler ({compiler[0]})")
    path = _folder() / f"steps-{_key(compiler)}.so"
    if not path.exists():
        _compile(compiler, path)
    if os.name == "posix" and path.stat().st_uid != os.getuid():
        raise BuildError(f"{path.name} belongs to somebody else")
    return Programs(path)


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(cache) if cache else Path.home() / ".cache") / "seq2seq"
    if not folder.is_dir():
        fsops.make_folder(folder)
    return folder


def _key(compiler: list[str]) -> str:
    """Return a name for all that decides what is compiled, the processor included."""
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, timeout=_SECONDS, check=True
    ).stdout
    cpuinfo = Path("/proc/cpuinfo")
    known = [x for x in cpuinfo.read_text().splitlines() if x.startswith(("flags", "model"))][:4]
    machine = [platform.machine(), platform.processor(), *known] if known else [platform.node()]
    parts = [SOURCE.read_text(), *FLAGS, *LINK, *machine, version.decode(errors="replace")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _compile(compiler: list[str], path: Path) -> None:
    made = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
    done = subprocess.run(
        [*compiler, *FLAGS, str(SOURCE), "-o", str(made), *LINK],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"{compiler[0]} fails: {done.stderr.strip()}")
    fsops.rename(made, path)
