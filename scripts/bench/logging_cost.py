"""What logging costs: the same training with all of it and with none, in turns."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from seq2seq.cli.stages import trainer_of
from seq2seq.config.schema import Config, LoggingConfig
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError
from seq2seq.run.signals import StopRequest
from seq2seq.training.board import EVENTS
from seq2seq.training.checkpoint import DIRECTORY
from seq2seq.training.curves import METRICS


@dataclass(frozen=True)
class LoggingCost:
    """Seconds of each repetition, the first of a pair without logging."""

    off: tuple[float, ...]  # of a whole training, its validations and checkpoints included
    on: tuple[float, ...]
    updates: tuple[float, ...]  # without logging, of the updates alone
    identical: bool  # all trainings ended in the same weights, bit for bit

    @property
    def share(self) -> float:
        """What logging adds to a training, as a share of the time of its updates alone.

        Medians; the cost holds what logging does at validations, the time does not hold those.
        """
        return (median(self.on) - median(self.off)) / median(self.updates)

    def __str__(self) -> str:
        """Tell all times: a median does not say how noisy the machine is."""
        rows = [("logging off", self.off), ("logging on", self.on), ("updates, off", self.updates)]
        lines = [
            f"{name:<14}{median(times):8.2f} s   {' '.join(f'{x:.2f}' for x in times)}"
            for name, times in rows
        ]
        weights = "bit-identical" if self.identical else "DIFFERENT"
        lines.append(f"cost{100 * self.share:18.2f} % of the updates; weights {weights}")
        return "\n".join(lines)


def measure_logging(run: RunDir, cfg: Config, repeats: int) -> LoggingCost:
    """Train in a run again and again, by turns without logging and with what its config says.

    Args:
        run: Tokenized and not trained; what training writes is deleted after each time.
        cfg: Its config; `trainer.max_updates` says how long one training is.
        repeats: Trainings of each kind, after one of each that is not counted.

    Raises:
        RunDirError: it has been trained.
    """
    if run.path(DIRECTORY).exists():
        fix = "Name one that is only tokenized (stages=[tokenize]): it will be trained and emptied."
        raise RunDirError(run.root, "holds checkpoints", fix)
    none = LoggingConfig(
        every=cfg.trainer.max_updates + 1, tensorboard=False, samples=0, heatmaps=0
    )
    kinds = (replace(cfg, logging=none), cfg)
    whole: tuple[list[float], list[float]] = ([], [])
    updates: list[float] = []
    first: Sequence[Tensor] | None = None
    identical = True
    for repeat in range(repeats + 1):
        for kind, times in zip(kinds, whole, strict=True):
            seconds, in_updates, weights = _train(run, kind)
            first = first or weights
            identical &= all(map(torch.equal, first, weights))
            if repeat:  # the first of each kind imports and warms up
                times.append(seconds)
                updates += [in_updates] if kind.logging is none else []
    return LoggingCost(tuple(whole[0]), tuple(whole[1]), tuple(updates), identical)


def _train(run: RunDir, cfg: Config) -> tuple[float, float, Sequence[Tensor]]:
    """Return the seconds of a training and of its updates alone, and the weights at its end."""
    trainer = trainer_of(cfg, run, StopRequest())
    start = time.perf_counter()
    try:
        progress = trainer.fit()
        seconds = time.perf_counter() - start
    finally:
        for name in (DIRECTORY, EVENTS):
            run.remove_directory(name)
        run.cut(METRICS, 0)
    return seconds, progress.seconds, [p.detach().cpu() for p in trainer.model.parameters()]
