"""Whether the Triton kernels equal torch operations on a device: checked once, then kept.

The first use on a device runs `check` in a separate process, so that neither a crash, nor a hang,
nor an illegal access to the device's memory reaches the run. The result is a JSON file beside the
native library, named after all that it depends on.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
from pathlib import Path

import torch
import triton

from seq2seq.kernels.native.build import directory, run_apart, store
from seq2seq.kernels.native.compiler import BuildError

log = logging.getLogger(__name__)

_DRIVER = Path("/proc/driver/nvidia/version")  # NVIDIA's, on Linux
_CRASHES = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV"}
"""Ends that a kernel or its compiler causes; others come from outside, such as Ctrl-C."""


class CheckError(Exception):
    """The check could not run, which says nothing about the kernels."""


def problem(device: torch.device) -> str | None:
    """Return why the Triton kernels must not be used on a device; None if they may be.

    Raises:
        CheckError: The check could not run; the next process tries again.
    """
    subject = _subject(device)
    name = hashlib.sha256(json.dumps(subject).encode()).hexdigest()[:16]
    try:
        path = directory() / f"triton-{name}.json"
    except BuildError as error:  # no home directory
        raise CheckError(str(error)) from error
    kept = _read(path)
    if kept is None:
        log.info("comparing the Triton kernels with torch operations on %s", subject["device"])
        kept = {**subject, "problem": _check(device)}
        with contextlib.suppress(OSError):  # a full or read-only disk: checked in each process
            store(path, f"{json.dumps(kept, indent=2)}\n".encode())
    found = kept["problem"]
    return None if found is None else f"{found}. To check again, delete {path}"


def _subject(device: torch.device) -> dict[str, str]:
    """Return what the result depends on."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "driver": _driver(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "interpreter": os.environ.get("TRITON_INTERPRET", "0"),
        "compiler": compiler or "none",
        "kernels": hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest(),
    }


def _driver() -> str:
    """Return the version of the device's driver, if it can be read."""
    try:
        return _DRIVER.read_text().partition("\n")[0]
    except (OSError, ValueError):
        return "unknown"


def _read(path: Path) -> dict[str, str | None] | None:
    """Return the kept result; None if there is none, or it is damaged."""
    try:
        kept = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) and "problem" in kept else None


def _check(device: torch.device) -> str | None:
    """Run `check` in a separate process."""
    try:
        done = run_apart(f"from seq2seq.kernels.gpu.check import main; main({str(device)!r})")
    except TimeoutError as error:
        return f"check: {error}"
    except OSError as error:
        raise CheckError(str(error)) from error
    if done.returncode < 0:
        end = signal.Signals(-done.returncode).name
        if end in _CRASHES:
            return f"check: ended by {end}"
        raise CheckError(f"ended by {end}")
    try:
        found: str | None = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise CheckError((done.stderr.splitlines() or ["no output"])[-1]) from error
    return found
