"""Learning curves of a run as one picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSSES = {"train/loss": "training (dropout on)", "validation/loss": "validation"}


def plot_curves(rows: Sequence[dict[str, Any]], title: str) -> "Figure":
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
    axes: "Axes", rows: Sequence[dict[str, Any]], tag: str, label: str, color: str | None = None
) -> None:
    points = [(row["update"], float(row[tag])) for row in rows if tag in row]  # or "nan"
    if points:
        axes.plot(*zip(*points, strict=True), ".-", label=label, color=color, markersize=4)
