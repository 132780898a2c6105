"""Resume bit for bit, fall back from damage, lose nothing that was acknowledged."""

import json
import logging
from pathlib import Path

import pytest
from runs import config_of, copy_of, go, metrics_of, tokenized_run
from toys import cut, folder

from seq2seq.run.checksums import read_directory
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError, StoppedError
from seq2seq.run.reading import read_json
from seq2seq.training import checkpoint

pytestmark = pytest.mark.e2e

UPDATES = 6
TIMES = ("seconds", "train/tokens_per_second", "train/data_wait")


# Whole training runs: six updates over two epochs, everything that draws or adapts switched on.


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    changes = ["trainer.batch_tokens=250", "trainer.pool_batches=2", "trainer.validate_every=2"]
    changes += [f"trainer.max_updates={UPDATES}", "trainer.checkpoint_every=9"]  # only stops save
    changes += ["scheduler.patience=0", "trainer.patience=null"]  # six updates are few
    changes += ["trainer.validation_sentences=1", "decode.extra_steps=0", "optimizer.lr=0.4"]
    changes += ["logging.every=1", "logging.tensorboard=false"]
    root = tokenized_run(tmp_path_factory.mktemp("checkpoint"), *changes, pairs=70, held_out=5)
    cfg = config_of(root)
    assert cfg.tokenizer.sampling, "subword sampling should be on"
    assert cfg.trainer.ema_decay, "averaging should be on"
    assert cfg.decoder.readout_dropout, "dropout should be on"
    return root


def outcome(run: RunDir) -> dict[str, object]:
    newest = checkpoint.newest(run)
    assert newest is not None
    files: dict[str, object] = dict(read_directory(newest))
    state = json.loads(files.pop("state.json"))
    assert state.pop("seconds") > 0
    assert state.pop("metrics_bytes") <= run.path("metrics.jsonl").stat().st_size
    metrics = [{k: v for k, v in row.items() if k not in TIMES} for row in metrics_of(run.root)]
    found = files | {"state": state, "metrics": metrics}
    if not run.path(checkpoint.BEST).exists():  # a translation that is worth nothing is no best
        return found
    best = read_json(run.path(checkpoint.BEST))
    best_files = read_directory(run.path(f"checkpoints/update-{best['update']:08d}"))
    weights = {name: data for name, data in best_files.items() if name != "state.json"}
    return found | {"best": best, "best weights": weights}


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory) -> dict[str, object]:
    return outcome(go(copy_of(prepared, tmp_path_factory.mktemp("whole") / "run")))


def assert_equal(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, f"{name} differs"


def test_the_reference_run_exercises_what_it_should(whole):
    state = whole["state"]
    assert state["update"] == UPDATES
    assert state["epoch"] == 1, "it should end in the second epoch"
    assert state["batch"] >= 1, "it should end in the middle of an epoch"
    assert state["reductions"] >= 1, "the plateau rule should have struck"
    updates = [line["update"] for line in whole["metrics"] if "train/loss" in line]
    assert updates == [1, 2, 3, 4, 5, 6]
    assert whole["average.safetensors"] != whole["model.safetensors"]


def test_the_time_limit_saves_and_says_so(prepared, whole, tmp_path):
    root = copy_of(prepared, tmp_path / "run")
    with pytest.raises(StoppedError, match=r"trainer\.max_minutes") as caught:
        go(root, "trainer.max_minutes=0.00001")
    assert caught.value.exit_code == 75
    assert checkpoint.updates(RunDir(root)) == [1]
    assert_equal(outcome(go(root)), whole)


@pytest.mark.parametrize("torn", [b'{"update": 5, "epo', b"\0" * 100, b'{"update": 5}\n{"upd', b""])
def test_O2_what_was_logged_after_the_checkpoint_is_written_once(prepared, whole, tmp_path, torn):
    root = copy_of(prepared, tmp_path / "run")
    go(root, "trainer.max_updates=4")
    with (root / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert_equal(outcome(go(root)), whole)


def test_S6_a_training_with_damaged_checkpoints_goes_back_or_stops(
    prepared, whole, tmp_path, caplog
):
    root = copy_of(prepared, tmp_path / "run")
    go(root, "trainer.max_updates=4", "trainer.keep_checkpoints=3")
    cut(folder(root, 4) / "optimizer.safetensors", 100)
    kept = copy_of(root, tmp_path / "kept")
    with caplog.at_level(logging.WARNING):
        found = outcome(go(root))
    assert "update-00000004 is damaged" in caplog.text
    assert_equal(found, whole)
    for step in checkpoint.updates(RunDir(kept)):
        cut(folder(kept, step) / "state.json", 1)
    before = (kept / "metrics.jsonl").read_bytes()
    with pytest.raises(RunDirError, match="checkpoints are damaged"):
        go(kept)
    assert (kept / "metrics.jsonl").read_bytes() == before


# One trainer at a time.
