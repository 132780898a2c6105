"""A line to translate with constraints on its translation, and the file formats for both."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seq2seq.run.errors import DataError

FORMS = ("text", "tsv", "jsonl")
"""Line formats: the source alone; the source and NAME=VALUE, tab-separated; a JSON object."""


@dataclass(frozen=True)
class Request:
    """A sentence and the constraints on its translation; `docs/decoding.md` has the details.

    Request("The house is red.", prefix="La", required=[["maison", "maisons"]], forbidden=["noir"])
    """

    source: str
    prefix: str = ""  # the translation begins with it
    complete_last_word: bool = False  # whether the prefix may end inside a word
    required: Sequence[Sequence[str]] = ()  # one alternative of each appears
    forbidden: Sequence[str] = ()  # none of these appears
    where: str = field(default="", compare=False, repr=False)  # place in a file, for errors
    exact: bool = field(default=False, repr=False)  # prefix: spaces at its end stay, words go on

    def __post_init__(self) -> None:
        """Refuse a string where a list of strings belongs; convert the lists to tuples."""
        if any(isinstance(each, str) for each in (self.required, self.forbidden, *self.required)):
            what = "required is a list of lists, forbidden a list"
            raise DataError(self.where or "request", what, "Put brackets around a word.")
        object.__setattr__(self, "required", tuple(map(tuple, self.required)))
        object.__setattr__(self, "forbidden", tuple(self.forbidden))


def parse(line: str, form: str, where: str) -> Request | DataError:
    """Parse a line in one of `FORMS`; `where` is for errors."""
    try:
        if form == "text":
            return Request(line, where=where)
        return _from_json(line, where) if form == "jsonl" else _from_tsv(line, where)
    except DataError as error:
        return error


def _from_tsv(line: str, where: str) -> Request:
    source, *columns = line.split("\t")
    texts: dict[str, list[str]] = {}
    for number, column in enumerate(columns, start=2):
        name, _, value = column.partition("=")
        if name not in _NAMES or not value:
            what = f"column {number} ({column[:40]!r}) is not NAME=VALUE"
            raise DataError(where, what, f"Names are {', '.join(_NAMES)}.")
        texts.setdefault(name, []).append(value)
    found: dict[str, Any] = {"source": source}
    for name in ("prefix", "complete_last_word"):
        if len(given := texts.get(name, [])) > 1:
            raise DataError(where, f"{name} is given twice", "Give it once.")
        found.update((name, value) for value in given)
    if "complete_last_word" in found:
        found["complete_last_word"] = _BOOLS.get(found["complete_last_word"])
    lists = {name: [text.split("|") for text in texts.get(name, [])] for name in _LISTS}
    found["required"] = lists["required"]
    found["forbidden"] = [text for texts in lists["forbidden"] for text in texts]
    return _request(found, where)


def _from_json(line: str, where: str) -> Request:
    try:
        found = parsed(line) if line.strip() else {"source": ""}
    except (ValueError, RecursionError) as error:
        raise DataError(where, f"is not valid JSON ({error})", _EXAMPLE) from None
    if not isinstance(found, dict):
        raise DataError(where, "is not a JSON object", _EXAMPLE)
    if unknown := found.keys() - {"source", *_NAMES}:
        what = f"unknown key {min(unknown)!r}"
        raise DataError(where, what, f"Keys are source, {', '.join(_NAMES)}.")
    return _request(found, where)


def parsed(text: str) -> Any:
    """Return a value in JSON; a lone surrogate in it is a `ValueError`, too."""
    value = json.loads(text)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _request(found: Mapping[str, Any], where: str) -> Request:
    """Check the types and build the request."""
    given = {"prefix": "", "complete_last_word": False, "required": [], "forbidden": [], **found}
    if isinstance(given["required"], list):
        alone = [[each] if isinstance(each, str) else each for each in given["required"]]
        given["required"] = alone
    checks = {
        "source": ("text", _is_text(given.get("source"))),
        "prefix": ("text", _is_text(given["prefix"])),
        "complete_last_word": ("true or false", isinstance(given["complete_last_word"], bool)),
        "required": ("a list of texts or of lists of texts", _is_list(given["required"], _is_list)),
        "forbidden": ("a list of texts", _is_list(given["forbidden"])),
    }
    for name, (kind, holds) in checks.items():
        if not holds:
            raise DataError(where, f"{name} is not {kind}", _EXAMPLE)
    return Request(**given, where=where)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any, is_one: Callable[[Any], bool] = _is_text) -> bool:
    return isinstance(value, list) and all(map(is_one, value))


_LISTS = ("required", "forbidden")
_NAMES = ("prefix", "complete_last_word", *_LISTS)
_BOOLS = {"true": True, "false": False}
_EXAMPLE = 'Write {"source": "..", "prefix": "..", "required": [["a", "b"]], "forbidden": [".."]}.'
