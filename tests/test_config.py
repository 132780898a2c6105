"""The one door: every preset and option passes it, every mistake is refused in one line."""

import copy
import dataclasses
import difflib
import math
import typing
from collections.abc import Iterator, Mapping
from datetime import date
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from seq2seq.config import schema as settings
from seq2seq.config.compose import (
    LATER_KEYS,
    RESUME_KEYS,
    TAGGED,
    _check_ranges,
    flatten,
    load_run_config,
    to_config,
    to_yaml,
)
from seq2seq.config.schema import AdadeltaConfig, Config
from seq2seq.run.errors import ConfigError, RunDirError, UntrustedError, UserError, one_line
from seq2seq.run.plain_yaml import MAX_CONFIG_BYTES

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
PRESETS = sorted((CONFIGS / "experiment").rglob("*.yaml"))
OPTIONS = [path for path in FILES if path not in PRESETS and path.parent != CONFIGS]
GROUPS = {
    group: [path.stem for path in OPTIONS if path.parent.name == group]
    for group in sorted({path.parent.name for path in OPTIONS})
}


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Values as train.py hands them to `to_config`; composing takes Hydra a fifth of a second."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        raw = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True)
    return {key: value for key, value in raw.items() if key not in ("resume", "run_dir")}


def composed(*overrides: str) -> dict[str, Any]:
    return copy.deepcopy(_composed(overrides))


def choices(turn: int) -> tuple[str, ...]:
    """An option of every group: a few compositions hold them all."""
    return tuple(f"{group}={names[turn % len(names)]}" for group, names in GROUPS.items())


def with_option(group: str, name: str) -> Config:
    return copy.deepcopy(_config(choices(GROUPS[group].index(name))))


@cache
def _config(overrides: tuple[str, ...] = ()) -> Config:
    return to_config(_composed(overrides))


def refused(values: Mapping[str, Any], *overrides: str) -> str:
    """The one line that a user sees."""
    with pytest.raises(ConfigError) as caught:
        to_config(values, overrides)
    assert caught.value.exit_code == 1
    line = str(caught.value)
    assert line.startswith("config: ")
    assert "\n" not in line
    assert one_line(caught.value) == f"error: {line}"
    return line


def put(values: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        values = values[group]
    values[last] = value


def drop(values: dict[str, Any], key: str) -> None:
    *groups, last = key.split(".")
    for group in groups:
        values = values[group]
    del values[last]


# Presets and options --------------------------------------------------------------------------


def preset_name(path: Path) -> str:
    return path.relative_to(CONFIGS / "experiment").with_suffix("").as_posix()


@pytest.mark.e2e
def test_every_preset_composes():
    names = {_config((f"+experiment={preset_name(path)}",)).name: path for path in PRESETS}
    # As many files as names: none was overlooked, no two presets share a run folder.
    assert len(names) == len(PRESETS) >= 10
    assert {name: preset_name(path) for name, path in names.items()} == {n: n for n in names}


@pytest.mark.parametrize("path", PRESETS, ids=preset_name)
def test_a_preset_begins_with_the_command_that_runs_it(path):
    package, command = path.read_text(encoding="utf-8").splitlines()[:2]
    assert package == "# @package _global_"  # without it the values land under `experiment:`
    assert command.startswith(f"# python train.py +experiment={preset_name(path)}")


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_of_every_group_composes(path):
    flat = flatten(with_option(path.parent.name, path.stem))
    overrides = choices(GROUPS[path.parent.name].index(path.stem))
    assert flat == dict(leaves(composed(*overrides)))
    own = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    own.pop("defaults", None)
    for key, value in leaves(own):  # what the file says is what the config holds
        if "${" not in str(value):
            assert flat[f"{path.parent.name}.{key}"] == value


def test_no_config_file_is_left_out():
    assert set(GROUPS) <= {field.name for field in dataclasses.fields(Config)}
    assert len(FILES) == len(OPTIONS) + len(PRESETS) + 1
    assert len(OPTIONS) >= 21


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("group", TAGGED)
def test_every_tagged_option_builds_its_class(group):
    assert set(TAGGED[group]) <= set(GROUPS[group])  # further files are variants
    for name, cls in TAGGED[group].items():
        option = getattr(with_option(group, name), group)
        assert type(option) is cls
        assert option.name.name == name
        # The tag's own enum knows the option, so that it can be saved and read.
        assert {kind.name for kind in type(option.name)} == set(TAGGED[group])


def test_base_config_is_the_paper():
    config = _config()
    assert isinstance(config.optimizer, AdadeltaConfig)
    assert (config.optimizer.rho, config.optimizer.eps) == (0.95, 1e-6)
    model, trainer = config.model, config.trainer
    assert (model.embedding_size, model.hidden_size) == (620, 1000)
    assert (model.align_size, model.readout_size) == (1000, 500)
    assert (trainer.batch_sentences, trainer.pool_batches, trainer.clip_norm) == (80, 20, 1.0)


def config_classes() -> list[type]:
    found: list[type] = []

    def visit(cls: type) -> None:
        found.append(cls)
        for hint in typing.get_type_hints(cls).values():
            if dataclasses.is_dataclass(hint):
                visit(hint)

    visit(Config)
    return found + list({cls: None for options in TAGGED.values() for cls in options.values()})


@pytest.mark.parametrize("cls", config_classes(), ids=lambda cls: cls.__name__)
def test_values_live_in_yaml_and_every_number_has_a_range(cls):
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        assert field.default is dataclasses.MISSING, field.name
        assert field.default_factory is dataclasses.MISSING, field.name
        is_number = {int, float} & ({hints[field.name]} | set(typing.get_args(hints[field.name])))
        if is_number and typing.get_origin(hints[field.name]) is not list:
            assert field.metadata["low"] > -math.inf, field.name


# Unknown keys ---------------------------------------------------------------------------------

PLACES = ["", "data", "data.grammar", "tokenizer", "model", "optimizer", "trainer", "decode"]
PLACES += ["evaluate", "logging"]


def misspelt(group: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """A key of a group and the same with a letter missing, such that no neighbour is nearer."""
    for part in filter(None, group.split(".")):
        values = values[part]
    prefix = f"{group}." if group else ""
    for right in sorted(values, key=len, reverse=True):
        wrong = right[:2] + right[3:]
        if difflib.get_close_matches(wrong, values, n=1) == [right]:
            return prefix + right, prefix + wrong
    raise AssertionError(group)


@pytest.mark.parametrize("group", PLACES)
def test_misspelt_key_in_yaml_is_refused_with_the_nearest(group):
    values = composed()
    right, wrong = misspelt(group, values)
    put(values, wrong, 3)
    assert refused(values) == f"config: unknown key '{wrong}'. Did you mean '{right}'?"


@pytest.mark.parametrize("group", PLACES)
def test_misspelt_key_on_the_command_line_is_refused_with_the_nearest(group):
    values = composed()
    right, wrong = misspelt(group, values)
    line = refused(values, f"{wrong}=3")
    assert line == f"config: unknown key '{wrong}'. Did you mean '{right}'?"


def test_unknown_key_without_a_neighbour_lists_what_there_is():
    line = refused(composed(), "optimizer.zzz=1")
    assert line == (
        "config: unknown key 'optimizer.zzz'. Known here: name, lr, rho, eps, weight_decay."
    )


def test_key_of_another_option_is_unknown():
    """Adadelta has no betas, although Adam has: each option is a class of its own."""
    assert "unknown key 'optimizer.beta1'" in refused(composed(), "optimizer.beta1=0.9")


def test_preset_without_its_package_line_is_refused():
    """Its values would land under `experiment:`."""
    assert "unknown key 'experiment'" in refused({**composed(), "experiment": {"seed": 3}})


# Types, missing values --------------------------------------------------------------------------

WRONG = [
    ("model.hidden_size=abc", "model.hidden_size: Value 'abc'"),
    ("model.hidden_size=3.5", "model.hidden_size: Value '3.5'"),
    ("model.hidden_size=true", "model.hidden_size: Value 'True'"),
    ("model.hidden_size=null", "model.hidden_size: Incompatible value 'None'"),
    ("model.bias=maybe", "model.bias: Value 'maybe'"),
    ("model.reset=sideways", "expected one of [before, after]"),
    ("stages=[tokenize,trian]", "stages[1]: Invalid value 'trian'"),
    ("evaluate.heatmaps=[1,x]", "evaluate.heatmaps[1]: Value 'x'"),
    ("optimizer.lr=fast", "optimizer.lr: Value 'fast'"),
    ("name=null", "name: Incompatible value 'None'"),
    ("name=[1]", "name: Cannot convert"),
    ("data.limit=all", "data.limit: Value 'all'"),
    ("data.train=null", "data.train: "),
    ("data.train.0=x", "data.train.0=x: Cannot merge"),
    ("data.train='${nope}'", "data.train: Interpolation key 'nope' not found"),
    ("data=3", "data: Invalid type"),
    ("model=null", "model: "),
    ("scheduler.name=cosin", "scheduler.name is 'cosin'. Choose one of: constant, plateau, "),
    ("tokenizer.name=null", "tokenizer.name is None. Choose one of: words, sentencepiece."),
    ("optimizer=adam", "optimizer.name is None. Choose one of: adadelta, adam."),
]


@pytest.mark.parametrize(("override", "text"), WRONG)
def test_wrong_type_names_the_key(override, text):
    assert text in refused(composed(), override)


@pytest.mark.parametrize(
    "extra", [{"name": date(2014, 9, 1)}, {"name": b"x"}, {None: 1}, {(1, 2): 1}, {1: 2}]
)
def test_values_that_only_yaml_can_hold_are_refused(extra):
    refused({**composed(), **extra})


REQUIRED = ["seed", "model", "model.bias", "data.grammar", "data.grammar.seed", "optimizer.rho"]
REQUIRED += ["trainer.batch_tokens", "evaluate.heatmaps", "stages"]


@pytest.mark.parametrize("key", REQUIRED)
def test_missing_value_is_named(key):
    values = composed()
    drop(values, key)
    assert refused(values) == f"config: missing value '{key}'. Give it."


@pytest.mark.parametrize("group", TAGGED)
def test_missing_tag_lists_the_options(group):
    values = composed()
    del values[group]["name"]
    known = ", ".join(TAGGED[group])
    assert refused(values) == f"config: {group}.name is None. Choose one of: {known}."


@pytest.mark.parametrize("text", ["seed", "", "+seed=3", "~seed", "seed=1,2", "seed=["])
def test_override_that_sets_no_value_is_refused(text):
    assert refused(composed(), text) == f"config: cannot read override {text!r}. Write key=value."


# Ranges -----------------------------------------------------------------------------------------


def numbers() -> Iterator[tuple[str, str, type, Mapping[str, Any]]]:
    """(overrides that make the field exist, key, int or float, range) of every number."""

    def visit(cls: type, prefix: str, option: str) -> Iterator[Any]:
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            hint = hints[field.name]
            if dataclasses.is_dataclass(hint):
                yield from visit(hint, f"{prefix}{field.name}.", option)
            elif "low" in field.metadata:
                kind = float if float in (hint, *typing.get_args(hint)) else int
                yield option, f"{prefix}{field.name}", kind, field.metadata

    yield from visit(Config, "", "")
    for group, options in TAGGED.items():
        for name, cls in options.items():
            yield from visit(cls, f"{group}.", f"{group}={name}")


def bounds() -> Iterator[Any]:
    for option, key, kind, allowed in numbers():
        for end, sign in (("low", -1), ("high", 1)):
            bound = allowed[end]
            if math.isinf(bound):
                continue
            is_open = allowed["open"] in (end, "both")
            step = math.nextafter(bound, sign * math.inf) if kind is float else bound + sign
            inside = math.nextafter(bound, -sign * math.inf) if kind is float else bound - sign
            outside, last = (bound, inside) if is_open else (kind(step), bound)
            name = f"{option.partition('=')[2]}-{key}-{end}"
            yield pytest.param(option, key, kind(last), outside, allowed, id=name)


def placed(option: str, key: str) -> tuple[Config, Any, str]:
    """A config in which a field exists, its owner and its name there."""
    group, _, choice = option.partition("=")
    config = with_option(group, choice) if option else copy.deepcopy(_config())
    *groups, name = key.split(".")
    owner: Any = config
    for part in groups:
        owner = getattr(owner, part)
    assert hasattr(owner, name)
    return config, owner, name


@pytest.mark.parametrize(("option", "key", "last", "outside", "allowed"), list(bounds()))
def test_N7_value_just_outside_its_range_is_refused(option, key, last, outside, allowed):
    config, owner, name = placed(option, key)
    setattr(owner, name, last)
    _check_ranges(config)
    setattr(owner, name, outside)
    with pytest.raises(ConfigError) as caught:
        _check_ranges(config)
    assert caught.value.what == f"{key}={outside} is out of range"
    left = "(" if allowed["open"] in ("low", "both") else "["
    right = ")" if allowed["open"] in ("high", "both") or allowed["high"] == math.inf else "]"
    interval = f"{left}{allowed['low']:g}, {allowed['high']:g}{right}"
    assert caught.value.fix == f"Use {interval}."


def test_ranges_are_checked_on_the_way_in():
    for override, interval in [
        ("trainer.clip_norm=nan", "trainer.clip_norm=nan is out of range. Use (0, inf)."),
        ("trainer.clip_norm=inf", "trainer.clip_norm=inf is out of range. Use (0, inf)."),
        ("trainer.clip_norm=0", "trainer.clip_norm=0.0 is out of range. Use (0, inf)."),
        ("model.readout_dropout=1", "model.readout_dropout=1.0 is out of range. Use [0, 1)."),
        ("data.limit=0", "data.limit=0 is out of range. Use [1, inf)."),
        ("data.grammar.max_words=61", "data.grammar.max_words=61 is out of range. Use [3, 60]."),
        ("seed=-1", "seed=-1 is out of range. Use [0, inf)."),
    ]:
        assert refused(composed(), override) == f"config: {interval}"


FLOATS = [(option, key) for option, key, kind, _ in numbers() if kind is float]


@pytest.mark.parametrize(("option", "key"), FLOATS)
def test_N7_nan_is_in_no_range(option, key):
    config, owner, name = placed(option, key)
    setattr(owner, name, math.nan)
    with pytest.raises(ConfigError, match=f"{key}=nan is out of range"):
        _check_ranges(config)


def test_enough_ranges_were_found():
    assert len({key for _, key, _, _ in numbers()}) > 50
    assert len(FLOATS) > 20


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("optimizer.lr=0", "optimizer.lr=0.0 is out of range. Use (0, inf)."),
        ("optimizer.lr=-1", "optimizer.lr=-1.0 is out of range. Use (0, inf)."),
        ("model.annotation_dropout=1", "model.annotation_dropout=1.0 is out of range. Use [0, 1)."),
        ("trainer.clip_norm=0", "trainer.clip_norm=0.0 is out of range. Use (0, inf)."),
        ("model.hidden_size=0", "model.hidden_size=0 is out of range. Use [1, 1e+06]."),
        ("decode.beam_size=0", "decode.beam_size=0 is out of range. Use [1, 1000]."),
        ("tokenizer.vocab_size=3", "tokenizer.vocab_size=3 is out of range. Use [4, 1e+06]."),
    ],
)
def test_N7_what_is_out_of_range_stops_before_data_is_read(change, text):
    """There is no such data, and the first thing said is the range."""
    missing = "data.train=[/nowhere/train.en,/nowhere/train.fr]"
    assert refused(composed(), missing, change) == f"config: {text}"


# Rules that join settings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["trainer.batch_tokens=100"], "exactly one of trainer.batch_sentences and trainer.batch_"),
        (["trainer.batch_sentences=null"], "exactly one of trainer.batch_sentences and trainer."),
        (
            ["decode.replace_unknown=true", "decode.forbid_unknown=true"],
            "decode.replace_unknown has nothing to replace with decode.forbid_unknown=true",
        ),
        (["decode.n_best=11"], "decode.n_best=11 is above decode.beam_size=10"),
        (["data.grammar.min_words=9", "data.grammar.max_words=8"], "min_words is above max_words"),
        (["stages=[]"], "stages is empty"),
        (["evaluate.heatmaps=[2,0]"], "evaluate.heatmaps=[2, 0] names no sentence. 1 is first."),
        (
            ["evaluate.examples=[figure3]", "data.source_language=de"],
            "evaluate.examples=[figure3] is English-French, data is de-fr. Use evaluate.examples=[",
        ),
        (["data.target_language=''"], "data.target_language='' is no language code"),
        (["data.target_language=de.at"], "data.target_language='de.at' is no language code"),
    ],
)
def test_settings_that_do_not_fit_together(overrides, text):
    assert text in refused(composed(), *overrides)


def test_what_no_attention_weighs_cannot_be_copied():
    line = refused(composed("attention=fixed"), "decode.replace_unknown=true")
    assert "decode.replace_unknown follows the attention, and attention=fixed has none" in line


def test_settings_that_just_fit_together():
    to_config(composed(), ["trainer.batch_tokens=100", "trainer.batch_sentences=null"])
    to_config(composed(), ["decode.n_best=10"])
    to_config(composed(), ["decode.replace_unknown=true"])
    to_config(composed(), ["evaluate.examples=[figure3]"])
    to_config(composed(), ["evaluate.examples=[]", "data.target_language=de"])
    to_config(composed(), ["data.grammar.min_words=9", "data.grammar.max_words=9"])
    to_config(composed(), ["data.target_language=zh-Hans", "data.source_language=pt_BR"])


# YAML's traps -----------------------------------------------------------------------------------


def test_unquoted_norwegian_is_not_false():
    values = composed()
    values["data"] |= OmegaConf.to_container(OmegaConf.create("source_language: no"))
    assert values["data"]["source_language"] is False  # what YAML 1.1 makes of it
    line = refused(values)
    assert line == "config: data.source_language='False' is no language code. Quote it."
    values["data"] |= OmegaConf.to_container(OmegaConf.create("source_language: 'no'"))
    assert to_config(values).data.source_language == "no"


def test_norwegian_on_the_command_line_needs_no_quotes():
    assert to_config(composed(), ["data.source_language=no"]).data.source_language == "no"


@pytest.mark.parametrize("written", ["1e-6", "1.0e-06", "'1e-6'"])
def test_small_floats_are_floats(tmp_path, written):
    """`1e-6` without a dot is text in YAML 1.1."""
    given = to_config(composed(), [f"optimizer.eps={written}"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(given).replace("1.0e-06", written), encoding="utf-8")
    assert f"eps: {written}" in path.read_text(encoding="utf-8")
    for config in (given, load_run_config(path)):
        assert type(config.optimizer.eps) is float
        assert config.optimizer.eps == 1e-6


def test_one_file_is_a_list_of_one():
    config = to_config(composed(), ["data.train=a.tsv", "data.test=[b,c]"])
    assert (config.data.train, config.data.test) == (["a.tsv"], ["b", "c"])


def test_hydra_hands_over_the_same_values():
    overrides = ("data.train=a.tsv", "data.source_language=no", "optimizer.eps=1e-6", "threads=3")
    assert to_config(composed(*overrides)) == to_config(composed(), overrides)


def test_raw_values_are_left_as_they_were():
    values = composed()
    to_config(values, ["seed=7", "data.train=a.tsv"])
    assert values == composed()


# What a run saves -------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(_config()), encoding="utf-8")
    return path


ODD = [
    "name='130'",
    "data.root='010'",
    "data.source_language=no",
    "data.target_language='null'",
]
ODD += [
    "data.train=['naïve # : [x] \"y\" 漢', 'a	b', '~']",
    "data.test=['  ', '- x', '!a', '&b', '2014-09-01']",
]
ODD += [
    "evaluate.bleu_tokenizer='yes'",
    "evaluate.heatmaps=[]",
]
ODD += [
    "trainer.clip_norm=1e300",
    "optimizer.eps=1e-300",
    "data.limit=7",
    "trainer.max_minutes=0.5",
]


@pytest.mark.parametrize("preset", ["odd", *map(preset_name, PRESETS)])
def test_saved_config_reads_back_equal(tmp_path, preset):
    config = to_config(composed(), ODD) if preset == "odd" else _config((f"+experiment={preset}",))
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    again = load_run_config(path)
    assert again == config
    assert to_yaml(again) == to_yaml(config)
    flat = flatten(again)
    for key, value in flatten(config).items():
        assert type(flat[key]) is type(value), key
        assert not isinstance(value, Enum), key


TRICKS = {
    "an alias": "name: &a x\ndata: {root: *a}\n",
    "an anchor": "name: &a x\n",
    "a tag": "name: !!python/name:os.system\n",
    "a plain tag": "name: !!str x\n",
    "an environment variable": "name: ${oc.env:HOME}\n",
    "an interpolation in a key": "'${seed}': 1\n",
    "an interpolation in quotes": 'name: "${seed}"\n',
}


@pytest.mark.parametrize("trick", TRICKS)
def test_saved_config_with_a_trick_is_refused_unread(saved, trick):
    lines = len(saved.read_text(encoding="utf-8").splitlines())
    with saved.open("a", encoding="utf-8") as file:
        file.write(TRICKS[trick])
    with pytest.raises(UntrustedError, match=r"an? .* not allowed in a run directory") as caught:
        load_run_config(saved)
    assert caught.value.where in [f"{saved}:{line}" for line in (1, lines + 1, lines + 2)]


def test_escaped_interpolation_is_refused(saved):
    text = saved.read_text(encoding="utf-8")
    saved.write_text(text.replace("name: rnnsearch", r'name: "\x24{seed}"'), encoding="utf-8")
    with pytest.raises(UntrustedError):
        load_run_config(saved)


DAMAGED = {
    "a list": (b"- 1\n", "not a mapping"),
    "nothing": (b"", "not a mapping"),
    "a word": (b"rnnsearch", "not a mapping"),
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
    "half of it": (b"name: x\nseed: 1\n", "tokenizer.name is None"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_config_is_refused(tmp_path, damage):
    content, text = DAMAGED[damage]
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(RunDirError, match=text) as caught:
        load_run_config(path)
    assert "\n" not in str(caught.value)


def test_missing_config_is_refused(tmp_path):
    with pytest.raises(RunDirError, match="missing"):
        load_run_config(tmp_path / "config.yaml")


def test_config_of_another_version_is_a_damaged_run_not_a_wrong_setting(saved):
    with saved.open("a", encoding="utf-8") as file:
        file.write("extra: 1\n")
    with pytest.raises(RunDirError, match=r"unknown key 'extra'\. Use the version that"):
        load_run_config(saved)


# What later steps may change --------------------------------------------------------------------

FIXED = [
    key
    for key in flatten(_config())
    if not any(key == free or key.startswith(f"{free}.") for free in LATER_KEYS)
]


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
    # An enum's name, or free text; a colon so that none is taken for a number.
    kinds = [cls for cls in vars(settings).values() if isinstance(cls, type(Enum))]
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


NEED_OTHER_KEYS = {"tokenizer.name", "scheduler.name", "optimizer.name", "trainer.batch_tokens"}


@pytest.mark.e2e
@pytest.mark.parametrize("key", FIXED)
def test_M2_what_the_checkpoint_fixes_is_refused_by_name_and_value(saved, key):
    error = refusal(saved, key, LATER_KEYS)
    assert error is not None, "it was accepted"
    if isinstance(error, ConfigError):
        assert key in NEED_OTHER_KEYS
        return
    assert error.exit_code == 4
    value = flatten(_config())[key]
    assert error.what.startswith(f"{key} is {value!r} in this run, not ")
    assert error.fix == "Only decode, evaluate, attention.inference, device, threads may change."


def test_M2_what_a_run_says_already_may_be_said_again(saved):
    same = [f"{key}={value}" for key, value in flatten(_config()).items() if isinstance(value, int)]
    assert len(same) > 20
    assert load_run_config(saved, same) == load_run_config(saved)


@pytest.mark.parametrize("text", ["+seed=2", "~seed", "decoder=1", "devices=cpu", "decode_x.y=1"])
def test_no_spelling_gets_round_what_is_fixed(saved, text):
    """Settings that do get through are compared by value, so these must not."""
    with pytest.raises(ConfigError):
        load_run_config(saved, [text])


def test_later_steps_change_their_own_settings(saved):
    overrides = ["decode.beam_size=12", "decode.n_best=3", "evaluate.heatmaps=[7]", "device=cpu"]
    config = load_run_config(saved, [*overrides, "threads=1"])
    assert (config.decode.beam_size, config.decode.n_best, config.threads) == (12, 3, 1)
    assert (config.evaluate.heatmaps, config.device.name) == ([7], "cpu")


@pytest.mark.parametrize(
    ("override", "error"),
    [
        ("decode.beam_sze=3", "unknown key 'decode.beam_sze'. Did you mean 'decode.beam_size'?"),
        ("decode.beam_size=0", "decode.beam_size=0 is out of range"),
        ("decode=3", "decode: Invalid type"),
        ("evaluate.heatmaps.0=3", "evaluate.heatmaps.0=3: Cannot merge"),
        ("decode.beam_size", "cannot read override"),
    ],
)
def test_wrong_override_of_a_run_is_a_config_error(saved, override, error):
    with pytest.raises(ConfigError) as caught:
        load_run_config(saved, [override])
    assert error in str(caught.value)


RESUMED = {
    "decode": "decode.beam_size=3",
    "evaluate": "evaluate.heatmap_words=true",
    "device": "device=cpu",
    "threads": "threads=2",
    "stages": "stages=[train]",
    "logging": "logging.every=7",
    "trainer.max_updates": "trainer.max_updates=7",
    "trainer.max_epochs": "trainer.max_epochs=7",
    "trainer.max_minutes": "trainer.max_minutes=7.5",
    "trainer.patience": "trainer.patience=7",
    "trainer.keep_checkpoints": "trainer.keep_checkpoints=7",
    "trainer.on_out_of_memory": "trainer.on_out_of_memory=split",
}


def test_resumed_training_may_change_its_limits(saved):
    # `attention.inference` is of hard attention alone: test_attention_family.py changes it.
    assert {*RESUMED, "attention.inference"} == set(RESUME_KEYS)
    before = flatten(_config())
    after = flatten(load_run_config(saved, list(RESUMED.values()), RESUME_KEYS))
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {override.partition("=")[0] for override in RESUMED.values()}


@pytest.mark.parametrize("key", ["trainer.validate_every", "seed", "optimizer.lr"])
def test_M2_resumed_training_may_not_change_what_it_computes(saved, key):
    error = refusal(saved, key, RESUME_KEYS)
    assert error is not None
    assert error.what.startswith(f"{key} is ")
