"""Sweeps and requeued jobs: errors cross processes, a bad job is alone, a stop names what is left.

The rows O1, O4, O7, O16 of the list of users' reports.
"""

import copy
import importlib.util
import inspect
import json
import logging
import os
import pickle
import signal
import sys

import pytest
import yaml
from runs import ROOT, call
from test_train_cli import errors, train

from seq2seq.cli import sweep
from seq2seq.cli.train import main
from seq2seq.config.schema import SelectBy
from seq2seq.run.checkpoints import BEST
from seq2seq.run.checksums import with_checksum
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import StoppedError, UserError, one_line

SMALL = ["+experiment=debug", "trainer.max_updates=2", "tokenizer.vocab_size=200", "threads=1"]
SMALL += [f"data.grammar.{split}_pairs={n}" for split, n in (("train", 60), ("test", 4))]
SMALL += ["data.grammar.validation_pairs=4", "stages=[tokenize,train]", "logging.tensorboard=false"]
AT_ONCE = "trainer.max_minutes=0.00001"


@pytest.fixture(autouse=True)
def logging_as_before():
    """A training logs to its process's stderr, which here outlives it."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def classes(kind: type[UserError]) -> list[type[UserError]]:
    return [kind, *(deeper for below in kind.__subclasses__() for deeper in classes(below))]


def an_error(kind: type[UserError]) -> UserError:
    """Made with the arguments of its own class."""
    names = inspect.signature(kind).parameters
    numbers = {"asked", "largest", "smallest", "exit_code"}
    return kind(**{name: 75 if name in numbers else f"the {name}" for name in names})


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
@pytest.mark.parametrize("kind", classes(UserError))
def test_every_error_crosses_to_another_process(kind, copied):
    error = an_error(kind)
    found = copied(error)
    assert type(found) is kind
    assert one_line(found) == one_line(error)
    assert vars(found) == vars(error)
    assert found.args == error.args


# What a sweeper maximizes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "value", "score"),
    [("bleu", 12.5, 12.5), ("loss", -3.25, -3.25), ("symbol_error_rate", 7.25, 92.75)],
)
def test_the_score_is_to_be_maximized(tmp_path, metric, value, score):
    run = RunDir(tmp_path)
    assert sweep.selected_score(run) is None
    run.write_json(BEST, with_checksum({"update": 3, "metric": metric, "value": value}))
    assert sweep.selected_score(run) == score
    assert SelectBy[metric]


def test_after_a_stop_no_job_starts_in_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "stops", [])
    sweep.refuse_after_stop(tmp_path, ["seed=1"])
    sweep.stops.append(143)
    text = r"not started, as the sweep was stopped: seed=2\. Start"
    with pytest.raises(StoppedError, match=text) as caught:
        sweep.refuse_after_stop(tmp_path, ["seed=2"])
    assert caught.value.exit_code == 143


# The same line again ----------------------------------------------------------------------------


@pytest.mark.e2e
def test_seeds_share_corpus_and_vocabulary(tmp_path, monkeypatch, capsys):
    """Row O14."""
    monkeypatch.chdir(tmp_path)
    words = ["-m", *SMALL, "stages=[tokenize]", "seed=1,2", "hydra.sweep.dir=sweep"]
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py"), *words])
    main(words)
    assert capsys.readouterr().err.count(" pairs read, ") == 1
    first, second = (tmp_path / "sweep" / number for number in "01")
    for name in ("data_report.json", "tokenizers/source.model", "tokens/train.target.ids"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.e2e
def test_the_same_line_starts_continues_and_says_that_all_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def line(*words: str) -> tuple[int, str, str]:
        code, words = 0, (*SMALL, "on_existing=resume", *words)
        monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py"), *words])
        try:
            main(words)
        except SystemExit as exit_:
            code = exit_.code
        return code, *capsys.readouterr()

    def times() -> dict[str, int]:
        files = (path for path in (tmp_path / "r").rglob("*") if path.name != "run.lock")
        return {str(path): path.stat().st_mtime_ns for path in files}

    assert line("run_dir=r", AT_ONCE)[0] == 75
    code, _, err = line("run_dir=r")
    assert code == 0
    assert "continuing from r/checkpoints/update-00000001" in err
    before = times()
    assert line("run_dir=r") == (0, "run        r: all is done\n", "")
    assert times() == before
    # Another line is not this one; a higher limit goes on.
    code, _, err = line("run_dir=r", "seed=2")
    assert (code, "error: r/config.yaml: seed is 1 in this run, not 2. Only" in err) == (4, True)
    code, _, err = line("run_dir=r", "trainer.max_updates=3")
    assert (code, "trained 3 updates" in err) == (0, True)
    code, _, err = line()
    assert (code, err.count("\n")) == (1, 1)
    assert "on_existing=resume needs a directory that is the same at each start" in err
    assert line("run_dir=r", "on_existing=overwrite")[0] == 1


# Launchers and sweepers -------------------------------------------------------------------------


def needs(plugin: str) -> None:
    if importlib.util.find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"{plugin} is not installed: pip install -e '.[sweeps]'")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit"])
def test_a_bad_and_a_stopped_job_do_not_end_the_others(tmp_path, launcher):
    needs(f"hydra_{launcher}_launcher")
    kind = {"joblib": "joblib", "submitit": "submitit_local"}[launcher]
    jobs = ["-m", "tokenizer.vocab_size=9000,200", "trainer.max_minutes=60,0.00001"]
    again = ["hydra.sweep.dir=sweep", f"hydra/launcher={kind}", "on_existing=resume"]
    small = [word for word in SMALL if "vocab_size" not in word]
    done = train(tmp_path, *jobs, *small, *again, run=call)
    assert done.returncode == 3
    assert all("vocab_size=9000 is too large" in line for line in errors(done))
    assert errors(done)
    runs = [tmp_path / "sweep" / str(number) for number in range(4)]
    assert [(run / "model").exists() for run in runs] == [False, False, True, False]
    assert (runs[3] / "checkpoints").exists()
    # The same line does what is left: the bad jobs fail again, the stopped one goes on.
    jobs[-1] = "trainer.max_minutes=60,61"
    done = train(tmp_path, *jobs, *small, *again, run=call)
    assert done.returncode == 3
    assert [(run / "model").exists() for run in runs] == [False, False, True, True]


@pytest.mark.slow
def test_optuna_optimises_the_learning_rate_of_debug(tmp_path):
    needs("hydra_optuna_sweeper")
    done = train(
        tmp_path,
        *("-m", *SMALL, "hydra.sweep.dir=sweep", "hydra/sweeper=optuna"),
        *("hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1"),
        *("hydra.sweeper.sampler.seed=1", "optimizer.lr=interval(0.0001,0.01)"),
        run=call,  # warnings of plugins are no errors there
    )
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text("utf-8"))
    best = [json.loads((tmp_path / "sweep" / str(n) / BEST).read_text("utf-8")) for n in range(4)]
    rates = [
        yaml.safe_load((tmp_path / "sweep" / str(n) / "config.yaml").read_text("utf-8"))
        for n in range(4)
    ]
    scores = {each["value"]: cfg["optimizer"]["lr"] for each, cfg in zip(best, rates, strict=True)}
    assert len(scores) == 4
    assert found["best_value"] == max(scores)
    assert found["best_params"] == {"optimizer.lr": scores[max(scores)]}


PARENT = """
import multiprocessing, os, signal, time
from seq2seq.cli.sweep import leave_signals_to_jobs

worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
worker.start()
leave_signals_to_jobs()
os.kill(os.getpid(), signal.SIGINT)  # a terminal sends it to the workers, too
assert worker.is_alive()
os.kill(os.getpid(), signal.SIGTERM)
worker.join(30)
print(worker.exitcode, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


@pytest.mark.e2e
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_signals_reach_the_workers_and_end_a_sweep_without_any(tmp_path):
    done = call("-c", PARENT, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"%d\n" % -signal.SIGTERM)
