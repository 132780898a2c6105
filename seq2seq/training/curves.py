"""Learning curves of a run: reads `metrics.jsonl` and plots it as one figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seq2seq.run.directory import RunDir
from seq2seq.run.reading import expected, parse_json, read_lines_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = "metrics.jsonl"
CURVES = {
    "nats per target token": {
        "train/loss": "training (dropout on)",
        "validation/loss": "validation",
    },
    "validation scores": {
        "validation/bleu": "BLEU",
        "validation/chrf": "chrF",
        "validation/exact_match": "exact match",
        "validation/character_error_rate": "character error rate",
        "validation/symbol_error_rate": "symbol error rate",
    },
}
"""Curves of each chart, by the label of its y-axis."""

Row = dict[str, float]
"""A line of `metrics.jsonl`: the numbers of an update, by tag."""


def read_metrics(run: RunDir) -> list[Row]:
    """Return the lines of `metrics.jsonl`; none if the file does not exist.

    Raises:
        RunDirError: a line does not hold numbers by tag.
    """
    path, rows = run.path(METRICS), []
    for number, line in enumerate(read_lines_of(path) if path.exists() else (), start=1):
        with expected(f"{path}:{number}"):
            row = parse_json(line.encode(), f"{path}:{number}")
            rows.append({tag: float(x) for tag, x in row.items()})  # or "nan"
            int(row["update"])
    return rows


def plot_curves(rows: Sequence[Row], title: str) -> "Figure":
    """Plot loss and scores against updates, on equal x axes; scores from 0."""
    from matplotlib.figure import Figure

    # A chart for each unit
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    both = figure.subplots(1, 2, sharex=True)
    for axes, (unit, lines) in zip(both, CURVES.items(), strict=True):
        for tag, label in lines.items():
            points = [(row["update"], float(row[tag])) for row in rows if tag in row]  # or "nan"
            if points:
                style = {"markersize": 4, "clip_on": False}  # points on an axis are drawn whole
                axes.plot(*zip(*points, strict=True), ".-", label=label, **style)
        if axes.lines:
            axes.legend(frameon=False)
        axes.set_ylabel(unit)
        axes.set_xlabel("updates")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    # Axes from 0, whatever the points
    both[0].set_xlim(0, max((row["update"] for row in rows), default=1) * 1.02)
    low, high = both[1].dataLim.intervaly
    both[1].set_ylim(0, max(high * 1.05, 1) if low <= high else 1)
    figure.suptitle(title, parse_math=False)
    return figure
