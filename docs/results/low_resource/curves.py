"""Draw `curves.png` from `curves.json`: chrF on validation text by minutes of training."""

import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
PAIRS = {
    "en-yor": "English to Yoruba",
    "yor-en": "Yoruba to English",
    "en-swa": "English to Swahili",
}
PRESETS = {"low_resource": ("#b34700", "-"), "multi30k": ("#31587f", "--")}

figure, axes = plt.subplots(1, len(PAIRS), figsize=(10, 3.2), sharey=True, layout="constrained")
curves = json.loads((HERE / "curves.json").read_text("utf-8"))
for axis, (pair, title) in zip(axes, PAIRS.items(), strict=True):
    for preset, (colour, style) in PRESETS.items():
        minutes, chrf = zip(*curves[f"{pair}_{preset}"], strict=True)
        axis.plot(minutes, chrf, style, color=colour, label=preset)
    axis.set_title(title)
    axis.set_xlabel("minutes of training, one thread")
    axis.set_ylim(0, 45)
    axis.grid(alpha=0.3)
axes[0].set_ylabel("chrF, validation")
axes[-1].legend(loc="lower right")
figure.savefig(HERE / "curves.png", dpi=110)
