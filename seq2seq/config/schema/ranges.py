"""Config fields with a default and a range; the range is metadata, checked by `compose.py`."""

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any


def number(
    low: float = -math.inf, high: float = math.inf, *, default: float | None, open_ends: str = ""
) -> Any:
    """A number in [low, high]; `open_ends` names the excluded ends: low, high or both."""
    return field(default=default, metadata={"low": low, "high": high, "open": open_ends})


def at_least(low: float, *, default: float | None) -> Any:
    """A number that is `low` or more."""
    return number(low, default=default)


def size(default: int | None) -> Any:
    """The size of a layer; a square matrix of the largest size still fits in 64-bit sizes."""
    return number(1, 1_000_000, default=default)


def share(default: float) -> Any:
    """A probability below 1: [0, 1)."""
    return number(0.0, 1.0, default=default, open_ends="high")


def interval(metadata: Mapping[str, Any]) -> str:
    """Return the range of a number as text: [1, inf)."""
    low, high, open_ends = (metadata[key] for key in ("low", "high", "open"))
    left = "(" if open_ends in ("low", "both") or low == -math.inf else "["
    right = ")" if open_ends in ("high", "both") or high == math.inf else "]"
    return f"{left}{low:g}, {high:g}{right}"
