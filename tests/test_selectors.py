"""RUN@best, RUN@last, RUN@last3, RUN@update-12000: which weights a command decodes with."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from runs import assert_fails, copy_of
from test_report import data_of
from torch import nn
from toys import flip, folder, toy

import seq2seq
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError
from seq2seq.run.models import NamedRun, named_runs
from seq2seq.training import checkpoint

UPDATES = (2, 4, 7)


@pytest.fixture
def saved(tmp_path) -> RunDir:
    """Checkpoints of three updates, the second of which is the best."""
    made = toy(tmp_path / "toy")
    for update in UPDATES:
        made.save(update, best=update == 4)
    return made.run


def weights(run: RunDir, selector: str) -> tuple[int, np.ndarray]:
    model = nn.Linear(4, 2)
    return checkpoint.load_weights(run, model, selector), model.weight.detach().numpy()


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        *(("best", [4]), ("last", [7]), ("update-2", [2]), ("update-00000004", [4])),
        *(("last1", [7]), ("last2", [4, 7]), ("last3", [2, 4, 7])),
    ],
)
def test_a_selector_takes_averaged_weights_or_their_mean(saved, selector, expected):
    parts = [
        safetensors.numpy.load((folder(saved.root, u) / "average.safetensors").read_bytes())
        for u in expected
    ]
    mean = sum(part["weight"].astype(np.float64) for part in parts) / len(parts)
    update, found = weights(saved, selector)
    assert update == expected[-1]
    np.testing.assert_array_equal(found, mean.astype(np.float32))


HAS = "It has: best, last, update-2, update-4, update-7."


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        *((name, f"names no checkpoint. {HAS}") for name in ("update-3", "Best", "last0", "", "2")),
        ("last4", f"asks for 4 checkpoints, the run has 3. {HAS} trainer.keep_checkpoints"),
    ],
)
def test_a_wrong_selector_is_told_what_there_is(saved, selector, message):
    with pytest.raises(RunDirError) as caught:
        weights(saved, selector)
    assert str(caught.value).startswith(f"{saved.root}@{selector}: {message}")


def test_nothing_stands_in_for_what_is_damaged_or_missing(saved):
    flip(folder(saved.root, 4) / "average.safetensors", 900)
    for selector in ("best", "update-4", "last2"):
        with pytest.raises(RunDirError, match="SHA-256 differs"):
            weights(saved, selector)
    (saved.root / "checkpoints/best.json").unlink()
    with pytest.raises(RunDirError, match=r"names no checkpoint\. It has: last, update-2"):
        weights(saved, "best")


@pytest.mark.parametrize(
    ("text", "there", "expected"),
    [
        ("a", [], [("a", None)]),
        ("a@last", [], [("a", "last")]),
        ("a@last", ["a@last"], [("a@last", None)]),
        ("a@last@best", ["a@last"], [("a@last", "best")]),
        ("x@y/a", [], [("x@y/a", None)]),
        ("a+b@last", [], [("a", None), ("b", "last")]),
        ("a+b@last", ["a+b"], [("a+b", "last")]),
        ("a+b", ["a+b"], [("a+b", None)]),
    ],
)
def test_a_path_that_exists_is_meant(tmp_path, monkeypatch, text, there, expected):
    monkeypatch.chdir(tmp_path)
    for name in there:
        Path(name).mkdir()
    assert named_runs(text) == [NamedRun(Path(name), selector) for name, selector in expected]


# Commands ---------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_commands_take_a_selector(run, script, tmp_path):
    """In a directory with = in its name, as of a sweep; a plain RUN is as before."""
    sweep = copy_of(run, tmp_path / "seed=1")
    line = b"the cat sees the dog .\n"
    texts = (run / "corpus/test.source", run / "corpus/test.target")
    pair = ("--source", texts[0], "--target", texts[1], "--format", "tsv")
    scores = {
        name: script("score", f"{sweep}{name}", *pair).out for name in ("", "@best", "@last2")
    }
    assert scores[""] == scores["@best"] != scores["@last2"]
    found = script("decode", f"{sweep}@last2", "--format", "jsonl", stdin=line)
    model = seq2seq.load(f"{run}@last2")
    own = model.translate(line.decode().strip())
    assert json.loads(found.out) == own.as_dict() | {"flags": model.flags(own)}
    result = script("evaluate", sweep, f"{sweep}@last2", "--attention")
    rows = [row.split()[0] for row in result.out.decode().splitlines()[1:3]]
    assert rows == [str(sweep), f"{sweep}@last2"]
    page = script("report", f"{sweep}@last2", "--sentences", "1")
    assert page.code == 0, page
    found = data_of((sweep / "report-last2.html").read_text("utf-8"))["runs"][0]
    assert found["name"] == "tiny@last2"
    assert found["scores"] == found["lengths"] == [], "those of the run are of its best weights"
    assert_fails(script("decode", f"{sweep}@last9", stdin=line), 4, "asks for 9 checkpoints")
    assert_fails(script("decode", f"{tmp_path}/none@best", stdin=line), 4, "none: holds no run")
