"""Converts YAML files and the command line to the dataclasses of `schema/`.

Everything passes through `to_config()`: values composed by Hydra and values saved by a run, which
`load_run_config()` reads. No other part of the package sees Hydra or OmegaConf. Hydra is imported
where it is needed: decoding, which only reads saved values, starts sooner without it.
"""

import difflib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from seq2seq.config import upgrade
from seq2seq.config.extensions import load_extensions
from seq2seq.config.registry import groups
from seq2seq.config.schema import Config
from seq2seq.config.schema.ranges import interval
from seq2seq.run.errors import ConfigError, RunDirError, UntrustedError
from seq2seq.run.jsonable import to_json
from seq2seq.run.naming import command
from seq2seq.run.plain_yaml import read_plain_yaml

_ROOT = Path(__file__).resolve().parents[1]
CONFIGS = next(path for path in (_ROOT.parent / "configs", _ROOT / "configs") if path.is_dir())
"""The YAML files, in a checkout and in an installed package."""

MAX_NUMBER = 10**15
"""The largest integer accepted, so that arithmetic stays within 64 bits."""

_NAME = re.compile(r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(\.|$))[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""The name of a run: a valid directory name on every system."""

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_HOME = re.compile(r"^([^=~]+=)~(?=/|$)")

log = logging.getLogger(__name__)

_SHOWN = ("attention.inference", "attention.layer", "attention.head")
LATER_KEYS = ("decode", "evaluate", *_SHOWN, "device", "threads")
"""Settings that decoding and evaluation may change; the checkpoint fixes all others."""

_LIMITS = "max_updates max_epochs max_minutes patience keep_checkpoints on_out_of_memory"
_OTHERS = ("stages", "logging", "data.workers", "data.prepared")
RESUME_KEYS = (*LATER_KEYS, *_OTHERS, *(f"trainer.{x}" for x in _LIMITS.split()))
"""Settings that a resumed run may change; the first two limits also move the end of a schedule."""

COMMAND_ONLY = ("run_dir", "resume", "on_existing")
"""Keys of `configs/config.yaml` that locate a run and do not configure it."""

DEFAULTS = {
    "data": "wmt14_en_fr",
    "trainer": "paper",
    "decode": "paper",
    "evaluate": "default",
    "logging": "default",
}
"""The option name of the defaults, for each group with a single class."""


# Values from Hydra ------------------------------------------------------------------------------


def command_line(arguments: Sequence[str]) -> list[str]:
    """Load extensions, register every option with Hydra, and return arguments in its grammar.

    Raises:
        ConfigError: a preset is named without its plus.
        UsageError: an extension cannot be imported.
    """
    others = load_extensions(arguments)
    offer_options()
    for argument in others:
        if argument.startswith("experiment="):
            raise ConfigError("config", "a preset is added with a plus", f"Type +{argument}.")
    others.sort(key=lambda text: text not in ("-m", "--multirun"))  # Hydra: not between overrides
    # Most shells expand `~` in front of a word only.
    return [_HOME.sub(rf"\1{Path.home()}", upgrade.current_spelling(text)) for text in others]


def offer_options() -> None:
    """Store the defaults of every option in Hydra's config store, which backs the YAML files."""
    from hydra.core.config_store import ConfigStore

    store, base = ConfigStore.instance(), Config()
    settings = to_json(base)
    for group, options in groups().items():
        for name, config in options.items():
            store.store(group=group, name=name, node=to_json(config()))
        del settings[group]
    for group, name in DEFAULTS.items():
        store.store(group=group, name=name, node=settings.pop(group))
    store.store(name="run", node=settings)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the unchecked values that Hydra composes from `CONFIGS` and overrides."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        arguments = command_line(overrides)
        return settings_of(compose("config", arguments), arguments)


def settings_of(raw: DictConfig, typed: Sequence[str]) -> dict[str, Any]:
    """Return composed values without `COMMAND_ONLY` keys and without settings of unused options.

    With `+experiment=quickstart encoder=self_attention`, the preset's `encoder.annotation_dropout`
    is dropped, since a self-attention encoder does not have it. So is a null that is a value of
    another option only. Keys typed on the command line are kept, and checked.
    """
    whole: Any = OmegaConf.to_container(raw, resolve=True)
    values = {str(key): value for key, value in whole.items() if key not in COMMAND_ONLY}
    asked = {text.lstrip("+").partition("=")[0] for text in typed}
    # Of each group, drop what only options other than the chosen one have.
    for group, options in groups().items():
        given = values.get(group)
        if not isinstance(given, dict) or str(given.get("name")) not in options:
            continue  # `to_config` reports it
        nullable = {
            name: {f.name: NoneType in get_args(f.type) for f in fields(config)}
            for name, config in options.items()
        }
        for key, value in [*given.items()]:
            others = [
                name
                for name, keys in nullable.items()
                if key in keys and (value is not None or keys[key])
            ]
            if others and given["name"] not in others and f"{group}.{key}" not in asked:
                log.info("%s.%s of the preset is for %s: left out", group, key, ", ".join(others))
                del given[key]
    return values


def preset(name: str, overrides: Sequence[str] = ()) -> Config:
    """Return the checked config of a preset under `configs/experiment`, without making a run."""
    return to_config(composed([f"+experiment={name}", *overrides]))


# Checking ---------------------------------------------------------------------------------------


def to_config(raw: Mapping[str, Any] | DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Check composed or saved values and return them as dataclasses; missing ones are defaults.

    Args:
        raw: Values by group, as composed by Hydra or saved in `config.yaml` of a run.
        overrides: Dotted `key=value` texts in Hydra's grammar, applied last.

    Raises:
        ConfigError: unknown key, wrong type, value out of range, or incompatible values.
    """
    try:
        config = _typed(raw, overrides)
    except MissingMandatoryValue as error:
        raise ConfigError("config", f"missing value {error.full_key!r}", "Set it.") from None
    except ConfigKeyError as error:
        known = [f.name for f in fields(error.object_type)] if error.object_type else []
        raise _unknown_key(error, known) from None
    except OmegaConfBaseException as error:
        what = str(error.msg or error).splitlines()[0]
        key = error.full_key or " ".join(overrides) or "values"
        raise ConfigError("config", f"{key}: {what}", "Give a fitting value.") from None
    _check_ranges(config)
    _check_together(config)
    return config


def _typed(raw: Mapping[str, Any] | DictConfig, overrides: Sequence[str]) -> Config:
    """Merge values into the schema; `name` selects the class of a group with options."""
    merged = OmegaConf.merge(raw, _parsed(overrides))
    values: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    upgrade.move(values)
    # Short forms of the data, also in each of several corpora.
    if isinstance(data := values.get("data"), dict):
        splits, corpora = ("train", "validation", "test"), data.get("corpora")
        corpora = corpora if isinstance(corpora, list) else []
        if corpora:  # they replace the single corpus, which a preset may have named
            data |= {split: [] for split in splits}
        for each in (x for x in (data, *corpora) if isinstance(x, dict)):
            for split in splits:
                if isinstance(each.get(split), str):
                    each[split] = [each[split]]  # `data.train=a.tsv` means the list of one
    # The class of each group of options; then OmegaConf checks names and types.
    for group in (*groups(), *DEFAULTS, "init"):
        if not isinstance(given := values.setdefault(group, {}), dict):
            what, fix = f"{group} is {given!r}, not a group", f"Write {group}.KEY=VALUE."
            raise ConfigError("config", what, fix)
    chosen, default = {}, Config()
    for group, options in groups().items():
        name = values[group].get("name", getattr(default, group).name)
        if not isinstance(name, str) or name not in options:
            fix = f"Choose one of: {', '.join(options)}; others need --extension MODULE."
            raise ConfigError("config", f"{group}.name is {name!r}", fix)
        chosen[group] = options[name]
    config = OmegaConf.to_object(OmegaConf.merge(_schema(*chosen.items()), values))
    assert isinstance(config, Config)
    return config


@cache
def _schema(*chosen: tuple[str, type]) -> DictConfig:
    """The schema with a class for each group of options; OmegaConf is slow to make one."""
    schema: DictConfig = OmegaConf.structured(Config)
    for group, option in chosen:
        schema[group] = OmegaConf.structured(option)
    return schema


def _parsed(overrides: Sequence[str]) -> DictConfig:
    """Parse `key=value` texts with Hydra's grammar, so that `no` stays text and null is null."""
    tree = OmegaConf.create()
    if not overrides:
        return tree
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for text in overrides:
        try:
            [item] = OverridesParser.create().parse_overrides([text])
            is_plain = not (item.is_sweep_override() or item.is_add() or item.is_delete())
        except (HydraException, OmegaConfBaseException):
            is_plain = False
        if not is_plain:
            raise ConfigError("config", f"cannot read override {text!r}", "Write key=value.")
        OmegaConf.update(tree, item.key_or_group, item.value())
    return tree


def _check_ranges(config: Config) -> None:
    for key, f, value in _leaves(config):
        if "low" not in f.metadata or value is None:
            continue
        low, high, allowed = f.metadata["low"], f.metadata["high"], interval(f.metadata)
        if isinstance(value, int) and value > MAX_NUMBER:
            raise ConfigError("config", f"{key}={value} is too large", f"Use {MAX_NUMBER} or less.")
        ends = (low if allowed[0] == "[" else None, high if allowed[-1] == "]" else None)
        if not (low < value < high or value in ends):  # in this form, NaN fails
            raise ConfigError("config", f"{key}={value} is out of range", f"Use {allowed}.")


def _check_together(config: Config) -> None:
    """Check the rules that span settings; each group's own are in `check` of its class."""
    if not _NAME.fullmatch(config.name):
        what = f"name={config.name!r} is not a valid name"
        raise ConfigError("config", what, "Use up to 100 of A-Z a-z 0-9 . _ -")
    if not _DEVICE.fullmatch(config.device):
        fix = "Use auto, cpu, cuda, cuda:1 or mps."
        raise ConfigError("config", f"device={config.device!r} is not a device", fix)
    if not config.stages:
        raise ConfigError("config", "stages is empty", "Name at least one.")
    for f in fields(config):
        if (check := getattr(getattr(config, f.name), "check", None)) is not None:
            check(config)


# What a run saved -------------------------------------------------------------------------------


def load_run_config(
    path: Path, overrides: Sequence[str] = (), may_change: Sequence[str] | None = LATER_KEYS
) -> Config:
    """Read the saved config of a run; overrides may only change values under `may_change`.

    None allows all changes. Overriding `decode.beam_size` also caps the saved `decode.n_best`.

    Raises:
        RunDirError: the file is missing, damaged, too large, of a later format or does not fit the
            schema, or an override changes a setting that the run fixes.
        UntrustedError: it holds an alias, a tag, an interpolation, or an invalid run name.
        ConfigError: an override is wrong.
    """
    # Read what is there, strictly: it may be a stranger's.
    saved = read_plain_yaml(path)
    if not _NAME.fullmatch(str(saved.get("name"))):
        what, restore = "holds a name that no run may have", "Restore the file from a copy."
        raise UntrustedError(path, what, restore)
    saved = upgrade.upgrade(path, saved, {f.name for f in fields(Config)})
    try:
        config = to_config(saved)
    except ConfigError as error:
        fix = "Use the version that wrote this run, with its extensions."
        raise RunDirError(path, error.what, fix) from None
    if config.evaluate.heatmap_font is not None:  # a file outside the run, read by a C parser
        log.info("evaluate.heatmap_font of the run is not used: give it again if you want it")
        config.evaluate.heatmap_font = saved["evaluate"]["heatmap_font"] = None
    # Apply what is asked for, if it may change.
    if not overrides:
        return config
    if isinstance(beam := OmegaConf.select(_parsed(overrides), "decode.beam_size"), int):
        saved.setdefault("decode", {})["n_best"] = min(config.decode.n_best, max(beam, 1))
    changed = to_config(saved, overrides)
    if may_change is not None:
        check_unchanged(path, config, changed, may_change)
    return changed


def check_unchanged(
    path: Path, saved: Config, wanted: Config, may_change: Sequence[str]
) -> list[str]:
    """Return the keys in which a config differs from the saved one.

    Raises:
        RunDirError: one of them is not within `may_change`.
    """
    before, now = flatten(saved), flatten(wanted)
    differing = [k for k in sorted(before.keys() | now.keys()) if before.get(k) != now.get(k)]
    for key in differing:
        if not is_within(key, may_change):
            what = f"{key} is {before.get(key)!r} in this run, not {now.get(key)!r}"
            raise RunDirError(path, what, f"Only {', '.join(may_change)} may change.")
    return differing


def is_within(key: str, names: Sequence[str]) -> bool:
    """Return whether a dotted key is, or is below, one of the names."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def to_yaml(config: Config) -> str:
    """Return the resolved values as plain YAML, readable by `load_run_config`."""
    values = {"format": upgrade.FORMAT, **to_json(config)}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def flatten(config: Config) -> dict[str, Any]:
    """Return `{dotted key: plain value}` for every leaf."""
    return {key: to_json(value) for key, _, value in _leaves(config)}


def changed(config: Config) -> dict[str, Any]:
    """Return what differs from the defaults of the chosen options: `{dotted key: plain value}`."""
    found: dict[str, Any] = {}
    defaults = Config()
    for f in fields(config):
        own: Any = getattr(config, f.name)
        default: Any = getattr(defaults, f.name)
        if not is_dataclass(own):
            found |= {f.name: to_json(own)} if own != default else {}
            continue
        kind: Any = type(own)
        if kind is not type(default):
            found[f.name] = vars(own)["name"]  # as in `cell=lstm`
            default = kind()
        before = {key: value for key, _, value in _leaves(default)}
        found |= {f"{f.name}.{k}": to_json(x) for k, _, x in _leaves(own) if x != before[k]}
    return found


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", f, value


# Errors of Hydra --------------------------------------------------------------------------------


def is_about_a_group(error: Exception) -> bool:
    """Whether this is Hydra's error for `model=3`, which has no class of its own."""
    return type(error) is ValueError and str(error).startswith("Config group override")


def composing_error(error: Exception) -> ConfigError:
    """Explain in one line why Hydra could not compose a config.

    The first line of Hydra's message states the problem; for a misspelt key, the underlying
    exception has the full key and its siblings.
    """
    from hydra.errors import MissingConfigException, OverrideParseException

    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        node = cause.parent_node
        known = [str(key) for key in node] if isinstance(node, DictConfig) else []
        return _unknown_key(cause, known)
    if isinstance(error, OverrideParseException):
        fix = "Write key=value; quote a value with commas, brackets or letters beyond ASCII."
        value = error.override.partition("=")[2]
        if odd := re.search(r"[^ -~]|[~&;#<>^`!]", value):
            fix = f"Quote the value, as it has {odd[0]!r}: 'KEY=\"VALUE\"'."
            if value.startswith(("[", "{")):  # in quotation marks, a list would be a text
                fix = f'Quote each text, as the value has {odd[0]!r}: \'KEY=["A","B"]\'.'
        return ConfigError("config", f"cannot read override {error.override!r}", fix)
    if is_about_a_group(error):
        what, fix = "a group needs a name", "Write, for example, model=small."
        return ConfigError("config", what, fix)
    what, fix = str(error).splitlines()[0], f"See {command('train', '--help')}."
    if isinstance(error, MissingConfigException) and error.options:
        fix = f"Available: {', '.join(error.options)}."
    return ConfigError("config", what, fix)


def _unknown_key(error: ConfigKeyError | ConfigAttributeError, known: Sequence[str]) -> ConfigError:
    full_key = str(error.full_key)
    parent, dot, wrong = full_key.rpartition(".")
    fix = f"Known here: {', '.join(known)}." if known else f"'{parent}' is a value, not a group."
    if near := difflib.get_close_matches(wrong, known, n=1, cutoff=0.5):
        fix = f"Did you mean '{parent}{dot}{near[0]}'?"
    return ConfigError("config", f"unknown key '{full_key}'", fix)
