"""Faults in the operations by which a process changes the disk.

`Operations` stands between a process and the functions of `os` that `seq2seq/fsops.py` calls. It
does not really sync: that would take minutes, and nothing here cuts the power but `disks.py`.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = (
    "open", "write", "fsync", "close", "replace", "rename", "mkdir", "rmdir", "unlink",
    "truncate", "ftruncate",
)  # fmt: skip
REAL = {name: getattr(os, name) for name in NAMES}
CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Proceed = Callable[..., Any]
"""Does the operation; given other arguments it does it with those."""
Act = Callable[[int, str, tuple[Any, ...], Proceed], Any]
"""What to do at an operation: number from 1, name, arguments, how to go on."""


class Operations:
    """Within `with`, every operation goes through `act`; `count` is how many there were."""

    def __init__(self, act: Act | None = None) -> None:
        self.act = act or (lambda _number, _name, _args, proceed: proceed())
        self.count = 0
        self.opened: set[int] = set()

    def __enter__(self) -> "Operations":
        for name in NAMES:
            setattr(os, name, self._wrapped(name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in REAL.items():
            setattr(os, name, real)

    def _wrapped(self, name: str) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & CHANGES:
                return REAL[name](*args, **kwargs)  # reading changes nothing

            def proceed(*other: Any) -> Any:
                return None if name == "fsync" else REAL[name](*(other or args), **kwargs)

            self.count += 1
            seen = args
            if (folder := kwargs.get("dir_fd")) is not None:  # shutil.rmtree works below one
                seen = (Path(f"/proc/self/fd/{folder}").readlink() / args[0], *args[1:])
            return self.act(self.count, name, seen, proceed)

        return operation


def kill_at(number: int, *, half: bool = False) -> Act:
    """The process dies of SIGKILL before an operation, or with half of it done if it writes."""

    def act(count: int, name: str, args: tuple[Any, ...], proceed: Proceed) -> Any:
        if count == number:
            if half and name == "write":
                proceed(args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return proceed()

    return act


def fail_at(number: int, error: int, *, names: tuple[str, ...] = NAMES, on: bool = False) -> Act:
    """An operation of these names, counted from 1, fails; with `on` all after it fail as well."""
    seen = 0

    def act(_count: int, name: str, args: tuple[Any, ...], proceed: Proceed) -> Any:
        nonlocal seen
        seen += name in names
        if name in names and (seen == number or (on and seen > number)):
            if name == "close":
                proceed()  # as the kernel does: the descriptor is gone, the error is told
            raise OSError(error, os.strerror(error))
        return proceed()

    return act


def in_child(work: Callable[[Callable[[str], None]], None]) -> tuple[int, list[str]]:
    """Run `work(say)` in a forked process; return its wait status and what it said."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            REAL["close"](reader)
            work(lambda text: REAL["write"](writer, f"{text}\n".encode()))
            os._exit(0)
        except BaseException as error:
            REAL["write"](writer, f"failed: {error!r}\n".encode())
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode().splitlines()
    _, status = os.waitpid(child, 0)
    return status, said


def killed(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
