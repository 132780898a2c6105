"""The logging of a training run: progress on stderr, metrics.jsonl, TensorBoard.

Nothing here touches weights or random states. Logging errors do not end training, except when
`metrics.jsonl` cannot be written.
"""

import contextlib
import html
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seq2seq.alignment.heatmap import printable_line
from seq2seq.config.compose import to_yaml
from seq2seq.config.schema import Config
from seq2seq.data.batching import Batch
from seq2seq.decoding.translation import Translation
from seq2seq.model import EncoderDecoder
from seq2seq.run.directory import RunDir
from seq2seq.run.progress import tqdm
from seq2seq.run.provenance import without_paths
from seq2seq.training.board import Board
from seq2seq.training.checkpoint import Progress
from seq2seq.training.curves import METRICS, read_metrics
from seq2seq.training.diagnostics import Probe, Values, read
from seq2seq.training.layout import LAYOUT, hyperparameters

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpdateStats:
    """Statistics of one update. Tokens include end symbols."""

    nll: float  # nats, summed over target tokens
    words: int  # target tokens
    grad_norm: float  # before clipping
    clipped: bool
    exploded: bool
    lr: float
    seconds: float
    waited_seconds: float  # of these, waiting for the batch
    tokens: int  # of both sides
    cells: int  # the same with padding


@dataclass
class Validated:
    """Result of a validation."""

    loss: float  # nats per target token
    bleu: float
    translations: Sequence[Translation] = field(default=())
    references: Sequence[str] = field(default=())
    loss_by_length: Mapping[str, float] = field(default_factory=dict)  # of source tokens
    chrf: float = 0.0
    noise: float = 1.0  # scores of the selecting metric below this are chance
    directions: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # BLEU, chrF
    exactness: Mapping[str, float] = field(default_factory=dict)  # by setting of `select_by`


class Monitor:
    """Logs a training run; log lines and events later than `progress` are removed.

    Training ends at the latest at `last_update` (None: `trainer.max_updates`), or at the time
    `deadline` by `time.monotonic()`.
    """

    def __init__(
        self,
        run: RunDir,
        cfg: Config,
        progress: Progress,
        model: EncoderDecoder,
        *,
        last_update: int | None = None,
        deadline: float = math.inf,
    ) -> None:
        self.last_update = last_update or cfg.trainer.max_updates
        self.deadline = deadline
        self.run, self.cfg, self.progress = run, cfg, progress
        self.probe = Probe(model)
        self.ratios: Values = {}
        self.warned: set[str] = set()
        run.cut(METRICS, progress.metrics_bytes)
        read_metrics(run)  # so that a bad line is reported now, not when training ends
        self.board = Board(run, progress.update, wanted=cfg.logging.tensorboard)
        if progress.update == 0:
            self.board.add("text", "config", _code(to_yaml(without_paths(cfg))), 0)
            self.board.add("custom_scalars", LAYOUT)
        self.bar = tqdm(
            total=self.last_update,
            initial=progress.update,
            unit="update",
            dynamic_ncols=True,
            disable=None,  # silent unless stderr is a terminal
        )

    @contextlib.contextmanager
    def moving(self, number: int) -> Iterator[None]:
        """Measure how much an optimizer step changes the weights, if this update is logged."""
        before = None
        if number % self.cfg.logging.every == 0:
            with self._harmless("update ratios"):
                before = self.probe.weights()
        yield
        if before is not None:
            with self._harmless("update ratios"):
                self.ratios = self.probe.ratios(before)

    def update(self, stats: UpdateStats, batch: Batch | None) -> None:
        """Add one update; write to the log, and probe the batch, every `logging.every` updates."""
        # Checkpoints save the sums since the last log line, so a resumed run continues them.
        progress = self.progress
        progress.window_updates += 1
        for name, value in vars(stats).items():
            if (key := f"window_{name}") in vars(progress):
                setattr(progress, key, getattr(progress, key) + value)
        with self._harmless("progress bar"):
            self.bar.update()
        if progress.update % self.cfg.logging.every == 0:
            assert batch is not None
            self._log(stats.lr, self._probed(batch))

    def _probed(self, batch: Batch) -> dict[str, float]:
        """Probe the model; the one place where logging waits for the device."""
        values, self.ratios = self.ratios, {}
        with self._harmless("gates and attention"):
            values |= self.probe.look(batch)
        with self._harmless("gates and attention"):
            return read(values)
        return {}

    def _log(self, lr: float, probed: Mapping[str, float]) -> None:
        """Write the means since the last line and reset the sums."""
        progress = self.progress
        updates, seconds = progress.window_updates, progress.window_seconds
        values = {
            "train/loss": progress.window_nll / progress.window_words,
            "train/grad_norm": progress.window_grad_norm / updates,
            "train/clip_rate": progress.window_clipped / updates,
            "train/explosions": progress.window_exploded,
            "train/lr": lr,
            "train/tokens_per_second": progress.window_words / seconds,
            "train/data_wait": progress.window_waited_seconds / seconds,
            "train/padding": 1 - progress.window_tokens / progress.window_cells,
            **probed,
        }
        for name, value in vars(progress).items():
            if name.startswith("window_"):
                setattr(progress, name, type(value)())
        self._record(values)

        # Beside the bar on a terminal, as a log line elsewhere.
        left = (self.last_update - progress.update) * seconds / updates
        left = max(0.0, min(left, self.deadline - time.monotonic()))
        line = f"loss {values['train/loss']:.3f}  {values['train/tokens_per_second']:,.0f} tokens/s"
        line += f"  ETA {tqdm.format_interval(left)}"
        with self._harmless("progress bar"):
            self.bar.set_postfix_str(line)
            if self.bar.disable:
                done = f"{progress.update:,}/{self.last_update:,}"
                log.info("update %s  epoch %d  %s", done, progress.epoch + 1, line)

    def in_parts(self, parts: int) -> None:
        """Record that the last update was computed in parts; from now on the run is not exact."""
        self._record({"train/out_of_memory_parts": parts})

    def validation(self, result: Validated, *, verdict: str) -> None:
        """Log a validation, its verdict, and some translations beside their references."""
        scores = {"loss": result.loss, "bleu": result.bleu, "chrf": result.chrf}
        scores |= result.exactness
        values = {f"validation/{name}": value for name, value in scores.items()}
        values |= {f"loss_by_length/{k}": loss for k, loss in result.loss_by_length.items()}
        directions = result.directions if len(result.directions) > 1 else {}
        for name, (bleu, chrf) in directions.items():
            values |= {f"bleu/{name}": bleu, f"chrf/{name}": chrf}
        self._record(values)
        with self._harmless("validation report"):
            text = "validation after update %s: loss %.3f nats/token, %s  (%s)"
            named = {"BLEU": result.bleu, "chrF": result.chrf, **result.exactness}
            shown = ", ".join(f"{k.replace('_', ' ')} {x:.2f}" for k, x in named.items())
            log.info(text, f"{self.progress.update:,}", result.loss, shown, verdict)
            for name, both in directions.items():
                log.info("  %s: BLEU %.2f, chrF %.2f", name, *both)
        if self.board.on:
            with self._harmless("validation samples"):
                self._samples(result)

    def _samples(self, result: Validated) -> None:
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
        if translation.candidates:
            title = f"{self.cfg.name}, validation sentence {number}"
            title += f", update {self.progress.update:,}"
            figure = translation.plot(title=title)
            self.board.add("figure", f"alignment/{number}", figure, self.progress.update)

    def _record(self, values: Mapping[str, float]) -> None:
        progress = self.progress
        line: dict[str, Any] = {"update": progress.update, "epoch": progress.epoch}
        line["seconds"] = round(progress.seconds, 2)
        line |= {tag: x if math.isfinite(x) else str(x) for tag, x in values.items()}  # JSON
        progress.metrics_bytes = self.run.append_line(METRICS, line)
        for tag, value in values.items():
            self.board.scalar(tag, value, progress.update)

    @contextlib.contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        """Turn errors in logging into a single warning: they must not end a run of days."""
        try:
            yield
        except Exception as error:
            if what not in self.warned:
                self.warned.add(what)
                log.warning("no %s: %s", what, error or type(error).__name__)

    def flush(self) -> None:
        """Flush metrics and events to disk; called before each checkpoint, which relies on them."""
        self.run.sync(METRICS)
        self.board.flush()

    def close(self, best: float | None = None) -> None:
        """Write the hyperparameters with the best score, and close all output."""
        with self._harmless("progress bar"):
            self.bar.close()
        if best is not None:
            # One step later, so that a resumed run hides it and writes it again.
            step, scores = self.progress.update + 1, {"best/validation": best}
            self.board.hyperparameters(hyperparameters(self.cfg), scores, step)
        self.board.close()


def _code(text: str) -> str:
    """Indent text as a code block, so that TensorBoard's Markdown leaves it unchanged."""
    lines = (printable_line(line) for line in text.removesuffix("\n").split("\n"))
    return "".join(f"    {html.escape(line, quote=False)}\n" for line in lines)
