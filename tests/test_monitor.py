"""Watching a run must not end it."""

import json
import logging

import numpy as np
import pytest
from conftest import random_batch, tiny_model
from runs import composed

from seq2seq.cli.stages import logging_to
from seq2seq.decoding.translation import Candidate, Translation
from seq2seq.run.directory import RunDir
from seq2seq.training import monitor
from seq2seq.training.checkpoint import Progress


class Writer:
    """Takes what TensorBoard's writer takes."""

    def __init__(self) -> None:
        self.figures: list[str] = []

    def add(self, kind: str, tag: str, _figure: object, _step: int) -> None:
        assert kind == "figure"
        self.figures.append(tag)


@pytest.fixture
def watching() -> monitor.Monitor:
    found = monitor.Monitor.__new__(monitor.Monitor)  # without the files of a run
    found.board, found.progress = Writer(), Progress(update=7)
    return found


def translation(weight: float) -> Translation:
    alpha = np.full((2, 2), weight, np.float32)
    best = Candidate("b", ("b", "</s>"), (-1.0, -1.0), -2.0, -1.0, alpha, finished=True)
    return Translation("a", ("a", "</s>"), (best,))


def test_a_heatmap_is_drawn(watching) -> None:
    watching._heatmap(3, translation(0.5))
    assert watching.board.figures == ["alignment/3"]


def test_a_translation_of_nothing_has_no_heatmap(watching) -> None:
    watching._heatmap(3, Translation("", (), ()))
    assert watching.board.figures == []


def test_shares_are_of_all_updates_since_the_last_line(tmp_path) -> None:
    (tmp_path / "config.yaml").touch()
    cfg = composed("debug", ["logging.every=2", "logging.tensorboard=false"])
    progress = Progress()
    found = monitor.Monitor(RunDir(tmp_path), cfg, progress, tiny_model(), last_update=8)
    costs = [(1.0, 0.5, 30, 40), (3.0, 0.5, 10, 10), (1.0, 0.1, 9, 18), (1.0, 0.2, 9, 18)]
    for number, (seconds, waited, tokens, cells) in enumerate(costs, start=1):
        progress.update = number
        stats = monitor.UpdateStats(8.0, 4, 1.0, True, False, 0.1, seconds, waited, tokens, cells)
        found.update(stats, random_batch(0))
    found.close()
    rows = [json.loads(line) for line in (tmp_path / monitor.METRICS).read_text().splitlines()]
    assert [row["update"] for row in rows] == [2, 4]
    assert [row["train/data_wait"] for row in rows] == pytest.approx([0.25, 0.15])
    assert [row["train/padding"] for row in rows] == pytest.approx([0.2, 0.5])


def test_a_log_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with logging_to(tmp_path / "train.log"):
        logger = logging.getLogger("seq2seq")
        logger.info("before")
        monkeypatch.setattr(logging.FileHandler, "flush", full)
        for number in range(5):
            logger.info("later %d", number)
        monkeypatch.undo()
    said = capsys.readouterr().err.splitlines()
    later = [f"later {number}" for number in range(5)]
    warning = "train.log gets no more of this run: [Errno 28] No space left on device"
    assert sorted(said) == sorted(["before", *later, warning])


def test_logging_leaves_the_logger_as_it_was(tmp_path) -> None:
    logger = logging.getLogger("seq2seq")
    before = (logger.propagate, list(logger.handlers))
    with logging_to(tmp_path / "train.log"):
        logger.info("naïve 漢")
    assert (logger.propagate, list(logger.handlers)) == before
    assert "INFO naïve 漢" in (tmp_path / "train.log").read_text(encoding="utf-8")
