"""Scripts in forks of the test process: real signals, pipes and limits without the start of python.

A fork shares what the tests have imported and loaded; torch alone takes seconds. What only the
start and the end of python can break is tested with processes of its own, a few of them.
"""

import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runs import module_of

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


def fork_script(
    name: str,
    *args: str | Path,
    stdin: int,
    stdout: int,
    errors: Path,
    before: Callable[[], object] = lambda: None,
) -> Child:
    """Start `python scripts/NAME.py ARGS` on open descriptors; `before` is called in the child."""
    main = module_of(name).main
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
        sys.argv = [f"scripts/{name}.py", *map(str, args)]
        os.environ.pop("SEQ2SEQ_DEBUG", None)
        before()
        run_script(main)
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
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
