"""What shows a run: its log, metrics, curves and word vectors; and watching must not end it."""

import json
import logging

import numpy as np
import pytest
import torch
from conftest import random_batch, tiny_model
from runs import composed, config_of, tiny_run

from seq2seq.alignment.heatmap import to_png
from seq2seq.cli.stages import logging_to
from seq2seq.decoding.pretrained import load
from seq2seq.evaluation import projector
from seq2seq.run.directory import RunDir
from seq2seq.training import monitor
from seq2seq.training.checkpoint import Progress
from seq2seq.training.curves import plot_curves


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


ROWS = [
    {"update": 10, "train/loss": 5.0},
    {"update": 20, "train/loss": 4.0},
    {"update": 20, "validation/loss": 4.5, "validation/bleu": 3.0},
    {"update": 30, "train/loss": 3.5},
    {"update": 40, "validation/loss": 3.75, "validation/bleu": 12.0},
]


def points(line) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in line.get_xydata()]


def test_curves_are_the_recorded_points() -> None:
    left, right = plot_curves(ROWS, "run").axes
    training, validation = left.lines
    assert points(training) == [(10, 5.0), (20, 4.0), (30, 3.5)]
    assert points(validation) == [(20, 4.5), (40, 3.75)]
    assert points(right.lines[0]) == [(20, 3.0), (40, 12.0)]


def test_curves_have_equal_x_axes_and_scores_start_at_0() -> None:
    left, right = plot_curves(ROWS, "run").axes
    assert left.get_xlim() == right.get_xlim() == (0, pytest.approx(40, rel=0.03))
    assert right.get_ylim() == (0, pytest.approx(12, rel=0.1))
    assert not any(line.get_clip_on() for line in (*left.lines, *right.lines))


@pytest.mark.parametrize("rows", [[], ROWS[:1]], ids=["nothing", "training only"])
def test_missing_curves_are_left_out(rows: list[dict[str, float]]) -> None:
    figure = plot_curves(rows, "$_$ is no mathematics")
    assert len(figure.axes[0].lines) == len(rows)
    assert to_png(figure).startswith(b"\x89PNG")


class Odd:
    """A vocabulary of what could break a table."""

    PIECES = ("<pad>", "a\tb", "c\nd", "\u2028", "\u202e", "\u00e9")

    def pieces(self, ids):
        return [self.PIECES[i] for i in ids]


@pytest.mark.parametrize("counts", [None, np.array([7, 100, 1, 0, 2, 10])])
def test_no_piece_breaks_a_line_and_pieces_have_frequencies(counts):
    table = projector._labels(Odd(), range(1, 6), counts).decode()
    names, *rows = zip(*(line.split("\t") for line in table.splitlines()), strict=True)
    assert names[:2] == ("piece", r"a\tb")
    assert rows[0] == ("id", "1", "2", "3", "4", "5")
    frequencies = ("log10 frequency", "2.00", "0.00", "0.00", "0.30", "1.00")
    assert rows[1:] == ([] if counts is None else [frequencies])


def test_a_row_is_a_vector():
    rows = torch.tensor([[1.0, -0.123456, 3e-9], [1e9, 0.0, float("nan")]])
    lines = projector._vectors(rows).decode().splitlines()
    found = np.array([[float(x) for x in line.split("\t")] for line in lines])
    np.testing.assert_allclose(found, rows.numpy(), rtol=1e-3)


@pytest.mark.e2e
def test_a_large_vocabulary_is_cut(tmp_path_factory, monkeypatch):
    root = tiny_run(tmp_path_factory.getbasetemp())
    size = load(root).model.encoder.embedding.E.embedding_dim
    monkeypatch.setattr(projector, "MAX_NUMBERS", 10 * size + 5)
    tables = {name: draw() for name, draw in projector.project(config_of(root), RunDir(root))}
    assert len(tables) == 5
    for side in ("source", "target"):
        assert tables[f"tensorboard/projector/{side}.tsv"].count(b"\n") == 9  # no padding
        head, *_, last = tables[f"tensorboard/projector/{side}_labels.tsv"].splitlines()
        assert head == b"piece\tid\tlog10 frequency"
        piece, number, frequency = last.decode().split("\t")
        ids = np.fromfile(root / f"tokens/train.{side}.ids", np.int32).tolist()
        assert (number, frequency) == ("9", f"{np.log10(max(ids.count(9), 1)):.2f}"), piece
