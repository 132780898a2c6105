"""Stops a long job on a signal: at the next safe point, or within seconds if none is reached.

The signal is recorded, and the job polls for it between updates, validation batches and decoded
batches. An update of a large model may take longer than a machine allows when it shuts down, so
after a second an alarm raises `Interrupted` wherever the job permits it. Windows has no alarms:
there, a job ends at the next safe point.
"""

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")


def signals_named(*names: str) -> list[signal.Signals]:
    """Return the signals of these that exist on this system; Windows lacks most."""
    return [signal.Signals(getattr(signal, name)) for name in names if hasattr(signal, name)]


def set_alarm(seconds: float, every: float = 0.0) -> None:
    """Send this process SIGALRM after some seconds, then periodically; 0 cancels it.

    Does nothing on Windows, which has no alarms.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds, every)


_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 143, "SIGUSR1": 75}
"""Clusters send SIGUSR1 as an early warning."""
EXIT_CODES = {number: _CODES[number.name] for number in signals_named(*_CODES)}
GRACE = 1.0
"""Seconds that a job has to reach a safe point."""
_TICK = 0.05
"""Seconds between checks whether the job may be interrupted."""


class Interrupted(BaseException):
    """Abandons the current computation; only raised inside `StopRequest.interruptible`.

    Not an `Exception`: code that continues after errors must not continue after this.
    """


class StopRequest:
    """Set by the first signal; polled, or raised as `Interrupted` where polling is too slow."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._inside = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Catch the signals within this block; ignored ones (`nohup`) stay ignored."""
        caught = [n for n in EXIT_CODES if signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in caught}
        for number in signals_named("SIGALRM"):
            before[number] = signal.signal(number, self._hurry)
        hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        try:
            yield
        finally:
            set_alarm(0)
            sys.unraisablehook = hook
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Allow `Interrupted` within this block, which must not change anything that is kept.

        Raises:
            Interrupted: a stop was requested more than `GRACE` ago.
        """
        self._inside = True
        try:
            yield
        finally:
            self._inside = False

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items; waiting for the next one is interruptible, processing it is not."""
        waiting = iter(items)
        while True:
            with self.interruptible():
                try:
                    item = next(waiting)
                except StopIteration:
                    return
            yield item

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == self.signal == signal.SIGINT:
            os._exit(EXIT_CODES[signal.SIGINT])  # a second Ctrl-C does not wait
        if self.signal is None:
            self.signal = signal.Signals(number)
            set_alarm(GRACE, _TICK)

    def _hurry(self, _number: int, _frame: FrameType | None) -> None:
        if self._inside:
            self._inside = False  # not again while the first one propagates
            raise Interrupted

    def _swallowed(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Raise `Interrupted` again at the next tick if Python swallowed it, as in a destructor."""
        if isinstance(unraisable.exc_value, Interrupted):
            self._inside = True
        else:
            sys.__unraisablehook__(unraisable)

    @property
    def exit_code(self) -> int | None:
        """The exit code of the signal; None before a stop is requested."""
        return None if self.signal is None else EXIT_CODES[self.signal]
