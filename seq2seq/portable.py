"""What one system has and another lacks: flags of `open`, signals, alarms."""

import os
import signal

NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
"""Opens no link; 0 where the caller has to look (Windows)."""
NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)
"""Opens a pipe without waiting for its other end."""
BINARY: int = getattr(os, "O_BINARY", 0)
r"""Keeps Windows from writing `\n` as `\r\n`."""


def signals_named(*names: str) -> list[signal.Signals]:
    """Return those of these signals that the system has."""
    return [signal.Signals(getattr(signal, name)) for name in names if hasattr(signal, name)]


def set_alarm(seconds: float, every: float = 0.0) -> None:
    """Send this process SIGALRM in so many seconds, and then so often; 0 takes it back.

    Windows has no alarm: what waits for one is not hurried there.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds, every)
