"""Settings that older versions wrote, as this one reads them.

Format 1 is that of version 0.1.0, whose `config.yaml` has no format number.
"""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seq2seq.run.errors import RunDirError

FORMAT = 4
"""Of the `config.yaml` that this version writes."""

MOVED = {
    "model.reset": "cell.reset",
    "model.annotation_dropout": "encoder.annotation_dropout",
    "model.state_word": "decoder.state_word",
    "model.readout": "decoder.readout",
    "model.output_rank": "decoder.output_rank",
    "model.readout_dropout": "decoder.readout_dropout",
}
"""Old spelling -> new one. The old one stays valid: on command lines, in presets, in old runs."""

ADDED: dict[int, dict[str, Any]] = {
    2: {
        "model.name": "rnnsearch",
        "cell": {"name": "gated"},
        "encoder": {"name": "recurrent"},
        "decoder": {"name": "recurrent"},
        "trainer.accumulate": 1,
    },
    3: {"init": {}, "follows": ""},
    4: {"objective": {"name": "likelihood"}},
}
"""Settings that a format brought, with the value by which runs of the one before had worked."""

ADDED_TO_OPTIONS: dict[int, dict[tuple[str, str], dict[str, Any]]] = {
    2: {("tokenizer", "sentencepiece"): {"target_normalization": None}}
}
"""The same for settings that one option of a group has."""

_KEY = re.compile(r"^(\+{0,2}|~)([\w.]+)(?==|$)")


def current_spelling(override: str) -> str:
    """Return `cell.reset=after` for `model.reset=after`; anything else stays as it is."""
    return _KEY.sub(lambda found: found[1] + MOVED.get(found[2], found[2]), override)


def move(values: dict[str, Any]) -> None:
    """Put what stands under an old spelling where it belongs now."""
    for old, new in MOVED.items():
        group, key = old.split(".")
        if isinstance(values.get(group), dict) and key in values[group]:
            _put(values, new, values[group].pop(key))


def upgrade(path: Path, saved: Mapping[str, Any], groups: set[str]) -> dict[str, Any]:
    """Return the settings of a run's `config.yaml` as this version would have written them.

    Args:
        path: Of the file, for messages.
        saved: What it holds.
        groups: Its keys today. All that its format knew must be there: a file that was cut short
            is not filled up with defaults.

    Raises:
        RunDirError: the format is not known, or a key is missing.
    """
    values = copy.deepcopy(dict(saved))
    number = values.pop("format", 1)
    if number not in range(1, FORMAT + 1) or isinstance(number, bool):
        what = f"has format {number!r}, this version knows 1 to {FORMAT}"
        raise RunDirError(path, what, "Use the version that wrote this run.")
    added = {
        k: copy.deepcopy(v) for since in ADDED if since > number for k, v in ADDED[since].items()
    }
    for key in sorted(groups - added.keys() - values.keys()):
        raise RunDirError(path, f"missing value {key!r}", "Restore the file from a copy.")
    for key, value in added.items():
        _put(values, key, value)
    for since in (since for since in ADDED_TO_OPTIONS if since > number):
        for (group, name), settings in ADDED_TO_OPTIONS[since].items():
            if isinstance(values[group], dict) and values[group].get("name") == name:
                values[group] = settings | values[group]
    move(values)
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    group, _, name = key.rpartition(".")
    place = values.setdefault(group, {}) if group else values
    if isinstance(place, dict):  # else the schema says what is wrong with it
        place[name] = value
