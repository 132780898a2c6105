"""L12: a run of another user, of root, or made under a narrow umask: clear text.

A child gives up root after all is imported: the interpreter may lie where only root can read.
"""

import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import begin, composed, config_of, copy_of, locked, run_new, tiny_run

import seq2seq
from seq2seq.cli.stages import run_stages
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import UserError, one_line
from seq2seq.run.signals import StopRequest

NOBODY = 65534
SENTENCES = ["the cat sees the dog ."]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Outside of pytest's folder, into which only its owner may look."""
    path = Path(tempfile.mkdtemp(prefix="owner-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def as_nobody(function: Callable[[], object]) -> tuple[int, str]:
    """Call a function as another user; return the exit code and the line that would be printed."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # python 3.12 on forks with threads
        child = os.fork()
    if child == 0:
        code = 99
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            function()
            code = 0
        except UserError as error:
            code = error.exit_code
            os.write(writing, one_line(error).encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


@pytest.fixture
def theirs(folder, tmp_path_factory) -> Path:
    """A run of root's, and everything imported that decoding it needs."""
    run = copy_of(tiny_run(tmp_path_factory.getbasetemp()), folder / "run")
    assert seq2seq.load(run).translate(SENTENCES)
    return run


def test_L12_another_user_reads_and_does_not_write(theirs, folder):
    before = sorted(path.stat().st_mtime_ns for path in theirs.rglob("*"))
    assert as_nobody(lambda: seq2seq.load(theirs).translate(SENTENCES)) == (0, "")
    fix = "Permission denied. Choose a directory that you may write to."
    assert as_nobody(lambda: RunDir.open(theirs).lock()) == (
        5, f"error: {theirs / 'run.lock'}: {fix}",
    )  # fmt: skip
    new = folder / "new"
    assert as_nobody(lambda: RunDir.create(new)) == (5, f"error: {new}: {fix}")
    assert sorted(path.stat().st_mtime_ns for path in theirs.rglob("*")) == before


def test_L12_a_narrow_umask_keeps_others_out(folder, theirs):
    before = os.umask(0o077)
    try:
        few = ["trainer.max_updates=2", "trainer.validate_every=2", "evaluate.heatmaps=[]"]
        run = run_new(folder / "own", composed("debug", few)).root
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in run.rglob("*")} == {0}
    code, line = as_nobody(lambda: seq2seq.load(run))
    assert code == 5
    assert line.startswith(f"error: {run}")
    assert line.endswith(": may not be read. Change its permissions.")
    for path in [run, *run.rglob("*")]:  # now only some files cannot be read
        path.chmod(0o755 if path.is_dir() else 0o600)
    (run / "config.yaml").chmod(0o644)
    code, line = as_nobody(lambda: seq2seq.load(run))
    assert code == 5
    assert line.startswith(f"error: {run / 'tokenizers'}")
    assert line.endswith(": may not be read. Change its permissions.")


def test_L12_root_goes_on_with_the_run_of_another_user(folder):
    few = ["trainer.max_updates=2", "trainer.validate_every=2", "stages=[tokenize,train]"]
    cfg = composed("debug", few)
    with locked(begin(folder / "run", cfg)) as run:
        run_stages(cfg, run, StopRequest())
    for path in [run.root, *run.root.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
    cfg = config_of(run.root)
    cfg.trainer.max_updates = 4
    with locked(RunDir.open(run.root)) as again:
        again.lock()
        run_stages(cfg, again, StopRequest())
    assert (run.root / "checkpoints" / "update-00000004").is_dir()
