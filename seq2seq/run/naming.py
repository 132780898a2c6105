"""How a command names what it decodes with: RUN, RUN@best, RUN@last5, RUN_A+RUN_B@update-12000."""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NamedRun:
    """A run directory, and which of its checkpoints if that is said."""

    path: Path
    selector: str | None = None  # of `training.checkpoint.selected`


def named_runs(text: str) -> list[NamedRun]:
    """Return the runs of a text: one, or, between `+`, the members of an ensemble.

    A path that exists is meant as it is, whatever stands in it.
    """
    whole = _named_run(text)
    if whole.path.exists():
        return [whole]
    return [_named_run(part) for part in text.split("+")]


def _named_run(text: str) -> NamedRun:
    parts = re.fullmatch(r"(.+)@([^/@]*)", text, re.DOTALL)
    if parts is None or Path(text).exists():
        return NamedRun(Path(text))
    return NamedRun(Path(parts[1]), parts[2])
