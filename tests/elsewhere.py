"""Trains, decodes and evaluates where nothing is left of what only Linux, or only Unix, has.

`python elsewhere.py RUN` in an empty folder. Libraries come first: they have their own ways on
other systems, and choose them by the name of the system. Then names go, and our code is imported.
"""

import importlib
import os
import runpy
import select
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = """
    datasets filelock hydra matplotlib.backends.backend_agg matplotlib.figure pyarrow.parquet
    sacrebleu sacremoses safetensors.torch sentencepiece tensorboard torch torch._dynamo
    torch.utils.tensorboard.writer tqdm.contrib.logging
    tensorboard.backend.event_processing.event_accumulator
"""
MODULES = "fcntl grp pty pwd resource syslog termios"
OF_OS = """
    O_ASYNC O_CLOEXEC O_DIRECT O_DIRECTORY O_DSYNC O_LARGEFILE O_NOATIME O_NOCTTY O_NOFOLLOW
    O_NONBLOCK O_PATH O_SYNC O_TMPFILE chown chroot copy_file_range eventfd fchdir fchown fdatasync
    fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpgrp getsid getuid getxattr
    initgroups killpg lchown lockf memfd_create mkfifo mknod nice pathconf pipe2 posix_fadvise
    posix_fallocate posix_spawn pread preadv pwrite pwritev readv register_at_fork
    sched_getaffinity sched_setaffinity sched_yield sendfile setgid setgroups setpgid setsid setuid
    setxattr splice statvfs sync sysconf uname wait wait3 wait4 waitid writev
"""
OF_SIGNAL = """
    ITIMER_PROF ITIMER_REAL ITIMER_VIRTUAL SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE
    SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 alarm getitimer pause pthread_kill pthread_sigmask
    setitimer siginterrupt sigpending sigtimedwait sigwait sigwaitinfo
"""


def take_away() -> None:
    """Leave this process what Windows has."""
    for name in LIBRARIES.split():
        importlib.import_module(name)
    shutil.os = SimpleNamespace(**vars(os))  # Windows has all of it that we use
    select.select = sockets_only
    for name in MODULES.split():
        sys.modules[name] = None  # whoever imports it now gets an ImportError
    for module, names in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in names.split():
            vars(module).pop(name, None)


def sockets_only(*_: object) -> None:
    """What `select` says on Windows of anything but a socket."""
    raise OSError(10038, "An operation was attempted on something that is not a socket")


def call(script: str, *arguments: str) -> None:
    sys.argv = [str(ROOT / script), *arguments]
    try:
        sys.path.insert(0, str(ROOT / "scripts"))  # as python does
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code or 0
    sys.stdout.flush()
    sys.stderr.write(f"{script}: {code}\n")


if __name__ == "__main__":
    run, *overrides = sys.argv[1:]
    sys.path.insert(0, str(ROOT))
    take_away()
    call("train.py", "+experiment=debug", f"run_dir={run}", *overrides)
    directory = importlib.import_module("seq2seq.run.directory").RunDir.open(Path(run))
    directory.lock()
    call("train.py", f"resume={run}")
    directory.unlock()
    call("scripts/decode.py", run)
    call("scripts/evaluate.py", run)
