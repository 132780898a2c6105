"""What a run shows of itself: progress on stderr, metrics.jsonl, TensorBoard.

Nothing here touches weights or random states, and nothing but a `metrics.jsonl` that cannot be
written ends a training.
"""

import contextlib
import html
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seq2seq.config import flatten, to_yaml
from seq2seq.data.batching import Batch
from seq2seq.inference.alignment import plot_alignment, printable_line
from seq2seq.inference.translate import Translation
from seq2seq.model import RNNSearch
from seq2seq.privacy import without_paths
from seq2seq.progress import tqdm
from seq2seq.run import RunDir
from seq2seq.settings import Config
from seq2seq.training.board import Board
from seq2seq.training.checkpoint import Progress
from seq2seq.training.diagnostics import Probe, Values, read
from seq2seq.training.layout import LAYOUT

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class UpdateStats:
    """One update."""

    nll: float  # nats, summed
    words: int  # target tokens, end symbols included
    grad_norm: float  # before clipping
    clipped: bool
    exploded: bool
    lr: float
    seconds: float
    waited_seconds: float  # of these, until the batch was there
    tokens: int  # of both sides, end symbols included
    cells: int  # the same with padding


@dataclass
class Validated:
    """Result of a validation."""

    loss: float  # nats per target token
    bleu: float
    translations: Sequence[Translation] = field(default=())
    references: Sequence[str] = field(default=())
    loss_by_length: Mapping[str, float] = field(default_factory=dict)  # of source tokens


class Monitor:
    """Reports a training run.

    Args:
        run: Where files go.
        cfg: The whole config; only `logging` and `trainer.max_updates` are used as settings.
        progress: Where training stands; lines and events after it are cut away.
        model: That is trained, to be looked into.
    """

    def __init__(self, run: RunDir, cfg: Config, progress: Progress, model: RNNSearch) -> None:
        self.run, self.cfg, self.progress = run, cfg, progress
        self.probe = Probe(model)
        self.ratios: Values = {}
        self.recorded = False
        self.warned: set[str] = set()
        run.cut(METRICS, progress.metrics_bytes)
        self.board = Board(run, progress.update, wanted=cfg.logging.tensorboard)
        if progress.update == 0:
            self.board.add("text", "config", _code(to_yaml(without_paths(cfg))), 0)
            self.board.add("custom_scalars", LAYOUT)
        self.bar = tqdm(disable=True)
        with self._harmless("progress bar"):
            self.bar = tqdm(
                total=cfg.trainer.max_updates,
                initial=progress.update,
                unit="update",
                dynamic_ncols=True,
                disable=None,  # silent unless stderr is a terminal
            )

    @contextlib.contextmanager
    def moving(self, number: int) -> Iterator[None]:
        """See how far the weights move in this block, if this update will be reported."""
        before = None
        if number % self.cfg.logging.every == 0:
            with self._harmless("update ratios"):
                before = self.probe.weights()
        yield
        if before is not None:
            with self._harmless("update ratios"):
                self.ratios = self.probe.ratios(before)

    def update(self, stats: UpdateStats, batch: Batch) -> None:
        """Take in one update and its batch; report every `logging.every` of them."""
        progress = self.progress
        progress.window_updates += 1
        progress.window_nll += stats.nll
        progress.window_words += stats.words
        progress.window_grad_norm += stats.grad_norm
        progress.window_clipped += stats.clipped
        progress.window_exploded += stats.exploded
        progress.window_seconds += stats.seconds
        progress.window_waited_seconds += stats.waited_seconds
        progress.window_tokens += stats.tokens
        progress.window_cells += stats.cells
        with self._harmless("progress bar"):
            self.bar.update()
        if progress.update % self.cfg.logging.every == 0:
            self._report(stats.lr, self._inside(batch))

    def in_parts(self, parts: int) -> None:
        """Record that the last update was computed in parts: from here on the run is not exact."""
        self._record({"train/out_of_memory_parts": parts})

    def _inside(self, batch: Batch) -> dict[str, float]:
        """Look into the model; the one place where logging waits for the device."""
        values, self.ratios = self.ratios, {}
        with self._harmless("gates and attention"):
            values |= self.probe.look(batch)
        with self._harmless("gates and attention"):
            return read(values)
        return {}

    def _report(self, lr: float, inside: Mapping[str, float]) -> None:
        progress = self.progress
        updates, seconds = progress.window_updates, progress.window_seconds
        values = {
            "train/loss": progress.window_nll / progress.window_words,
            "train/grad_norm": progress.window_grad_norm / updates,
            "train/clip_rate": progress.window_clipped / updates,
            "train/explosions": progress.window_exploded,
            "train/lr": lr,
            "train/words_per_second": progress.window_words / seconds,
            "train/data_wait": progress.window_waited_seconds / seconds,
            "train/padding": 1 - progress.window_tokens / progress.window_cells,
            **inside,
        }
        progress.window_updates = progress.window_words = 0
        progress.window_tokens = progress.window_cells = 0
        progress.window_clipped = progress.window_exploded = 0
        progress.window_nll = progress.window_grad_norm = progress.window_seconds = 0.0
        progress.window_waited_seconds = 0.0
        self._record(values)
        with self._harmless("progress report"):
            self._print(values, self._eta(seconds / updates))

    def _print(self, values: dict[str, float], left: str) -> None:
        line = f"loss {values['train/loss']:.3f}  {values['train/words_per_second']:,.0f} tokens/s"
        self.bar.set_postfix_str(f"{line}  ETA {left}")
        if self.bar.disable:
            done = f"{self.progress.update:,}/{self.cfg.trainer.max_updates:,}"
            log.info("update %s  epoch %d  %s  ETA %s", done, self.progress.epoch + 1, line, left)

    def _eta(self, seconds_per_update: float) -> str:
        left = (self.cfg.trainer.max_updates - self.progress.update) * seconds_per_update
        return str(tqdm.format_interval(left))

    def validation(self, result: Validated, *, best: bool) -> None:
        """Report a validation, with some translations against their references."""
        by_length = {f"loss_by_length/{k}": x for k, x in result.loss_by_length.items()}
        found = {"validation/loss": result.loss, "validation/bleu": result.bleu}
        self._record(found | by_length)
        with self._harmless("validation report"):
            log.info(
                "validation after update %s: loss %.3f nats/token, BLEU %.2f%s",
                f"{self.progress.update:,}",
                result.loss,
                result.bleu,
                "  (best so far)" if best else "",
            )
        with self._harmless("validation samples"):
            self._samples(result)

    def _samples(self, result: Validated) -> None:
        if not self.board.on:
            return
        shown = list(zip(result.translations, result.references, strict=False))
        shown = shown[: self.cfg.logging.samples]
        text = "\n\n".join(
            f"source:    {t.source}\noutput:    {t.text}\nreference: {r}" for t, r in shown
        )
        self.board.add("text", "validation/samples", _code(text), self.progress.update)
        for number, (translation, _) in enumerate(shown[: self.cfg.logging.heatmaps], start=1):
            with self._harmless("heatmaps of validation sentences"):
                self._heatmap(number, translation)

    def _heatmap(self, number: int, translation: Translation) -> None:
        if not translation.candidates:
            return
        best = translation.candidates[0]
        figure = plot_alignment(best.alignment, translation.source_tokens, best.tokens)
        self.board.add("figure", f"alignment/{number}", figure, self.progress.update)

    def _record(self, values: dict[str, float]) -> None:
        progress, self.recorded = self.progress, True
        line: dict[str, Any] = {"update": progress.update, "epoch": progress.epoch}
        line["seconds"] = round(progress.seconds, 2)
        line |= {tag: x if math.isfinite(x) else str(x) for tag, x in values.items()}  # JSON
        progress.metrics_bytes = self.run.append_line(METRICS, line)
        for tag, value in values.items():
            self.board.add("scalar", tag, value, progress.update)

    @contextlib.contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        """Keep a failure of showing something from ending a run of days; say it once."""
        try:
            yield
        except Exception as error:
            if what not in self.warned:
                self.warned.add(what)
                log.warning("no %s: %s", what, error or type(error).__name__)

    def flush(self) -> None:
        """Bring metrics and events to disk; called before a checkpoint, which counts on them."""
        self.run.sync(METRICS)
        self.board.flush()

    def close(self, best: float | None = None) -> None:
        """Write the hyper-parameters with the best score and end all output."""
        with self._harmless("progress bar"):
            self.bar.close()
        # A finished run that is only opened again has them, unless it was killed before the end.
        step, tag = self.progress.update, "best/validation"
        if best is not None and (self.recorded or not self.board.shows(tag, step)):
            # add_hparams refuses lists and None; run_name "." keeps it in this run.
            values = {
                k: v if isinstance(v, int | float | str | bool) else str(v)
                for k, v in flatten(without_paths(self.cfg)).items()
            }
            self.board.add("hparams", values, {tag: best}, run_name=".", global_step=step)
        self.board.close()


def _code(text: str) -> str:
    """Wrap text so that TensorBoard's markdown leaves it alone; its lines end at line feeds."""
    lines = (printable_line(line) for line in text.removesuffix("\n").split("\n"))
    return "".join(f"    {html.escape(line, quote=False)}\n" for line in lines)
