"""From YAML and command line to the dataclasses of `schema/`.

`to_config()` is the one door, for composed values as for those that a run saved;
`load_run_config()` reads the latter. Behind this module nobody sees Hydra or OmegaConf.
"""

import difflib
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
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
from seq2seq.run.errors import ConfigError, RunDirError, UntrustedError
from seq2seq.run.jsonable import to_json
from seq2seq.run.plain_yaml import read_plain_yaml

MAX_NUMBER = 10**15
"""Of whole numbers; arithmetic with them stays within 64 bits."""

_NAME = re.compile(r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(\.|$))[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Of a run: a directory's name on every system."""

log = logging.getLogger(__name__)

_SHOWN = ("attention.inference", "attention.layer", "attention.head")
LATER_KEYS = ("decode", "evaluate", *_SHOWN, "device", "threads")
"""What decoding and evaluation may change; everything else is fixed by the checkpoint."""

_LIMITS = "max_updates max_epochs max_minutes patience keep_checkpoints on_out_of_memory"
RESUME_KEYS = (*LATER_KEYS, "stages", "logging", *(f"trainer.{x}" for x in _LIMITS.split()))
"""What a resumed training may change. The first two also move the end of a falling schedule."""

COMMAND_ONLY = ("run_dir", "resume")
"""Keys of `configs/config.yaml` that say where a run is, not what it does."""

DEFAULTS = {
    "data": "wmt14_en_fr",
    "trainer": "paper",
    "decode": "paper",
    "evaluate": "default",
    "logging": "default",
}
"""Names under which the defaults of groups with one class are chosen."""


# Values from Hydra ------------------------------------------------------------------------------


def command_line(arguments: Sequence[str]) -> list[str]:
    """Load extensions, offer every option to Hydra, and return arguments that it understands."""
    others = load_extensions(arguments)
    offer_options()
    return [upgrade.current_spelling(argument) for argument in others]


def offer_options() -> None:
    """Put the defaults of every option where Hydra looks for what no YAML file holds."""
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
    """Return the values that Hydra composes from `configs/` and overrides, unchecked."""
    root = Path(__file__).resolve().parents[1]
    configs = next(path for path in (root.parent / "configs", root / "configs") if path.is_dir())
    with initialize_config_dir(str(configs), version_base="1.3"):
        arguments = command_line(overrides)
        return settings_of(compose("config", arguments), arguments)


def settings_of(raw: DictConfig, typed: Sequence[str]) -> dict[str, Any]:
    """Return composed values without the keys that only a command line has.

    Nor with what a preset says of another option than the one chosen: with
    `+experiment=quickstart encoder=self_attention`, the preset's `encoder.annotation_dropout`,
    which a self-attention encoder has not, is left out. What was typed stays, and is checked.
    """
    whole: Any = OmegaConf.to_container(raw, resolve=True)
    values = {str(key): value for key, value in whole.items() if key not in COMMAND_ONLY}
    asked = {text.lstrip("+").partition("=")[0] for text in typed}
    for group, options in groups().items():
        given = values.get(group)
        if not isinstance(given, dict) or str(given.get("name")) not in options:
            continue  # `to_config` says what is wrong with it
        known = {name: {f.name for f in fields(config)} for name, config in options.items()}
        for key in [*given]:
            others = [name for name, keys in known.items() if key in keys]
            if others and given["name"] not in others and f"{group}.{key}" not in asked:
                log.info("%s.%s of the preset is for %s: left out", group, key, ", ".join(others))
                del given[key]
    return values


def preset(name: str, overrides: Sequence[str] = ()) -> Config:
    """Return the checked config of a preset under `configs/experiment`, without a run of it."""
    return to_config(composed([f"+experiment={name}", *overrides]))


# The one door -----------------------------------------------------------------------------------


def to_config(raw: Mapping[str, Any] | DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Check composed or saved values and return them as dataclasses; what is not given is default.

    Args:
        raw: Values by group, as Hydra composes them or as `config.yaml` of a run holds them.
        overrides: Dotted `key=value` texts in Hydra's grammar, applied last.

    Raises:
        ConfigError: unknown key, wrong type, value out of range, or values that do not fit.
    """
    try:
        config = _typed(raw, overrides)
    except MissingMandatoryValue as error:
        raise ConfigError("config", f"missing value {error.full_key!r}", "Give it.") from None
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
    """Merge values into the schema, whose groups with options get the class of their `name`."""
    merged = OmegaConf.merge(raw, _parsed(overrides))
    values: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    upgrade.move(values)
    if isinstance(data := values.get("data"), dict):
        splits, corpora = ("train", "validation", "test"), data.get("corpora")
        corpora = corpora if isinstance(corpora, list) else []
        if corpora:  # they stand in place of the one corpus, which a preset may have named
            data |= {split: [] for split in splits}
        for each in (x for x in (data, *corpora) if isinstance(x, dict)):
            for split in splits:
                if isinstance(each.get(split), str):
                    each[split] = [each[split]]  # `data.train=a.tsv` means the list of one
    schema = OmegaConf.structured(Config)
    for group in (*groups(), *DEFAULTS, "init"):
        if not isinstance(given := values.setdefault(group, {}), dict):
            what, fix = f"{group} is {given!r}, not a group", f"Write {group}.KEY=VALUE."
            raise ConfigError("config", what, fix)
    for group, options in groups().items():
        name = values[group].get("name", schema[group].name)
        if not isinstance(name, str) or name not in options:
            fix = f"Choose one of: {', '.join(options)}; others need --extension MODULE."
            raise ConfigError("config", f"{group}.name is {name!r}", fix)
        schema[group] = OmegaConf.structured(options[name])
    config = OmegaConf.to_object(OmegaConf.merge(schema, values))
    assert isinstance(config, Config)
    return config


def _parsed(overrides: Sequence[str]) -> DictConfig:
    """Read `key=value` texts with Hydra's grammar, so that `no` stays text and null is null."""
    tree = OmegaConf.create()
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
        low, high, open_ends = (f.metadata[k] for k in ("low", "high", "open"))
        if isinstance(value, int) and value > MAX_NUMBER:
            raise ConfigError("config", f"{key}={value} is too large", f"Use {MAX_NUMBER} or less.")
        left = "(" if open_ends in ("low", "both") or low == -math.inf else "["
        right = ")" if open_ends in ("high", "both") or high == math.inf else "]"
        ends = (low if left == "[" else None, high if right == "]" else None)
        if not (low < value < high or value in ends):  # written so that NaN fails
            fix = f"Use {left}{low:g}, {high:g}{right}."
            raise ConfigError("config", f"{key}={value} is out of range", fix)


def _check_together(config: Config) -> None:
    """Apply the rules that join settings; those of a group stand in its class."""
    if not _NAME.fullmatch(config.name):
        what = f"name={config.name!r} is not a valid name"
        raise ConfigError("config", what, "Use up to 100 of A-Z a-z 0-9 . _ -")
    if not config.stages:
        raise ConfigError("config", "stages is empty", "Name at least one.")
    for f in fields(config):
        if (check := getattr(getattr(config, f.name), "check", None)) is not None:
            check(config)


# What a run saved -------------------------------------------------------------------------------


def load_run_config(
    path: Path, overrides: Sequence[str] = (), may_change: Sequence[str] | None = LATER_KEYS
) -> Config:
    """Read the config that a run saved; only values under `may_change` may become others.

    None lets all change. A narrower beam alone also holds fewer hypotheses.

    Raises:
        RunDirError: the file is missing, damaged, too large, of a later format or does not fit the
            schema, or an override changes what the run fixes.
        UntrustedError: it holds an alias, a tag or an interpolation, or a name that is not one.
        ConfigError: an override is wrong.
    """
    saved = read_plain_yaml(path)
    if not _NAME.fullmatch(str(saved.get("name"))):
        what, fix = "holds a name that no run can have", "Restore the file from a copy."
        raise UntrustedError(path, what, fix)
    saved = upgrade.upgrade(path, saved, {f.name for f in fields(Config)})
    try:
        config = to_config(saved)
    except ConfigError as error:
        fix = "Use the version that wrote this run, with its extensions."
        raise RunDirError(path, error.what, fix) from None
    if config.evaluate.heatmap_font is not None:  # a file outside the run, for a parser in C
        log.info("evaluate.heatmap_font of the run is not used: give it again if you want it")
        config.evaluate.heatmap_font = saved["evaluate"]["heatmap_font"] = None
    if not overrides:
        return config
    if isinstance(beam := OmegaConf.select(_parsed(overrides), "decode.beam_size"), int):
        saved.setdefault("decode", {})["n_best"] = min(config.decode.n_best, max(beam, 1))
    changed = to_config(saved, overrides)
    if may_change is None:
        return changed
    before, now = flatten(config), flatten(changed)
    for key in sorted(before.keys() | now.keys()):
        free = is_within(key, may_change)
        if before.get(key) != now.get(key) and not free:
            what = f"{key} is {before.get(key)!r} in this run, not {now.get(key)!r}"
            raise RunDirError(path, what, f"Only {', '.join(may_change)} may change.")
    return changed


def is_within(key: str, names: Sequence[str]) -> bool:
    """Return whether a dotted key is one of the names or below one of them."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def to_yaml(config: Config) -> str:
    """Return the resolved values as plain YAML, readable by `load_run_config`."""
    values = {"format": upgrade.FORMAT, **to_json(config)}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def flatten(config: Config) -> dict[str, Any]:
    """Return `{dotted key: plain value}` for every leaf."""
    return {key: to_json(value) for key, _, value in _leaves(config)}


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", f, value


# What Hydra refuses -----------------------------------------------------------------------------


def is_about_a_group(error: Exception) -> bool:
    """Whether this is what Hydra raises for `model=3`: no error class of its own."""
    return type(error) is ValueError and str(error).startswith("Config group override")


def composing_error(error: Exception) -> ConfigError:
    """Say in one line why Hydra could not compose a config.

    Hydra's own message has several lines; the first says what is wrong, and for a misspelt key
    the exception behind it knows the full key and its neighbours.
    """
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        node = cause.parent_node
        known = [str(key) for key in node] if isinstance(node, DictConfig) else []
        return _unknown_key(cause, known)
    if isinstance(error, OverrideParseException):
        fix = "Write key=value; quote a value with commas, brackets or letters beyond ASCII."
        return ConfigError("config", f"cannot read override {error.override!r}", fix)
    if is_about_a_group(error):
        what, fix = "a group was given something else than a name", "Write it as in model=small."
        return ConfigError("config", what, fix)
    what, fix = str(error).splitlines()[0], "See python train.py --help."
    if isinstance(error, MissingConfigException) and error.options:
        fix = f"Available: {', '.join(error.options)}."
    elif "'experiment'" in what and "No match in the defaults list" in what:
        fix = "Write +experiment=NAME, with the plus."
    return ConfigError("config", what, fix)


def _unknown_key(error: ConfigKeyError | ConfigAttributeError, known: Sequence[str]) -> ConfigError:
    full_key = str(error.full_key)
    parent, dot, wrong = full_key.rpartition(".")
    fix = f"Known here: {', '.join(known)}." if known else f"'{parent}' is a value, not a group."
    if near := difflib.get_close_matches(wrong, known, n=1, cutoff=0.5):
        fix = f"Did you mean '{parent}{dot}{near[0]}'?"
    return ConfigError("config", f"unknown key '{full_key}'", fix)
