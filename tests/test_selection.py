"""Which validation is the best, and when training ends: by made-up scores, and by short runs."""

import json
import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from conftest import random_batch, tiny_model
from runs import (
    begin,
    composed,
    config_of,
    copy_of,
    locked,
    run_job,
    template_pairs,
    write_corpus,
)

from seq2seq.config.compose import RESUME_KEYS, load_run_config
from seq2seq.config.schema import Config, CosineConfig, PlateauConfig, SelectBy, TrainerConfig
from seq2seq.evaluation import scoring
from seq2seq.run.directory import RunDir
from seq2seq.training import monitor, selection, trainer
from seq2seq.training.checkpoint import Progress
from seq2seq.training.monitor import Validated
from seq2seq.training.optim import rate_factor, warn_of_warmup
from seq2seq.training.validation import MOST_NOISE, noise_level

FALLING = [6.20, 6.16, 6.03, 5.61, 5.2, 4.9, 4.7, 4.6]
FLAT = [6.20, 6.21, 6.20, 6.22, 6.20, 6.21, 6.20, 6.20]
NOISE = [0.03, 0.02, 0.0, 0.0, 0.4, 0.1, 0.9, 0.2]
ZERO = [0.0] * 8
GOOD = [5.0, 9.0, 8.0, 8.5, 8.9, 1.0, 0.5, 0.0]


def run_of(
    losses, bleus, select: SelectBy = SelectBy.bleu, exactness=({},) * 8
) -> tuple[Progress, Config, list[str]]:
    """Take in validations until patience is over; what the log says of each."""
    trainer = TrainerConfig(select_by=select, patience=3, max_updates=1000)
    cfg = Config(trainer=trainer, scheduler=PlateauConfig(patience=1))
    progress, said = Progress(), []
    for loss, bleu, others in zip(losses, bleus, exactness, strict=True):
        progress.update += 10
        noise = 2.0 if select is SelectBy.chrf else 1.0
        result = Validated(loss, bleu, chrf=2 * bleu, noise=noise, exactness=others)
        best = selection.take(progress, result, cfg)
        said.append(selection.verdict(progress, trainer, best=best))
        if selection.limits_reached(progress, trainer):
            break
    return progress, cfg, said


NOISY = "as BLEU is still noise"
# losses, BLEUs; updates made, the best one, how often the rate was halved, the last verdict, why
SEQUENCES = [
    (FALLING, NOISE, 80, 80, 0, f"best loss so far, {NOISY}", "noise BLEU"),
    (FALLING, ZERO, 80, 80, 0, f"best loss so far, {NOISY}", "zero BLEU, falling loss"),
    (FLAT, ZERO, 40, 10, 1, f"no better loss, {NOISY}: 3 of 3", "flat loss"),
    (FLAT, NOISE, 40, 10, 1, f"no better loss, {NOISY}: 3 of 3", "flat loss, noise BLEU"),
    (FALLING, GOOD, 50, 20, 1, "no better bleu: 3 of 3", "after a good score"),
    (FALLING, [*NOISE[:4], 1.5, 1.6, 0.9, 0.9], 80, 60, 1, "no better bleu: 2 of 3", "a start"),
    ([6.0, 5.0, 5.5, 5.4, 4.9, 5, 5, 5], ZERO, 80, 50, 2, f"no better loss, {NOISY}: 3 of 3", ""),
]


@pytest.mark.parametrize("row", SEQUENCES, ids=lambda row: row[-1])
@pytest.mark.parametrize("select", [SelectBy.bleu, SelectBy.chrf])
def test_ways_to_look_dead_at_first_are_told_apart(row, select):
    losses, bleus, end, best, halved, verdict, _ = row
    progress, _, said = run_of(losses, bleus, select)
    assert (progress.update, progress.best_update, progress.reductions) == (end, best, halved)
    shown = {SelectBy.bleu: "BLEU", SelectBy.chrf: "chrF"}[select]
    assert said[-1] == verdict.replace("bleu", select.name).replace("BLEU", shown)


def test_a_loss_that_stands_still_falls_by_nothing():
    losses = [6.0 - 1e-9 * number for number in range(8)]
    progress, _, _ = run_of(losses, ZERO)
    assert (progress.update, progress.best_update) == (40, 40)


def test_what_other_sentences_score_is_noise():
    """Characters of one language, and of one kind of sentence, repeat themselves."""
    thai = tuple(THAI)
    cfg = Config()
    assert noise_level(thai, cfg, "th") == pytest.approx(
        1.2 * scoring.bleu([*thai[1:], thai[0]], thai, None, "th"), abs=1e-9
    )
    french = ("le chat dort .", "un homme lit le livre .", "la fille mange .")
    assert noise_level(french, cfg, "fr") == 1.0
    cfg.trainer.select_by = SelectBy.chrf
    assert 5 < noise_level(french, cfg, "fr") <= MOST_NOISE


THAI = [
    "เด็กชายกำลังอ่านหนังสือ",
    "แมวนอนอยู่บนโต๊ะสีแดง",
    "ผู้หญิงกำลังทำอาหารในครัว",
    "เด็กหญิงกำลังเล่นอยู่ในสวน",
]


def test_the_loss_alone_is_as_ever():
    progress, cfg, said = run_of([3.0, 2.5, 2.6, 2.4, 2.5, 2.6, 2.7, 9], GOOD, SelectBy.loss)
    assert (progress.update, progress.best_update, progress.best_score) == (70, 40, -2.4)
    assert said[-1] == "no better loss: 3 of 3"
    assert selection.metric_of(progress, cfg.trainer) == "loss"


@pytest.mark.parametrize(
    ("losses", "bleus", "line"),
    [
        (
            FLAT,
            ZERO,
            "trained 40 updates in 0.0 minutes, ended by trainer.patience=3 (3 validations without "
            "a better loss); best loss 6.200 after update 10 (no BLEU above noise)",
        ),
        (
            FALLING,
            GOOD,
            "trained 50 updates in 0.0 minutes, ended by trainer.patience=3 (3 validations without "
            "a better bleu); best bleu 9.00 after update 20",
        ),
        (
            [float("nan")] * 8,
            ZERO,
            "trained 30 updates in 0.0 minutes, ended by trainer.patience=3 (3 validations without "
            "a better loss); no validation has a finite loss, so the newest checkpoint serves",
        ),
    ],
)
def test_the_closing_line_has_the_reason_and_its_numbers(losses, bleus, line):
    progress, cfg, _ = run_of(losses, bleus)
    assert selection.closing_line(progress, cfg.trainer, begun_at=0) == line


def test_the_closing_line_names_every_limit_that_is_reached():
    progress, cfg, _ = run_of(FALLING, GOOD)
    progress.epoch = 2
    limits = replace(cfg.trainer, max_updates=50, max_epochs=2)
    line = selection.closing_line(progress, limits, begun_at=50)
    assert line == (
        "nothing to train after update 50: trainer.max_updates=50 and trainer.max_epochs=2 and "
        "trainer.patience=3 (3 validations without a better bleu) is reached; raise "
        "trainer.max_updates and trainer.max_epochs and trainer.patience to go on; "
        "best bleu 9.00 after update 20"
    )
    assert not selection.limits_reached(progress, replace(limits, **FREE))


FREE = {"max_updates": 51, "max_epochs": None, "patience": 4}


# Limits, schedules, the time that is left -------------------------------------------------------


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Two epochs of three batches, by a cosine, with limits further away; the epochs it plans."""
    base = tmp_path_factory.mktemp("limits")
    changes = [
        *write_corpus(base / "corpus", template_pairs(64), held_out=8),
        "scheduler=cosine",
        "scheduler.warmup=2",
        "scheduler.final_factor=0",
        "tokenizer.vocab_size=100",
        "tokenizer.sampling=0",
        "trainer.batch_tokens=null",
        "trainer.batch_sentences=16",
        "trainer.max_epochs=2",
        "trainer.max_updates=1000000",
        "trainer.validate_every=2",
        "trainer.select_by=chrf",
        "logging.every=1",
        "decode.beam_size=2",
    ]
    with mock.patch.object(trainer, "plan_epoch", wraps=trainer.plan_epoch) as plan:
        run = job(base / "run", composed("debug", changes))
    return run, [call.kwargs["epoch"] for call in plan.call_args_list]


@pytest.fixture(scope="module")
def trained(training):
    return training[0]


@pytest.mark.e2e
def test_each_epoch_is_planned_once(training):
    assert training[1] == [0, 1]


def job(root: Path, cfg: Config) -> RunDir:
    with locked(RunDir.open(root) if root.exists() else begin(root, cfg)) as run:
        run_job(cfg, run)
    return run


def log_of(run: RunDir, words: str) -> list[str]:
    lines = run.path("train.log").read_text("utf-8").splitlines()
    return [line[24:] for line in lines if words in line]


def metrics(run: RunDir, tag: str) -> list[float]:
    rows = map(json.loads, run.path("metrics.jsonl").read_text().splitlines())
    return [row[tag] for row in rows if tag in row]


@pytest.mark.e2e
def test_a_schedule_ends_where_the_nearer_limit_ends_training(trained):
    rates = metrics(trained, "train/lr")
    last = len(rates)
    assert last == 6
    full = config_of(trained.root).optimizer.lr
    wave = [(1 + math.cos(math.pi * (u - 2) / (last - 2))) / 2 for u in range(3, last + 1)]
    assert rates == pytest.approx([full / 2, full, *(full * share for share in wave)])


@pytest.mark.e2e
def test_the_closing_line_of_epochs(trained):
    [line] = log_of(trained, "ended by")
    assert "trained 6 updates in 0.0 minutes, ended by trainer.max_epochs=2; best " in line


@pytest.mark.e2e
def test_chrf_selects_and_is_shown(trained):
    assert len(metrics(trained, "validation/chrf")) == 3
    scores = dict(zip((2, 4, 6), metrics(trained, "validation/chrf"), strict=True))
    best = json.loads(trained.path("checkpoints/best.json").read_text())
    references = trained.path("corpus/validation.target").read_text("utf-8").splitlines()
    noise = max(scores.values()) < noise_level(tuple(references), config_of(trained.root), "fr")
    assert best["metric"] == ("loss" if noise else "chrf")
    assert noise or best["value"] == scores[best["update"]] == max(scores.values())


@pytest.mark.e2e
def test_resuming_what_has_ended_says_which_limit_to_raise(trained, tmp_path):
    run = copy_of(trained.root, tmp_path / "run")
    for changes, line in {
        (): "nothing to train after update 6: trainer.max_epochs=2 is reached; raise trainer.max_",
        ("trainer.max_updates=800",): "trainer.max_epochs=2 is reached; raise trainer.max_epochs",
        ("trainer.max_epochs=3",): "trained 9 updates in 0.0 minutes, ended by trainer.max_epochs",
    }.items():
        cfg = load_run_config(run / "config.yaml", ["stages=[train]", *changes], RESUME_KEYS)
        job(run, cfg)
        assert line in log_of(RunDir(run), "best ")[-1]


@pytest.mark.parametrize(("warmup", "percent"), [(11, 91), (1000, 1), (10, None), (0, None)])
def test_a_warmup_longer_than_the_training_is_named(caplog, warmup, percent):
    cfg = CosineConfig(warmup=warmup)
    with caplog.at_level(logging.WARNING):
        warn_of_warmup(cfg, 10)
        warn_of_warmup(PlateauConfig(), 1)
    wanted = f"scheduler.warmup={warmup} is longer than the training, 10 updates: the rate ends at "
    assert caplog.messages == ([] if percent is None else [f"{wanted}{percent}%"])
    reached = max(rate_factor(cfg, update=u, max_updates=10, reductions=0) for u in range(1, 11))
    assert round(100 * reached) == percent or warmup <= 10


@pytest.mark.parametrize(
    ("last_update", "seconds", "eta"),
    [(102, 1e9, "03:20"), (102, 30.4, "00:30"), (1_000_000, 90.4, "01:30"), (2, 30.4, "00:00")],
)
def test_the_time_left_is_that_of_the_limit_that_comes_first(
    tmp_path, caplog, monkeypatch, last_update, seconds, eta
):
    """Two updates of two seconds each are done."""
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    (tmp_path / "config.yaml").touch()
    cfg = composed("debug", ["logging.every=2", "logging.tensorboard=false"])
    progress = Progress()
    limits = {"last_update": last_update, "deadline": time.monotonic() + seconds}
    shown = monitor.Monitor(RunDir(tmp_path), cfg, progress, tiny_model(), **limits)
    with caplog.at_level(logging.INFO, "seq2seq"):
        for progress.update in (1, 2):
            stats = monitor.UpdateStats(8.0, 4, 1.0, True, False, 0.1, 2.0, 0.0, 8, 8)
            shown.update(stats, random_batch(0))
    shown.close()
    assert caplog.messages[-1].startswith(f"update 2/{last_update:,}  epoch 1  loss 2.000")
    assert caplog.messages[-1].endswith(f"  ETA {eta}")
