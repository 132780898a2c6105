"""Dataclasses to JSON and back, and tables: the one way for every room."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import pytest

from seq2seq.run.jsonable import from_json, to_json


class Kind(Enum):
    first = "1st"
    second = "2nd"


@dataclass(frozen=True)
class Inner:
    kind: Kind
    values: tuple[float, ...] = ()


@dataclass
class Outer:
    count: int
    inner: Inner
    tokens: int = field(default=3, metadata={"formerly": "words"})
    best: float | None = None
    names: Sequence[str] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    many: list[Inner] = field(default_factory=list)


FULL = Outer(
    1, Inner(Kind.second, (0.5, -math.inf)), 4, 2.5, ["a"], {"x": 1.0}, [Inner(Kind.first)]
)


def test_what_was_written_is_read_back():
    text = json.dumps(to_json(FULL), allow_nan=False)
    assert from_json(Outer, json.loads(text)) == FULL
    assert json.loads(text)["inner"] == {"kind": "second", "values": [0.5, "-inf"]}


def test_older_files_lack_fields_and_call_them_otherwise():
    found = from_json(Outer, {"count": 1, "inner": {"kind": "first"}, "words": 9, "unknown": 0})
    assert (found.tokens, found.best, found.names) == (9, None, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 1.5}, "count is 1.5, expected int"),
        ({"count": True}, "count is True, expected int"),
        ({"count": "1"}, "count is '1', expected int"),
        ({"best": "much"}, "best is 'much', expected float"),
        ({"inner": 3}, "inner is 3, expected Inner"),
        ({"inner": {"kind": "third"}}, r"inner\.kind is 'third', expected Kind"),
        ({"names": ["a", 1]}, r"names\[1\] is 1, expected str"),
        ({"rates": {"x": None}}, r"rates\.x is None, expected float"),
        ({"many": [{}]}, r"many\[0\]\.kind is missing"),
    ],
)
def test_a_value_of_another_type_is_named(change, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        from_json(Outer, to_json(FULL) | change)
