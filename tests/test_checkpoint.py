"""Resume bit for bit, fall back from damage, lose nothing that was acknowledged."""

import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from runs import ROOT, composed, config_of, copy_of, locked, run_new, template_pairs, write_corpus
from safetensors.torch import load_file, save
from torch import nn

from seq2seq import stages
from seq2seq.config import RESUME_KEYS, load_run_config
from seq2seq.errors import DivergedError, RunDirError, StoppedError
from seq2seq.reading import read_folder, read_json, verify_folder
from seq2seq.run import RunDir
from seq2seq.settings import Config, Stage
from seq2seq.signals import StopRequest
from seq2seq.stages import run_stages
from seq2seq.training import checkpoint, trainer
from seq2seq.training.averaging import WeightAverage
from seq2seq.training.checkpoint import Progress, TrainingState
from seq2seq.training.trainer import Trainer

pytestmark = pytest.mark.e2e

UPDATES = 6
TIMES = ("seconds", "train/words_per_second")
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
        "decode.extra_steps=0",
        "logging.every=1",
        "logging.tensorboard=false",
        "trainer.validation_sentences=1",
        "optimizer.lr=0.01",
    ]
    cfg = composed("debug", changes)
    assert cfg.tokenizer.sampling, "subword sampling should be on"
    assert cfg.trainer.ema_decay, "averaging should be on"
    assert cfg.model.readout_dropout, "dropout should be on"
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
    run.lock()
    with locked(run):
        run_stages(cfg, run, stop or StopRequest())
    return run


def outcome(run: RunDir) -> dict[str, object]:
    """All that a training leaves, times excepted."""
    newest = checkpoint.newest(run)
    assert newest is not None
    files: dict[str, object] = dict(read_folder(newest))
    state = json.loads(files.pop("state.json"))
    assert state.pop("seconds") > 0
    assert state.pop("metrics_bytes") <= run.path("metrics.jsonl").stat().st_size
    lines = run.path("metrics.jsonl").read_text().splitlines()
    metrics = [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
    best = read_json(run.path(checkpoint.BEST))
    best_files = read_folder(run.path(f"checkpoints/step-{best['step']:08d}"))
    weights = {name: data for name, data in best_files.items() if name != "state.json"}
    return files | {"state": state, "metrics": metrics, "best": best, "best weights": weights}


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


def test_two_runs_are_equal(prepared, whole, tmp_path):
    assert_equal(outcome(go(copy_of(prepared, tmp_path / "run"))), whole)


def test_another_seed_is_not_equal(prepared, whole, tmp_path):
    """The comparison above can fail."""
    root = copy_of(prepared, tmp_path / "run")
    text = (root / "config.yaml").read_text()
    (root / "config.yaml").write_text(text.replace("\nseed: 1\n", "\nseed: 2\n"))
    found = outcome(go(root))
    assert found["model.safetensors"] != whole["model.safetensors"]


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
        stopped_at.add(checkpoint.steps(RunDir(root))[-1])
        found = outcome(go(root))
        if found["state"]["validated"] != UPDATES:
            # Stopped in the last validation: that checkpoint was written before it, and stays.
            assert poll > number - 4
            found["state"] = whole["state"]
        try:
            assert_equal(found, whole)
        except AssertionError as error:
            raise AssertionError(f"stopped at poll {poll} of {number}: {error}") from error
        shutil.rmtree(root)
    assert stopped_at == set(range(1, UPDATES + 1))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGUSR1, 75)],
)
def test_a_signal_becomes_its_exit_code(number, code):
    before = {each: signal.getsignal(each) for each in signal.valid_signals()}
    stop = StopRequest()
    try:
        stop.install()
        assert stop.exit_code is None
        os.kill(os.getpid(), number)
        assert stop.exit_code == code
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) is not handler:
                signal.signal(each, handler)


def test_the_time_limit_saves_and_says_so(prepared, whole, tmp_path):
    root = copy_of(prepared, tmp_path / "run")
    with pytest.raises(StoppedError, match=r"trainer\.max_minutes") as caught:
        go(root, "trainer.max_minutes=0.00001")
    assert caught.value.exit_code == 75
    assert checkpoint.steps(RunDir(root)) == [1]
    assert_equal(outcome(go(root)), whole)


@pytest.mark.parametrize(
    "changes",
    [
        ["logging.tensorboard=true", "logging.samples=2", "logging.heatmaps=1"],
        ["logging.every=4", "logging.samples=0", "trainer.keep_checkpoints=5"],
        ["decode.batch_sentences=2", "decode.beam_size=2"],
    ],
    ids=" ".join,
)
def test_logging_leaves_the_weights_alone(prepared, whole, tmp_path, changes):
    found = outcome(go(copy_of(prepared, tmp_path / "run"), *changes))
    for name in ("model.safetensors", "optimizer.safetensors", "average.safetensors"):
        assert found[name] == whole[name], f"{name} differs"


def test_more_validations_leave_the_weights_alone(prepared, tmp_path):
    """Without the plateau rule, which listens to them."""
    weights = []
    for every in (1, 3):
        root = copy_of(prepared, tmp_path / f"every{every}")
        text = (root / "config.yaml").read_text()
        text = text.replace("validate_every: 2", f"validate_every: {every}")
        text = text.replace("min_factor: 0.01", "min_factor: 1.0")
        (root / "config.yaml").write_text(text)
        found = outcome(go(root))
        validated = [x["update"] for x in found["metrics"] if "validation/loss" in x]
        assert validated == list(range(every, UPDATES + 1, every))
        weights.append([found["model.safetensors"], found["average.safetensors"]])
    assert weights[0] == weights[1]


def test_a_finished_run_resumed_is_left_as_it_is(prepared, whole, tmp_path):
    root = copy_of(prepared, tmp_path / "run")
    go(root)
    assert_equal(outcome(go(root)), whole)


# Divergence.


@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_divergence_is_caught_before_the_weights_move(prepared, tmp_path, monkeypatch, what):
    root = copy_of(prepared, tmp_path / "run")
    go(root, "trainer.max_updates=2")
    seen: dict[str, list[torch.Tensor]] = {}

    class Poisoned(Trainer):
        def fit(self) -> Progress:
            if what == "loss":
                with torch.no_grad():
                    next(self.model.parameters())[5:] = torch.nan
            else:
                monkeypatch.setattr(trainer, "clip_gradients", lambda *_: float("nan"))
            tensors = [*self.model.parameters(), *self.state.average.weights.values()]
            seen["before"] = [t.detach().clone() for t in tensors]
            seen["after"] = tensors
            return super().fit()

    monkeypatch.setattr(stages, "Trainer", Poisoned)
    with pytest.raises(
        DivergedError, match=rf"{what} is nan at update 3\. Lower optimizer\.lr"
    ) as e:
        go(root)
    assert e.value.exit_code == 6
    for before, after in zip(seen["before"], seen["after"], strict=True):
        assert torch.equal(before.nan_to_num(7.0), after.detach().nan_to_num(7.0))
    assert checkpoint.steps(RunDir(root)) == [2], "nothing of it may be saved"


# Damage. A one-layer model is enough from here on.


@dataclass
class Toy:
    """A run with a state that `update()` changes in every part."""

    run: RunDir
    state: TrainingState

    def update(self) -> None:
        progress = self.state.progress
        progress.update += 1
        torch.manual_seed(progress.update)
        self.state.optimizer.zero_grad()
        self.state.model(torch.randn(3, 4)).square().sum().backward()
        self.state.optimizer.step()
        self.state.average.update(self.state.model, progress.update)
        progress.best_update, progress.best_score = progress.update, float(progress.update)

    def save(self, step: int, *, best: bool = False) -> None:
        while self.state.progress.update < step:
            self.update()
        checkpoint.save(self.run, self.state)
        if best:
            checkpoint.mark_best(self.run, self.state.progress, "bleu")

    def tensors(self) -> list[list[float]]:
        model, optimizer = self.state.model, self.state.optimizer.state_dict()["state"]
        moments = [each[key] for _, each in sorted(optimizer.items()) for key in sorted(each)]
        every = [*model.parameters(), *moments, *self.state.average.weights.values()]
        return [t.detach().flatten().tolist() for t in every]


def toy(root: Path) -> Toy:
    root.mkdir(exist_ok=True)
    (root / "config.yaml").touch()
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    state = TrainingState(model, optimizer, WeightAverage(model, 0.9), Progress())
    return Toy(RunDir(root), state)


def loaded(root: Path) -> Toy:
    """A fresh state, filled from the newest checkpoint."""
    fresh = toy(root)
    path = checkpoint.newest(fresh.run)
    assert path is not None
    checkpoint.load(fresh.run, path, fresh.state)
    return fresh


def folder(root: Path, step: int) -> Path:
    return root / f"checkpoints/step-{step:08d}"


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


FILES = (
    "average.safetensors",
    "config.yaml",
    "manifest.json",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
)


def test_a_checkpoint_holds_everything(tmp_path):
    made = toy(tmp_path / "run")
    made.save(3)
    assert sorted(p.name for p in folder(made.run.root, 3).iterdir()) == sorted(FILES)
    again = loaded(made.run.root)
    assert again.tensors() == made.tensors()
    assert again.state.progress == made.state.progress
    made.update()
    again.update()
    assert again.tensors() == made.tensors(), "the optimizer forgot something"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "flipped", "longer"])
def test_a_damaged_checkpoint_is_named_and_the_older_one_used(tmp_path, caplog, name, damage):
    made = toy(tmp_path / "run")
    made.save(1)
    expected = made.tensors()
    made.save(2)
    path = folder(made.run.root, 2) / name
    size = path.stat().st_size
    match damage:
        case "cut":
            cut(path, size - 1)
        case "empty":
            cut(path, 0)
        case "gone":
            path.unlink()
        case "flipped":
            flip(path, 4 * size + 1)
        case _:
            path.write_bytes(path.read_bytes() + b"\0")
    with caplog.at_level(logging.WARNING):
        again = loaded(made.run.root)
    assert again.state.progress.update == 1
    assert again.tensors() == expected
    [record] = caplog.records
    assert f"{folder(made.run.root, 2)} is damaged" in record.getMessage()
    if damage == "cut" and name != "manifest.json":
        assert f"is {size - 1} bytes, expected {size}" in record.getMessage()


def test_no_cut_and_no_flipped_bit_goes_unnoticed(tmp_path):
    """64 lengths and 100 bits a file. Bits of the manifest that say nothing do no harm."""
    made = toy(tmp_path / "run")
    made.save(1)
    root = folder(made.run.root, 1)
    good = {name: (root / name).read_bytes() for name in FILES}
    tensors = read_folder(root)
    for name, data in good.items():
        path = root / name
        for size in {len(data) * i // 64 for i in range(64)}:
            path.write_bytes(data[:size])
            assert verify_folder(root) is not None, f"{name} cut to {size} bytes"
        for bit in range(0, 8 * len(data), max(1, 8 * len(data) // 100)):
            path.write_bytes(data)
            flip(path, bit)
            harmless = name == "manifest.json" and verify_folder(root) is None
            same = harmless and read_folder(root) == tensors
            assert same or verify_folder(root) is not None, f"{name}: bit {bit}"
        path.write_bytes(data)
    assert verify_folder(root) is None, "the undamaged folder should verify"


def test_all_damaged_never_starts_afresh(tmp_path):
    made = toy(tmp_path / "run")
    for step in (1, 2, 3):
        made.save(step)
        cut(folder(made.run.root, step) / "model.safetensors", 10)
    with pytest.raises(RunDirError, match=r"all 3 checkpoints are damaged\. Restore one") as caught:
        checkpoint.newest(made.run)
    assert caught.value.exit_code == 4


def test_a_training_with_damaged_checkpoints_goes_back_or_stops(prepared, whole, tmp_path, caplog):
    root = copy_of(prepared, tmp_path / "run")
    go(root, "trainer.max_updates=4", "trainer.keep_checkpoints=3")
    cut(folder(root, 4) / "optimizer.safetensors", 100)
    kept = copy_of(root, tmp_path / "kept")
    with caplog.at_level(logging.WARNING):
        found = outcome(go(root))
    assert "step-00000004 is damaged" in caplog.text
    assert_equal(found, whole)
    for step in checkpoint.steps(RunDir(kept)):
        cut(folder(kept, step) / "state.json", 1)
    before = (kept / "metrics.jsonl").read_bytes()
    with pytest.raises(RunDirError, match="checkpoints are damaged"):
        go(kept)
    assert (kept / "metrics.jsonl").read_bytes() == before


def test_a_link_is_no_checkpoint(tmp_path):
    made = toy(tmp_path / "run")
    made.save(1)
    made.save(2)
    target = folder(made.run.root, 2)
    target.rename(tmp_path / "elsewhere")
    target.symlink_to(tmp_path / "elsewhere")
    assert checkpoint.newest(made.run) == folder(made.run.root, 1)
    moved = folder(made.run.root, 1) / "model.safetensors"
    moved.rename(tmp_path / "model.safetensors")
    moved.symlink_to(tmp_path / "model.safetensors")
    with pytest.raises(RunDirError, match="damaged"):
        checkpoint.newest(made.run)


def rewrite(made: Toy, step: int, name: str, tensors: dict[str, torch.Tensor]) -> None:
    """A whole checkpoint, sums and all, with other tensors in it."""
    files = read_folder(folder(made.run.root, step))
    made.run.remove_folder(f"checkpoints/step-{step:08d}")
    made.run.commit_folder(f"checkpoints/step-{step:08d}", files | {name: save(tensors)})


@pytest.mark.parametrize("name", ["model.safetensors", "average.safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("bias"), "tensor bias is missing from the checkpoint"),
        (lambda t: t.update(extra=torch.zeros(1)), "tensor extra is unknown in the checkpoint"),
        (
            lambda t: t.update(weight=torch.zeros(4, 2)),
            r"tensor weight is \(4, 2\), expected \(2, 4\)",
        ),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, name, change, message):
    made = toy(tmp_path / "run")
    made.save(1)
    tensors = load_file(folder(made.run.root, 1) / name)
    change(tensors)
    rewrite(made, 1, name, tensors)
    with pytest.raises(RunDirError, match=message):
        loaded(made.run.root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("bias/exp_avg"), "bias/exp_avg is missing"),
        (lambda t: t.update({"bias/more": torch.zeros(2)}), "weight/more is missing"),
        (lambda t: t.update({"other/exp_avg": torch.zeros(2)}), "other/exp_avg is unknown"),
        (lambda t: t.update({"bias/exp_avg": torch.zeros(3)}), r"bias/exp_avg is \(3,\)"),
    ],
    ids=["missing", "unknown", "unknown weight", "shape"],
)
def test_an_optimizer_tensor_that_does_not_fit_is_named(tmp_path, change, message):
    made = toy(tmp_path / "run")
    made.save(1)
    tensors = load_file(folder(made.run.root, 1) / "optimizer.safetensors")
    change(tensors)
    rewrite(made, 1, "optimizer.safetensors", tensors)
    with pytest.raises(RunDirError, match=message):
        loaded(made.run.root)


@pytest.mark.parametrize("name", ["model", "optimizer", "average"])
def test_a_whole_checkpoint_without_a_file_is_refused(tmp_path, name):
    made = toy(tmp_path / "run")
    made.save(1)
    files = read_folder(folder(made.run.root, 1))
    made.run.remove_folder("checkpoints/step-00000001")
    del files[f"{name}.safetensors"]
    made.run.commit_folder("checkpoints/step-00000001", files)
    with pytest.raises(RunDirError, match=rf"{name}\.safetensors: missing"):
        loaded(made.run.root)


# Which checkpoints stay, and which one is used.


def test_the_newest_and_the_best_stay(tmp_path):
    made = toy(tmp_path / "run")
    for step in range(1, 8):
        made.save(step, best=step == 3)
        checkpoint.prune(made.run, keep=2)
    assert checkpoint.steps(made.run) == [3, 6, 7]
    made.save(8, best=True)
    checkpoint.prune(made.run, keep=2)
    assert checkpoint.steps(made.run) == [7, 8]


def weights_of(made: Toy) -> tuple[int, list[float]]:
    model = nn.Linear(4, 2)
    step = checkpoint.load_weights(made.run, model)
    return step, model.weight.detach().flatten().tolist()


def test_the_averaged_weights_of_the_best_are_used(tmp_path):
    made = toy(tmp_path / "run")
    made.save(1)
    made.save(2, best=True)
    expected = made.state.average.weights["weight"].flatten().tolist()
    made.save(3)
    assert weights_of(made) == (2, expected)
    assert expected != load_file(folder(made.run.root, 2) / "model.safetensors")["weight"].tolist()


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_best_that_cannot_be_read_gives_way_to_the_newest(tmp_path, caplog, fault):
    made = toy(tmp_path / "run")
    made.save(1, best=True)
    made.save(2)
    made.save(3)
    if fault == "missing":
        shutil.rmtree(folder(made.run.root, 1))
    else:
        flip(folder(made.run.root, 1) / "average.safetensors", 800)
    with caplog.at_level(logging.WARNING):
        step, _ = weights_of(made)
    assert step == 3
    [record] = caplog.records
    assert "step-00000001 cannot be read; using " in record.getMessage()
    assert record.getMessage().endswith("step-00000003")


def test_no_mark_means_the_newest(tmp_path):
    made = toy(tmp_path / "run")
    with pytest.raises(RunDirError, match=r"holds no checkpoint\. Train it first"):
        weights_of(made)
    made.save(1)
    made.save(2)
    assert weights_of(made)[0] == 2


# Death in the middle of writing.


class DiedError(BaseException):
    """Not an Exception: no handler may tidy up, as after SIGKILL or a power cut."""


@dataclass
class Mortal:
    """Counts file operations; at number `dies_at` the process is dead, and stays dead."""

    monkeypatch: pytest.MonkeyPatch
    operations: tuple[str, ...]
    dies_at: int
    count: int = 0

    def __enter__(self) -> "Mortal":
        for name in self.operations:
            self.monkeypatch.setattr(os, name, self.wrapped(name, getattr(os, name)))
        return self

    def __exit__(self, *_: object) -> None:
        self.monkeypatch.undo()

    def wrapped(self, name, original):
        def operation(*args, **kwargs):
            self.count += 1
            if self.count >= self.dies_at:
                raise DiedError(f"{name} {args}")
            # Syncing to a real disk would take minutes, and nothing here cuts the power.
            return None if name == "fsync" else original(*args, **kwargs)

        return operation


OPERATIONS = ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "truncate")


def test_death_at_any_file_operation_loses_nothing_acknowledged(tmp_path, monkeypatch):
    expected, acknowledged_at = {}, Counter()
    for dies_at in itertools.count(1):
        made = toy(tmp_path / f"run{dies_at}")
        saved = marked = in_flight = 0
        try:
            with Mortal(monkeypatch, OPERATIONS, dies_at):
                for step in (1, 2, 3, 4):
                    in_flight = step
                    made.save(step)
                    expected[step] = made.tensors()
                    saved = step
                    if step != 3:
                        checkpoint.mark_best(made.run, made.state.progress, "bleu")
                        marked = step
                    checkpoint.prune(made.run, keep=2)
        except DiedError as death:
            case = f"death at operation {dies_at}, {death}"
        else:
            break
        acknowledged_at[saved] += 1
        survivor = toy(made.run.root)
        with locked(survivor.run):
            survivor.run.lock()
            left = [p.name for p in made.run.root.rglob("*") if ".tmp-" in p.name]
            assert not left, f"{case}: {left}"
            path = checkpoint.newest(survivor.run)
            if path is None:
                assert saved == 0, f"{case}: step {saved} is gone"
                continue
            checkpoint.load(survivor.run, path, survivor.state)
        step = survivor.state.progress.update
        assert saved <= step <= in_flight, f"{case}: {step} found, {saved} acknowledged"
        # A step that was not acknowledged may be there, but then it is whole.
        assert survivor.tensors() == expected.get(step, made.tensors()), case
        assert marked <= (checkpoint.best_step(survivor.run) or 0) <= in_flight, case
        assert weights_of(survivor)[0] >= marked, case
    assert dies_at > 60, "there should be that many operations to die at"
    assert set(acknowledged_at) == {0, 1, 2, 3, 4}


def test_a_failing_disk_leaves_no_half_folder(tmp_path, monkeypatch):
    """Unlike death, an error is handled: what was begun is removed at once."""
    made = toy(tmp_path / "run")
    made.save(1)
    made.update()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Exception, match=r"No space left on device\. Free some space") as caught:
        checkpoint.save(made.run, made.state)
    assert caught.value.exit_code == 5
    assert [p.name for p in made.run.path("checkpoints").iterdir()] == ["step-00000001"]


def test_a_training_killed_at_any_commit_ends_the_same(prepared, tmp_path, monkeypatch):
    """Also between a checkpoint and its mark as the best."""
    source = copy_of(prepared, tmp_path / "source")
    text = (source / "config.yaml").read_text().replace("select_by: bleu", "select_by: loss")
    (source / "config.yaml").write_text(text)
    expected = outcome(go(copy_of(source, tmp_path / "reference")))
    for dies_at in itertools.count(1):
        root = copy_of(source, tmp_path / f"run{dies_at}")
        with Mortal(monkeypatch, ("rename", "replace"), dies_at):
            try:
                go(root)
            except DiedError as death:
                case = str(death)
            else:
                break
        found = outcome(go(root))
        try:
            assert_equal(found, expected)
        except AssertionError as error:
            raise AssertionError(f"death at {case}: {error}") from error
    assert dies_at > 6


# One trainer at a time.

HOLDER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from seq2seq.run import RunDir
run = RunDir.open(Path(sys.argv[1]))
run.lock()
child = os.fork()  # a data loader, say, that outlives its parent
if child == 0:
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""


def test_a_run_belongs_to_one_process_until_that_dies(tmp_path):
    root = toy(tmp_path / "run").run.root
    (root / ".tmp-1-scores.json").touch()
    code = HOLDER.format(root=str(ROOT))
    with subprocess.Popen(
        [sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            grandchild = int(holder.stdout.readline())
            with pytest.raises(RunDirError, match=f"in use by pid {holder.pid} on ") as caught:
                RunDir.open(root).lock()
            assert caught.value.exit_code == 4
        finally:
            holder.kill()
            holder.wait()
        try:
            os.kill(grandchild, 0)  # it lives, and holds the file open
            run = RunDir.open(root)
            with locked(run):
                run.lock()
        finally:
            os.kill(grandchild, signal.SIGKILL)
    assert not list(root.glob(".tmp-*")), "what an interrupted process left should be gone"


def test_a_new_run_never_takes_the_place_of_an_old_one(tmp_path):
    root = toy(tmp_path / "run").run.root
    with pytest.raises(RunDirError, match="already holds a run") as caught:
        RunDir.create(root)
    assert caught.value.exit_code == 4


def test_the_saved_config_is_the_config(prepared):
    cfg = config_of(prepared)
    assert isinstance(cfg, Config)
    assert cfg.trainer.max_updates == UPDATES
