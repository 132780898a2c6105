"""List runs, oldest first: preset, state, updates, and the best score on the validation set.

States: running; stopped, which `seq2seq train resume=RUN` continues; finished; diverged; failed;
unprepared, if it ended before it had data; unreadable.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from seq2seq.cli.console import option_parser, show, table
from seq2seq.run.checkpoints import BEST, updates
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import DivergedError, UserError
from seq2seq.run.lock import is_locked
from seq2seq.run.naming import CONFIG, OUTPUTS, expanded, runs_below
from seq2seq.run.plain_yaml import read_plain_yaml
from seq2seq.run.reading import read_json

PRODUCTS = {
    "tokenize": "data_report.json",
    "train": "model",
    "decode": "decode/test.txt",
    "evaluate": "scores.json",
}
"""What a run has when a stage is done."""


@dataclass(frozen=True)
class Row:
    """What the list shows of a run."""

    run: str
    preset: str
    state: str
    updates: int
    metric: str
    best: float | None
    started: str


def main(argv: Sequence[str]) -> None:
    """List."""
    parser = option_parser(__doc__)
    what = f"look for runs here (default: {OUTPUTS})"
    parser.add_argument("directory", nargs="?", type=expanded, default=OUTPUTS, help=what)
    parser.add_argument("--json", action="store_true", help="a JSON object per run, one per line")
    args = parser.parse_args(argv)
    rows = [row_of(path) for path in runs_below(args.directory)]
    if args.json:
        for row in rows:
            show(json.dumps(asdict(row), ensure_ascii=False))
        return
    best = ("" if r.best is None else f"{r.metric} {r.best:.2f}" for r in rows)
    cells = [
        [r.run, r.preset, r.state, f"{r.updates:,}", score, r.started]
        for r, score in zip(rows, best, strict=True)
    ]
    headers = ["run", "preset", "state", "updates", "best", "started"]
    show(table(cells, headers, "lllrll") if rows else f"no runs in {args.directory}")


def row_of(path: Path) -> Row:
    """Return the row of a run."""
    run, preset, metric, best = RunDir(path), "", "", None
    seconds = run.path(CONFIG).stat().st_mtime
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    done = updates(run)[-1:] or [0]
    try:
        state = state_of(run)
        if run.path("run.json").exists():
            words = read_json(run.path("run.json")).get("command", [])
            preset = next((w[12:] for w in words if w.startswith("+experiment=")), "")
        if run.path(BEST).exists():
            found = read_json(run.path(BEST))
            metric, best = str(found["metric"]), abs(float(found["value"]))
    except (UserError, LookupError, TypeError, ValueError, AttributeError):
        state = "unreadable"
    return Row(str(path), preset, state, done[0], metric, best, started)


def state_of(run: RunDir) -> str:
    """Return the state of a run in a word."""
    if is_locked(run.path("run.lock")):
        return "running"
    if not run.has_data():
        return "unprepared"
    stages = read_plain_yaml(run.path(CONFIG))["stages"]
    if all(run.path(PRODUCTS[stage]).exists() for stage in stages):
        return "finished"
    if run.path("crash/failures.json").exists():
        last = read_json(run.path("crash/failures.json"))["failures"][-1]
        if last["update"] >= max(updates(run), default=0):
            return "diverged" if last["exit_code"] == DivergedError.exit_code else "failed"
    return "stopped"
