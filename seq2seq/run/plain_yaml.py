"""YAML that may come from a stranger, as plain values: no alias, no tag, nothing to resolve."""

import re
from pathlib import Path
from typing import Any

import yaml

from seq2seq.run.errors import RunDirError, UntrustedError
from seq2seq.run.reading import read_bytes

MAX_CONFIG_BYTES = 64 * 1024
MAX_CONFIG_DEPTH = 8  # ours is 4; OmegaConf recurses
MAX_SCALAR = 4096
"""Characters; the longest are paths."""
MAX_EVENTS = 5000
"""Keys and values, about two for each setting; ours has some hundred, and the reader is slow."""

_HYDRA_WORD = re.compile(r"_(target|recursive|convert|partial|args)_")
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


def read_plain_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of a run.

    Raises:
        RunDirError: the file is missing, too large, too deep, or no mapping of plain values.
        UntrustedError: it is no regular file, or holds an alias, a tag, an interpolation or a
            word by which Hydra calls things. What it holds is not shown.
    """
    data = read_bytes(path, MAX_CONFIG_BYTES)
    try:
        loader = _PlainLoader(data.decode("utf-8"), path)
        values = loader.get_single_data()
        _check_plain(values)
    except UnicodeDecodeError as error:
        raise RunDirError(path, f"not UTF-8 ({error.reason})", "Restore it.") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # also dates and numbers
        raise RunDirError(path, f"not YAML ({type(error).__name__})", "Restore it.") from None
    if not isinstance(values, dict):
        raise RunDirError(path, "not a mapping", "Restore the file from a copy.")
    return values


class _PlainLoader(yaml.SafeLoader):
    """Looks at every event on its way, and stops at the first that no config of ours has."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self._path, self._depth, self._events = path, 0, 0

    def get_event(self) -> Any:
        event = super().get_event()  # type: ignore[no-untyped-call]
        value = str(getattr(event, "value", ""))
        line = event.start_mark.line + 1 if event.start_mark else 0
        self._events += 1
        self._depth += isinstance(event, yaml.CollectionStartEvent)
        self._depth -= isinstance(event, yaml.CollectionEndEvent)
        if (trick := _trick(event, value)) is not None:
            raise UntrustedError(f"{self._path}:{line}", trick, "No run of ours has one: refused.")
        if (bomb := self._bomb(value)) is not None:
            raise RunDirError(f"{self._path}:{line}", bomb, "Restore the file from a copy.")
        return event

    def _bomb(self, value: str) -> str | None:
        if self._depth > MAX_CONFIG_DEPTH:
            return f"deeper than {MAX_CONFIG_DEPTH} levels"
        if self._events > MAX_EVENTS:
            return f"over {MAX_EVENTS} keys and values"
        return f"a value of over {MAX_SCALAR} characters" if len(value) > MAX_SCALAR else None

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value]
        line = node.start_mark.line + 1
        if any(key.tag == _MERGE for key in keys):
            what = "a merge of mappings"
            raise UntrustedError(f"{self._path}:{line}", what, "No run of ours has one: refused.")
        if any(key.tag != _TEXT for key in keys):
            raise RunDirError(f"{self._path}:{line}", "a key that is no text", "Restore the file.")
        if len({key.value for key in keys}) < len(keys):
            raise RunDirError(f"{self._path}:{line}", "a key given twice", "Restore the file.")
        values: dict[Any, Any] = super().construct_mapping(node, deep)
        return values


def _trick(event: Any, value: str) -> str | None:
    # A tag is None on plain scalars; only a written "!tag" is one.
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        return "an anchor or alias"
    if getattr(event, "tag", None):
        return "a tag"
    if "${" in value:
        return "an interpolation"
    return "a word of Hydra's" if _HYDRA_WORD.fullmatch(value) else None


def _check_plain(value: Any) -> None:
    """Refuse dates and numbers beyond 64 bits, which YAML makes of plain text."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item)
    elif not isinstance(value, str | int | float | None):
        raise ValueError("a value of another kind")
    elif isinstance(value, int) and abs(value) >= 1 << 63:
        raise ValueError("a number beyond 64 bits")
