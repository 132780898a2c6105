"""Upgrades settings saved by older versions.

Format 1 is that of version 0.1.0, whose `config.yaml` has no format number.
"""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seq2seq.run.errors import RunDirError

FORMAT = 4
"""The format of the `config.yaml` that this version writes."""

MOVED = {
    "model.reset": "cell.reset",
    "model.annotation_dropout": "encoder.annotation_dropout",
    "model.state_word": "decoder.state_word",
    "model.readout": "decoder.readout",
    "model.output_rank": "decoder.output_rank",
    "model.readout_dropout": "decoder.readout_dropout",
}
"""Old spelling -> new one. Old ones stay valid on command lines, in presets and in old runs."""

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
"""Settings added by each format, with the values that reproduce the behaviour before it."""

ADDED_TO_OPTIONS: dict[int, dict[tuple[str, str], dict[str, Any]]] = {
    2: {("tokenizer", "sentencepiece"): {"target_normalization": None}}
}
"""The same, for settings of one option of a group."""

_KEY = re.compile(r"^(\+{0,2}|~)([\w.]+)(?==|$)")


def current_spelling(override: str) -> str:
    """Return `cell.reset=after` for `model.reset=after`, and any other override unchanged."""
    return _KEY.sub(lambda found: found[1] + MOVED.get(found[2], found[2]), override)


def move(values: dict[str, Any]) -> None:
    """Move values from old spellings to the new ones, in place."""
    for old, new in MOVED.items():
        group, key = old.split(".")
        if isinstance(values.get(group), dict) and key in values[group]:
            _put(values, new, values[group].pop(key))


def upgrade(path: Path, saved: Mapping[str, Any], groups: set[str]) -> dict[str, Any]:
    """Return the settings of a run's `config.yaml` as this version would have written them.

    Args:
        path: The path of the file, for messages.
        saved: Its contents.
        groups: The top-level keys of today's format. All that its own format had must be there: a
            truncated file is not completed with defaults.

    Raises:
        RunDirError: the format is unknown, or a key is missing.
    """
    values = copy.deepcopy(dict(saved))
    number = values.pop("format", 1)
    if number not in range(1, FORMAT + 1) or isinstance(number, bool):
        what = f"has format {number!r}, this version knows 1 to {FORMAT}"
        raise RunDirError(path, what, "Use the version that wrote this run.")
    added = {
        k: copy.deepcopy(v) for since in ADDED if since > number for k, v in ADDED[since].items()
    }
    # What its own format had is there; what came later gets the value of that time.
    for key in sorted(groups - added.keys() - values.keys()):
        raise RunDirError(path, f"missing value {key!r}", "Restore the file from a copy.")
    for key, value in added.items():
        _put(values, key, value)
    # So do the settings that options of a group have got since.
    for since in (since for since in ADDED_TO_OPTIONS if since > number):
        for (group, name), settings in ADDED_TO_OPTIONS[since].items():
            if isinstance(values[group], dict) and values[group].get("name") == name:
                values[group] = settings | values[group]
    move(values)
    return values


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    group, _, name = key.rpartition(".")
    place = values.setdefault(group, {}) if group else values
    if isinstance(place, dict):  # otherwise the schema reports it
        place[name] = value
