"""What only shows a run may fail: one line about it, and the same weights bit for bit."""

import logging
import os
import sys
import threading
from pathlib import Path

import pytest
from runs import ROOT, call, copy_of, go, metrics_of, tokenized_run
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from seq2seq.decoding.translation import Translation
from seq2seq.run.checksums import read_directory
from seq2seq.run.directory import RunDir
from seq2seq.training import board, checkpoint, diagnostics, monitor

pytestmark = pytest.mark.e2e

WEIGHTS = ("model.safetensors", "optimizer.safetensors", "average.safetensors")
TIMES = ("seconds", "train/tokens_per_second", "train/data_wait")
PICTURES = ["curves.png", "heatmaps/test-0001.png", "heatmaps/test-0002.png", "length_bleu.png"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    changes = ["trainer.max_updates=4", "trainer.validate_every=2", "decode.extra_steps=0"]
    changes += ["trainer.validation_sentences=1", "decode.beam_size=2", "logging.every=1"]
    changes += ["logging.samples=1", "logging.heatmaps=1"]
    changes += ["tokenizer.sampling=0"]  # sentencepiece draws differently in every process
    changes += ["logging.tensorboard=true"]
    return tokenized_run(tmp_path_factory.mktemp("watching"), *changes, pairs=40, held_out=3)


def outcome(run: RunDir) -> dict[str, object]:
    """Weights of every checkpoint, and metrics without times."""
    found: dict[str, object] = {}
    for step in checkpoint.updates(run):
        files = read_directory(run.path(f"checkpoints/update-{step:08d}"))
        found |= {f"{step}/{name}": files[name] for name in WEIGHTS}
    rows = metrics_of(run.root)
    found["metrics"] = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    return found


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory) -> dict[str, object]:
    found = outcome(go(copy_of(prepared, tmp_path_factory.mktemp("whole") / "run")))
    assert len(found) == 7
    return found


def full(*_args, **_kwargs) -> None:
    raise OSError(28, "No space left on device")


def broken(*_args, **_kwargs) -> None:
    raise ValueError("a bug in here")


def info(text: str, *_args) -> None:
    if text.startswith("validation after"):
        raise ValueError("cannot be printed")


TENSORBOARD = "TensorBoard gets no more of this run: [Errno 28] No space left on device"
FAULTS = {
    "opening": (board, "_open_writer", full, TENSORBOARD),
    "scalar": (FileWriter, "add_summary", full, TENSORBOARD),
    "flush": (SummaryWriter, "flush", full, TENSORBOARD),
    "disk full": (RecordWriter, "write", full, TENSORBOARD),
    "heatmap": (
        Translation,
        "plot",
        broken,
        "no heatmaps of validation sentences: a bug in here",
    ),
    "print": (monitor.log, "info", info, "no validation report: cannot be printed"),
    "bar": (monitor.tqdm, "update", broken, "no progress bar: a bug in here"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_O5_what_is_shown_may_fail(prepared, whole, tmp_path, monkeypatch, caplog, fault):
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    before = threading.excepthook
    place, name, failure, said = FAULTS[fault]
    monkeypatch.setattr(place, name, failure)
    found = outcome(go(copy_of(prepared, tmp_path / "run")))
    monkeypatch.undo()
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == [said]
    assert found == whole
    assert threading.excepthook is before


LOOKS = {
    ("weights", "update ratios"): ("update_ratio/",),
    ("look", "gates and attention"): ("gates/", "attention/"),
}


@pytest.mark.parametrize(("place", "what"), LOOKS, ids=[place for place, _ in LOOKS])
def test_O5_looking_into_the_model_may_fail(
    prepared, whole, tmp_path, monkeypatch, caplog, place, what
):
    """For want of memory, say: the same weights, and what was seen otherwise."""
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    monkeypatch.setattr(diagnostics.Probe, place, broken)
    found = outcome(go(copy_of(prepared, tmp_path / "run")))
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == [f"no {what}: a bug in here"]
    lost = LOOKS[place, what]
    assert any(key.startswith(lost) for row in whole["metrics"] for key in row)
    left = [{k: v for k, v in row.items() if not k.startswith(lost)} for row in whole["metrics"]]
    assert found == whole | {"metrics": left}


def test_O5_a_thread_of_others_still_tells_its_errors(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    (tmp_path / "config.yaml").touch()
    shown = board.Board(RunDir(tmp_path), 0, wanted=True)
    thread = threading.Thread(target=broken)
    thread.start()
    thread.join()
    shown.close()
    assert [args.exc_type for args in told] == [ValueError]


# Packages and surroundings --------------------------------------------------------------------


def blocked(monkeypatch, package: str) -> None:
    """Let a package be as if it were not installed."""
    for name in list(sys.modules):
        ours = name.startswith("torch.utils.tensorboard") and package == "tensorboard"
        if name == package or name.startswith(f"{package}.") or ours:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("package", ["matplotlib", "tensorboard"])
def test_L10_a_package_for_pictures_may_be_missing(
    prepared, whole, tmp_path, monkeypatch, caplog, package
):
    """One line for each output that is left out; scores and weights are there."""
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    blocked(monkeypatch, package)
    root = copy_of(prepared, tmp_path / "run")
    run = go(root, "stages=[train,decode,evaluate]")
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert outcome(run) == whole
    assert run.path("scores.json").exists()
    there = [name for name in PICTURES if run.path(name).exists()]
    if package == "matplotlib":
        assert there == []
        assert sorted(line.partition(":")[0] for line in said) == sorted(
            [f"no {name}" for name in PICTURES] + ["no heatmaps of validation sentences"]
        )
        assert all("matplotlib" in line for line in said)
    else:
        assert there == PICTURES
        [line] = said
        assert line.startswith("TensorBoard gets no more of this run: ")
        assert not list(run.root.glob("tensorboard/events*"))


@pytest.mark.parametrize("home", ["/proc/nowhere", pytest.param("/proc", marks=pytest.mark.slow)])
def test_L10_no_screen_and_no_home(prepared, whole, tmp_path, home):
    """HOME is missing and cannot be made, or nothing can be written there; no display."""
    root = copy_of(prepared, tmp_path / "run")
    unset = ("DISPLAY", "WAYLAND_DISPLAY", "MPLCONFIGDIR", "XDG_CONFIG_HOME")
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # compiling takes long
    command = [ROOT / "train.py", f"resume={root}", "stages=[train,decode,evaluate]"]
    done = call(*command, cwd=tmp_path, HOME=home, XDG_CACHE_HOME=cache, **dict.fromkeys(unset, ""))
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert "Traceback" not in said
    run = RunDir.open(root)
    assert outcome(run) == whole
    assert [name for name in PICTURES if run.path(name).exists()] == PICTURES
    about = [line for line in said.splitlines() if home in line and "config" in line.lower()]
    assert len(about) <= 2, "one line of matplotlib's, or two"
