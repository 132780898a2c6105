"""Error classes, exit codes, and the one-line form in which users see errors.

This module imports only the standard library.
"""

from __future__ import annotations  # an old Python must be able to parse this module

import re
import sys
from pathlib import Path

_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that move a cursor, end a line or change its direction, and lone surrogates."""
_LONGEST = 2000


class UserError(Exception):
    """A user-fixable error, printed as `error: <where>: <what>. <fix>`.

    Args:
        where: File (with `:line`), config key or command at fault.
        what: What is wrong, with the offending value.
        fix: What to do about it.
        exit_code: Overrides that of the class.
    """

    exit_code = 1

    def __init__(
        self, where: str | Path, what: str, fix: str, exit_code: int | None = None
    ) -> None:
        self.where, self.what, self.fix = str(where), what, fix
        self.exit_code = self.exit_code if exit_code is None else exit_code
        # The arguments from which pickle and copy rebuild it, also in another process.
        super().__init__(self.where, what, fix, self.exit_code)

    def __str__(self) -> str:
        return f"{self.where}: {self.what.rstrip('.')}. {self.fix}"


class ConfigError(UserError):
    """Unknown key, wrong type, value out of range."""


class UsageError(UserError):
    """A command was called with arguments that do not fit together."""

    exit_code = 2


class DataError(UserError):
    """A corpus, hypothesis or input text cannot be used."""

    exit_code = 3


class RunDirError(UserError):
    """A run directory is locked, damaged or does not match."""

    exit_code = 4


class PlatformError(UserError):
    """Disk, permission, network, missing device or package."""

    exit_code = 5


class DivergedError(UserError):
    """Loss or gradient is not finite, or explodes; raised before the optimizer step."""

    exit_code = 6


class UntrustedError(UserError):
    """Content that is not allowed in a run directory (links, tags, code)."""

    exit_code = 7


class MemoryLimitError(UserError):
    """The batch does not fit in memory."""

    exit_code = 8


class StoppedError(UserError):
    """Training was asked to stop; everything is saved and can be resumed.

    `exit_code` is 130 (interrupt), 143 (terminate) or 75 (early warning, time limit).
    """


class RepeatedError(UserError):
    """The same failure, whose `exit_code` this has, has ended a training several times."""


class InternalError(UserError):
    """A bug of this program: the terminal gets one line."""

    exit_code = 70


def internal_error(where: str | Path, cause: Exception, traceback: str | Path) -> InternalError:
    """Return the error that reports a bug; `traceback` says where to find the rest."""
    what = f"internal error ({type(cause).__name__}: {cause})"
    return InternalError(where, what, f"Please report it with {traceback}.")


def printable(text: str) -> str:
    """Escape control characters, so that a terminal can safely show untrusted text."""
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def one_line(error: UserError) -> str:
    """Return the message as a single printable line; the middle of a very long one is cut."""
    word = "stopped" if isinstance(error, StoppedError) else "error"
    text = str(error)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return f"{word}: {printable(text)}"


def print_error(error: UserError) -> int:
    """Print the line on stderr and return the exit code."""
    print(one_line(error), file=sys.stderr)  # noqa: T201 - the one place that prints errors
    return error.exit_code
