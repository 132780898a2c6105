"""Loads modules outside the package that register options: installed ones and `--extension`.

A run directory can never name one, since importing a module runs its code.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from seq2seq.run.errors import UsageError

GROUP = "seq2seq.extensions"
"""The entry point group of installed packages."""
OPTION = "--extension"


def load_extensions(arguments: Sequence[str] = ()) -> list[str]:
    """Import installed extensions and each `--extension MODULE`; return the other arguments.

    Raises:
        UsageError: a module cannot be imported.
    """
    others, waiting = [], iter(arguments)
    modules = [point.module for point in entry_points(group=GROUP)]
    for argument in waiting:
        word, equals, module = argument.partition("=")
        if word == OPTION:
            modules.append(module if equals else next(waiting, ""))
        else:
            others.append(argument)
    # Modules in the working directory are found, as with `python -m MODULE`, but last.
    if modules and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # third-party code may raise anything
            what = f"cannot be imported ({type(error).__name__}: {error})"
            fix = "Name a module as `python -m` takes it."
            raise UsageError(f"{OPTION} {module}", what, fix) from error
    return others
