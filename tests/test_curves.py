"""The picture shows the numbers of metrics.jsonl, and nothing where there are none."""

import pytest

from seq2seq.alignment.heatmap import to_png
from seq2seq.training.curves import plot_curves

ROWS = [
    {"update": 10, "train/loss": 5.0},
    {"update": 20, "train/loss": 4.0},
    {"update": 20, "validation/loss": 4.5, "validation/bleu": 3.0},
    {"update": 30, "train/loss": 3.5},
    {"update": 40, "validation/loss": 3.75, "validation/bleu": 12.0, "validation/chrf": 30.0},
]


def points(line) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in line.get_xydata()]


def test_curves_are_the_recorded_points() -> None:
    left, right = plot_curves(ROWS, "run").axes
    training, validation = left.lines
    assert points(training) == [(10, 5.0), (20, 4.0), (30, 3.5)]
    assert points(validation) == [(20, 4.5), (40, 3.75)]
    assert [points(line) for line in right.lines] == [[(20, 3.0), (40, 12.0)], [(40, 30.0)]]


@pytest.mark.parametrize("rows", [[], ROWS[:1]], ids=["nothing", "training only"])
def test_missing_curves_are_left_out(rows: list[dict[str, float]]) -> None:
    figure = plot_curves(rows, "$_$ is no mathematics")
    assert len(figure.axes[0].lines) == len(rows)
    assert to_png(figure).startswith(b"\x89PNG")
