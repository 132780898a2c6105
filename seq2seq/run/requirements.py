"""Whether Python and the packages are new enough, asked before anything else is imported.

An older Python has to be able to read this module, `errors.py`, `__init__.py` and `train.py`.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from seq2seq.run.errors import PlatformError, print_error

PYTHON = (3, 11)
"""The oldest that will do; no upper bound, which an upgrade of Python would have to lift."""

PACKAGES = {
    "torch": "2.10",
    "sentencepiece": "0.2.3",
    "sacremoses": "0.2",
    "datasets": "5",
    "sacrebleu": "2.5",
    "hydra-core": "1.3.8",
    "safetensors": "0.5",
    "filelock": "3.30",
    "tqdm": "4.66.3",
    "numpy": "1.26",
    "pyarrow": "21",
    "pyyaml": "6.0.1",
    "regex": "2024.11.6",
    "tabulate": "0.9",
}
"""The oldest versions, as in pyproject.toml: below some of them a file can run code. Without
matplotlib and tensorboard a run only shows less."""

_FIX = "Make a fresh environment: make install, or pip install -c constraints.txt -e ."


def leave_if_too_old() -> None:
    """End the program with one line where it could not work."""
    try:
        check_versions()
    except PlatformError as error:
        sys.exit(print_error(error))


def check_versions() -> None:
    """Compare versions, without importing what they belong to.

    Raises:
        PlatformError: Python or a package is too old or missing.
    """
    # Python first: the packages may not be importable in another.
    running = tuple(sys.version_info[:2])
    if running < PYTHON:
        what = f"is version {_dotted(running)}, which is too old"
        raise PlatformError("python", what, f"Use Python {_dotted(PYTHON)} or later.")
    from importlib.metadata import PackageNotFoundError, version

    for name, oldest in PACKAGES.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            raise PlatformError(name, "is not installed", _FIX) from None
        if _numbers(found) < _numbers(oldest):
            raise PlatformError(name, f"is version {found}, {oldest} is needed", _FIX)


@contextmanager
def lazy_help_texts() -> Iterator[None]:
    """Keep argparse of Python 3.14 from checking help texts while Hydra makes its parser.

    Hydra 1.3.8 gives one of them as an object that makes its text when it is printed; argparse
    3.14 looks into it at once and fails (hydra#3121). To be deleted when `hydra-core` in
    pyproject.toml is a release without that; look for one by June 2027.
    """
    parser: Any = ArgumentParser
    parser._check_help = lambda *_: None  # hides the check, which its base class has
    try:
        yield
    finally:
        del parser._check_help


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
