"""Learning curves of a run, as `metrics.jsonl` holds them and as one picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seq2seq.run.directory import RunDir
from seq2seq.run.reading import expected, parse_json, read_lines_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = "metrics.jsonl"
LOSSES = {"train/loss": "training (dropout on)", "validation/loss": "validation"}


Row = dict[str, float]
"""A line of `metrics.jsonl`: numbers by their tags, of an update."""


def read_metrics(run: RunDir) -> list[Row]:
    """Return the lines of `metrics.jsonl`; none of a run without it.

    Raises:
        RunDirError: a line that is not such numbers.
    """
    path, rows = run.path(METRICS), []
    for number, line in enumerate(read_lines_of(path) if path.exists() else (), start=1):
        with expected(f"{path}:{number}"):
            row = parse_json(line.encode(), f"{path}:{number}")
            rows.append({tag: float(x) for tag, x in row.items()})  # or "nan"
            int(row["update"])
    return rows


def plot_curves(rows: Sequence[Row], title: str) -> "Figure":
    """Draw loss and BLEU against updates.

    Args:
        rows: Lines of `metrics.jsonl`.
        title: Name of the run.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for tag, label in LOSSES.items():
        _line(left, rows, tag, label)
    left.set_ylabel("nats per target token")
    if left.lines:
        left.legend(frameon=False)
    _line(right, rows, "validation/bleu", "validation BLEU", color="tab:green")
    right.set_ylabel("validation BLEU")
    for axes in (left, right):
        axes.set_xlabel("updates")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle(title, parse_math=False)
    return figure


def _line(
    axes: "Axes", rows: Sequence[Row], tag: str, label: str, color: str | None = None
) -> None:
    points = [(row["update"], row[tag]) for row in rows if tag in row]
    if points:
        axes.plot(*zip(*points, strict=True), ".-", label=label, color=color, markersize=4)
