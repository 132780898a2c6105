"""Cells and encoders all the way, some from outside the package: `family_extension.py`."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forks import call_here
from runs import ROOT, call, environment

HERE = Path(__file__).parent
PARTS = {
    "outside": ["cell=coupled", "encoder=bag_of_words"],
    "stacked": [
        *("cell=lstm", "cell.recurrent_dropout=0.3", "cell.layer_norm=true", "cell.transitions=2"),
        *("encoder=stacked", "encoder.dropout=0.2", "encoder.residual=true"),
        *("decoder=stacked", "decoder.layers=2", "decoder.dropout=0.2", "attention=coverage"),
    ],
}
"""By the name of a run."""
OPTIONS = ["--extension", "family_extension", "device=cpu", "threads=1"]
FEW = ["data.grammar.validation_pairs=4", "data.grammar.test_pairs=4", "decode.beam_size=2"]
FEW += ["decode.max_ratio=1", "evaluate.heatmaps=[]", "logging.tensorboard=false"]


def trained(cwd: Path, name: str) -> list[str]:
    command = [
        str(ROOT / "train.py"),
        *OPTIONS,
        "+experiment=debug",
        *PARTS[name.partition("-")[0]],
    ]
    command += [] if name == "outside" else ["stages=[tokenize,train]"]
    return [sys.executable, *command, f"run_dir={name}", *FEW]


def kill_after_a_checkpoint(cwd: Path, name: str) -> None:
    """Start a training and end it with SIGKILL once it has saved."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    saved = f"{name}/checkpoints/*-*/manifest.json"
    with subprocess.Popen(trained(cwd, name), cwd=cwd, env=environment(), **quiet) as process:
        while process.poll() is None and not list(cwd.glob(saved)):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def run(request, tmp_path_factory) -> Path:
    """A run that was killed and resumed."""
    name = request.param
    cwd = tmp_path_factory.mktemp("outside")
    shutil.copy(HERE / "family_extension.py", cwd)
    kill_after_a_checkpoint(cwd, name)
    done = call(ROOT / "train.py", *OPTIONS, f"resume={name}", cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    return cwd / name


@pytest.mark.e2e
@pytest.mark.parametrize("run", PARTS, indirect=True)
def test_a_killed_run_comes_to_the_weights_of_one_that_was_not(run):
    _, *command = trained(run.parent, f"{run.name}-whole")
    assert call_here(*map(Path, command[:1]), *command[1:], cwd=run.parent).returncode == 0
    weights = [
        sorted(root.glob("checkpoints/*-00000020/model.safetensors"))[0].read_bytes()
        for root in (run, run.with_name(f"{run.name}-whole"))
    ]
    assert weights[0] == weights[1]


@pytest.mark.e2e
@pytest.mark.parametrize("run", ["outside"], indirect=True)
def test_it_translates_draws_and_says_what_it_is(run):
    script = ROOT / "scripts/decode.py"
    options = ["--extension", "family_extension", "--format", "jsonl", "--heatmaps", "maps"]
    overrides = ["decode.beam_size=5", "decode.n_best=5"]
    text = b"The small red car sleeps.\n"
    done = call_here(script, run.name, *options, *overrides, cwd=run.parent, stdin=text)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert found["hypotheses"]
    assert all(
        sum(row) == pytest.approx(1, abs=1e-4)
        for hypothesis in found["hypotheses"]
        for row in hypothesis["attention"]
    )
    assert len(list((run.parent / "maps").glob("*.png"))) == 1
    page = run.parent / "report.html"
    report = [run.name, "--extension", "family_extension", "--output", str(page)]
    assert call_here(ROOT / "scripts/report.py", *report, cwd=run.parent).returncode == 0
    assert page.stat().st_size > 10_000
    told = (run / "fidelity.md").read_text("utf-8")
    assert "cell coupled, not the paper's gated unit (A.1.1)" in told
    assert "encoder bag_of_words, not the paper's recurrent encoder (A.2.1)" in told


def test_the_page_walks_through_the_file():
    """Each block of code in docs/extending.md stands in the extension, in the same order."""

    def code(text: str) -> str:
        return "\n".join(line.strip() for line in text.splitlines() if line.strip())

    page = (ROOT / "docs/extending.md").read_text("utf-8")
    source = code((HERE / "family_extension.py").read_text("utf-8"))
    places = [source.find(code(block)) for block in re.findall(r"```python\n(.*?)```", page, re.S)]
    assert len(places) >= 4
    assert -1 not in places
    assert places == sorted(places)
    assert len(source.splitlines()) <= 80
