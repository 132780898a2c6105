"""Modules outside the package that register options: installed ones, and those a user names.

Nothing that a run directory holds can name one: importing a module runs its code.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from seq2seq.run.errors import UsageError

GROUP = "seq2seq.extensions"
"""Entry points of installed packages."""
OPTION = "--extension"


def load_extensions(arguments: Sequence[str] = ()) -> list[str]:
    """Import what is installed and what `--extension MODULE` names; return the other arguments.

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
    # A module beside the user is found as `python -m MODULE` finds it, after everything else.
    if modules and (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # code of somebody else: whatever it raises is one line
            what = f"cannot be imported ({type(error).__name__}: {error})"
            fix = "Name a module as `python -m` takes it."
            raise UsageError(f"{OPTION} {module}", what, fix) from error
    return others
