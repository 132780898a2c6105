"""The commands that compile the native library, for this machine or for a wheel.

Only the standard library is imported: `hatch_build.py` runs this file where torch is not installed.
"""

import hashlib
import platform
import subprocess
from pathlib import Path

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
FLAGS = ["-std=gnu11", "-O3", "-fopenmp", "-fPIC"]
# Nothing here reads errno or relies on traps; with these flags, loops with square roots and
# rounding vectorize. NaN keeps its meaning.
FLAGS += ["-fno-math-errno", "-fno-trapping-math"]
# Use torch's OpenMP library, which is already loaded: a second one would compete with it.
LINK = ["-shared", "-nodefaultlibs", "-lm", "-lc"]
NATIVE = "native"
LEVELS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}
"""torch's names of processors, best first, and the levels of a wheel's libraries.

bfloat16 needs no level of its own: its matmuls are oneDNN's, and the compiled code is the same.
Other processors have no such matmuls, so a library would not be used there.
"""
PREBUILT = Path(__file__).parent / "prebuilt"
SECONDS = 120


class BuildError(Exception):
    """There is no compiler, or it fails."""


def prebuilt(level: str) -> Path:
    """Return where the library of a level lies in an installed wheel."""
    return PREBUILT / f"steps-{level}.so"


def checksum_file(library: Path) -> Path:
    """Return where the checksum of a library is."""
    return library.with_suffix(".sha256")


def checksum(library: bytes) -> bytes:
    """Return what stands there."""
    return f"{hashlib.sha256(library).hexdigest()}\n".encode()


def compile_library(compiler: list[str], made: Path, level: str = NATIVE) -> None:
    """Compile the native library for a level of processors.

    Raises:
        BuildError: the compiler fails.
    """
    files = [str(x) for x in SOURCES if x.suffix == ".c"]
    run([*compiler, *FLAGS, f"-march={level}", *files, "-o", str(made), *LINK])


def run(command: list[str]) -> bytes:
    """Run a compiler and return what it prints.

    Raises:
        BuildError: it fails.
    """
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise BuildError(f"{command[0]} fails: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def key(compiler: list[str]) -> str:
    """Return a hash of everything that affects the compiled library, the processor included."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_bytes().splitlines() if cpuinfo.exists() else []
    known = [line for line in lines if line.startswith((b"flags", b"model", b"Features"))][:4]
    machine = [platform.machine(), platform.processor(), "" if known else platform.node()]
    parts = [*FLAGS, NATIVE, *LINK, *machine, *compiler]
    told = [*(x.read_bytes() for x in SOURCES), *known, run([*compiler, "--version"])]
    return hashlib.sha256(b"\0".join([*told, *(part.encode() for part in parts)])).hexdigest()[:16]
