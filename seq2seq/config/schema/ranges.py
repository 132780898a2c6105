"""Ranges of numbers, as metadata of the fields that have them; `config.py` checks them."""

import math
from dataclasses import field
from typing import Any


def number(low: float = -math.inf, high: float = math.inf, *, open_ends: str = "") -> Any:
    """A required field whose value lies in [low, high]; `open_ends` names excluded ends."""
    return field(metadata={"low": low, "high": high, "open": open_ends})


def at_least(low: float) -> Any:
    """A required field whose value is `low` or more."""
    return number(low)


def size() -> Any:
    """A required size of a layer; a square matrix of the largest still has a size in 64 bits."""
    return number(1, 1_000_000)


def share() -> Any:
    """A probability that must leave something over: [0, 1)."""
    return number(0.0, 1.0, open_ends="high")
