"""Learning curves of a run as one picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = {
    "nats per target token": {
        "train/loss": "training (dropout on)",
        "validation/loss": "validation",
    },
    "validation BLEU, chrF": {"validation/bleu": "BLEU", "validation/chrf": "chrF"},
}
"""Lines of each chart, by the label of its axis."""


def plot_curves(rows: Sequence[dict[str, Any]], title: str) -> "Figure":
    """Draw loss and scores against updates.

    Args:
        rows: Lines of `metrics.jsonl`.
        title: Name of the run.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (unit, lines) in zip(figure.subplots(1, 2), CURVES.items(), strict=True):
        for tag, label in lines.items():
            points = [(row["update"], float(row[tag])) for row in rows if tag in row]  # or "nan"
            if points:
                axes.plot(*zip(*points, strict=True), ".-", label=label, markersize=4)
        if axes.lines:
            axes.legend(frameon=False)
        axes.set_ylabel(unit)
        axes.set_xlabel("updates")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.suptitle(title, parse_math=False)
    return figure
