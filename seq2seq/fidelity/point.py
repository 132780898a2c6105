"""A point in which a run can differ from the paper or from the authors' code.

What a source says and what a run does are written in the same words, so that equal text means
the same and the table can be read by anyone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

Values = Mapping[str, Any]
"""A config as `config.flatten` gives it: dotted key to plain value."""


class Outcome(Enum):
    """How a run stands to a source in one point."""

    same = "same"
    differs = "differs"
    silent = "the source is silent"


@dataclass(frozen=True)
class Says:
    """What a source says.

    Attributes:
        text: As the table shows it.
        same: Whatever a run may do to be the same, in the words of `Point.here`.
    """

    text: str
    same: tuple[str, ...]


def says(*same: str, text: str = "") -> Says:
    """Return what a source says: any of some texts; `text` is shown instead of them."""
    return Says(text or " or ".join(same), same)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of comparison.

    Attributes:
        name: As in the table; unique.
        keys: Settings that decide it, `optimizer.*` for all of a group. None: fixed in the code.
        here: What a run with such a config does.
        paper: What the paper says; None where it is silent.
        authors: What the authors' code does; None where it has nothing to say.
        source: Where the two say it.
        note: What a reader should know besides.
    """

    name: str
    keys: tuple[str, ...]
    here: Callable[[Values], str]
    paper: Says | None
    authors: Says | None
    source: str
    note: str = ""

    @property
    def fixed(self) -> bool:
        """Whether no setting changes it."""
        return not self.keys

    def owns(self, key: str) -> bool:
        """Whether a setting belongs to this point."""
        return any(fnmatchcase(key, pattern) for pattern in self.keys)


def fixed(text: str) -> Callable[[Values], str]:
    """Return what a run does where no setting changes it."""
    return lambda _: text


def value(key: str, form: str = "{}") -> Callable[[Values], str]:
    """Return what a run does where the value of a setting says it."""
    return lambda values: form.format(written(values[key]))


def choice(key: str, texts: Mapping[Any, str]) -> Callable[[Values], str]:
    """Return what a run does for each choice of a setting; a new choice is shown by its name."""
    return lambda values: texts.get(values[key], written(values[key]))


def named(group: str, *without: str) -> Callable[[Values], str]:
    """Return the chosen option of a group with all its settings but some."""

    def here(values: Values) -> str:
        prefix = f"{group}."
        parts = [str(values[f"{prefix}name"])]
        for key, one in values.items():
            name = key.removeprefix(prefix)
            if key.startswith(prefix) and name not in ("name", *without):
                parts.append(f"{name} {written(one)}")
        return ", ".join(parts)

    return here


def written(one: Any) -> str:
    """Write a value for people: `1,000`, `1e-06`, `yes`, `none`, `a + b`."""
    if one is None:
        return "none"
    if isinstance(one, bool):
        return "yes" if one else "no"
    if isinstance(one, list):
        return " + ".join(map(written, one))
    if isinstance(one, int):
        return f"{one:,}"
    return f"{one:g}" if isinstance(one, float) else str(one)
