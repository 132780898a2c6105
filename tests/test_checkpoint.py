"""Resume bit for bit, fall back from damage, lose nothing that was acknowledged."""

import itertools
import json
import logging
import shutil
import signal
from pathlib import Path

import pytest
from faults import Act, Operations
from runs import composed, copy_of, locked, run_new, template_pairs, write_corpus
from strangers import forge
from toys import cut, folder, toy

from seq2seq.cli.stages import run_stages
from seq2seq.config.compose import RESUME_KEYS, load_run_config
from seq2seq.config.schema import Config, Stage
from seq2seq.run.checksums import read_directory
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError, StoppedError
from seq2seq.run.reading import read_json
from seq2seq.run.signals import StopRequest
from seq2seq.training import checkpoint

pytestmark = pytest.mark.e2e

UPDATES = 6
TIMES = ("seconds", "train/tokens_per_second", "train/data_wait")
CONFIGS: dict[tuple[bytes, tuple[str, ...]], Config] = {}


# Whole training runs: six updates over two epochs, everything that draws or adapts switched on.


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A tokenized run that has not been trained."""
    base = tmp_path_factory.mktemp("checkpoint")
    changes = [
        *write_corpus(base / "corpus", template_pairs(70), held_out=5),
        "tokenizer.vocab_size=100",
        "trainer.batch_tokens=250",
        "trainer.pool_batches=2",
        f"trainer.max_updates={UPDATES}",
        "trainer.validate_every=2",
        "trainer.checkpoint_every=9",  # only validations and stops save
        "scheduler.patience=0",
        "trainer.patience=null",  # it may get no better: six updates are few
        "decode.extra_steps=0",
        "logging.every=1",
        "logging.tensorboard=false",
        "trainer.validation_sentences=1",
        "optimizer.lr=0.01",
    ]
    cfg = composed("debug", changes)
    assert cfg.tokenizer.sampling, "subword sampling should be on"
    assert cfg.trainer.ema_decay, "averaging should be on"
    assert cfg.decoder.readout_dropout, "dropout should be on"
    cfg.stages = [Stage.tokenize]
    return run_new(base / "run", cfg).root


def go(root: Path, *changes: str, stop: StopRequest | None = None) -> RunDir:
    """Train, or go on training, as `train.py resume=RUN` does."""
    run = RunDir.open(root)
    path = run.path("config.yaml")
    key = (path.read_bytes(), changes)
    if key not in CONFIGS:  # reading it takes longer than the training
        CONFIGS[key] = load_run_config(path, ["stages=[train]", *changes], RESUME_KEYS)
    cfg = CONFIGS[key]
    with locked(run):
        run.lock()
        run_stages(cfg, run, stop or StopRequest())
    return run


def outcome(run: RunDir) -> dict[str, object]:
    """All that a training leaves, times excepted."""
    newest = checkpoint.newest(run)
    assert newest is not None
    files: dict[str, object] = dict(read_directory(newest))
    state = json.loads(files.pop("state.json"))
    assert state.pop("seconds") > 0
    assert state.pop("metrics_bytes") <= run.path("metrics.jsonl").stat().st_size
    lines = run.path("metrics.jsonl").read_text().splitlines()
    metrics = [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
    found = files | {"state": state, "metrics": metrics}
    if not run.path(checkpoint.BEST).exists():  # a translation that is worth nothing is no best
        return found
    best = read_json(run.path(checkpoint.BEST))
    best_files = read_directory(run.path(f"checkpoints/update-{best['update']:08d}"))
    weights = {name: data for name, data in best_files.items() if name != "state.json"}
    return found | {"best": best, "best weights": weights}


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory) -> dict[str, object]:
    """The outcome of six updates in one go."""
    return outcome(go(copy_of(prepared, tmp_path_factory.mktemp("whole") / "run")))


def assert_equal(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, f"{name} differs"


class StopAtPoll(StopRequest):
    """A signal that arrives just before the n-th time somebody looks."""

    def __init__(self, poll: int, number: signal.Signals = signal.SIGTERM) -> None:
        super().__init__()
        self.poll, self.number, self.seen = poll, number, 0

    @property
    def exit_code(self) -> int | None:
        self.seen += 1
        if self.seen >= self.poll:
            self.signal = self.number
        return super().exit_code


def test_the_reference_run_exercises_what_it_should(whole):
    state = whole["state"]
    assert state["update"] == UPDATES
    assert state["epoch"] == 1, "it should end in the second epoch"
    assert state["batch"] >= 1, "it should end in the middle of an epoch"
    assert state["reductions"] >= 1, "the plateau rule should have struck"
    updates = [line["update"] for line in whole["metrics"] if "train/loss" in line]
    assert updates == [1, 2, 3, 4, 5, 6]
    assert whole["average.safetensors"] != whole["model.safetensors"]


def test_four_updates_and_two_more_are_six(prepared, whole, tmp_path):
    root = copy_of(prepared, tmp_path / "run")
    first = outcome(go(root, "trainer.max_updates=4"))
    assert first["state"]["update"] == 4
    assert first["model.safetensors"] != whole["model.safetensors"]
    assert_equal(outcome(go(root)), whole)


def polls(prepared: Path, to: Path) -> int:
    stop = StopAtPoll(10**9)
    go(copy_of(prepared, to), stop=stop)
    return stop.seen


def test_a_stop_at_any_moment_changes_nothing(prepared, whole, tmp_path):
    """Between updates, at the end of an epoch, in the middle of a validation: all the same."""
    number = polls(prepared, tmp_path / "count")
    assert number == UPDATES + 3 * (1 + 1), "validations are polled: a loss batch, a sentence"
    stopped_at = set()
    for poll in range(1, number + 1):
        root = copy_of(prepared, tmp_path / f"poll{poll}")
        with pytest.raises(StoppedError, match="saved at update") as caught:
            go(root, stop=StopAtPoll(poll))
        assert caught.value.exit_code == 143
        assert f"resume={root}" in str(caught.value)
        stopped_at.add(checkpoint.updates(RunDir(root))[-1])
        found = outcome(go(root))
        try:
            assert_equal(found, whole)
        except AssertionError as error:
            raise AssertionError(f"stopped at poll {poll} of {number}: {error}") from error
        shutil.rmtree(root)
    assert stopped_at == set(range(1, UPDATES + 1))


def test_the_time_limit_saves_and_says_so(prepared, whole, tmp_path):
    root = copy_of(prepared, tmp_path / "run")
    with pytest.raises(StoppedError, match=r"trainer\.max_minutes") as caught:
        go(root, "trainer.max_minutes=0.00001")
    assert caught.value.exit_code == 75
    assert checkpoint.updates(RunDir(root)) == [1]
    assert_equal(outcome(go(root)), whole)


def test_a_finished_run_resumed_is_left_as_it_is(prepared, whole, tmp_path):
    root = copy_of(prepared, tmp_path / "run")
    go(root)
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


class DiedError(BaseException):
    """Not an Exception: no handler may tidy up, as after SIGKILL or a power cut."""


def dying_at(number: int) -> Act:
    """The process is dead from the n-th rename on."""
    seen = 0

    def act(_count, name, _args, proceed):
        nonlocal seen
        seen += name == "replace"
        if seen >= number and name != "close":  # the system closes what a dead process had open
            raise DiedError
        return proceed()

    return act


def test_K2_a_training_killed_at_any_commit_ends_the_same(prepared, tmp_path):
    """Also between a checkpoint and its mark as the best."""
    source = copy_of(prepared, tmp_path / "source")
    text = (source / "config.yaml").read_text().replace("select_by: bleu", "select_by: loss")
    (source / "config.yaml").write_text(text)
    forge(source)
    expected = outcome(go(copy_of(source, tmp_path / "reference")))
    for dies_at in itertools.count(1):
        root = copy_of(source, tmp_path / f"run{dies_at}")
        try:
            with Operations(dying_at(dies_at)) as operations:
                go(root)
        except DiedError:
            case = f"operation {operations.count}"
        else:
            break
        found = outcome(go(root))
        try:
            assert_equal(found, expected)
        except AssertionError as error:
            raise AssertionError(f"death at {case}: {error}") from error
    assert dies_at > 6


# One trainer at a time.


def test_a_new_run_never_takes_the_place_of_an_old_one(tmp_path):
    made = toy(tmp_path / "run")
    made.save(1)
    root = made.run.root
    with pytest.raises(RunDirError, match="already holds a run") as caught:
        RunDir.create(root)
    assert caught.value.exit_code == 4
