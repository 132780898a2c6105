"""Asking a long job to stop: it stops at the next safe point, or within seconds where none comes.

A signal is noted, and the job looks for it between updates, validation batches and decoded batches.
An update of a large model may take longer than a machine that shuts down waits; so a second later
an alarm raises `Interrupted` wherever the job has said that it may be cut off. Windows has no
alarms: there a job ends at the next safe point.
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
    """Return those of these signals that the system has; Windows lacks most."""
    return [signal.Signals(getattr(signal, name)) for name in names if hasattr(signal, name)]


def set_alarm(seconds: float, every: float = 0.0) -> None:
    """Send this process SIGALRM after some seconds and then periodically; 0 takes it back.

    Windows has no alarm: what waits for one is not hurried there.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds, every)


_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 143, "SIGUSR1": 75}
"""SIGUSR1 is the early warning of a cluster."""
EXIT_CODES = {number: _CODES[number.name] for number in signals_named(*_CODES)}
GRACE = 1.0
"""Seconds in which a job may come to a safe point by itself."""
_TICK = 0.05
"""Seconds between two looks whether a job is now where it may be cut off."""


class Interrupted(BaseException):
    """What was being computed is given up; raised inside `StopRequest.interruptible` alone.

    No `Exception`: whoever goes on after an error must not go on after this.
    """


class StopRequest:
    """Set by the first signal; polled, and raised where polling would take too long."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._inside = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Catch the signals within this block; one that is ignored (`nohup`) stays so."""
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
        """Allow `Interrupted` within this block: it computes, and changes nothing that is kept.

        Raises:
            Interrupted: a stop was asked for more than `GRACE` ago.
        """
        self._inside = True
        try:
            yield
        finally:
            self._inside = False

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """Pass items on; waiting for the next one is interruptible, what is done with it is not."""
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
            self._inside = False  # not again while the first one is on its way out
            raise Interrupted

    def _swallowed(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Raise `Interrupted` at the next tick where Python could not, as in a destructor."""
        if isinstance(unraisable.exc_value, Interrupted):
            self._inside = True
        else:
            sys.__unraisablehook__(unraisable)

    @property
    def exit_code(self) -> int | None:
        """The exit code asked for; None while nothing asks to stop."""
        return None if self.signal is None else EXIT_CODES[self.signal]
