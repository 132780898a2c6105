"""What the records of 0.1.0 are keyed by, and how the tensors of a run are hashed for them."""

import hashlib
import os
import platform
import re
import shlex
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file

from seq2seq.kernels import native


def compiler() -> str:
    asked = [*shlex.split(os.environ.get("CC", "cc")), "-dumpfullversion"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def kind() -> str:
    """What orders sums in its own way: torch, the processor and the C compiler, if there is one."""
    vendor = platform.processor() or "unknown"
    if Path("/proc/cpuinfo").exists():
        line = re.search(r"^vendor_id\s*: (\S+)", Path("/proc/cpuinfo").read_text(), re.M)
        vendor = line.group(1) if line else vendor
    capability = torch.backends.cpu.get_cpu_capability()
    compiled = f", cc {compiler()}" if native.library() is not None else ""
    machine = f"{platform.machine()} {vendor} {capability}"
    return f"torch {torch.__version__}, {machine}{compiled}, 1 thread"


def without_compiler() -> AbstractContextManager[object]:
    """As on a machine that has none and where nothing was compiled before."""
    return mock.patch.object(native, "library", return_value=None)


def old_name(name: str) -> str:
    """What 0.1.0 calls a tensor; records are sorted and hashed by these names."""
    return name


def newest_checkpoint(run: Path) -> Path:
    return max(run.glob("checkpoints/*-*"))


def checksums(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of weights, their average and the optimizer, tensor by tensor, names included."""
    return {path.stem: _checksum(path) for path in sorted(checkpoint.glob("*.safetensors"))}


def _checksum(path: Path) -> str:
    tensors = {}
    for name, tensor in load_file(path).items():
        weight, slash, moment = name.partition("/")  # of the optimizer: `decoder.W_o.bias/step`
        tensors[f"{old_name(weight)}{slash}{moment}"] = tensor.numpy().tobytes()
    return hashlib.sha256(b"".join(n.encode() + tensors[n] for n in sorted(tensors))).hexdigest()
