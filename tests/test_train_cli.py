"""What a user sees who types something wrong: one line, the right exit code, nothing else."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import call_here
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from runs import ROOT, call

from seq2seq.config.compose import (
    composing_error,
    load_run_config,
    offer_options,
)
from seq2seq.run.errors import one_line


def train(
    folder: Path,
    *arguments: str,
    run: Callable[..., subprocess.CompletedProcess[bytes]] = call_here,
) -> subprocess.CompletedProcess[str]:
    done = run(ROOT / "train.py", *arguments, cwd=folder, timeout=300)
    out, err = done.stdout.decode(), done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in done.stderr + done.stdout
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


# Whole processes --------------------------------------------------------------------------------

MISTAKES = {
    "a misspelt key": (
        ["model.hiden_size=3"],
        1,
        "error: config: unknown key 'model.hiden_size'. Did you mean 'model.hidden_size'?",
    ),
    "a bad value": (
        ["trainer.clip_norm=0"],
        1,
        "error: config: trainer.clip_norm=0.0 is out of range. Use (0, inf).",
    ),
    "a preset without its plus": (
        ["experiment=quickstart"],
        1,
        "error: config: a preset is added with a plus. Type +experiment=quickstart.",
    ),
    "more settings than are read of a run": (
        ["+experiment=debug", f"data.placeholders=['name={'|'.join(['Anna Maria'] * 7000)}']"],
        1,
        "error: config: could not be read again once it is saved (has ",
    ),
    "a run that is there": (
        ["run_dir=old"],
        4,
        "error: old: already holds a run. Continue it with resume=old, or name another.",
    ),
}


@pytest.mark.e2e
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gives_one_line_and_its_exit_code(tmp_path, mistake):
    arguments, code, expected = MISTAKES[mistake]
    old = tmp_path / "old" / "config.yaml"
    old.parent.mkdir()
    old.write_text("name: old\n", encoding="utf-8")
    run = call if mistake == "a misspelt key" else call_here
    done = train(tmp_path, *arguments, run=run)
    assert done.returncode == code
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line == errors(done)[0]
    assert line.startswith(expected)
    # Refused before any work: no new folder, the old run untouched.
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "config.yaml"]
    assert old.read_text(encoding="utf-8") == "name: old\n"


@pytest.mark.e2e
def test_a_job_of_a_sweep_that_fails_does_not_stop_the_others(tmp_path):
    small = ["data.grammar.train_pairs=60", "data.grammar.test_pairs=5"]
    done = train(
        tmp_path,
        "--multirun",
        "tokenizer.vocab_size=9000,200,8000",
        "+experiment=debug",
        "stages=[tokenize]",
        "hydra.sweep.dir=sweep",
        *small,
    )
    lines = errors(done)
    assert len(lines) == 2  # one for each failure
    for line, size in zip(lines, (9000, 8000), strict=True):
        assert f"tokenizer.vocab_size={size} is too large for the source side of embedded" in line
    assert done.returncode == 3
    runs = [tmp_path / "sweep" / str(job) for job in range(3)]
    sizes = [load_run_config(run / "config.yaml").tokenizer.vocab_size for run in runs]
    assert sizes == [9000, 200, 8000]
    assert [(run / "data_report.json").exists() for run in runs] == [False, True, False]
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["prepared"]


@pytest.mark.e2e
def test_figure2_trains_both_models_and_draws_them_on_one_plot(tmp_path):
    few = [f"data.grammar.{split}_pairs={n}" for split, n in (("train", 200), ("test", 6))]
    done = train(
        tmp_path,
        "+experiment=figure2",
        *few,
        "data.grammar.validation_pairs=4",
        "tokenizer.vocab_size=400",
        "trainer.max_updates=2",
        "logging.tensorboard=false",
        "decode.max_ratio=0.5",
        "evaluate.heatmaps=[]",
        *(f"model.{size}_size=16" for size in ("hidden", "embedding", "align")),
    )
    assert done.returncode == 0, done.stderr
    [sweep] = (tmp_path / "outputs" / "figure2").iterdir()
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["additive", "fixed"]
    kinds = {
        load_run_config(sweep / name / "config.yaml").attention.name
        for name in ("additive", "fixed")
    }
    assert kinds == {"additive", "fixed"}
    assert (sweep / "length_bleu.png").read_bytes().startswith(b"\x89PNG")
    # Drawn after each job, so that a sweep that is stopped has its plot.
    assert done.stdout.count(f"{sweep.name}/length_bleu.png\n") == 2


@pytest.mark.e2e
def test_a_stop_that_was_asked_for_ends_the_whole_sweep(tmp_path):
    done = train(
        tmp_path,
        "--multirun",
        "seed=1,2,3",
        "+experiment=debug",
        "trainer.max_minutes=0.0001",
        "data.grammar.train_pairs=60",
        "hydra.sweep.dir=sweep",
    )
    assert done.returncode == 75
    assert not errors(done)
    stop, *left = [line for line in done.stderr.splitlines() if line.startswith("stopped: ")]
    assert f"Continue with: python {ROOT}/train.py resume=" in stop
    assert [re.search("not started, .*: (seed=.*)", line)[1] for line in left] == [
        f"seed={seed} +experiment=debug trainer.max_minutes=0.0001 data.grammar.train_pairs=60. "
        "Start the sweep again with the same hydra.sweep.dir and on_existing=resume."
        for seed in (2, 3)
    ]
    assert (tmp_path / "sweep" / "0" / "checkpoints").exists()
    assert not (tmp_path / "sweep" / "1").exists()


# What Hydra refuses before our code runs --------------------------------------------------------

COMPOSING = {
    "model.hiden_size=3": "unknown key 'model.hiden_size'. Did you mean 'model.hidden_size'?",
    "schedler=plateau": "unknown key 'schedler'. Did you mean 'scheduler'?",
    "optimizer.zzz=3": (
        "unknown key 'optimizer.zzz'. Known here: name, lr, rho, eps, weight_decay."
    ),
    "seed.x=3": "unknown key 'seed.x'. 'seed' is a value, not a group.",
    "hydra.run.dirr=3": "unknown key 'hydra.run.dirr'. Did you mean 'hydra.run.dir'?",
    "scheduler=platau": (
        "In 'config': Could not find 'scheduler/platau'. "
        "Available: constant, cosine, cosine_short, inverse_sqrt, linear, plateau."
    ),
    "seed=[": (
        "cannot read override 'seed=['. "
        "Write key=value; quote a value with commas, brackets or letters beyond ASCII."
    ),
    "data.root=a~b": (
        "cannot read override 'data.root=a~b'. Quote the value, as it has '~': 'KEY=\"VALUE\"'."
    ),
    "data.train=[é.en,é.fr]": (
        "cannot read override 'data.train=[é.en,é.fr]'. "
        "Quote each text, as the value has 'é': 'KEY=[\"A\",\"B\"]'."
    ),
    "~model.hiden": (
        "Could not delete from config. 'model.hiden' does not exist. See seq2seq train --help."
    ),
    "model=3": "a group needs a name. Write, for example, model=small.",
    "data.root=a,b": ("Ambiguous value for argument 'data.root=a,b'. See seq2seq train --help."),
}


@pytest.mark.parametrize("override", COMPOSING)
def test_refusals_of_hydra_become_one_line(override):
    offer_options()
    with (
        initialize_config_dir(str(ROOT / "configs"), version_base="1.3"),
        pytest.raises((HydraException, OmegaConfBaseException, ValueError)) as caught,
    ):
        compose("config", overrides=[override], return_hydra_config=True)
    error = composing_error(caught.value)
    assert error.exit_code == 1
    assert one_line(error) == f"error: config: {COMPOSING[override]}"
