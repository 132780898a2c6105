"""What a run shows of itself: progress on stderr, metrics.jsonl, TensorBoard.

Nothing here touches weights or random states.
"""

import html
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from seq2seq.config import flatten, to_yaml
from seq2seq.inference.alignment import plot_alignment, printable_line
from seq2seq.inference.translate import Translation
from seq2seq.privacy import without_paths
from seq2seq.run import RunDir
from seq2seq.settings import Config
from seq2seq.training.checkpoint import Progress

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
EVENTS = "tensorboard"


@dataclass(frozen=True)
class UpdateStats:
    """One update."""

    nll: float  # nats, summed
    words: int  # target tokens, end symbols included
    grad_norm: float  # before clipping
    clipped: bool
    lr: float
    seconds: float


@dataclass
class Validated:
    """Result of a validation."""

    loss: float  # nats per target token
    bleu: float
    translations: Sequence[Translation] = field(default=())
    references: Sequence[str] = field(default=())


class Monitor:
    """Reports a training run.

    Args:
        run: Where files go.
        cfg: The whole config; only `logging` and `trainer.max_updates` are used as settings.
        progress: Where training stands; lines and events after it are cut away.
    """

    def __init__(self, run: RunDir, cfg: Config, progress: Progress) -> None:
        self.run, self.cfg, self.progress = run, cfg, progress
        self.recorded = False
        run.cut(METRICS, progress.metrics_bytes)
        self.writer = _open_writer(run, progress.update) if cfg.logging.tensorboard else None
        if self.writer is not None and progress.update == 0:
            self.writer.add_text("config", _code(to_yaml(without_paths(cfg))), 0)
        self.bar = tqdm(
            total=cfg.trainer.max_updates,
            initial=progress.update,
            unit="update",
            dynamic_ncols=True,
            disable=None,  # silent unless stderr is a terminal
        )

    def update(self, stats: UpdateStats) -> None:
        """Take in one update; report every `logging.every` of them."""
        progress = self.progress
        progress.window_updates += 1
        progress.window_nll += stats.nll
        progress.window_words += stats.words
        progress.window_grad_norm += stats.grad_norm
        progress.window_clipped += stats.clipped
        progress.window_seconds += stats.seconds
        self.bar.update()
        if progress.update % self.cfg.logging.every == 0:
            self._report(stats.lr)

    def _report(self, lr: float) -> None:
        progress = self.progress
        updates, seconds = progress.window_updates, progress.window_seconds
        values = {
            "train/loss": progress.window_nll / progress.window_words,
            "train/grad_norm": progress.window_grad_norm / updates,
            "train/clip_rate": progress.window_clipped / updates,
            "train/lr": lr,
            "train/words_per_second": progress.window_words / seconds,
        }
        progress.window_updates = progress.window_words = progress.window_clipped = 0
        progress.window_nll = progress.window_grad_norm = progress.window_seconds = 0.0
        self._record(values)
        left = self._eta(seconds / updates)
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
        self._record({"validation/loss": result.loss, "validation/bleu": result.bleu})
        log.info(
            "validation after update %s: loss %.3f nats/token, BLEU %.2f%s",
            f"{self.progress.update:,}",
            result.loss,
            result.bleu,
            "  (best so far)" if best else "",
        )
        if self.writer is None:
            return
        shown = list(zip(result.translations, result.references, strict=False))
        shown = shown[: self.cfg.logging.samples]
        text = "\n\n".join(
            f"source:    {t.source}\noutput:    {t.text}\nreference: {r}" for t, r in shown
        )
        self.writer.add_text("validation/samples", _code(text), self.progress.update)
        for number, (translation, _) in enumerate(shown[: self.cfg.logging.heatmaps], start=1):
            self._heatmap(number, translation)

    def _heatmap(self, number: int, translation: Translation) -> None:
        if self.writer is None or not translation.candidates:
            return
        best = translation.candidates[0]
        try:
            figure = plot_alignment(best.alignment, translation.source_tokens, best.tokens)
            self.writer.add_figure(f"alignment/{number}", figure, self.progress.update)
        except Exception as error:  # a picture must not end a run of days
            log.warning("no heatmap of validation sentence %d: %s", number, error)

    def _record(self, values: dict[str, float]) -> None:
        progress, self.recorded = self.progress, True
        line: dict[str, Any] = {"update": progress.update, "epoch": progress.epoch}
        line |= {"seconds": round(progress.seconds, 2), **values}
        progress.metrics_bytes = self.run.append_line(METRICS, line)
        if self.writer is not None:
            for tag, value in values.items():
                self.writer.add_scalar(tag, value, progress.update)

    def flush(self) -> None:
        """Bring events to disk; called when a checkpoint is written."""
        if self.writer is not None:
            self.writer.flush()

    def close(self, best: float | None = None) -> None:
        """Write the hyper-parameters with the best score and end all output."""
        self.bar.close()
        if self.writer is None:
            return
        if best is not None and self.recorded:  # not if a finished run was only opened again
            # add_hparams refuses lists and None; run_name "." keeps it in this run.
            values = {
                k: v if isinstance(v, int | float | str | bool) else str(v)
                for k, v in flatten(without_paths(self.cfg)).items()
            }
            scores, step = {"best/validation": best}, self.progress.update
            self.writer.add_hparams(values, scores, run_name=".", global_step=step)
        self.writer.close()


def _open_writer(run: RunDir, update: int) -> Any:
    from torch.utils.tensorboard.writer import SummaryWriter

    _number_events(run)
    # purge_step hides what a killed run had logged after its last checkpoint; step 0 is the config.
    return SummaryWriter(str(run.path(EVENTS)), purge_step=update + 1 if update else 0)


def _number_events(run: RunDir) -> None:
    """Rename what earlier processes of this run logged, so that it sorts before what comes.

    TensorBoard reads event files in the order of their names: the second of their beginning, host,
    process. A clock that was set back, or two starts in a second, would put them in disorder.
    """
    files = sorted(run.path(EVENTS).glob("events.out.tfevents.*"))
    for number, path in enumerate(files):
        name = f"events.out.tfevents.{number:010d}"
        if path.name != name:
            run.rename(f"{EVENTS}/{path.name}", f"{EVENTS}/{name}")


def _code(text: str) -> str:
    """Wrap text so that TensorBoard's markdown leaves it alone; its lines end at line feeds."""
    lines = (printable_line(line) for line in text.split("\n"))
    return "".join(f"    {html.escape(line, quote=False)}\n" for line in lines)
