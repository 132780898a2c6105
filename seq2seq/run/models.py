"""Parses names of models: RUN, RUN@last5, RUN_A+RUN_B@update-12000, hf:NAME@REVISION."""

import re
from dataclasses import dataclass
from pathlib import Path

from seq2seq.run import hub
from seq2seq.run.naming import expanded, run_path


@dataclass(frozen=True)
class NamedRun:
    """A run directory and, if given, a selector of its checkpoints."""

    path: Path
    selector: str | None = None  # see `training.checkpoint.selected`

    def __str__(self) -> str:
        return str(self.path) if self.selector is None else f"{self.path}@{self.selector}"


def named_runs(text: str) -> list[NamedRun]:
    """Return the run named by a text or, separated by `+`, the members of an ensemble.

    A path that exists is taken literally, whatever characters it has.
    """
    whole = _named_run(text)
    if whole.path.exists():
        return [whole]
    return [_named_run(part) for part in text.split("+")]


def run_paths(text: str) -> str:
    """Return a text that names runs with their paths in place of names."""
    return "+".join(map(str, named_runs(text)))


def run_directory(text: str) -> Path:
    """Return the path of the run or of the model of the Hub that a text names."""
    if (named := hub.NAME.fullmatch(text)) is not None and not Path(text).exists():
        return hub.fetched(*named.groups())
    return run_path(text)


def _named_run(text: str) -> NamedRun:
    parts = re.fullmatch(r"(.+)@([^/@+]*)", text, re.DOTALL)
    if parts is None or hub.NAME.fullmatch(text) or expanded(text).exists():
        return NamedRun(run_directory(text))
    return NamedRun(run_path(parts[1]), parts[2])
