"""How cost grows: with the size of the corpus, with the length of a sentence."""

import itertools
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.measure import peak_of, timed
from bench.sizes import SIZES, Size
from bench.training import Contender, Training, batches_of
from bench.workload import Rows, drawn_pairs, plan, stored
from seq2seq.config.schema import Config
from seq2seq.decoding.pretrained import Pretrained

_PART = 100_000  # pairs drawn at once


def speed_by_corpus(
    cfg: Config, sizes: Sequence[int], updates: int, directory: Path
) -> list[dict[str, float]]:
    """Train the small model on corpora of these sizes; tokens per second, and seconds to plan."""
    rows = []
    size = Size("small", *SIZES["small"], 8000)
    for pairs in sizes:
        place = directory / f"pairs{pairs}"
        place.mkdir()
        corpus = stored(_draw(pairs, size.vocabulary), size.vocabulary, place)
        start = time.perf_counter()
        batches = plan(corpus, cfg.trainer)
        planned = time.perf_counter() - start
        training = Training(
            size,
            Contender.named("fused fp32"),
            cfg,
            batches_of(corpus, batches),
            torch.device("cpu"),
        )
        training.updates(3)
        speeds = [timed(partial(training.updates, updates)) for _ in range(5)]
        rows.append(
            {"pairs": pairs, "tokens/s": round(float(np.median(speeds))), "plan s": planned}
        )
    return rows


def _draw(pairs: int, vocabulary: int) -> Iterator[tuple[Rows, Rows]]:
    """Draw a corpus part by part."""
    for part in range(0, pairs, _PART):
        yield drawn_pairs("captions", min(_PART, pairs - part), vocabulary, seed=part + 1)


def time_by_length(
    model: Pretrained, sentences: Sequence[str], words: Sequence[int], count: int
) -> list[dict[str, float]]:
    """Translate lines of these lengths, put together from sentences; seconds per line."""
    text = itertools.cycle(" ".join(sentences).split())
    rows = []
    for length in words:
        lines = [" ".join(itertools.islice(text, length)) for _ in range(count)]
        model.translate(lines[:2])
        start = time.perf_counter()
        found = model.translate(lines)
        seconds = (time.perf_counter() - start) / count
        pieces = sum(len(t.source_tokens) for t in found) / count
        out = sum(len(t.candidates[0].tokens) for t in found) / count
        rows.append({"words": length, "pieces": pieces, "pieces out": out, "seconds": seconds})
    return rows


def memory_of_data_stage(
    root: Path, lines: Sequence[int], directory: Path
) -> list[dict[str, float]]:
    """Prepare corpora of these sizes, each in a process of its own; its peak memory in MB."""
    rows = []
    for count in lines:
        data = directory / f"lines{count}"
        data.mkdir()
        for name, number in (("train", count), ("held_out", 100)):
            _write(data / name, number)
        files = [f"data.{s}=[{f}.en,{f}.fr]" for s, f in _SPLITS.items()]
        command = [sys.executable, root / "train.py", "+experiment=quickstart", *files]
        command += [f"data.root={data}", "data.drop_duplicates=false", "stages=[tokenize]"]
        command += [f"run_dir={data / 'run'}", "tokenizer.vocab_size=1000", "threads=1"]
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        peak = peak_of(process)
        assert process.returncode == 0, f"{count} lines: exit status {process.returncode}"
        seconds = time.perf_counter() - start
        rows.append({"lines": count, "peak MB": (peak or 0) / 2**20, "seconds": seconds})
    return rows


_SPLITS = {"train": "train", "validation": "held_out", "test": "held_out"}


def _write(base: Path, lines: int) -> None:
    draw = random.Random(lines)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(5000)]
    for language in ("en", "fr"):
        with base.with_suffix(f".{language}").open("w", encoding="utf-8") as file:
            for _ in range(lines):
                file.write(" ".join(draw.choices(words, k=draw.randint(4, 20))) + "\n")


def plot(
    speed: Sequence[dict[str, float]],
    times: Sequence[dict[str, float]],
    memory: Sequence[dict[str, float]],
) -> bytes:
    """Draw the three side by side, as PNG."""
    from matplotlib.figure import Figure

    from seq2seq.alignment.heatmap import to_png

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    corpus, length, stage = figure.subplots(1, 3)
    corpus.semilogx([r["pairs"] for r in speed], [r["tokens/s"] for r in speed], "o-")
    corpus.set(xlabel="pairs in the corpus", ylabel="target tokens/s", title="Training")
    length.plot([r["pieces"] for r in times], [1000 * r["seconds"] for r in times], "o-")
    length.set(xlabel="source tokens", ylabel="ms a sentence", title="Decoding")
    stage.semilogx([r["lines"] for r in memory], [r["peak MB"] for r in memory], "o-")
    stage.set(xlabel="lines of the corpus", ylabel="peak memory, MB", title="Data stage")
    for axes in (corpus, length, stage):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return to_png(figure)
