"""Converts dataclasses to plain JSON values and back, for the whole package."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""Strict JSON does not have these numbers: they are written as text."""


def to_json(value: Any) -> Any:
    """Return a value in JSON types: a dataclass as an object, an enum as its name."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json(kind: type[T], value: Any) -> T:
    """Rebuild what `to_json` was given: a dataclass, or the type of one of its fields.

    Every value is checked against its declared type. A missing field gets its default, so older
    files can be read; a renamed one has `metadata={"formerly": OLD_NAME}`. Unknown names are
    ignored.

    Raises:
        ValueError: a value is missing or has the wrong type; names it.
    """
    result: T = _read(kind, value, "")
    return result


def _read(kind: Any, value: Any, name: str) -> Any:
    origin = get_origin(kind)
    # From the outside in: unions, objects, lists; everything else is a plain value.
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _read_union(get_args(kind), value, name)
    if is_dataclass(kind) and isinstance(value, Mapping):
        return _read_dataclass(kind, value, name)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        item = get_args(kind)[1]
        return {key: _read(item, inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(origin, type) and issubclass(origin, Sequence) and isinstance(value, list):
        item = get_args(kind)[0]
        items = [_read(item, inner, f"{name}[{i}]") for i, inner in enumerate(value)]
        return tuple(items) if origin is tuple else items
    return _read_plain(kind, value, name)


def _read_plain(kind: Any, value: Any, name: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, Enum) and value in kind.__members__:
        return kind[value]
    if kind is float and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if kind is float and type(value) is int:
        return value
    if type(value) is not kind:  # bool is not int here
        raise ValueError(
            f"{name} is {repr(value)[:80]}, expected {getattr(kind, '__name__', kind)}"
        )
    return value


def _read_dataclass(kind: Any, values: Mapping[str, Any], name: str) -> Any:
    types, prefix = get_type_hints(kind), f"{name}." if name else ""
    found = {}
    for field in fields(kind):
        key = field.name if field.name in values else field.metadata.get("formerly", field.name)
        if key in values:
            found[field.name] = _read(types[field.name], values[key], f"{prefix}{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{prefix}{field.name} is missing")
    return kind(**found)


def _read_union(kinds: Sequence[Any], value: Any, name: str) -> Any:
    if value is None and NoneType in kinds:
        return None
    problems = []
    for kind in kinds:
        try:
            return _read(kind, value, name)
        except ValueError as error:
            problems.append(error)
    raise problems[0]
