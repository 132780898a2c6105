"""Draw one picture of each kind, in about three minutes.

python docs/results/pictures/draw.py DIRECTORY RUNS

Heatmaps, length plots, curves, TensorBoard and reports of three runs of the tests' template corpus,
trained in RUNS: one that has learnt (`tiny`), and two of 20 updates that have not (`adam`,
`adadelta`). The growth plot is of the numbers in docs/performance.md.
"""

import base64
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

import browser  # noqa: E402 - it is no package
from runs import composed, run_new, template_pairs, tiny_run, write_corpus  # noqa: E402

from seq2seq.alignment.heatmap import plot_alignment, to_png  # noqa: E402
from seq2seq.evaluation.by_length import LengthBin, plot_length_bleu  # noqa: E402
from seq2seq.report.build import build  # noqa: E402

ENGLISH = (
    "A man in an orange hat is staring at something that he has never seen before , while two dogs "
    "run across the wet grass behind him and nobody looks ."
)
HEBREW = "\u05e9\u05dc\u05d5\u05dd \u05dc\u05db\u05dc \u05d4\u05e2\u05d5\u05dc\u05dd"
ARABIC = (
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u0639\u0644\u064a\u0643\u0645 "
    "\u062c\u0645\u064a\u0639\u0627"
)


def runs(base: Path) -> dict[str, Path]:
    """Train the three runs, or find them."""
    found = {"tiny": base / "tiny_run", "adam": base / "adam", "adadelta": base / "adadelta"}
    if found["adadelta"].exists():
        return found
    tiny_run(base)
    names = write_corpus(base / "corpus", template_pairs(340))
    changes = ["tokenizer.vocab_size=120", "trainer.batch_tokens=400", "trainer.max_updates=20"]
    changes += ["trainer.validate_every=5", "logging.every=2"]
    for name in ("adam", "adadelta"):
        cfg = composed("debug", [*names, *changes, f"name={name}", f"optimizer={name}"])
        run_new(found[name], cfg)
    return found


def soft(rows: int, columns: int, sharpness: float) -> np.ndarray:
    """A diagonal alignment, flat where the sharpness is 0."""
    places = np.arange(rows)[:, None] * (columns - 1) / max(rows - 1, 1) - np.arange(columns)
    noise = np.random.default_rng(1).random((rows, columns))
    energy = sharpness * (noise - np.abs(places))
    return np.exp(energy) / np.exp(energy).sum(axis=1, keepdims=True)


def heatmap(to: Path, source: str, target: str, sharpness: float) -> None:
    """Draw a made-up alignment of two texts."""
    columns, rows = ([*text.split(), "</s>"] for text in (source, target))
    alpha = soft(len(rows), len(columns), sharpness)
    draw(to, plot_alignment(alpha, columns, rows, title="a run, sentence 7"))


def save(to: Path, image: Image.Image) -> None:
    """Save a picture small."""
    image.thumbnail((900, 900))
    image.convert("RGB").quantize(128).save(to, optimize=True)


def draw(to: Path, figure: Figure) -> None:
    """Save a figure."""
    save(to, Image.open(io.BytesIO(to_png(figure))))


def growth() -> Figure:
    """How cost grows, with the numbers of docs/performance.md."""
    sizes, pieces = [10**4, 10**5, 10**6, 10**7], [12, 24, 47, 93, 183]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (title, x, y, xs, ys) in zip(
        figure.subplots(1, 3),
        (
            ("Training", "pairs in the corpus", "target tokens/s", sizes, [6014, 5828, 6391, 6434]),
            ("Decoding", "source tokens", "ms per sentence", pieces, [10, 12, 22, 31, 49]),
            ("Data stage", "lines of the corpus", "peak memory, MB", sizes, [268, 292, 510, 510]),
        ),
        strict=True,
    ):
        axes.plot(xs, ys, "o-", clip_on=False)
        axes.set(title=title, xlabel=x, ylabel=y, ylim=(0, 1.08 * max(ys)))
        axes.set_xscale("log" if xs is sizes else "linear")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return figure


def shot(page: browser.Page, to: Path) -> None:
    """Save what the window shows."""
    data = base64.b64decode(page.call("Page.captureScreenshot")["data"])
    save(to, Image.open(io.BytesIO(data)))


def reports(page: browser.Page, found: dict[str, Path], to: Path) -> None:
    """Take the top and the first sentence of two reports."""
    for name in ("tiny", "adadelta"):
        html = to / f"{name}.html"
        html.write_text(build([found[name]], [], sentences=10, n_best=2), "utf-8")
        page.open(html, 1180, 700)
        shot(page, to / f"report-{name}.png")
        page.js("scrollBy(0, document.querySelector('article').getBoundingClientRect().top - 12)")
        shot(page, to / f"report-{name}-sentence.png")
        html.unlink()


def tensorboard(page: browser.Page, directory: Path, to: Path) -> None:
    """Take two pages of TensorBoard, which need some seconds each."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), "--port", "0"]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as server:
        try:
            address = next(
                m.group() for line in server.stderr if (m := re.search(r"http://\S+/", line))
            )
            page.size(1180, 800)
            pages = {"custom": "custom_scalars&_smoothingWeight=0", "hparams": "hparams"}
            for name, place in pages.items():
                page.call("Page.navigate", url="about:blank")
                page.call("Page.navigate", url=f"{address}#{place}")
                time.sleep(20)
                shot(page, to / f"tensorboard-{name}.png")
        finally:
            server.terminate()


def main(to: Path, base: Path) -> None:
    """Draw everything."""
    found = runs(base)
    to.mkdir(parents=True, exist_ok=True)
    (base / "chromium").mkdir(exist_ok=True)
    for name, run in found.items():
        for picture in ("curves.png", "length_bleu.png", "heatmaps/test-0001.png"):
            save(to / f"{name}-{Path(picture).name}", Image.open(run / picture))
    heatmap(to / "heatmap-long.png", ENGLISH, ENGLISH, 3.0)
    heatmap(to / "heatmap-rtl.png", HEBREW, ARABIC, 3.0)
    heatmap(to / "heatmap-letters.png", "b i b l e", "B AY1 B AH0 L", 3.0)
    bins = [
        LengthBin(10 * i + 1, 10 * i + 10, 300 // (i + 1), 35.0 - 4 * i, 33.0 - 6 * i, 36.5 - 2 * i)
        for i in range(5)
    ]
    draw(to / "lengths.png", plot_length_bleu({"additive": bins, "dot": bins[:2]}))
    draw(to / "growth.png", growth())
    with browser.browser(base / "chromium") as page:
        reports(page, found, to)
        tensorboard(page, base, to)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
