"""Names on a command line: of runs (a path, NAME, latest), settings, and our commands."""

import contextlib
import difflib
import json
import logging
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

CONFIG = "config.yaml"
OUTPUTS = Path("outputs")
"""Where runs go and are looked for, below the working directory."""
LATEST = "latest"
"""Names the newest run of all."""

_DEEPEST = 3  # outputs/NAME/sweep-TIME/JOB
_PLAIN = re.compile(
    r"[\w.@/-]*/[\w.@/-]*|(?!(true|false|null|nan|inf)$)[a-z_][\w.@-]*", re.A | re.I
)
"""Texts that Hydra reads as text without quotation marks."""

log = logging.getLogger(__name__)


def run_path(text: str | Path) -> Path:
    """Return the path of the run that a path, a name or `latest` stands for.

    A path that exists counts first. NAME is the newest run below `outputs/NAME`, or a run
    `outputs/*/NAME`. Without any, the text is returned as a path, and opening it is an error.
    """
    path = expanded(text)
    for place in (path, OUTPUTS if str(text) == LATEST else OUTPUTS / path):
        if runs := runs_below(place):
            return path if runs[-1] == path else _said(text, runs[-1])
    if path.exists() or len(path.parts) > 1:
        return path
    found = [run for run in runs_below(OUTPUTS) if run.name == path.name]
    return _said(text, found[-1]) if found else path


def runs_below(directory: Path) -> list[Path]:
    """Return the runs in a directory, or the directory if it is one; oldest first."""
    return sorted(_runs(directory, _DEEPEST), key=lambda run: ((run / CONFIG).stat().st_mtime, run))


def other_names(path: Path) -> str:
    """Return advice for a path that is no run: similar names of runs, or some that exist."""
    runs = runs_below(OUTPUTS)
    names = list(dict.fromkeys(run.relative_to(OUTPUTS).parts[0] for run in reversed(runs)))
    if not names:
        return "Name a run directory."
    if near := difflib.get_close_matches(path.name, names, n=3, cutoff=0.5):
        return f"Did you mean {' or '.join(near)}?"
    return f"Name a run directory, {LATEST}, or one of: {', '.join(names[:10])}."


def expanded(text: str | Path) -> Path:
    """Return a path with the home directory for a leading `~`, as a shell would."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # of a user that does not exist
        return Path(text)


def assignment(key: str, value: object) -> str:
    """Return `key=value` in Hydra's grammar, with quotation marks where it needs them."""
    return f"{key}={_value(value)}"


def _value(value: object) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_value(item)}' for key, item in value.items())}}}"
    if value is None or isinstance(value, int | float):
        return json.dumps(value)
    text = str(value)
    if not _PLAIN.fullmatch(text):
        special = r'(\\*)("|\$\{|\Z)'  # as backslashes are doubled in front of these alone
        text = re.sub(special, lambda end: 2 * end[1] + (end[2] and rf"\{end[2]}"), text)
        text = f'"{text}"'
    return text


def command(name: str, *arguments: str) -> str:
    """Return a line for a shell that calls one of our commands the way this process was called."""
    program = Path(sys.argv[0])
    words = ["seq2seq", name]
    if program.name == "train.py" or program.parent.name == "scripts":
        root = program.parent if program.name == "train.py" else program.parent.parent
        words = ["python", str(root / ("train.py" if name == "train" else f"scripts/{name}.py"))]
    elif _is_module(program):
        words = ["python", "-m", *words]
    return shlex.join([*words, *arguments])


def command_name() -> str:
    """Return the name of the running command: `seq2seq decode`, `decode.py`."""
    program = Path(sys.argv[0])
    if _is_module(program) or program.stem == "seq2seq":
        return " ".join(["seq2seq", *sys.argv[1:2]])
    return program.name


def _is_module(program: Path) -> bool:
    return program.parts[-2:] == ("seq2seq", "__main__.py")  # python -m seq2seq


def _runs(directory: Path, depth: int) -> Iterator[Path]:
    with contextlib.suppress(OSError):  # no such directory, or one that may not be read
        if (directory / CONFIG).is_file():
            yield directory  # and not its `model/`
        elif depth:
            for path in directory.iterdir():
                yield from _runs(path, depth - 1)


def _said(text: str | Path, run: Path) -> Path:
    log.warning("%s: %s", text, run)
    return run
