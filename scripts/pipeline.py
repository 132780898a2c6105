"""The parts of `benchmark.py pipeline`: where the time of a whole run goes.

A run is a process of its own: `pipeline.py TIMES.json ARGUMENTS`. It wraps the functions of `PARTS`
before the run begins, and then trains as `train.py ARGUMENTS` does.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
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
    "decode: limits of flags": ["cli.stages:limits_of"],
    "decode, evaluate: load model": ["decoding.pretrained:Pretrained.__init__"],
    "evaluate: scores": ["cli.stages:score"],
    "evaluate: figures and tables": ["cli.stages:evaluate"],
}
"""Functions of the package by part. What one part calls of another counts as the other's; what no
part has is `START` before the first stage, and `OTHER` after it."""

PER_UPDATE = (UPDATES, "train: log")
PER_VALIDATION = ("validation: ", "checkpoints")
"""Parts that grow with the length of training, the latter by their beginnings."""


class Clock:
    """Divides the time of a process into parts: each moment counts as the innermost part's."""

    def __init__(self, begun: float) -> None:
        self.parts, self.last = [START], (begun, 0.0)
        self.wall, self.cpu, self.calls = Counter[str](), Counter[str](), Counter[str]()

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
                module, _, path = where.partition(":")
                *outer, name = path.split(".")
                owner: Any = import_module(f"seq2seq.{module}")
                for each in outer:
                    owner = getattr(owner, each)
                setattr(owner, name, self.timed(part, getattr(owner, name)))


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

    def factor(part: str, calls: dict[str, int]) -> float:
        if part in PER_UPDATE:
            return updates / calls[UPDATES]
        repeated = part.startswith(PER_VALIDATION)
        return validations / calls["validation: scores"] if repeated else 1.0

    def of_whole(kind: str, part: str) -> float:
        values = (run[kind].get(part, 0.0) * factor(part, run["calls"]) for run in found)
        return median(values)

    names = sorted({name for run in found for name in run["wall"]}, key=lambda n: n == OTHER)
    whole = {name: of_whole("wall", name) for name in names}
    total = sum(whole.values())
    return [
        {
            "part": name,
            "measured s": round(median(run["wall"].get(name, 0.0) for run in found), 2),
            "whole run s": round(whole[name], 1),
            "share": f"{whole[name] / total:.1%}",
            "whole run CPU s": round(of_whole("cpu", name), 1),
        }
        for name in sorted(names, key=lambda name: (name == OTHER, -whole[name]))
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
