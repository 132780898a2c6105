"""Train, decode and score a translation model: `seq2seq train +experiment=quickstart`.

Read from top to bottom: a config is checked, a run directory made or reopened, stages run.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Both have to be set before the libraries that read them are imported.
os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us
# A waiting OpenMP thread gives its core away after some 10 us. The default spins for milliseconds,
# and where another program wants the core, training then slows down fifteen-fold, not two-fold.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seq2seq import __version__
from seq2seq.cli import sweep
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
from seq2seq.config.extensions import load_extensions
from seq2seq.config.schema import Config, Stage
from seq2seq.run.checksums import RECORDS
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import (
    ConfigError,
    InternalError,
    PlatformError,
    RunDirError,
    StoppedError,
    UntrustedError,
    UsageError,
    UserError,
    print_error,
)
from seq2seq.run.jsonable import to_json
from seq2seq.run.models import run_paths
from seq2seq.run.naming import CONFIG, OUTPUTS, assignment, expanded, run_path
from seq2seq.run.plain_yaml import parse_plain_yaml
from seq2seq.run.provenance import RECORD, provenance, record
from seq2seq.run.requirements import lazy_help_texts
from seq2seq.run.signals import StopRequest
from seq2seq.run.writing import delete_empty

if TYPE_CHECKING:
    from seq2seq.training.warm_start import Origin


def main(argv: Sequence[str]) -> None:
    """Compose the config and run its job, or the jobs of a sweep; or show the help."""
    job = update_wrapper(partial(run_job, list(sys.argv)), run_job)  # Hydra reads its module
    composed = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(job)
    try:
        arguments = command_line(argv)
        if "--version" in arguments:
            return show(__version__)
        if asked := {"-h", "--help"}.intersection(arguments):
            return show(help_text([word for word in arguments if word not in asked]))
    except UserError as error:
        sys.exit(print_error(error))
    # Hydra reads the command line and runs the jobs.
    sys.argv[1:] = arguments
    sweep.stops.clear()  # a process may run several sweeps
    plugins = [word for word in arguments if word.startswith(("hydra/launcher=", "hydra/sweeper="))]
    if any(word.startswith("hydra/launcher=") for word in plugins):
        sweep.leave_signals_to_jobs()
    try:
        with lazy_help_texts():
            composed()
    except Exception as error:
        if (code := reported(error, plugins)) is None:
            raise
        sys.exit(code)


def reported(error: Exception, plugins: Sequence[str]) -> int | None:
    """Print what Hydra raised, in one line, and return the exit code; None if it is a bug."""
    if isinstance(error, UserError):  # of a sweep's job, which has reported it; the others have run
        if any("submitit" in word for word in plugins):  # in a log of its own
            print_error(error)
        return sweep.stops[0] if sweep.stops else error.exit_code
    if isinstance(error, HydraException | OmegaConfBaseException) or is_about_a_group(error):
        return print_error(composing_error(error))
    if not plugins:
        return None
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    fix = "See train.log of its jobs; on_existing=resume goes on with the same hydra.sweep.dir."
    return print_error(PlatformError("sweep", what, fix))


def run_job(typed: list[str], raw: DictConfig) -> float | None:
    """Run one job and return its score; in a sweep errors go on to Hydra, which starts the next.

    A stop ends the sweep: the jobs left are named instead of started. `typed` is the whole command
    line, as a run records it.
    """
    sys.argv[:] = typed
    load_extensions(typed)  # a launcher may run this in another process
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        run_rank(raw)
        return None
    hydra_config = HydraConfig.get()
    sweeping = hydra_config.mode is RunMode.MULTIRUN
    job_dir = Path(hydra_config.runtime.output_dir)
    try:
        if sweeping:
            sweep.refuse_after_stop(job_dir, hydra_config.overrides.task)
        check_command_line(sys.argv)
        cfg, run = begin_or_reopen(raw)
        from seq2seq.cli import stages  # imports torch, which takes seconds

        try:
            if cfg.stages:  # else all is done
                with summarized(run, raw):
                    stages.run_stages(cfg, run, StopRequest())
        finally:
            run.unlock()  # the process may live on, as a worker of a sweep
        if sweeping:
            stages.draw_sweep(run.root.parent)
        return sweep.selected_score(run)
    except UserError as error:
        exit_code = print_error(error)
        if not sweeping:
            sys.exit(exit_code)
        if isinstance(error, StoppedError):
            sweep.stops.append(error.exit_code)
            delete_empty(job_dir)  # Hydra makes it for a job that is not started, too
        raise


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
        # A restart by torchrun goes on with the run that the first start made.
        if world.leads:
            begun = world.begun()
            if begun is not None and raw.resume is None:
                cfg, run = reopen(begun, [], world.size)
            else:
                cfg, run = begin_or_reopen(raw, world.size)
            world.remember(run.root)
            world.tell("run", [str(run.root.resolve()), to_json(cfg)])
            if not cfg.stages:
                return
            with summarized(run, raw):
                stages.run_stages(cfg, run, StopRequest(), world)
        else:
            root, values = world.told("run")
            if not values["stages"]:
                return
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
    raw: DictConfig, typed: Sequence[str], sweep_dir: Path | None, processes: int = 1
) -> tuple[Config, RunDir]:
    """Check the composed config, and make its run directory or open one that it has begun.

    Where all is done, no stage is left.
    """
    # Everything that can be wrong with the config is said before anything is made.
    cfg = to_config(settings_of(raw, typed))
    check_device(cfg)
    check_readable(cfg)
    if sweep_dir and cfg.data.prepared is None:
        cfg = replace(cfg, data=replace(cfg.data, prepared=str(OUTPUTS / "prepared")))
    if cfg.init.run is not None:  # the record has the path that a name stands for
        cfg = replace(cfg, init=replace(cfg.init, run=run_paths(cfg.init.run)))
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    root = sweep_dir or OUTPUTS / cfg.name / now
    root = root if raw.run_dir is None else expanded(str(raw.run_dir))
    # The directory is locked from here on.
    if continues(raw) and RunDir(root).has_data():
        run, done = sweep.continued(root, cfg)
        if done:
            show(f"run        {root}: all is done")
        return (replace(cfg, stages=[]) if done else cfg), run
    origin = origin_of(cfg)
    run = RunDir.create(root)
    save(run, cfg, origin, processes)
    return cfg, run


def continues(raw: DictConfig) -> bool:
    """Return whether a run that is there shall be continued.

    Raises:
        ConfigError: not a valid value, or the directory is another one at each start.
    """
    if raw.on_existing == "error":
        return False
    if raw.on_existing != "resume":
        unknown = f"on_existing={raw.on_existing} is not one of its values"
        raise ConfigError("config", unknown, "Use error or resume.")
    sweep_dir: Any = OmegaConf.to_container(HydraConfig.get().sweep, resolve=False)
    if raw.run_dir is None and "${now:" in sweep_dir["dir"]:
        what = "on_existing=resume needs a directory that is the same at each start"
        raise ConfigError("config", what, "Give run_dir, or hydra.sweep.dir for a sweep.")
    return True


@contextmanager
def summarized(run: RunDir, raw: DictConfig) -> Iterator[None]:
    """Record what a run logs, and show what came of it; a nameless one may be discarded."""
    from seq2seq.cli import stages

    sweeping = HydraConfig.get().mode is RunMode.MULTIRUN
    named = sweeping or raw.run_dir is not None or raw.resume is not None
    with nullcontext() if named else discarded_on_failure(run), stages.recorded(run):
        yield
    show(stages.summary(run))


@contextmanager
def discarded_on_failure(run: RunDir) -> Iterator[None]:
    """Delete a run whose start fails before it has data: it would stand in the way of `latest`."""
    try:
        yield
    except UserError as error:
        if not run.has_data() and not isinstance(error, StoppedError | InternalError):
            run.discard()
        raise


def reopen(root: Path, overrides: list[str], processes: int = 1) -> tuple[Config, RunDir]:
    """Continue a run with its own config; only `RESUME_KEYS` may change once there is data."""
    run = RunDir.open(root)
    if run.has_data() and not any(run.path(name).exists() for name in (RECORD, RECORDS[0])):
        fix = f"Start a new one with {shlex.quote(assignment('init.run', root))}."
        raise RunDirError(root, "is a model without data, not a run to continue", fix)
    changes = [text for text in overrides if not text.startswith("resume=")]
    may_change = RESUME_KEYS if run.has_data() else None
    cfg = load_run_config(run.checked(CONFIG), changes, may_change)
    check_device(cfg)
    run.lock()
    lasting = [text for text in changes if not is_within(text.partition("=")[0], RESUME_KEYS)]
    if lasting and not run.has_data():
        changed = load_run_config(run.path(CONFIG), lasting, None)
        check_readable(changed)
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


def save(run: RunDir, cfg: Config, origin: "Origin | None", processes: int = 1) -> None:
    """Write the record and the config of a run, and what it begins with."""
    from seq2seq.cli.stages import logging_to  # imports torch, as `provenance` does
    from seq2seq.training.warm_start import keep

    with logging_to(run.path("train.log")):  # it says what the recurrences run as
        record(run, provenance(cfg, processes=processes) | keep(run, origin))
    run.write(CONFIG, to_yaml(cfg))  # last: with it the directory is a run
    run.record(CONFIG)


def check_readable(cfg: Config) -> None:
    """Check that what a run saves can be read again.

    Raises:
        ConfigError: it is too large, as with thousands of names in `data.placeholders`.
    """
    try:
        parse_plain_yaml(to_yaml(cfg).encode(), Path(CONFIG))
    except (RunDirError, UntrustedError) as error:
        what = f"could not be read again once it is saved ({error.what})"
        raise ConfigError("config", what, "Shorten its lists and patterns.") from None


def check_device(cfg: Config) -> None:
    """Look for a GPU before any work, if one is asked for by name."""
    if cfg.device not in ("auto", "cpu") and cfg.stages != [Stage.tokenize]:
        from seq2seq.decoding.pretrained import pick_device

        pick_device(cfg.device)
