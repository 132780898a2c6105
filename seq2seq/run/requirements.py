"""Checks that Python and the packages are recent enough, before anything else is imported.

An older Python must be able to parse this module, `errors.py`, `__init__.py` and `train.py`.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from seq2seq.run.errors import PlatformError, print_error

PYTHON = (3, 11)
"""The oldest supported version. There is no upper bound, which every new Python would exceed."""

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
"""The oldest versions, as in pyproject.toml; in some older ones, a file can execute code.
Matplotlib and tensorboard are optional: without them, a run shows less."""

_FIX = "Make a fresh environment: make install, or pip install -c constraints.txt -e ."


def leave_if_too_old() -> None:
    """Exit with a one-line error if the versions are not supported."""
    try:
        check_versions()
    except PlatformError as error:
        sys.exit(print_error(error))


def check_versions() -> None:
    """Check versions without importing the packages.

    Raises:
        PlatformError: Python or a package is too old or missing.
    """
    # Python first: the packages may not be importable in another.
    running = tuple(sys.version_info[:2])
    if running < PYTHON:
        what = f"is version {_dotted(running)}, which is too old"
        raise PlatformError("python", what, f"Use Python {_dotted(PYTHON)} or later.")
    for name, oldest in PACKAGES.items():
        found = _installed(name, _FIX)
        if _numbers(found) < _numbers(oldest):
            raise PlatformError(name, f"is version {found}, {oldest} is needed", _FIX)


def check_extra(extra: str, use: str, packages: Iterable[str]) -> None:
    """Check that packages of an extra are installed, without importing them.

    Raises:
        PlatformError: one is missing.
    """
    for package in packages:
        fix = f"Install what {use} needs: pip install 'rnnsearch-seq2seq[{extra}]'."
        _installed(package, fix)


@contextmanager
def lazy_help_texts() -> Iterator[None]:
    """Keep argparse of Python 3.14 from checking help texts while Hydra builds its parser.

    Hydra 1.3.8 passes one help text as a lazy object; argparse 3.14 inspects it at once and fails
    (hydra#3121). Delete this when `hydra-core` in pyproject.toml has the fix; check by June 2027.
    """
    parser: Any = ArgumentParser
    parser._check_help = lambda *_: None  # hides the method of the base class
    try:
        yield
    finally:
        del parser._check_help


def _installed(package: str, fix: str) -> str:
    """Return the version of a package; raise `PlatformError` if it is missing."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        raise PlatformError(package, "is not installed", fix) from None


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
