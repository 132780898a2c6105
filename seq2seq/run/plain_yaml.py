"""Reads untrusted YAML as plain values: aliases, tags and interpolations are refused."""

from pathlib import Path
from typing import Any

import yaml

from seq2seq.run.errors import RunDirError, UntrustedError
from seq2seq.run.reading import NOT_ALLOWED, RESTORE, read_bytes

MAX_CONFIG_BYTES = 64 * 1024
MAX_CONFIG_DEPTH = 8  # ours is 4; OmegaConf recurses
MAX_EVENTS = 5000
"""Limit on keys and values, about two per setting; ours has a few hundred. PyYAML is slow."""


def read_plain_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of a run.

    Raises:
        RunDirError: the file is missing, too large, too deep, or not a mapping of plain values.
        UntrustedError: it is not a regular file, or holds an alias, a tag or an interpolation.
            The error does not show its contents.
    """
    return parse_plain_yaml(read_bytes(path, MAX_CONFIG_BYTES), path)


def parse_plain_yaml(data: bytes, path: Path) -> dict[str, Any]:
    """Parse a YAML mapping as `read_plain_yaml` does; `path` is for errors."""
    if len(data) > MAX_CONFIG_BYTES:
        raise RunDirError(path, f"has {len(data)} bytes, more than {MAX_CONFIG_BYTES}", RESTORE)
    try:
        values = _PlainLoader(data.decode("utf-8"), path).get_single_data()
        _check_plain(values)
    except UnicodeDecodeError as error:
        raise RunDirError(path, f"not valid UTF-8 ({error.reason})", RESTORE) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # also dates and numbers
        raise RunDirError(path, f"not valid YAML ({type(error).__name__})", RESTORE) from None
    if not isinstance(values, dict):
        raise RunDirError(path, "not a mapping", RESTORE)
    return values


class _PlainLoader(yaml.SafeLoader):
    """Checks every event as it is parsed, before anything is built from it."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self._path, self._depth, self._events = path, 0, 0

    def get_event(self) -> Any:
        event = super().get_event()  # type: ignore[no-untyped-call]
        where = f"{self._path}:{event.start_mark.line + 1}"
        if (problem := _not_plain(event)) is not None:
            raise UntrustedError(where, problem, NOT_ALLOWED)
        self._events += 1
        self._depth += isinstance(event, yaml.CollectionStartEvent)
        self._depth -= isinstance(event, yaml.CollectionEndEvent)
        if self._depth > MAX_CONFIG_DEPTH or self._events > MAX_EVENTS:
            raise RunDirError(where, "too deep, or too many keys and values", RESTORE)
        return event

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        values: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(values) < len(node.value) or not all(isinstance(key, str) for key in values):
            where = f"{self._path}:{node.start_mark.line + 1}"
            raise RunDirError(where, "a duplicate key, or one that is not text", RESTORE)
        return values


def _not_plain(event: Any) -> str | None:
    # On plain scalars the tag is None, unless the file has an explicit "!tag".
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        return "an anchor or alias"
    if getattr(event, "tag", None):
        return "a tag"
    return "an interpolation" if "${" in str(getattr(event, "value", "")) else None


def _check_plain(value: Any) -> None:
    """Refuse dates and numbers beyond 64 bits, which YAML makes from plain text."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_plain(item)
    elif not isinstance(value, str | int | float | None):
        raise ValueError("a value of another kind")
    elif isinstance(value, int) and abs(value) >= 1 << 63:
        raise ValueError("a number beyond 64 bits")
