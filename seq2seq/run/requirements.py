"""Whether Python and the packages are new enough, asked before anything else is imported.

An older Python has to be able to read this module, `errors.py`, `__init__.py` and `train.py`.
"""

from __future__ import annotations

import re
import sys

from seq2seq.run.errors import PlatformError, report

PYTHON = ((3, 11), (3, 14))
"""The oldest that will do, and the first that will not."""

PACKAGES = {
    "torch": "2.10",
    "sentencepiece": "0.2.3",
    "sacremoses": "0.2",
    "datasets": "5",
    "sacrebleu": "2.5",
    "hydra-core": "1.3.8",
    "safetensors": "0.5",
    "tqdm": "4.66.3",
    "numpy": "1.26",
    "pyarrow": "21",
    "pyyaml": "6.0.1",
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
        sys.exit(report(error))


def check_versions() -> None:
    """Compare versions, without importing what they belong to.

    Raises:
        PlatformError: Python or a package is too old or missing.
    """
    running = tuple(sys.version_info[:2])
    if not PYTHON[0] <= running < PYTHON[1]:
        what = f"is version {_dotted(running)}, which will not do"
        last = (PYTHON[1][0], PYTHON[1][1] - 1)
        fix = f"Use Python {_dotted(PYTHON[0])} to {_dotted(last)}."
        raise PlatformError("python", what, fix)
    from importlib.metadata import PackageNotFoundError, version

    for name, oldest in PACKAGES.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            raise PlatformError(name, "is not installed", _FIX) from None
        if _numbers(found) < _numbers(oldest):
            raise PlatformError(name, f"is version {found}, {oldest} is needed", _FIX)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
