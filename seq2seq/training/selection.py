"""Selects the best validation, decides when training ends, and words both for the log.

Until a score is above chance (`Validated.noise`), it is noise and the loss decides in its place: it
distinguishes a slow start, which may continue, from training that has stalled.
"""

import math

from seq2seq.config.schema import Config, PlateauConfig, SelectBy, TrainerConfig
from seq2seq.evaluation.error_rates import NAMES, higher_better
from seq2seq.training.checkpoint import Progress
from seq2seq.training.monitor import Validated

GAIN = 1e-4
"""Relative decrease of the loss that resets patience; less counts as no progress."""

_METRICS = {"bleu": "BLEU", "chrf": "chrF", **{by.name: name for by, name in NAMES.items()}}


def take(progress: Progress, result: Validated, cfg: Config) -> bool:
    """Update progress with a validation; return whether it is the best so far."""
    score = _score(progress, result, cfg.trainer.select_by)
    before = progress.best_score
    best = math.isfinite(score) and (before is None or score > before)
    least = 0.0 if before is None or before >= 0 else GAIN * abs(before)
    counts = best and (before is None or score > before + least)
    progress.validated = progress.update
    if best:
        progress.best_score, progress.best_update = score, progress.update

    # Early stopping and the plateau rule count validations since the last improvement.
    progress.waiting = 0 if counts else progress.waiting + 1
    progress.plateau_waiting = 0 if counts else progress.plateau_waiting + 1
    plateau = cfg.scheduler
    if isinstance(plateau, PlateauConfig) and progress.plateau_waiting > plateau.patience:
        progress.reductions, progress.plateau_waiting = progress.reductions + 1, 0
    return best


def _score(progress: Progress, result: Validated, select_by: SelectBy) -> float:
    """Return the score to maximize: minus the loss or, always above that, the selecting metric.

    Of an error rate, it is 100 minus the rate.
    """
    found = {"loss": -result.loss, "bleu": result.bleu, "chrf": result.chrf, **result.exactness}
    score = higher_better(select_by, found[select_by.name])
    return -result.loss if by_loss(progress) and score < result.noise else score


def by_loss(progress: Progress) -> bool:
    """Whether the best so far was chosen by loss: only then is the score not positive."""
    return progress.best_score is None or progress.best_score <= 0


def metric_of(progress: Progress, cfg: TrainerConfig) -> str:
    """Return the metric by which the best so far was chosen."""
    return SelectBy.loss.name if by_loss(progress) else cfg.select_by.name


def best_value(progress: Progress, cfg: TrainerConfig) -> float | None:
    """Return the best value of `metric_of`; of the loss, its negative."""
    score = progress.best_score
    if score is None or by_loss(progress):
        return score
    return round(higher_better(cfg.select_by, score), 10)  # 7.25, not 7.249999999999986


def verdict(progress: Progress, cfg: TrainerConfig, *, best: bool) -> str:
    """Return the verdict on the last validation."""
    metric, wanted = metric_of(progress, cfg), cfg.select_by.name
    noise = "" if metric == wanted else f", as {_METRICS[wanted]} is still noise"
    if best:
        return f"best {metric} so far{noise}"
    of = "" if cfg.patience is None else f" of {cfg.patience}"
    return f"no better {metric}{noise}: {progress.waiting}{of}"


def _best(progress: Progress, cfg: TrainerConfig) -> str:
    if (found := best_value(progress, cfg)) is None:
        return "no validation has a finite loss, so the newest checkpoint serves"
    metric, wanted = metric_of(progress, cfg), cfg.select_by.name
    noise = "" if metric == wanted else f" (no {_METRICS[wanted]} above noise)"
    value = f"{abs(found):.{3 if by_loss(progress) else 2}f}"
    return f"best {metric} {value} after update {progress.best_update:,}{noise}"


def limits_reached(progress: Progress, cfg: TrainerConfig) -> dict[str, str]:
    """Return the limits reached, by setting, each with its numbers; empty to continue."""
    reached = {}
    if progress.update >= cfg.max_updates:
        reached["trainer.max_updates"] = f"={cfg.max_updates}"
    if cfg.max_epochs is not None and progress.epoch >= cfg.max_epochs:
        reached["trainer.max_epochs"] = f"={cfg.max_epochs}"
    if cfg.patience is not None and progress.waiting >= cfg.patience:
        count = f"{progress.waiting} validations without a better {metric_of(progress, cfg)}"
        reached["trainer.patience"] = f"={cfg.patience} ({count})"
    return reached


def closing_line(progress: Progress, cfg: TrainerConfig, *, begun_at: int) -> str:
    """Return the final log line: why training ended, and the best result.

    `begun_at` is the update at which this process started.
    """
    reached = limits_reached(progress, cfg)
    why = " and ".join(f"{key}{numbers}" for key, numbers in reached.items())
    best = _best(progress, cfg)
    if progress.update == begun_at:
        line = f"nothing to train after update {progress.update:,}: {why} is reached"
        return f"{line}; raise {' and '.join(reached)} to go on; {best}"
    minutes = f"{progress.seconds / 60:.1f} minutes"
    return f"trained {progress.update:,} updates in {minutes}, ended by {why}; {best}"
