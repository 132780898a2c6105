"""Scripts in forks of the test process: real signals, pipes and limits without the start of python.

A fork shares what the tests have imported and loaded; torch alone takes seconds. What only the
start and the end of python can break is tested with processes of its own, a few of them.
"""

import contextlib
import ctypes
import logging
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import environment, module_of

from seq2seq.cli.console import run_script

_CAPABILITY_VERSION_3 = 0x20080522


@dataclass
class Child:
    """A script that runs in a fork.

    Attributes:
        pid: Its process id.
        errors: File that takes its stderr.
    """

    pid: int
    errors: Path

    def wait(self, timeout: float = 60) -> int:
        """The exit code, negative for the signal that ended it."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"still running after {timeout} s; stderr: {self.stderr}")

    @property
    def stderr(self) -> str:
        return self.errors.read_text("utf-8")


def fork_script(name: str, *args: str | Path, **options: Any) -> Child:
    """Start `python scripts/NAME.py ARGS`; the options are those of `fork`."""
    main = module_of(name).main
    return fork(lambda: run_script(main), f"scripts/{name}.py", *args, **options)


def call_here(
    script: Path, *args: str | Path, cwd: Path, stdin: bytes = b"", timeout: float = 120,
    **changes: str,
) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
    """Do what `runs.call` does of a script, in a fork."""
    import torch._dynamo  # as the first optimizer would, here for all children

    assert torch._dynamo

    def enter() -> None:
        os.chdir(cwd)
        os.environ.update(environment(**changes))
        sys.path.insert(0, str(script.parent))

    with tempfile.TemporaryDirectory() as folder:
        given, out, errors = (Path(folder) / name for name in ("in", "out", "errors"))
        given.write_bytes(stdin)
        with given.open("rb") as source, out.open("wb") as target:
            child = fork(
                lambda: runpy.run_path(str(script), run_name="__main__"), str(script), *args,
                stdin=source.fileno(), stdout=target.fileno(), errors=errors, before=enter,
            )  # fmt: skip
        code = child.wait(timeout)
        return subprocess.CompletedProcess(args, code, out.read_bytes(), errors.read_bytes())


def fork(
    main: Callable[[], object],
    *argv: str | Path,
    stdin: int,
    stdout: int,
    errors: Path,
    before: Callable[[], object] = lambda: None,
) -> Child:
    """Run something in a fork on open descriptors; `before` is called in the child."""
    errors.touch()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of libraries, all idle
        pid = os.fork()
    if pid:
        return Child(pid, errors)
    code = 70
    try:
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND), 2)
        os.closerange(3, 1024)  # the other ends of pipes, or nobody would see them close
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            for number, mode in enumerate(("r", "w", "w"))
        )
        logging.getLogger().handlers.clear()  # those of pytest
        sys.argv = [*map(str, argv)]
        os.environ.pop("SEQ2SEQ_DEBUG", None)
        before()
        main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except Exception:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):  # the script has said that its output is lost
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def heed_modes() -> None:
    """Make root an owner like any other, who may not write where the mode says so."""
    if os.geteuid():
        return
    # Version and process; effective, permitted and inheritable of two halves: nothing is left.
    header, nothing = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")
