"""Say whether two runs came to the same result, bit for bit; print the first difference.

Compared are the newest and the best checkpoint (weights, optimizer, average, state), metrics.jsonl,
the curves in TensorBoard and the translations of the test set. Times and speeds may differ.
Exit code 0: equal. 1: not equal. 4: one of them is no run.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an install

from seq2seq.run.requirements import leave_if_too_old

if __name__ == "__main__":
    leave_if_too_old()

from seq2seq.cli.console import run_script
from seq2seq.run.checksums import read_directory
from seq2seq.run.directory import RunDir
from seq2seq.run.reading import parse_json, read_json

TIMES = ("seconds", "tokens_per_second", "words_per_second", "data_wait", "metrics_bytes")
"""How the last part of a name that depends on time ends; digits of a time change a size, too."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="run directory")
    return parser.parse_args()


def main() -> None:
    """Compare."""
    first, second = (RunDir.open(path) for path in parse().runs)
    difference = compare(first, second)
    print("equal" if difference is None else difference)
    if difference is not None:
        sys.exit(1)


def compare(first: RunDir, second: RunDir) -> str | None:
    """Return the first difference between two runs, None if there is none."""
    for what in (checkpoints, best, metrics, scalars, translations):
        if (found := _difference(what, first, second)) is not None:
            return found
    return None


Part = Callable[[RunDir], Iterator[tuple[str, Any]]]
"""Yields what a run holds, each with a name to call it by."""


def _difference(part: Part, first: RunDir, second: RunDir) -> str | None:
    one, two = dict(part(first)), dict(part(second))
    for name in [*one, *(name for name in two if name not in one)]:
        for mine, other, run in ((one, two, first), (two, one, second)):
            if name in mine and name not in other:
                return f"{name}: only in {run.root}"
        if one[name] != two[name]:
            return f"{name} differs{_shown(one[name], two[name])}"
    return None


def _shown(one: Any, two: Any) -> str:
    if isinstance(one, bytes) or isinstance(two, bytes):
        return ""
    return f": {json.dumps(one, ensure_ascii=False)} and {json.dumps(two, ensure_ascii=False)}"


def checkpoints(run: RunDir) -> Iterator[tuple[str, Any]]:
    """Yield tensors as bytes and state by its keys, of the newest checkpoint."""
    from seq2seq.training import checkpoint

    newest = checkpoint.newest(run)
    if newest is not None:
        yield "newest checkpoint", newest.name
        yield from _files(newest)


def best(run: RunDir) -> Iterator[tuple[str, Any]]:
    """Yield which checkpoint is the best and what it holds."""
    from seq2seq.training import checkpoint

    if run.path(checkpoint.BEST).exists():
        mark = read_json(run.path(checkpoint.BEST))
        yield from ((f"{checkpoint.BEST} {key}", mark[key]) for key in ("step", "value"))
        yield from _files(run.path(f"{checkpoint.FOLDER}/step-{mark['step']:08d}"))


def _files(folder: Path) -> Iterator[tuple[str, Any]]:
    for name, data in sorted(read_directory(folder).items()):
        if name.endswith(".safetensors"):
            yield f"{folder.name}/{name}", data
        elif name.endswith(".json"):
            for key, value in _timeless(parse_json(data, folder / name)).items():
                yield f"{folder.name}/{name} {key}", value


def metrics(run: RunDir) -> Iterator[tuple[str, Any]]:
    """Yield the rows of metrics.jsonl."""
    path = run.path("metrics.jsonl")
    if path.exists():
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            yield f"metrics.jsonl:{number}", _timeless(parse_json(line, path))


def scalars(run: RunDir) -> Iterator[tuple[str, Any]]:
    """Yield what TensorBoard shows as curves."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run.path("tensorboard")
    if folder.is_dir():
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        for tag in sorted(events.Tags()["scalars"]):
            if not tag.endswith(TIMES):
                yield f"tensorboard {tag}", [[e.step, e.value] for e in events.Scalars(tag)]


def translations(run: RunDir) -> Iterator[tuple[str, Any]]:
    """Yield the lines of the translated test set."""
    path = run.path("decode/test.txt")
    if path.exists():
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
            yield f"decode/test.txt:{number}", line.decode("utf-8", "backslashreplace")


def _timeless(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _timeless(inner) for key, inner in value.items() if not key.endswith(TIMES)}


if __name__ == "__main__":
    run_script(main)
