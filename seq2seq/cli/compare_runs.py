"""Check whether two runs are equal, bit for bit; print the first difference.

Compares the newest and the best checkpoint (weights, optimizer, average, state), metrics.jsonl,
the curves in TensorBoard and the translations of the test set. Times and speeds may differ.
Exit code 0: equal. 1: not equal. 4: one of them is not a run.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from seq2seq.cli.console import ONE_RUN, option_parser, show
from seq2seq.run import checkpoints
from seq2seq.run.checksums import read_checksummed, read_directory
from seq2seq.run.directory import RunDir
from seq2seq.run.naming import run_path
from seq2seq.run.reading import parse_json

TIMES = ("seconds", "tokens_per_second", "words_per_second", "data_wait", "metrics_bytes")
"""Endings of names that depend on time; the digits of a time also change the size of metrics."""

Part = Iterator[tuple[str, Any]]
"""Names and values of parts of a run."""


def main(argv: Sequence[str]) -> None:
    """Compare."""
    parser = option_parser(__doc__)
    parser.add_argument("runs", type=run_path, nargs=2, metavar="RUN", help=ONE_RUN)
    first, second = (RunDir.open(path) for path in parser.parse_args(argv).runs)
    difference = compare(first, second)
    show("equal" if difference is None else difference)
    if difference is not None:
        sys.exit(1)


def compare(first: RunDir, second: RunDir) -> str | None:
    """Return the first difference between two runs, None if there is none."""
    for part in (states, metrics, scalars, translations):
        one, two = dict(part(first)), dict(part(second))
        for name in one | two:
            if name not in one or name not in two:
                return f"{name}: only in {(first if name in one else second).root}"
            if one[name] != two[name]:
                if isinstance(one[name], bytes):
                    return f"{name} differs"
                values = (json.dumps(value, ensure_ascii=False) for value in (one[name], two[name]))
                return f"{name} differs: {' and '.join(values)}"
    return None


def states(run: RunDir) -> Part:
    """Yield tensors (as bytes) and state (by key) of the newest and the best checkpoint."""
    places = [checkpoints.directory_of(run, update) for update in checkpoints.updates(run)[-1:]]
    for place in places:
        yield "newest checkpoint", checkpoints.update_of(place)
    if run.path(checkpoints.BEST).exists():
        yield f"{checkpoints.BEST} value", read_checksummed(run.path(checkpoints.BEST)).get("value")
        if (best := checkpoints.best_update(run)) is not None:
            yield f"{checkpoints.BEST} update", best
            places.append(checkpoints.directory_of(run, best))
    for place in places:
        title = f"update-{checkpoints.update_of(place):08d}"  # 0.1.0 named it differently
        for name, data in sorted(read_directory(place).items()):
            if name.endswith(".safetensors"):
                yield f"{title}/{name}", data
            elif name.endswith(".json"):
                for key, value in _timeless(parse_json(data, place / name)).items():
                    yield f"{title}/{name} {key}", value


def metrics(run: RunDir) -> Part:
    """Yield the rows of metrics.jsonl."""
    path = run.path("metrics.jsonl")
    if path.exists():
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            yield f"metrics.jsonl:{number}", _timeless(parse_json(line, f"{path}:{number}"))


def scalars(run: RunDir) -> Part:
    """Yield the curves of TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    directory = run.path("tensorboard")
    if directory.is_dir():
        events = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
        for tag in sorted(events.Tags()["scalars"]):
            if not tag.endswith(TIMES):
                yield f"tensorboard {tag}", [[e.step, e.value] for e in events.Scalars(tag)]


def translations(run: RunDir) -> Part:
    """Yield the lines of the translated test set."""
    path = run.checked("decode/test.txt")
    if path.exists():
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
            yield f"decode/test.txt:{number}", line.decode("utf-8", "backslashreplace")


def _timeless(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _timeless(inner) for key, inner in value.items() if not key.endswith(TIMES)}
