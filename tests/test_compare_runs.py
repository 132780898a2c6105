"""scripts/compare_runs.py sees every difference that counts, and none that does not."""

import json
from pathlib import Path

import pytest
from runs import copy_of, run_here
from safetensors.torch import load, save
from storms import difference
from strangers import forge

from seq2seq.run.checksums import read_directory
from seq2seq.run.directory import RunDir

pytestmark = pytest.mark.e2e


@pytest.fixture
def other(run, tmp_path) -> Path:
    return copy_of(run, tmp_path / "other")


def test_a_copy_is_equal(monkeypatch, run, other):
    found = run_here(monkeypatch, "compare_runs", run, other)
    assert (found.code, found.out, found.err) == (0, b"equal\n", "")


def test_a_difference_is_one_line(monkeypatch, run, other):
    path = other / "decode/test.txt"
    path.write_text(path.read_text("utf-8").replace("\n", " !\n", 1), "utf-8")
    forge(other)
    found = run_here(monkeypatch, "compare_runs", run, other)
    first = (run / "decode/test.txt").read_text("utf-8").splitlines()[0]
    said = f'decode/test.txt:1 differs: "{first}" and "{first} !"\n'
    assert (found.code, found.out.decode(), found.err) == (1, said, "")


def rewritten(root: Path, step: int, change) -> None:
    """A checkpoint with other files in it, sums and all."""
    run, name = RunDir(root), f"checkpoints/update-{step:08d}"
    files = read_directory(root / name)
    change(files)
    run.commit_directory(name, files)


def change_tensor(name: str):
    def change(files: dict[str, bytes]) -> None:
        tensors = load(files[name])
        first = next(key for key, value in sorted(tensors.items()) if value.is_floating_point())
        tensors[first].view(-1)[0] += 1e-7
        files[name] = save(tensors)

    return change


def change_state(key: str, value: object):
    def change(files: dict[str, bytes]) -> None:
        state = json.loads(files["state.json"])
        assert state[key] != value
        files["state.json"] = json.dumps(state | {key: value}).encode()

    return change


@pytest.mark.parametrize("name", ["model", "optimizer", "average"])
def test_a_last_bit_of_a_tensor_differs(run, other, name):
    rewritten(other, 160, change_tensor(f"{name}.safetensors"))
    assert difference(run, other) == f"update-00000160/{name}.safetensors differs"


def test_a_counter_differs_and_a_time_does_not(run, other):
    rewritten(other, 160, change_state("seconds", 1e6))
    rewritten(other, 160, change_state("metrics_bytes", 1))
    assert difference(run, other) is None
    rewritten(other, 160, change_state("words", 7))
    found = difference(run, other)
    assert found is not None
    assert found.startswith("update-00000160/state.json words differs: ")
    assert found.endswith(" and 7")


def test_a_metric_differs_and_a_speed_does_not(run, other):
    path = other / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]

    def write() -> None:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    rows[0] |= {"seconds": 1e6, "train/tokens_per_second": 1.0, "train/data_wait": 0.5}
    write()
    assert difference(run, other) is None
    rows[1]["train/loss"] += 1e-12
    write()
    assert str(difference(run, other)).startswith("metrics.jsonl:2 differs: ")
    del rows[-1]
    rows[1]["train/loss"] = json.loads((run / "metrics.jsonl").read_text().splitlines()[1])[
        "train/loss"
    ]
    write()
    assert difference(run, other) == f"metrics.jsonl:{len(rows) + 1}: only in {run}"
    assert difference(other, run) == f"metrics.jsonl:{len(rows) + 1}: only in {run}"
