"""The parts of `benchmark.py pipeline`: where the time of a whole run goes.

A run is a process of its own: `pipeline.py TIMES.json ARGUMENTS`. It wraps the functions of `PARTS`
before the run begins, and then trains as `train.py ARGUMENTS` does.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import checkout  # noqa: F401
from seq2seq.run.errors import PlatformError

START, OTHER, UPDATES = "start and exit", "other", "training updates"

PARTS = {
    OTHER: ["cli.stages:run_stages", "cli.stages:summary"],
    "tokenize: read and filter text": ["data.prepare:_read_corpus"],
    "tokenize: learn vocabularies": ["data.prepare:_learn_vocabularies"],
    "tokenize: encode text": ["data.prepare:_write_ids", "data.prepare:_unwritable"],
    "train: load data, build model": ["cli.stages:check_data", "cli.stages:trainer_of"],
    UPDATES: ["training.trainer:Trainer._update"],
    "train: log": ["training.monitor:Monitor.update"],
    "train: export": ["cli.stages:export"],
    "validation: loss": ["training.validation:validation_losses"],
    "validation: translation": ["training.validation:_share"],
    "validation: scores": ["training.validation:_scored"],
    "validation: log": ["training.monitor:Monitor.validation"],
    "checkpoints": ["training.trainer:Trainer._save", "training.trainer:Trainer._mark_best"],
    "decode: translation": ["cli.stages:decode"],
    "decode: limits of flags": ["cli.decode_stage:limits_of"],
    "decode, evaluate: load model": ["decoding.pretrained:Pretrained.__init__"],
    "evaluate: scores": ["cli.stages:score"],
    "evaluate: figures and tables": ["cli.stages:evaluate"],
}
"""Functions of the package by part. What one part calls of another counts as the other's; what no
part has is `START` before the first stage, and `OTHER` after it."""

PER_UPDATE = (UPDATES, "train: log")
PER_VALIDATION = ("validation: ", "checkpoints")
"""Parts that grow with the length of training, the latter by their beginnings."""

SCALED = (
    "measured: a run of {} updates; whole run: updates and their log by the number of updates, "
    "validations and checkpoints by that of validations, all else as measured, although a model "
    "that has learnt less may write longer translations"
)
"""How the times of the whole run follow from those of a short one."""


class Clock:
    """Divides the time of a process into parts: each moment counts as the innermost part's."""

    def __init__(self, begun: float) -> None:
        self.parts, self.last = [START], (begun, 0.0)
        self.wall, self.cpu = defaultdict[str, float](float), defaultdict[str, float](float)
        self.calls = Counter[str]()

    def count(self) -> None:
        """Count the time since the last call as the innermost part's."""
        used = os.times()
        cpu = used.user + used.system + used.children_user + used.children_system
        now = time.time(), cpu  # processes share this clock
        self.wall[self.parts[-1]] += now[0] - self.last[0]
        self.cpu[self.parts[-1]] += now[1] - self.last[1]
        self.last = now

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts as a part's."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.count()
            self.parts.append(part)
            self.calls[part] += 1
            try:
                return function(*args, **kwargs)
            finally:
                self.count()
                self.parts.pop()

        return timed

    def install(self) -> None:
        """Wrap the functions of all parts."""
        for part, functions in PARTS.items():
            for where in functions:
                owner, name = owner_of(where)
                setattr(owner, name, self.timed(part, getattr(owner, name)))


def owner_of(where: str) -> tuple[Any, str]:
    """Return the module or class that has a function of `PARTS`, and its name there."""
    module, _, path = where.partition(":")
    outer, _, name = path.rpartition(".")
    found = import_module(f"seq2seq.{module}")
    return getattr(found, outer) if outer else found, name


def main(argv: Sequence[str]) -> None:
    """Run `train.py` with the clock of `PARTS`, and write its times."""
    times, begun, *arguments = argv
    from seq2seq.cli.train import main as train

    clock = Clock(float(begun))
    clock.install()
    sys.argv[1:] = arguments
    try:
        train(arguments)
    finally:
        clock.count()
        found = {"wall": clock.wall, "cpu": clock.cpu, "calls": clock.calls, "end": time.time()}
        Path(times).write_text(json.dumps(found), "utf-8")


def timed_run(arguments: Sequence[str]) -> dict[str, Any]:
    """Run `train.py` in a new process; return seconds, CPU seconds and calls by part."""
    with TemporaryDirectory() as directory:
        times = Path(directory, "times.json")
        begun = time.time()
        words = [str(times), str(begun), *arguments, f"run_dir={directory}/run"]
        command = [sys.executable, str(Path(__file__)), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PlatformError("pipeline", f"failed: {done.stderr[-300:]}", "Run it alone.")
        found: dict[str, Any] = json.loads(times.read_bytes())
        found["wall"][START] += time.time() - found.pop("end")
        return found


def rows_of(
    found: Sequence[dict[str, Any]], updates: int, validations: int
) -> list[dict[str, Any]]:
    """Return a row per part, the longest first: medians over runs, as long as the whole run takes.

    Args:
        found: What `timed_run` returned, of one or several runs.
        updates: Of the whole run.
        validations: Of the whole run.
    """
    whole = {
        kind: {
            part: median(_whole(run, kind, part, updates, validations) for run in found)
            for part in {part for run in found for part in run["wall"]}
        }
        for kind in ("wall", "cpu")
    }
    total = sum(whole["wall"].values())
    return [
        {
            "part": part,
            "measured s": round(median(run["wall"].get(part, 0.0) for run in found), 2),
            "whole run s": round(seconds, 1),
            "share": f"{seconds / total:.1%}",
            "whole run CPU s": round(whole["cpu"][part], 1),
        }
        for part, seconds in sorted(
            whole["wall"].items(), key=lambda item: (item[0] == OTHER, -item[1], item[0])
        )
    ]


def _whole(run: dict[str, Any], kind: str, part: str, updates: int, validations: int) -> float:
    """Return the seconds of a part in the whole run, from those of a short one."""
    seconds, calls = float(run[kind].get(part, 0.0)), run["calls"]
    if part in PER_UPDATE:
        return seconds * updates / float(calls[UPDATES])
    if part.startswith(PER_VALIDATION):
        return seconds * validations / float(calls["validation: scores"])
    return seconds


if __name__ == "__main__":
    main(sys.argv[1:])
