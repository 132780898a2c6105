"""The one door: every preset and option passes it, every mistake is refused in one line."""

import copy
import dataclasses
import functools
import math
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf
from runs import ROOT, hydra_values

from seq2seq.config import schema
from seq2seq.config.compose import (
    DEFAULTS,
    _check_ranges,
    flatten,
    load_run_config,
    preset,
    to_config,
    to_yaml,
)
from seq2seq.config.registry import groups
from seq2seq.config.schema import Config
from seq2seq.run.errors import ConfigError, one_line

CONFIGS = ROOT / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
PRESETS = sorted((CONFIGS / "experiment").rglob("*.yaml"))
VARIANTS = [path for path in FILES if path not in PRESETS and path.parent != CONFIGS]
OPTIONS = {group: list(options) for group, options in groups().items()}


def composed(*overrides: str) -> dict[str, Any]:
    return copy.deepcopy(hydra_values(*overrides))


@cache
def _config(overrides: tuple[str, ...] = ()) -> Config:
    return to_config(hydra_values(*overrides))


def choices(turn: int) -> tuple[str, ...]:
    """An option of every group: a few compositions hold them all."""
    chosen = {group: names[turn % len(names)] for group, names in OPTIONS.items()}
    layers = chosen["attention"] == "layers"
    if layers or chosen["decoder"] == "transformer":
        chosen["decoder"] = "transformer" if layers else "recurrent"
    if chosen["cell"] == "min_gru" or layers:  # which takes no context
        chosen["cell"] = "min_gru" if layers else "gated"
    if chosen["attention"] in ("hard", "fixed", "uniform"):
        chosen["objective"] = "likelihood"
    if layers or chosen["encoder"] == "self_attention":
        chosen["model.embedding_size"] = "1000"
    return tuple(f"{group}={name}" for group, name in chosen.items())


def with_option(group: str, name: str) -> Config:
    with_layers = name in ("transformer", "min_gru")
    group, turn = ("attention", "layers") if with_layers else (group, name)
    return copy.deepcopy(_config(choices(OPTIONS[group].index(turn))))


def refused(values: Mapping[str, Any], *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        to_config(values, overrides)
    line = str(caught.value)
    assert line.startswith("config: ")
    assert one_line(caught.value) == f"error: {line}"
    return line.removeprefix("config: ")


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# Presets and options --------------------------------------------------------------------------


@pytest.mark.e2e
def test_every_preset_composes():
    names = {_config((f"+experiment={path.stem}",)).name: path for path in PRESETS}
    # As many files as names: none was overlooked, no two presets share a run directory.
    assert len(names) == len(PRESETS) >= 10
    assert {name: path.stem for name, path in names.items()} == {name: name for name in names}


ODD = [
    "name='130'",
    "data.root='010'",
    "data.source_language=no",
    "data.target_language='null'",
    "data.train=['naïve # : [x] \"y\" 漢', 'a	b', '~']",
    "data.test=['  ', '- x', '!a', '&b', '2014-09-01']",
    "evaluate.bleu_tokenizer='yes'",
    "evaluate.heatmaps=[]",
    "trainer.clip_norm=1e300",
    "optimizer.eps=1e-300",
    "data.limit=7",
    "trainer.max_minutes=0.5",
]


@pytest.mark.e2e
@pytest.mark.parametrize("preset", ["odd", *(path.stem for path in PRESETS)])
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


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_begins_with_the_command_that_runs_it(path):
    package, command = path.read_text(encoding="utf-8").splitlines()[:2]
    assert package == "# @package _global_"  # without it the values land under `experiment:`
    assert command.startswith(f"# python train.py +experiment={path.stem}")


def test_base_config_is_the_paper():
    config = _config()
    assert config == Config() == to_config({})
    model, trainer, rule = config.model, config.trainer, config.optimizer
    assert (rule.name, rule.rho, rule.eps) == ("adadelta", 0.95, 1e-6)
    assert (model.embedding_size, model.hidden_size) == (620, 1000)
    assert (model.align_size, model.readout_size) == (1000, 500)
    assert (trainer.batch_sentences, trainer.pool_batches, trainer.clip_norm) == (80, 20, 1.0)


@pytest.mark.e2e
@pytest.mark.parametrize("group", OPTIONS)
def test_every_option_is_chosen_by_name_and_has_the_defaults_of_its_class(group):
    assert len(OPTIONS[group]) >= 1
    for name, cls in groups()[group].items():
        assert getattr(with_option(group, name), group) == cls(name=name)


@pytest.mark.e2e
@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_a_file_of_a_group_holds_only_what_differs(path):
    own = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    parent = own.pop("defaults")[0].split("@")[0]
    group = path.parent.name
    before, now = (flatten(_config((f"{group}={name}",))) for name in (parent, path.stem))
    is_global = "@package _global_" in path.read_text(encoding="utf-8")
    for key, value in leaves(own if is_global else {group: own}):
        assert before[key] != now[key], key
        assert now[key] == value or "${" in str(value)


def test_no_config_file_is_left_out():
    assert {path.parent.name for path in VARIANTS} <= {f.name for f in dataclasses.fields(Config)}
    assert len(FILES) == len(VARIANTS) + len(PRESETS) + 1
    assert len(VARIANTS) >= 7
    assert {*OPTIONS} | {*DEFAULTS} | {"init"} == {  # of which nothing is chosen by name
        f.name for f in dataclasses.fields(Config) if f.name not in flatten(Config())
    }


def config_classes() -> list[type]:
    found: list[type] = []

    def visit(cls: type) -> None:
        found.append(cls)
        for hint in typing.get_type_hints(cls).values():
            if dataclasses.is_dataclass(hint):
                visit(hint)

    visit(Config)
    return found + [cls for options in groups().values() for cls in options.values()]


@pytest.mark.parametrize("cls", config_classes(), ids=lambda cls: cls.__name__)
def test_every_field_has_a_default_and_every_number_a_range(cls):
    cls()
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        is_number = {int, float} & ({hints[field.name]} | set(typing.get_args(hints[field.name])))
        if is_number and typing.get_origin(hints[field.name]) is not list:
            assert field.metadata["low"] > -math.inf, field.name


# Unknown keys, wrong types, missing values ------------------------------------------------------

WRONG = [
    ("model.hiden_size=3", "unknown key 'model.hiden_size'. Did you mean 'model.hidden_size'?"),
    ("seeed=3", "unknown key 'seeed'. Did you mean 'seed'?"),
    (
        "data.grammar.min_wrds=3",
        "unknown key 'data.grammar.min_wrds'. Did you mean 'data.grammar.m",
    ),
    ("optimizer.zzz=1", "unknown key 'optimizer.zzz'. Known here: name, lr, rho, eps, weight_de"),
    ("optimizer.beta1=0.9", "unknown key 'optimizer.beta1'"),  # each option is a class of its own
    ("model.hidden_size=abc", "model.hidden_size: Value 'abc'"),
    ("model.hidden_size=null", "model.hidden_size: Incompatible value 'None'"),
    ("model.bias=maybe", "model.bias: Value 'maybe'"),
    ("cell.reset=sideways", "expected one of [before, after]"),
    ("stages=[tokenize,trian]", "stages[1]: Invalid value 'trian'"),
    ("evaluate.heatmaps=[1,x]", "evaluate.heatmaps[1]: Value 'x'"),
    ("name=null", "name: Incompatible value 'None'"),
    ("name=[1]", "name: Cannot convert"),
    ("data.limit=all", "data.limit: Value 'all'"),
    ("data.train=null", "data.train: "),
    ("data.train.0=x", "data.train.0=x: Cannot merge"),
    ("data.train='${nope}'", "data.train: Interpolation key 'nope' not found"),
    ("init=RUN", "init is 'RUN', not a group. Write init.KEY=VALUE."),
    ("data=3", "data is 3, not a group. Write data.KEY=VALUE."),
    ("model=null", "model is None, not a group. Write model.KEY=VALUE."),
    ("optimizer=adam", "optimizer is 'adam', not a group. Write optimizer.KEY=VALUE."),
    ("scheduler.name=cosin", "scheduler.name is 'cosin'. Choose one of: constant, plateau, "),
    (
        "tokenizer.name=null",
        "tokenizer.name is None. Choose one of: words, sentencepiece, characters; others",
    ),
]


@pytest.mark.parametrize(("override", "text"), WRONG)
def test_what_is_wrong_with_a_value_names_the_key(override, text):
    assert text in refused(composed(), override)


def test_a_misspelt_key_of_a_file_is_refused_with_the_nearest():
    expected = "unknown key 'trainer.bach_tokens'. Did you mean 'trainer.batch_tokens'?"
    assert refused({"trainer": {"bach_tokens": 3}}) == expected


def test_a_value_that_is_to_be_given_and_is_not_is_named():
    assert refused({"data": {"limit": "???"}}) == "missing value 'data.limit'. Set it."


def test_what_is_not_given_is_the_default():
    config = to_config({"model": {"hidden_size": 7}, "optimizer": {"name": "adam", "lr": 0.5}})
    expected = Config()
    expected.model.hidden_size = 7
    expected.optimizer = schema.AdamConfig(lr=0.5)
    assert config == expected


@pytest.mark.parametrize("text", ["seed", "", "+seed=3", "~seed", "seed=1,2", "seed=["])
def test_override_that_sets_no_value_is_refused(text):
    assert refused(composed(), text) == f"cannot read override {text!r}. Write key=value."


# Ranges -----------------------------------------------------------------------------------------


def numbers() -> Iterator[tuple[str, str, type, Mapping[str, Any]]]:
    """(option that makes the field exist, key, int or float, range) of every number."""

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
    for group, options in groups().items():
        for name, cls in options.items():
            yield from visit(cls, f"{group}.", f"{group}={name}")


def test_N7_every_number_has_a_range_that_is_checked():
    found = list(numbers())
    assert len({key for _, key, _, _ in found}) > 50
    for option, key, kind, allowed in found:
        group, _, choice = option.partition("=")
        config = with_option(group, choice) if option else copy.deepcopy(_config())
        *parents, name = key.split(".")
        owner = functools.reduce(getattr, parents, config)
        ends = {"low": (-1, allowed["low"]), "high": (1, allowed["high"])}
        outside = [
            bound + (0 if allowed["open"] in (end, "both") else sign)
            for end, (sign, bound) in ends.items()
            if math.isfinite(bound)
        ]
        for value in [*outside, *([math.nan] if kind is float else [])]:
            setattr(owner, name, kind(value))
            with pytest.raises(ConfigError, match=rf"{key}=.* is out of range\. Use [\[(]"):
                _check_ranges(config)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("trainer.clip_norm=nan", "trainer.clip_norm=nan is out of range. Use (0, inf)."),
        ("decode.beam_size=0", "decode.beam_size=0 is out of range. Use [1, 1000]."),
        ("seed=1000000000000001", "seed=1000000000000001 is too large. Use 1000000000000000 or le"),
    ],
)
def test_N7_what_is_out_of_range_stops_before_data_is_read(change, text):
    """There is no such data, and the first thing said is the range."""
    assert text in refused(composed(), "data.train=[/nowhere/train.en,/nowhere/train.fr]", change)


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
        (
            ["attention.name=fixed", "decode.replace_unknown=true"],
            "decode.replace_unknown cannot follow attention=fixed. Set it to false.",
        ),
        (
            ["attention.name=multi_head", "attention.heads=3"],
            "attention.heads=3 does not divide model.align_size=1000. Choose a divisor of both.",
        ),
        (["decode.n_best=11"], "decode.n_best=11 is above decode.beam_size=10"),
        (["data.grammar.min_words=9", "data.grammar.max_words=8"], "min_words is above max_words"),
        (["name=con"], "name='con' is not a valid name"),
        (["stages=[]"], "stages is empty"),
        (
            ["trainer.lr_factors={encoder: 0}"],
            "trainer.lr_factors: 0 for encoder is out of range. Use (0, inf), or trainer.freeze.",
        ),
        (["init.parts=[encoder]"], "init.parts is given and init.run is not. Give both."),
        (
            ["evaluate.heatmaps=[2,0]"],
            "evaluate.heatmaps=[2, 0] is not a sentence number. Sentences count from 1.",
        ),
        (
            ["evaluate.examples=[figure3]", "data.source_language=de"],
            "evaluate.examples=[figure3] is English-French, data is de-fr. Use evaluate.examples=[",
        ),
        (["data.target_language=''"], "data.target_language='' is not a language code"),
        (["data.target_language=de.at"], "data.target_language='de.at' is not a language code"),
    ],
)
def test_settings_that_do_not_fit_together(overrides, text):
    assert text in refused(composed(), *overrides)


def test_settings_that_just_fit_together():
    fitting = ["decode.n_best=10", "decode.replace_unknown=true", "evaluate.examples=[figure3]"]
    fitting += ["trainer.batch_tokens=100", "trainer.batch_sentences=null"]
    fitting += ["data.grammar.min_words=9", "data.grammar.max_words=9"]
    to_config(composed(), [*fitting, "attention.name=multi_head", "attention.heads=8"])
    languages = ["data.target_language=zh-Hans", "data.source_language=pt_BR"]
    to_config(composed(), ["evaluate.examples=[]", *languages])


# YAML's traps -----------------------------------------------------------------------------------


def test_unquoted_norwegian_is_not_false():
    values = composed()
    values["data"] |= OmegaConf.to_container(OmegaConf.create("source_language: no"))
    assert values["data"]["source_language"] is False  # what YAML 1.1 makes of it
    assert refused(values) == "data.source_language='False' is not a language code. Quote it."
    values["data"] |= OmegaConf.to_container(OmegaConf.create("source_language: 'no'"))
    assert to_config(values).data.source_language == "no"
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


def test_hydra_hands_over_the_same_values_and_raw_ones_stay_as_they_were():
    overrides = ("data.train=a.tsv", "data.source_language=no", "optimizer.eps=1e-6", "threads=3")
    values = composed()
    assert to_config(composed(*overrides)) == to_config(values, overrides)
    assert values == composed()


# Transformers -----------------------------------------------------------------------------------

TRANSFORMER = ["decoder=transformer", "attention=layers", "model.embedding_size=1000"]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ["decoder=transformer"],
            "decoder=transformer attends in its layers, not by additive",
        ),
        (["attention=layers"], "attention=layers is a Transformer's, and the decoder is recur"),
        ([*TRANSFORMER[:2]], "model.embedding_size=620 is not model.hidden_size=1000. Layers of"),
        (
            [*TRANSFORMER, "attention.heads=3"],
            "attention.heads=3 does not divide model.hidden_size",
        ),
        ([*TRANSFORMER, "attention.layer=7"], "attention.layer=7 does not exist: there are 6. Cho"),
        (
            [*TRANSFORMER, "attention.head=9"],
            "attention.head=9 does not exist: there are 8. C",
        ),
        (
            ["decoder=stacked", "decoder.input_feeding=true"],
            "decoder.input_feeding needs decoder.attend=top, and it is between. Change one",
        ),
        (
            ["cell=min_gru"],
            "cell=min_gru takes no context, and decoder=recurrent gives it one. Set decoder=stacke",
        ),
        (
            ["model.tied=all"],
            "model.tied=all needs one vocabulary for both sides. Set tok",
        ),
    ],
)
def test_parts_of_a_model_have_to_fit(overrides, text):
    assert refused(composed(*overrides)).startswith(text)


def test_what_a_preset_says_of_another_option_is_left_out_and_what_is_typed_is_not():
    other = ["encoder=self_attention", "model.embedding_size=64", "model.hidden_size=64"]
    assert preset("multi30k_en_fr").encoder.annotation_dropout > 0
    assert preset("multi30k_en_fr", other).encoder.name == "self_attention"
    typed = [*other, "encoder.annotation_dropout=0.1"]
    with pytest.raises(ConfigError, match=r"unknown key 'encoder\.annotation_dropout'"):
        preset("multi30k_en_fr", typed)


def test_a_null_of_a_preset_is_dropped_where_the_option_takes_none():
    assert preset("own_corpus").tokenizer.vocab_size is None
    assert preset("own_corpus", ["tokenizer=words"]).tokenizer.vocab_size == 30_001
    assert preset("own_corpus", ["tokenizer=characters"]).tokenizer.vocab_size is None
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size"):
        preset("own_corpus", ["tokenizer=words", "tokenizer.vocab_size=null"])
