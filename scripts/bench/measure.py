"""Clocks, memory, and how fast this machine multiplies."""

import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

Contestant = Callable[[], float]
"""Does some work and returns how many units of it a second."""


@dataclass(frozen=True)
class Rate:
    """Units a second, round by round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.rounds)


def interleaved(contestants: Sequence[Contestant], rounds: int) -> list[Rate]:
    """Let all work in turn, several times, so that what slows the machine down slows all of them.

    One round is made before the first that counts.
    """
    found: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds + 1):
        for contestant, rates in zip(contestants, found, strict=True):
            rate = contestant()
            if number:
                rates.append(rate)
    return [Rate(tuple(rates)) for rates in found]


def timed(work: Callable[[], float]) -> float:
    """Do a work that returns its units; return units a second."""
    start = time.perf_counter()
    units = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return units / (time.perf_counter() - start)


def product_rate(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """Return operations a second in products of square matrices, the best of several."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def work() -> float:
        a @ b
        return 2.0 * size**3

    return max(timed(work) for _ in range(8))


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Return by how many bytes memory grows while something is done; None where nobody counts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists():
        return None
    reset.write_text("5", encoding="ascii")  # Linux: forget the peak so far
    before = _kilobytes(status, "VmRSS")
    work()
    return (_kilobytes(status, "VmHWM") - before) * 1024


def _kilobytes(status: Path, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", status.read_text(encoding="ascii"), re.M)
    if found is None:
        raise LookupError(f"{status}: no {field}")
    return int(found[1])
