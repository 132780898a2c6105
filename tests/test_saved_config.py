"""What a run saves: it reads back equal, no trick gets through, older formats are upgraded."""

import copy
import re
from enum import Enum
from pathlib import Path

import pytest
import yaml
from runs import ROOT
from test_config import _config, composed, leaves

from seq2seq.config import schema, upgrade
from seq2seq.config.compose import (
    LATER_KEYS,
    RESUME_KEYS,
    flatten,
    load_run_config,
    to_config,
    to_yaml,
)
from seq2seq.config.schema import Config
from seq2seq.run.errors import ConfigError, RunDirError, UntrustedError, UserError
from seq2seq.run.plain_yaml import MAX_CONFIG_BYTES


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(_config()), encoding="utf-8")
    return path


TRICKS = {
    "an alias": "name: &a x\ndata: {root: *a}\n",
    "an anchor": "name: &a x\n",
    "a tag": "name: !!python/name:os.system\n",
    "an environment variable": "name: ${oc.env:HOME}\n",
    "an interpolation in a key": "'${seed}': 1\n",
    "an interpolation in quotes": 'name: "${seed}"\n',
    "an escaped interpolation": 'name: "\\x24{seed}"\n',
}


@pytest.mark.parametrize("trick", TRICKS)
def test_saved_config_with_a_trick_is_refused_unread(saved, trick):
    lines = len(saved.read_text(encoding="utf-8").splitlines())
    with saved.open("a", encoding="utf-8") as file:
        file.write(TRICKS[trick])
    with pytest.raises(UntrustedError) as caught:
        load_run_config(saved)
    assert caught.value.where in [f"{saved}:{line}" for line in (1, lines + 1, lines + 2)]


DAMAGED = {
    "a list": (b"- 1\n", "not a mapping"),
    "nothing": (b"", "not a mapping"),
    "no YAML": (b"a: [", "not valid YAML"),
    "no UTF-8": (b"name: \xff", "invalid start byte"),
    "deep lists": (b"name: " + b"[" * 100 + b"]" * 100, "too deep"),
    "deep mappings": (b"name: " + b"{a: " * 200 + b"1" + b"}" * 200, "too deep"),
    "many values": (b"name: [" + b"1, " * 6000 + b"1]", "too many keys and values"),
    "a date": (b"name: 2014-09-01", "not valid YAML"),
    "a number beyond 64 bits": (b"name: 9223372036854775808", "not valid YAML"),
    "a key twice": (b"name: x\nname: y", "a duplicate key"),
    "a number as key": (b"1: x", "one that is not text"),
    "a control character": (b"name: \x00", "not valid YAML"),
    "too much": (b"# " + b"x" * MAX_CONFIG_BYTES, f"more than {MAX_CONFIG_BYTES}"),
    "a later format": (b"format: 5\nname: x\n", "has format 5, this version knows 1 to 4"),
    "no format": (b"format: true\nname: x\n", "has format True"),
    "half of it": (b"format: 2\nname: x\nseed: 1\n", "missing value 'attention'"),
    "half of an old one": (b"name: x\nmodel: {}\n", "missing value 'attention'"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_config_is_refused(tmp_path, damage):
    content, text = DAMAGED[damage]
    path = tmp_path / "config.yaml"
    with pytest.raises(RunDirError, match="missing"):
        load_run_config(path)
    path.write_bytes(content)
    with pytest.raises(RunDirError, match=text) as caught:
        load_run_config(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_cut_off_is_refused_and_never_filled_up(saved):
    """Of the last group, `logging`, which changes no result, lines may be missing."""
    text = saved.read_text("utf-8")
    lines = text.partition("logging:\n")[0].splitlines(keepends=True)
    for count in range(len(lines)):
        saved.write_text("".join(lines[:count]), "utf-8")
        with pytest.raises(UserError):
            load_run_config(saved)


@pytest.mark.parametrize(
    "change", ["extra: 1\ncell:", "cell:\n  wide: 1", "cell:\n  name: coupled"]
)
def test_config_of_another_version_is_a_damaged_run_not_a_wrong_setting(saved, change):
    text = saved.read_text("utf-8").replace("cell:\n  name: gated", change)
    saved.write_text(text, "utf-8")
    with pytest.raises(RunDirError) as caught:
        load_run_config(saved)
    assert caught.value.fix == "Use the version that wrote this run, with its extensions."


# Older formats ----------------------------------------------------------------------------------

OLD = [
    path
    for place in ("docs/results", "tests/formats/0.1.0")
    for path in sorted((ROOT / place).rglob("*.yaml"))
    # Neither older than 0.1.0 nor younger.
    if not re.search(r"maxout_size|^format: ", path.read_text("utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("path", OLD, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_config_of_0_1_0_keeps_its_values(path):
    old = dict(leaves(yaml.safe_load(path.read_text("utf-8"))))
    now = flatten(load_run_config(path))
    assert {upgrade.MOVED.get(key, key): value for key, value in old.items()}.items() <= now.items()
    assert (now["cell.name"], now["trainer.accumulate"]) == ("gated", 1)
    assert len(OLD) > 4


def test_upgrading_leaves_its_table_and_what_was_read_alone(tmp_path):
    values = yaml.safe_load(OLD[0].read_text("utf-8"))
    before, table = copy.deepcopy(values), copy.deepcopy(upgrade.ADDED)
    upgrade.upgrade(tmp_path, values, set(values))["cell"]["reset"] = "x"
    assert (values, upgrade.ADDED) == (before, table)


@pytest.mark.parametrize(("old", "new"), upgrade.MOVED.items())
def test_an_old_spelling_is_an_alias(old, new):
    other = {"after": "before", "before": "after", "maxout": "tanh", "emitted": "previous"}
    value = other.get(str(flatten(Config())[new]), "0" if "dropout" in new else "3")
    expected = flatten(to_config({}, [f"{new}={value}"]))
    assert flatten(to_config({}, [f"{old}={value}"])) == expected
    assert flatten(to_config(composed(f"{old}={value}"))) == expected
    for sign in ("", "+", "++", "~"):
        assert upgrade.current_spelling(f"{sign}{old}={value},x") == f"{sign}{new}={value},x"
    for text in (f"name={old}", f"x.{old}=1", f"{old}s=1"):
        assert upgrade.current_spelling(text) == text


# What later steps may change --------------------------------------------------------------------

FIXED = [
    key
    for key in flatten(Config())
    if not any(key == free or key.startswith(f"{free}.") for free in LATER_KEYS)
]
# The comparison is the same for all: the first of each group and of each kind of value shows it.
SAMPLE = {
    of: key
    for key in reversed(FIXED)
    for of in (key.partition(".")[0], type(flatten(Config())[key]))
}


def others(key: str, value: object) -> list[str]:
    """Other values of a key; one of them suits it, unless other keys would have to change too."""
    match value:
        case bool():
            return [str(not value).lower()]
        case int():
            return [str(value + 1), str(value - 1)]
        case float():
            return [str(value / 2 + 0.01), "2.5"]
        case None:
            return ["7"]
        case list():
            return ["[train]", "[a.tsv]"]
    # An enum's name, or free text.
    kinds = [cls for cls in vars(schema).values() if isinstance(cls, type(Enum))]
    names = [m.name for cls in kinds for m in cls if value in cls.__members__]
    return [name for name in names if name != value] or ["xx"]


def refusal(saved: Path, key: str, may_change: tuple[str, ...]) -> UserError | None:
    """What the first acceptable other value of a key meets."""
    error: UserError | None = None
    for text in others(key, flatten(_config())[key]):
        try:
            load_run_config(saved, [f"{key}={text}"], may_change)
        except ConfigError as caught:
            error = caught  # no value for this key; the next may be one
        except RunDirError as caught:
            return caught
        else:
            return None
    return error


@pytest.mark.e2e
@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=[] if key in SAMPLE.values() else pytest.mark.slow) for key in FIXED],
)
def test_M2_what_the_checkpoint_fixes_is_refused_by_name_and_value(saved, key):
    error = refusal(saved, key, LATER_KEYS)
    assert error is not None, "it was accepted"
    if isinstance(error, ConfigError):  # other keys would have to change as well
        together = ("trainer.swa_start",)
        together += ("trainer.batch_tokens", "trainer.lr_factors", "init.parts", "init.new_pieces")
        together += ("data.corpora", "data.temperature", "data.placeholders")
        assert key in together or key.endswith(".name")
        return
    value = flatten(Config())[key]
    assert error.what.startswith(f"{key} is {value!r} in this run, not ")
    assert error.fix == (
        "Only decode, evaluate, attention.inference, attention.layer, attention.head, device, "
        "threads may change."
    )


def test_M2_what_a_run_says_already_may_be_said_again(saved):
    same = [f"{key}={value}" for key, value in flatten(_config()).items() if isinstance(value, int)]
    assert len(same) > 20
    assert load_run_config(saved, same) == load_run_config(saved)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        *((text, "") for text in ("+seed=2", "~seed", "decoder=1", "devices=cpu", "decode_x.y=1")),
        ("decode.beam_sze=3", "unknown key 'decode.beam_sze'. Did you mean 'decode.beam_size'?"),
        ("decode.beam_size=0", "decode.beam_size=0 is out of range"),
        ("decode=3", "decode is 3, not a group"),
        ("evaluate.heatmaps.0=3", "evaluate.heatmaps.0=3: Cannot merge"),
        ("decode.beam_size", "cannot read override"),
    ],
)
def test_wrong_override_of_a_run_is_a_config_error(saved, text, error):
    """Settings that do get through are compared by value, so none may get round that."""
    with pytest.raises(ConfigError) as caught:
        load_run_config(saved, [text])
    assert error in str(caught.value)


RESUMED = {
    "decode": "decode.beam_size=3",
    "evaluate": "evaluate.heatmaps=[7]",
    "device": "device=cpu",
    "threads": "threads=2",
    "data.workers": "data.workers=3",
    "data.prepared": "data.prepared=shared",
    "stages": "stages=[train]",
    "logging": "logging.every=7",
    "trainer.max_updates": "trainer.max_updates=7",
    "trainer.max_epochs": "trainer.max_epochs=7",
    "trainer.max_minutes": "trainer.max_minutes=7.5",
    "trainer.patience": "trainer.patience=7",
    "trainer.keep_checkpoints": "trainer.keep_checkpoints=7",
    "trainer.on_out_of_memory": "trainer.on_out_of_memory=split",
}


@pytest.mark.parametrize("may_change", [LATER_KEYS, RESUME_KEYS])
def test_a_later_step_may_change_what_is_its_own(saved, may_change):
    # Those of one attention alone: test_attention_family.py changes `attention.inference`.
    own = {f"attention.{key}" for key in ("inference", "layer", "head")}
    assert {*RESUMED} | own == set(RESUME_KEYS)
    overrides = [text for key, text in RESUMED.items() if key in may_change]
    before, after = flatten(_config()), flatten(load_run_config(saved, overrides, may_change))
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {override.partition("=")[0] for override in overrides}
