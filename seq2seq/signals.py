"""Asking a long job to stop: the handler only notes the signal, the job looks at safe points."""

import os
import signal
from types import FrameType

EXIT_CODES = {
    signal.SIGINT: 130,
    signal.SIGTERM: 143,
    signal.SIGHUP: 143,
    signal.SIGUSR1: 75,  # the early warning of a cluster
}


class StopRequest:
    """Set by a signal; polled between updates, validation batches and decoded batches."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def install(self) -> None:
        """Catch the signals from now on."""
        for number in EXIT_CODES:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is signal.SIGINT and number == signal.SIGINT:
            os._exit(EXIT_CODES[signal.SIGINT])  # a second Ctrl-C does not wait
        self.signal = signal.Signals(number)

    @property
    def exit_code(self) -> int | None:
        """The exit code asked for; None while nothing asks to stop."""
        return None if self.signal is None else EXIT_CODES[self.signal]
