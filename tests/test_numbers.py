"""Numbers that go wrong: stopped before the weights move, clipped, never saved, never the best."""

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import copy_of, locked, run_job, tokenized_run
from safetensors.torch import load_file

from seq2seq.cli import stages
from seq2seq.config.compose import RESUME_KEYS, load_run_config
from seq2seq.config.schema import Config, Precision, SelectBy
from seq2seq.data.prepare import load_tokenizers
from seq2seq.decoding.translation import Translation
from seq2seq.evaluation.error_rates import NAMES, RATES
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import DivergedError, RepeatedError
from seq2seq.run.reading import read_json
from seq2seq.run.signals import StopRequest
from seq2seq.training import checkpoint, trainer
from seq2seq.training.curves import plot_curves
from seq2seq.training.divergence import MAX_EXPLOSIONS
from seq2seq.training.monitor import Validated
from seq2seq.training.trainer import Trainer

pytestmark = pytest.mark.e2e

UPDATES = 12
VALIDATE = trainer.validate


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    changes = ["trainer.batch_tokens=250", f"trainer.max_updates={UPDATES}"]
    changes += ["trainer.validate_every=100", "trainer.checkpoint_every=1"]
    changes += ["trainer.clip_norm=0.001", "trainer.validation_sentences=1"]
    changes += ["decode.extra_steps=0", "logging.every=1", "logging.tensorboard=false"]
    base = tmp_path_factory.mktemp("numbers")
    return tokenized_run(base, *changes, "optimizer.lr=0.01", pairs=90, held_out=5)


@pytest.fixture(scope="module")
def cfg(prepared) -> Config:
    return load_run_config(prepared / "config.yaml", ["stages=[train]"], RESUME_KEYS)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The validation at the end of a training takes longer than the training."""
    monkeypatch.setattr(trainer, "validate", lambda *_: Validated(1.0, 1.0))


@pytest.fixture
def root(prepared, tmp_path) -> Iterator[Path]:
    yield copy_of(prepared, tmp_path / "run")
    shutil.rmtree(tmp_path / "run")


class Hooked(Trainer):
    """Does something before an update, and keeps what the update found."""

    before: Callable[[Trainer], None]

    def _update(self, rows):
        type(self).before(self)
        self.rows = rows
        self.found = [p.detach().clone() for p in self.model.parameters()]
        super()._update(rows)


@contextmanager
def hooked(monkeypatch, before: Callable[[Trainer], None], **others) -> Iterator[list[Trainer]]:
    """Train so; gives the trainers that were made."""
    made = []

    class Mine(Hooked):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    Mine.before = staticmethod(before)
    for name, value in others.items():
        setattr(Mine, name, value)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "Trainer", Mine)
        yield made


def go(root: Path, cfg: Config) -> RunDir:
    run = RunDir.open(root)
    run.lock()
    with locked(run), stages.training(cfg, run, StopRequest()) as trainer:
        trainer.fit()
    return run


def changed(cfg: Config, **trainer_changes) -> Config:
    other = copy.deepcopy(cfg)
    for name, value in trainer_changes.items():
        setattr(other.trainer, name, value)
    return other


def metrics(root: Path) -> list[dict]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = (root / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def saved_tensors(root: Path) -> dict[str, torch.Tensor]:
    files = sorted(root.glob("checkpoints/update-*/*.safetensors"))
    return {f"{f.parent.name}/{f.name}/{k}": t for f in files for k, t in load_file(f).items()}


# N1: not finite -------------------------------------------------------------------------------


def poison_parameter(trainer: Trainer, case: int) -> str:
    """A NaN in a weight; every sentence meets it."""
    names = [n for n, p in trainer.model.named_parameters() if "embedding" not in n]
    name = names[case * len(names) // 10]
    with torch.no_grad():
        dict(trainer.model.named_parameters())[name].view(-1)[case] = torch.nan
    return "loss is nan"


def poison_activation(trainer: Trainer, case: int) -> str:
    """Infinite annotations of one sentence: the others know nothing of it."""
    sentence = case % 4

    def spoil(_module, _inputs, h):
        h = h.clone()
        h[sentence] = torch.inf
        return h

    trainer.spoilt = sentence
    trainer.model.encoder.annotation_dropout.register_forward_hook(spoil)
    return "loss is nan"


def poison_gradient(trainer: Trainer, case: int) -> str:
    """The loss is fine, one number of the gradient is not."""
    bad = (torch.nan, torch.inf, -torch.inf)[case % 3]
    named = list(trainer.model.named_parameters())
    name, parameter = named[case * len(named) // 10]

    def spoil(grad):
        grad = grad.clone(memory_format=torch.contiguous_format)
        grad.view(-1)[0] = bad
        return grad

    parameter.register_hook(spoil)
    trainer.spoilt = name
    return f"gradient norm is {'nan' if math.isnan(bad) else 'inf'}"


POISONS = [poison_parameter, poison_activation, poison_gradient]
CASES = (0, 3, 5, 8)


@pytest.mark.parametrize("poison", POISONS, ids=lambda f: f.__name__)
def test_N1_what_is_not_finite_stops_before_the_update(
    prepared, cfg, tmp_path, monkeypatch, poison, tally
):
    """Updates, each poisoned once; the batch is kept, and nothing that is not finite."""
    root = copy_of(prepared, tmp_path / "run")
    for number, case in enumerate(CASES, start=1):
        said = []

        def before(trainer: Trainer, case=case, number=number, said=said) -> None:
            if trainer.progress.update + 1 == number:
                said.append(poison(trainer, case))

        with hooked(monkeypatch, before) as made, pytest.raises(DivergedError) as caught:
            go(root, changed(cfg, patience=None))
        [trainer] = made
        for was, parameter in zip(trainer.found, trainer.model.parameters(), strict=True):
            assert torch.equal(was.nan_to_num(7), parameter.detach().nan_to_num(7)), "it moved"
        steps = checkpoint.updates(RunDir(root))
        newest = [n for n in (number - 2, number - 1) if n > 0]
        assert {*steps} - {checkpoint.best_update(RunDir(root))} <= {*newest} <= {*steps}
        tensors = saved_tensors(root)
        assert bool(tensors) == bool(steps)
        assert all(tensor.isfinite().all() for tensor in tensors.values())
        assert len(said) == 1
        check_record(root, cfg, trainer, caught.value, f"{said[0]} at update {number}")
        go(root, changed(cfg, max_updates=number))  # now without
    tally("N1", f"{poison.__name__.replace('_', 'ed ')}: no checkpoint holds it", 4, 4)


def check_record(root: Path, cfg, trainer: Hooked, error: DivergedError, what: str) -> None:
    number = trainer.progress.update + 1
    record = read_json(root / f"crash/update-{number:08d}.json")  # refuses NaN
    lines = [row + 1 for row in trainer.rows]
    size = len(lines)
    assert error.exit_code == 6
    assert str(root / f"crash/update-{number:08d}.json") in error.fix
    assert (record["update"], record["what"], record["lines"]) == (number, what, lines)
    assert record["seed"] == cfg.seed
    infinite = [i for i, cost in enumerate(record["loss"]) if not isinstance(cost, float)]
    norms = record["gradient_norm"]
    assert norms.keys() == dict(trainer.model.named_parameters()).keys()
    bad = [name for name, norm in norms.items() if not isinstance(norm, float)]
    match getattr(trainer, "spoilt", None):
        case None:
            assert infinite == list(range(size))
            where = f"line {lines[0]} of corpus/train.source"
        case int() as sentence:
            assert infinite == [sentence]
            where = f"line {lines[sentence]} of corpus/train.source"
        case name:
            assert (infinite, bad) == ([], [name])
            where = f"first in {name}"
    assert error.what == f"{what} (batch of {size}, {where})"
    # What is written is the batch: the lines of the files, and ids that spell them.
    for side, tokenizer in zip(
        ("source", "target"), load_tokenizers(RunDir(root), cfg), strict=True
    ):
        text = (root / f"corpus/train.{side}").read_text("utf-8").splitlines()
        assert record[side] == [text[line - 1] for line in lines]
        ids = record[f"{side}_ids"]
        assert record[side] == [tokenizer.write(tokenizer.pieces(row[:-1]))[0] for row in ids]


def test_N1_a_record_of_costs_and_norms_is_that_of_the_update(root, cfg, monkeypatch):
    """Same dropout, same pieces: the costs add up to the loss; norms are those before clipping."""
    seen = {}

    def poison(trainer: Trainer) -> None:
        if trainer.progress.update == 2:
            check = trainer.guard.check

            def broken(step, *, loss, norm, explosions):
                seen.update(loss=loss, norm=norm)
                del loss
                return check(step, loss=math.inf, norm=norm, explosions=explosions)

            trainer.guard.check = broken

    with hooked(monkeypatch, poison), pytest.raises(DivergedError, match="loss is inf"):
        go(root, cfg)
    record = read_json(root / "crash/update-00000003.json")
    assert sum(record["loss"]) == pytest.approx(seen["loss"], rel=1e-5)
    total = math.hypot(*record["gradient_norm"].values())
    assert total == pytest.approx(seen["norm"], rel=1e-4)
    assert total > 10 * cfg.trainer.clip_norm


@pytest.mark.parametrize("what", ["weight", "average", "optimizer"])
def test_N1_a_state_that_is_not_finite_is_not_saved(root, cfg, monkeypatch, what):
    def move(self: Trainer, number: int) -> None:
        Trainer._step(self, number)
        if number == 3:
            name, parameter = list(self.model.named_parameters())[5]
            target = {
                "weight": parameter.data,
                "average": self.state.average.weights[name],
                "optimizer": self.state.optimizer.state[parameter]["exp_avg_sq"],
            }[what]
            target.view(-1)[-1] = torch.inf

    with (
        hooked(monkeypatch, lambda _: None, _step=move),
        pytest.raises(DivergedError, match="is not finite after update 3, so it was not saved"),
    ):
        go(root, cfg)
    assert checkpoint.updates(RunDir(root)) == [1, 2]
    assert all(tensor.isfinite().all() for tensor in saved_tensors(root).values())
    assert "not finite" in read_json(root / "crash/update-00000003.json")["what"]


# N2: explosions -------------------------------------------------------------------------------


def explode(trainer: Trainer, *updates: int) -> None:
    """Multiply the gradient of some updates by 1e20."""
    if not hasattr(trainer, "handles"):
        trainer.handles = [
            p.register_hook(lambda g: g * (1e20 if trainer.progress.update + 1 in updates else 1))
            for p in trainer.model.parameters()
        ]


def test_N2_an_explosion_is_clipped_counted_and_moves_no_further(
    prepared, cfg, tmp_path, monkeypatch, tally
):
    """Where every gradient is clipped, one that is 1e20 times as long moves the weights as far."""
    moved = []
    for updates in ((99,), tuple(range(3, 13))):
        root = copy_of(prepared, tmp_path / f"{updates[0]}")
        with hooked(monkeypatch, lambda t, u=updates: explode(t, *u)) as made:
            go(root, cfg)
        moved.append([p.detach().clone() for p in made[0].model.parameters()])
        lines = [line for line in metrics(root) if "train/loss" in line]
        exploded = [line["update"] for line in lines if line["train/explosions"]]
        assert exploded == [u for u in updates if u <= UPDATES]
        assert all(line["train/clip_rate"] == 1 for line in lines)
        if exploded:
            assert max(line["train/grad_norm"] for line in lines) > 1e17
    for one, other in zip(*moved, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-4)
    assert all(p.isfinite().all() for p in moved[1])
    tally("N2", "gradient x 1e20: same step as any clipped one", 10, 10)


def test_N2_twenty_in_a_row_end_it_stopped_or_not(prepared, cfg, tmp_path, monkeypatch):
    long = changed(cfg, max_updates=40, checkpoint_every=7)
    every = tuple(range(5, 99))
    said = []
    for stops in ((), (11, 18)):
        root = copy_of(prepared, tmp_path / f"{len(stops)}")
        for stop in stops:
            with hooked(monkeypatch, lambda t: explode(t, *every)):
                go(root, changed(long, max_updates=stop))
        with hooked(monkeypatch, lambda t: explode(t, *every)), pytest.raises(DivergedError) as e:
            go(root, long)
        said.append(e.value.what)
        assert checkpoint.updates(RunDir(root))[-1] in (18, 21)
    assert said[0] == said[1]
    assert " at update 24, the 20th above 1e+08 x trainer.clip_norm in a row (" in said[0]


def test_N2_nineteen_in_a_row_do_not(root, cfg, monkeypatch):
    updates = (*range(2, 2 + MAX_EXPLOSIONS - 1), *range(22, 28))
    with hooked(monkeypatch, lambda t: explode(t, *updates)) as made:
        go(root, changed(cfg, max_updates=28, checkpoint_every=50))
    assert made[0].progress.explosions == 0
    assert sum(line.get("train/explosions", 0) for line in metrics(root)) == len(updates)


# N3: half precision ---------------------------------------------------------------------------

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
def test_N3_an_infinite_gradient_under_autocast_stops(root, cfg, monkeypatch, device):
    """There is no scaler whose overflow could be skipped: bfloat16 has the range of float32.

    So Inf is as wrong as without autocast, and ends the training as N1 does.
    """
    half = changed(cfg, precision=Precision.bf16)
    half.device = device

    def poison(trainer: Trainer) -> None:
        if trainer.progress.update == 3:
            assert next(trainer.model.parameters()).device.type == device
            poison_gradient(trainer, 4)

    with hooked(monkeypatch, poison), pytest.raises(DivergedError, match="is inf at update 4"):
        go(root, half)
    assert all(tensor.isfinite().all() for tensor in saved_tensors(root).values())


# N6: validation -------------------------------------------------------------------------------

NOTHING = Translation("a", ("a", "</s>"), ())


@pytest.mark.parametrize(
    ("select", "loss", "score", "shown"),
    [*((select, math.nan, math.nan, "nan") for select in SelectBy)]
    + [(select, math.inf, 0.0, "inf") for select in (SelectBy.loss, SelectBy.bleu)],
)
def test_N6_a_worthless_validation_is_never_the_best(
    root, cfg, monkeypatch, select, loss, score, shown
):
    """It counts for early stopping, and metrics stay JSON; a good one before it stays the best."""
    exactness = {by.name: 100 - score if by in RATES else score for by in NAMES}
    worthless = Validated(loss, score, [NOTHING], ["b"], exactness=exactness)
    results = [Validated(2.0, 5.0, exactness=dict.fromkeys(exactness, 5.0)), *[worthless] * 9]
    results_of = iter(results)
    monkeypatch.setattr(trainer, "validate", lambda *_: next(results_of))
    run = go(root, changed(cfg, validate_every=2, patience=2, select_by=select))
    newest = checkpoint.newest(run)
    state = json.loads((newest / "state.json").read_bytes())
    assert (state["update"], state["best_update"], state["waiting"]) == (6, 2, 2)
    assert checkpoint.best_update(run) == 2
    assert checkpoint.updates(run)[0] == 2
    rows = [line for line in metrics(root) if "validation/loss" in line]
    assert [row["validation/loss"] for row in rows] == [2.0, shown, shown]
    curves = plot_curves(metrics(root), "nan").axes[0].lines[1]
    np.testing.assert_equal(curves.get_ydata(), [2.0, float(shown), float(shown)])


def test_N6_a_model_of_nothing_but_nan_is_validated(root, cfg, monkeypatch):
    """The real decoder and the real loss, on averaged weights that have gone wrong."""
    monkeypatch.setattr(trainer, "validate", VALIDATE)

    def spoil(trainer: Trainer) -> None:
        monkeypatch.setattr(trainer, "_save", lambda: None)  # it would be refused: N1
        for weights in trainer.state.average.weights.values():
            weights.fill_(torch.nan)

    monkeypatch.setattr(stages, "export", lambda *_: None)  # there is nothing
    with hooked(monkeypatch, spoil) as made:
        run = go(root, changed(cfg, validate_every=2, max_updates=4, checkpoint_every=50))
    assert made[0].progress.best_score is None
    assert made[0].progress.waiting == 2
    assert checkpoint.best_update(run) is None
    assert [x["validation/loss"] for x in metrics(root) if "validation/loss" in x] == ["nan"] * 2


# K12: the same failure again and again --------------------------------------------------------


def bug(trainer: Trainer) -> None:
    if trainer.progress.update == 4:
        raise KeyError("a bug")


def divergence(trainer: Trainer) -> None:
    if trainer.progress.update == 4:
        poison_parameter(trainer, 2)


def start(root: Path, cfg: Config) -> Exception:
    run = RunDir.open(root)
    run.lock()
    with locked(run), pytest.raises(stages.UserError) as caught:
        run_job(cfg, run)
    return caught.value


@pytest.mark.parametrize(
    ("fault", "code", "what"),
    [
        (bug, 70, "KeyError: 'a bug' after update 4"),
        (divergence, 6, "loss is nan at update 5"),
    ],
)
def test_K12_a_fourth_start_into_the_same_failure_says_so(
    root, cfg, monkeypatch, fault, code, what
):
    with hooked(monkeypatch, fault) as made:
        for _ in range(3):
            error = start(root, cfg)
            assert error.exit_code == code
            assert not isinstance(error, RepeatedError)
        fourth = start(root, cfg)
        assert isinstance(fourth, RepeatedError)
        assert fourth.exit_code == code
        files = sorted(p.name for p in (root / "crash").iterdir() if p.name != "failures.json")
        assert len(files) == (3 if fault is bug else 1)
        names = ", ".join(f"crash/{name}" for name in files)
        assert fourth.what == f"the same failure ended training 3 times: {what} ({names})"
        assert fourth.fix.endswith(f"To try again, delete {root / 'crash'}.")
        assert made[-1].progress.update == 4, "it should not have trained"
        if fault is bug:
            for name in files:
                text = (root / "crash" / name).read_text()
                assert "after update 4\n" in text
                assert "KeyError: 'a bug'" in text
        shutil.rmtree(root / "crash")
        assert not isinstance(start(root, cfg), RepeatedError)  # it tries again
    assert go(root, cfg)  # and gets through once the cause is gone


def test_K12_other_failures_and_other_updates_do_not_add_up(root, cfg, monkeypatch):
    turn = iter(range(9))

    def fault(trainer: Trainer) -> None:
        if trainer.progress.update == 4:
            raise KeyError(next(turn))

    with hooked(monkeypatch, fault):
        for _ in range(4):
            assert not isinstance(start(root, cfg), RepeatedError)


@pytest.mark.parametrize("text", ["{", '{"failures": [1, {}, null]}'])
def test_K12_a_list_that_cannot_be_read_stops_nothing(root, cfg, text):
    (root / "crash").mkdir()
    (root / "crash/failures.json").write_text(text)
    go(root, changed(cfg, max_updates=1))
