"""Jobs of a sweep: their score, a stop that ends all of them, and starting one again."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from seq2seq.cli.runs import PRODUCTS
from seq2seq.config.compose import RESUME_KEYS, check_unchanged, is_within, load_run_config
from seq2seq.config.schema import Config, SelectBy
from seq2seq.run.checkpoints import BEST
from seq2seq.run.checksums import read_checksummed
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import StoppedError
from seq2seq.run.naming import CONFIG
from seq2seq.run.reading import expected
from seq2seq.run.signals import signals_named

_LIMITS = ("trainer.max_updates", "trainer.max_epochs", "trainer.patience")
REDO_KEYS = (*_LIMITS, "decode", "evaluate", "attention")
"""Settings that may change in a run, and give a finished one more to do."""

stops: list[int] = []
"""Exit codes of stopped jobs: launchers that share a process among jobs start no further one."""


def refuse_after_stop(directory: Path, overrides: Sequence[str]) -> None:
    """Start no job in a process in which one has been stopped.

    Raises:
        StoppedError: names the job.
    """
    if stops:
        what = f"not started, as the sweep was stopped: {' '.join(overrides)}"
        fix = "Start the sweep again with the same hydra.sweep.dir and on_existing=resume."
        raise StoppedError(directory, what, fix, stops[0])


def leave_signals_to_jobs() -> None:
    """Let worker processes stop by themselves, and wait for them; without any, just end.

    A terminal sends Ctrl-C to all processes, other signals reach only this one.
    """

    def forward(number: int, _frame: FrameType | None) -> None:
        workers = multiprocessing.active_children()
        if not workers:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        for worker in workers if number != signal.SIGINT else ():
            if worker.pid is not None:
                os.kill(worker.pid, number)

    for number in signals_named("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)


def selected_score(run: RunDir) -> float | None:
    """Return the score of the best validation, for a sweeper to maximize; None without any.

    It is `trainer.select_by`: 100 minus an error rate; minus the loss, which is below every other
    score, while those are noise.
    """
    from seq2seq.evaluation.error_rates import higher_better

    if not run.path(BEST).exists():
        return None
    best = read_checksummed(run.path(BEST))
    with expected(run.path(BEST)):
        metric, value = SelectBy[best["metric"]], float(best["value"])
    return higher_better(metric, value)


def continued(root: Path, cfg: Config) -> tuple[RunDir, bool]:
    """Open and lock a run that the same command began; return also whether nothing is left to do.

    Raises:
        RunDirError: it was begun with other settings, or is in use.
    """
    run = RunDir.open(root)
    path = run.checked(CONFIG)
    saved = load_run_config(path)
    done = all(run.path(PRODUCTS[stage]).exists() for stage in cfg.stages)
    differing = check_unchanged(path, saved, cfg, RESUME_KEYS)
    run.lock()
    return run, done and not any(is_within(key, REDO_KEYS) for key in differing)
