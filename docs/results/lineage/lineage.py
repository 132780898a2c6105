"""Draw the pictures of this page.

python docs/results/lineage/lineage.py        # curves.png, from members.json
python docs/results/lineage/lineage.py RUNS   # and the others, from runs named RUNS/MEMBER

Time is in units of the 3,000 updates of RNNsearch: speeds were measured in turn on a busy machine.
"""

import json
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

import seq2seq
from seq2seq.evaluation.by_length import LENGTH_BLEU, LengthBleu, plot_length_bleu
from seq2seq.run.jsonable import from_json
from seq2seq.run.reading import read_json

HERE = Path(__file__).parent
SENTENCE = "A man in a blue shirt is standing on a ladder cleaning a window."
STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"), ("X", "-."))


def curves(members: dict[str, dict[str, Any]]) -> None:
    """Draw BLEU on the validation set against updates and against time."""
    figure, (updates, times) = plt.subplots(
        1, 2, figsize=(11, 4.2), sharey=True, layout="constrained"
    )
    for member, (marker, dashes) in zip(members.values(), cycle(STYLES), strict=False):
        bleu = member["bleu"]
        at = 500 * np.arange(1, len(bleu) + 1)
        style = {"marker": marker, "linestyle": dashes, "label": member["label"], "markersize": 4}
        updates.plot(at, bleu, **style)
        times.plot(at / 3000 / member["speed"], bleu, **style)
    updates.set_xlabel("updates of 64 pairs")
    times.set_xlabel("time; 1 is that of RNNsearch for 3,000 updates (bfloat16)")
    updates.set_ylabel("BLEU, validation set, greedy")
    updates.set_ylim(0)
    for axes in (updates, times):
        axes.grid(alpha=0.3)
    updates.legend(fontsize=8)
    figure.savefig(HERE / "curves.png", dpi=110)


def lengths(members: dict[str, dict[str, Any]], runs: Path) -> None:
    """Draw BLEU by source length; the last bin has two sentences and is left out."""
    found = {
        member["label"]: from_json(LengthBleu, read_json(runs / name / LENGTH_BLEU)).bins[:3]
        for name, member in members.items()
    }
    plot_length_bleu(found).savefig(HERE / "length_bleu.png", dpi=110)


def sentence(members: dict[str, dict[str, Any]], runs: Path) -> None:
    """Draw the attention of one sentence through all members."""
    rows = -(-len(members) // 4)
    figure, grid = plt.subplots(rows, 4, figsize=(15, 4.2 * rows), layout="constrained")
    for axes in grid.flat[len(members) :]:
        axes.set_axis_off()
    for (name, member), axes in zip(members.items(), grid.flat, strict=False):
        one(axes, member["label"], runs / name)
    figure.savefig(HERE / "sentence.png", dpi=80)


def one(axes: Axes, label: str, run: Path) -> None:
    """Draw the attention of one member between words."""
    model = seq2seq.load(run, ["device=cpu"])
    words = model.translate(SENTENCE).words().soft_alignment()
    axes.imshow(words.weights, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(label, fontsize=10)
    axes.set_xticks(range(len(words.source_tokens)), words.source_tokens, rotation=60, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(words.target_tokens)), words.target_tokens)
    axes.tick_params(length=0, labelsize=8)


if __name__ == "__main__":
    known = json.loads((HERE / "members.json").read_text("utf-8"))
    curves(known)
    if len(sys.argv) > 1:
        lengths(known, Path(sys.argv[1]))
        sentence(known, Path(sys.argv[1]))
