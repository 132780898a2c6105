"""M6: whole runs as released versions wrote them decode, score, verify, load and go on.

`tests/formats/VERSION/README.md` says how they were made.
"""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import checksums, kind, newest_checkpoint
from runs import ROOT, copy_of, run_here
from storms import Zygote

import seq2seq

FORMATS = ROOT / "tests/formats"
OLD = ["0.1.0/additive", "0.1.0/words", "0.1.0/fixed", "0.2.0/transformer"]
ROUNDING = 1e-5  # of float32: with and without a compiler scores differ by up to 3e-6

pytestmark = pytest.mark.e2e


@pytest.fixture(params=OLD)
def run(request, tmp_path):
    return copy_of(FORMATS / request.param, tmp_path / request.param)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """`train(*arguments, cwd=...)` runs train.py to its good end, torch imported once."""
    with Zygote(tmp_path_factory.mktemp("zygote")) as zygote:
        yield zygote.run


def record(run: Path) -> Path:
    """Of what runs of this version do not hold themselves."""
    return FORMATS / run.parent.name / "expected.json"


def expected(run: Path) -> dict[str, Any]:
    return json.loads(record(run).read_text("utf-8"))[run.name]


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def numbers(value: Any, name: str = "") -> dict[str, Any]:
    """Those of nested JSON; the text is signatures, which name versions of libraries.

    Intervals of 0.1.0 were symmetric about the mean of the samples.
    """
    if not isinstance(value, dict):
        is_interval = name.endswith(("/low", "/high"))
        return {name: value} if isinstance(value, int | float) and not is_interval else {}
    parts = [numbers(part, f"{name}/{key}") for key, part in value.items()]
    return {key: number for part in parts for key, number in part.items()}


def close(value: Any) -> Any:
    return pytest.approx(value, rel=ROUNDING, abs=ROUNDING)


def test_M6_an_old_run_decodes_to_the_same_text_and_scores(run, monkeypatch):
    source = (run / "corpus/test.source").read_bytes()
    result = run_here(monkeypatch, "decode", run, "--format", "jsonl", stdin=source)
    assert result.code == 0
    texts = (lines(run / "decode/test.jsonl"), result.out.decode().splitlines())
    for old, new in zip(*([json.loads(line) for line in text] for text in texts), strict=True):
        [before], [now] = old.pop("hypotheses"), new.pop("hypotheses")
        assert new == old | {"flags": new["flags"]}  # the source, its tokens, the best translation
        np.testing.assert_allclose(now.pop("attention"), before.pop("attention"), atol=ROUNDING)
        assert now.pop("token_log_probs") == close(before.pop("token_log_probs"))
        assert now == before | {key: close(before[key]) for key in ("score", "log_prob")}


def test_M6_an_old_run_is_scored_as_before(run, tmp_path, monkeypatch):
    scores, forced = tmp_path / "scores.json", tmp_path / "forced.json"
    assert run_here(monkeypatch, "evaluate", run, "--json", scores).code == 0
    before, now = (numbers(json.loads(path.read_bytes())) for path in (run / scores.name, scores))
    assert {name: now.get(name) for name in before} == close(before)
    assert all(
        re.search(r"lower-cased|chrF\+\+|^/unseen|^/flags", name) for name in now.keys() - before
    )
    pair = ["--source", run / "corpus/test.source", "--target", run / "corpus/test.target"]
    assert run_here(monkeypatch, "score", run, *pair, "--json", forced).code == 0
    assert numbers(json.loads(forced.read_bytes())) == close(numbers(expected(run)["forced"]))


def test_M6_an_old_run_verifies(run, monkeypatch):
    result = run_here(monkeypatch, "verify", run)
    assert (result.code, result.out.count(b"\n")) == (0, result.out.count(b"  ok\n"))
    part = newest_checkpoint(run) / "optimizer.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    assert run_here(monkeypatch, "verify", run).code == 4


def test_M6_the_model_of_an_old_run_loads(run):
    translations = seq2seq.load(run / "model").translate(lines(run / "corpus/test.source"))
    assert [translation.text for translation in translations] == lines(run / "decode/test.txt")


def test_M6_an_old_run_goes_on(run, train):
    """To the bit where nothing is drawn; otherwise with the draws of today, and it says so."""
    updates = int(newest_checkpoint(run).name.rpartition("-")[2]) + 20
    changes = [f"trainer.max_updates={updates}", "stages=[train,decode]"]
    train(f"resume={run.name}", *changes, cwd=run.parent)
    checkpoint = newest_checkpoint(run)
    assert checkpoint.name.endswith(f"-{updates:08d}")
    assert json.loads(lines(run / "metrics.jsonl")[-1])["update"] == updates
    unlike = any("not bit-exact: random draws" in line for line in lines(run / "train.log"))
    assert unlike == (run.parent.name == "0.1.0")
    known, now = expected(run)["resumed"].get(kind()), checksums(checkpoint)
    line = f"{json.dumps(kind())}: {json.dumps(now)}"
    if known is None:
        path = record(run).relative_to(ROOT)
        pytest.skip(f"no record of this machine; add to {path}, {run.name}: {line}")
    assert now == known
