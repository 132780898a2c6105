"""The command `seq2seq`: finds a command in the table and imports its module.

An older Python must be able to parse this module.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

from seq2seq.cli import COMMANDS
from seq2seq.run.requirements import leave_if_too_old


def main() -> None:
    """Run the command that the command line names."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        prepared(name)(arguments)
        return
    from seq2seq.cli import overview
    from seq2seq.cli.console import run_script

    run_script(overview.main, [name, *arguments])


def prepared(name: str) -> Callable[[Sequence[str]], None]:
    """Prepare this process for a command of the table; return what runs it, given its arguments."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback before there is a handler
    leave_if_too_old()
    command: Callable[[Sequence[str]], None] = import_module(COMMANDS[name][0]).main
    if name == "train":  # has something to save, so it handles signals and errors itself
        return command
    from seq2seq.cli.console import run_script

    # Importing torch makes 300,000 objects that stay: by default, 700 new ones start a search for
    # garbage among them, which takes a twelfth of the start.
    gc.set_threshold(50_000)
    return partial(run_script, command)
