"""Train, decode and score a translation model: `seq2seq train +experiment=quickstart`.

Read from top to bottom: a config is checked, a run directory made or reopened, stages run.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

# Both have to be set before the libraries that read them are imported.
os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us
# A waiting OpenMP thread gives its core away after some 10 us. The default spins for milliseconds,
# and where another program wants the core, training then slows down fifteen-fold, not two-fold.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from seq2seq import __version__
from seq2seq.cli.console import check_command_line, show
from seq2seq.config.compose import (
    CONFIGS,
    RESUME_KEYS,
    command_line,
    composing_error,
    is_about_a_group,
    is_within,
    load_run_config,
    settings_of,
    to_config,
    to_yaml,
)
from seq2seq.config.describe import help_text
from seq2seq.config.schema import Config, Device, Stage
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import (
    InternalError,
    PlatformError,
    RunDirError,
    StoppedError,
    UsageError,
    UserError,
    print_error,
)
from seq2seq.run.jsonable import to_json
from seq2seq.run.models import run_paths
from seq2seq.run.naming import CONFIG, OUTPUTS, expanded, run_path
from seq2seq.run.provenance import provenance, record
from seq2seq.run.requirements import lazy_help_texts
from seq2seq.run.signals import StopRequest

if TYPE_CHECKING:
    from seq2seq.training.warm_start import Origin


def main(argv: Sequence[str]) -> None:
    """Compose the config and run its job, or the jobs of a sweep; or show the help."""
    typed = list(sys.argv)

    @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")  # type: ignore[untyped-decorator]
    def job(raw: DictConfig) -> None:
        sys.argv[:] = typed  # as a run records it, with its extensions
        run_job(raw)

    try:
        arguments = command_line(argv)
        if "--version" in arguments:
            return show(__version__)
        if asked := {"-h", "--help"}.intersection(arguments):
            return show(help_text([word for word in arguments if word not in asked]))
    except UserError as error:
        sys.exit(print_error(error))
    sys.argv[1:] = arguments
    try:
        with lazy_help_texts():
            job()
    except UserError as error:  # of a sweep's job, which has reported it; the others have run
        sys.exit(error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:  # composing failed
        sys.exit(print_error(composing_error(error)))
    except ValueError as error:
        if not is_about_a_group(error):
            raise
        sys.exit(print_error(composing_error(error)))


def run_job(raw: DictConfig) -> None:
    """Run one job; in a sweep errors go on to Hydra, which starts the next job.

    A stop that was asked for ends the whole sweep.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return run_rank(raw)
    hydra_config = HydraConfig.get()
    sweeping = hydra_config.mode is RunMode.MULTIRUN
    named = sweeping or raw.run_dir is not None or raw.resume is not None
    try:
        check_command_line(sys.argv)
        cfg, run = begin_or_reopen(raw)
        from seq2seq.cli import stages  # imports torch, which takes seconds

        with nullcontext() if named else discarded_on_failure(run), stages.recorded(run):
            stages.run_stages(cfg, run, StopRequest())
        show(stages.summary(run))
        if sweeping:
            stages.draw_sweep(run.root.parent)
    except UserError as error:
        exit_code = print_error(error)
        if sweeping and not isinstance(error, StoppedError):
            raise
        sys.exit(exit_code)


def run_rank(raw: DictConfig) -> None:
    """Run one of the processes that torchrun started: rank 0 makes the run, the others join it."""
    from seq2seq.cli import stages
    from seq2seq.training.distributed import join

    try:
        world = join()
    except UserError as error:
        sys.exit(print_error(error))
    try:
        check_command_line(sys.argv)
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise UsageError("--multirun", "is for one process", "Start each run by torchrun.")
        if world.leads:
            cfg, run = begin_or_reopen(raw, world.size)
            world.tell("run", [str(run.root.resolve()), to_json(cfg)])
            named = raw.run_dir is not None or raw.resume is not None
            with nullcontext() if named else discarded_on_failure(run), stages.recorded(run):
                stages.run_stages(cfg, run, StopRequest(), world)
            show(stages.summary(run))
        else:
            root, values = world.told("run")
            with world.followed():
                stages.run_stages(to_config(values), joined(Path(root)), StopRequest(), world)
    except UserError as error:
        sys.exit(world.leave(error))


def joined(root: Path) -> RunDir:
    """Open the run that rank 0 has made or reopened."""
    try:
        return RunDir.open(root)
    except RunDirError:
        what, fix = "cannot be seen from here", "Use a file system that all hosts share."
        raise PlatformError(root, what, fix) from None


def begin_or_reopen(raw: DictConfig, processes: int = 1) -> tuple[Config, RunDir]:
    """Make the run of a composed config, or continue one."""
    hydra_config = HydraConfig.get()
    typed = hydra_config.overrides.task
    if raw.resume is not None:
        return reopen(run_path(str(raw.resume)), typed, processes)
    sweeping = hydra_config.mode is RunMode.MULTIRUN
    sweep_dir = Path(hydra_config.runtime.output_dir) if sweeping else None
    return begin(raw, typed, sweep_dir, processes)


def begin(
    raw: DictConfig, typed: Sequence[str], sweep_dir: Path | None, processes: int
) -> tuple[Config, RunDir]:
    """Check the composed config and make its run directory."""
    # Everything that can be wrong with the config is said before anything is made.
    cfg = to_config(settings_of(raw, typed))
    check_device(cfg)
    if cfg.init.run is not None:  # the record has the path that a name stands for
        cfg = replace(cfg, init=replace(cfg.init, run=run_paths(cfg.init.run)))
    origin = origin_of(cfg)
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    root = sweep_dir or OUTPUTS / cfg.name / now
    # The directory is locked from here on.
    run = RunDir.create(root if raw.run_dir is None else expanded(str(raw.run_dir)))
    save(run, cfg, origin, processes)
    return cfg, run


@contextmanager
def discarded_on_failure(run: RunDir) -> Iterator[None]:
    """Delete a run whose start fails before it has data: it would stand in the way of `latest`."""
    try:
        yield
    except UserError as error:
        if not run.has_data() and not isinstance(error, StoppedError | InternalError):
            run.discard()
        raise


def reopen(root: Path, overrides: list[str], processes: int) -> tuple[Config, RunDir]:
    """Continue a run with its own config; only `RESUME_KEYS` may change once there is data."""
    run = RunDir.open(root)
    changes = [text for text in overrides if not text.startswith("resume=")]
    may_change = RESUME_KEYS if run.has_data() else None
    cfg = load_run_config(run.checked(CONFIG), changes, may_change)
    check_device(cfg)
    run.lock()
    lasting = [text for text in changes if not is_within(text.partition("=")[0], RESUME_KEYS)]
    if lasting and not run.has_data():
        changed = load_run_config(run.path(CONFIG), lasting, None)
        save(run, changed, origin_of(changed), processes)
    return cfg, run


def origin_of(cfg: Config) -> "Origin | None":
    """Read what the run is to begin with; see that the files and weights it names exist."""
    from seq2seq.training.optim import check_names  # imports torch
    from seq2seq.training.vectors import check_vectors
    from seq2seq.training.warm_start import read_origin

    check_names(cfg)
    check_vectors(cfg)
    return read_origin(cfg)


def save(run: RunDir, cfg: Config, origin: "Origin | None", processes: int) -> None:
    """Write the record and the config of a run, and what it begins with."""
    from seq2seq.cli.stages import logging_to  # imports torch, as `provenance` does
    from seq2seq.training.warm_start import keep

    with logging_to(run.path("train.log")):  # it says what the recurrences run as
        record(run, provenance(cfg, processes=processes) | keep(run, origin))
    run.write(CONFIG, to_yaml(cfg))  # last: with it the directory is a run
    run.record(CONFIG)


def check_device(cfg: Config) -> None:
    """Look for a GPU before any work, if one is asked for by name."""
    if cfg.device in (Device.cuda, Device.mps) and cfg.stages != [Stage.tokenize]:
        from seq2seq.decoding.pretrained import pick_device

        pick_device(cfg.device)
