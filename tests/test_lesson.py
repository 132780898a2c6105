"""The lesson is a notebook that works: every cell, in order, as a student runs it."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT

LESSON = ROOT / "docs/lesson.ipynb"


def cells() -> list[str]:
    found = json.loads(LESSON.read_text("utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in found), "a notebook without its outputs"
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.e2e
def test_the_lesson_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space, printed = {"__name__": "lesson"}, ""
    for cell in cells():
        if cell.startswith("!seq2seq "):
            words = [sys.executable, "-m", *shlex.split(cell[1:])]
            paths = os.environ | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(words, capture_output=True, text=True, env=paths, check=False)
            assert done.returncode == 0, done.stderr
            printed += done.stdout
        else:
            last = cell.splitlines()[-1]
            exec(compile(cell, LESSON.name, "exec"), space)
            if last.startswith("Picture("):
                shown = eval(last, space)._repr_png_()
                assert shown.startswith(b"\x89PNG")
    text = printed + capsys.readouterr().out

    # What the lesson says is what there is to see.
    runs = [Path("outputs/lesson", name) for name in ("fixed", "additive")]
    fixed, additive = (json.loads((run / "length_bleu.json").read_text())["bins"] for run in runs)
    assert all(a["bleu"] > f["bleu"] + 20 for a, f in zip(additive, fixed, strict=True))
    assert json.loads((runs[1] / "scores.json").read_text())["alignment"]["error_rate"] < 0.35
    for words in ("as trained  ", "flattened   ", "words that stay", "only retraining does"):
        assert words in text
