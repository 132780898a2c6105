"""From YAML and command line to the dataclasses of `settings/`.

`to_config()` is the one door, for composed values as for those that a run saved;
`load_run_config()` reads the latter. Behind this module nobody sees Hydra or OmegaConf.
"""

import difflib
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from seq2seq.config.schema import (
    AdadeltaConfig,
    AdamConfig,
    AttentionConfig,
    AttentionKind,
    Config,
    ConstantConfig,
    DecayConfig,
    DecodeConfig,
    Examples,
    HardConfig,
    LocalConfig,
    ModelConfig,
    MultiHeadConfig,
    PlateauConfig,
    SentencePieceConfig,
    WordsConfig,
)
from seq2seq.run.errors import ConfigError, RunDirError, UntrustedError
from seq2seq.run.plain_yaml import read_plain_yaml

MAX_NUMBER = 10**15
"""Of whole numbers; arithmetic with them stays within 64 bits."""

_NAME = re.compile(r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(\.|$))[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Of a run: a folder's name on every system."""

TAGGED: dict[str, dict[str, type]] = {
    "tokenizer": {"words": WordsConfig, "sentencepiece": SentencePieceConfig},
    "attention": {
        "additive": AttentionConfig,
        "dot": AttentionConfig,
        "scaled_dot": AttentionConfig,
        "general": AttentionConfig,
        "multi_head": MultiHeadConfig,
        "hard": HardConfig,
        "local": LocalConfig,
        "fixed": AttentionConfig,
    },
    "optimizer": {"adadelta": AdadeltaConfig, "adam": AdamConfig},
    "scheduler": {
        "constant": ConstantConfig,
        "plateau": PlateauConfig,
        "linear": DecayConfig,
        "inverse_sqrt": DecayConfig,
        "cosine": DecayConfig,
    },
}
"""Groups whose options have different fields; the class follows from the group's `name`."""

log = logging.getLogger(__name__)

LATER_KEYS = ("decode", "evaluate", "attention.inference", "device", "threads")
"""What decoding and evaluation may change; everything else is fixed by the checkpoint."""

RESUME_KEYS = (
    *LATER_KEYS,
    "stages",
    "logging",
    "trainer.max_updates",
    "trainer.max_epochs",
    "trainer.max_minutes",
    "trainer.patience",
    "trainer.keep_checkpoints",
    "trainer.on_out_of_memory",
)
"""What a resumed training may change. `max_updates` also moves the end of a falling schedule."""


def to_config(raw: Mapping[str, Any] | DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Check composed or saved values and return them as dataclasses.

    Args:
        raw: Values by group, as Hydra composes them or as `config.yaml` of a run holds them.
        overrides: Dotted `key=value` texts in Hydra's grammar, applied last.

    Raises:
        ConfigError: unknown key, wrong type, missing value or value out of range.
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


def preset(name: str, overrides: Sequence[str] = ()) -> Config:
    """Return the checked config of a preset under `configs/experiment`, without a run of it."""
    root = Path(__file__).resolve().parents[1]
    configs = next(p for p in (root.parent / "configs", root / "configs") if p.is_dir())
    with initialize_config_dir(str(configs), version_base="1.3"):
        raw = compose("config", [f"+experiment={name}", *overrides])
    return to_config(
        OmegaConf.masked_copy(raw, [str(k) for k in raw if k not in ("resume", "run_dir")])
    )


def _typed(raw: Mapping[str, Any] | DictConfig, overrides: Sequence[str]) -> Config:
    """Merge values into the schema, whose tagged groups get the class of their `name`."""
    merged = OmegaConf.merge(raw, parse_overrides(overrides))
    assert isinstance(merged, DictConfig)
    _lists_from_text(merged)
    schema = OmegaConf.structured(Config)
    for group, options in TAGGED.items():
        schema[group] = OmegaConf.structured(_option(merged, group, options))
    config = OmegaConf.to_object(OmegaConf.merge(schema, merged))
    assert isinstance(config, Config)
    return config


def parse_overrides(texts: Sequence[str]) -> DictConfig:
    """Read `key=value` texts with Hydra's grammar, so that `no` stays text and null is null."""
    tree = OmegaConf.create()
    for text in texts:
        try:
            [item] = OverridesParser.create().parse_overrides([text])
            plain = not (item.is_sweep_override() or item.is_add() or item.is_delete())
        except (HydraException, OmegaConfBaseException):
            plain = False
        if not plain:
            raise ConfigError("config", f"cannot read override {text!r}", "Write key=value.")
        OmegaConf.update(tree, item.key_or_group, item.value())
    return tree


def load_run_config(
    path: Path, overrides: Sequence[str] = (), may_change: Sequence[str] = LATER_KEYS
) -> Config:
    """Read the config that a run saved; only values under `may_change` may become others.

    Raises:
        RunDirError: the file is missing, too large or no longer fits the schema, or an override
            changes what the run fixes.
        UntrustedError: it holds an alias, a tag or an interpolation, or a name that is none.
        ConfigError: an override is wrong.
    """
    saved = read_plain_yaml(path)
    if not _NAME.fullmatch(str(saved.get("name"))):
        raise UntrustedError(
            path, "name is not that of a run", "It is not allowed in a run directory."
        )
    try:
        config = to_config(saved)
    except ConfigError as error:
        raise RunDirError(path, error.what, "Use the version that wrote this run.") from None
    if config.evaluate.heatmap_font is not None:  # a file outside the run, for a parser in C
        log.info("evaluate.heatmap_font of the run is not used: give it again if you want it")
        config.evaluate.heatmap_font = saved["evaluate"]["heatmap_font"] = None
    if not overrides:
        return config
    changed = to_config(saved, overrides)
    before, now = flatten(config), flatten(changed)
    for key in sorted(before.keys() | now.keys()):
        free = any(key == name or key.startswith(f"{name}.") for name in may_change)
        if before.get(key) != now.get(key) and not free:
            what = f"{key} is {before.get(key)!r} in this run, not {now.get(key)!r}"
            raise RunDirError(path, what, f"Only {', '.join(may_change)} may change.")
    return changed


def to_yaml(config: Config) -> str:
    """Return the resolved values as plain YAML, readable by `load_run_config`."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=100)


def plain(value: Any) -> Any:
    """Turn config dataclasses into dicts, enums into their names."""
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def flatten(config: Config) -> dict[str, Any]:
    """Return `{dotted key: plain value}` for every leaf."""
    return {key: plain(value) for key, _, value in _leaves(config)}


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", f, value


def _lists_from_text(merged: DictConfig) -> None:
    """`data.train=a.tsv` means the list of one."""
    for split in ("train", "validation", "test"):
        value = OmegaConf.select(merged, f"data.{split}")
        if isinstance(value, str):
            OmegaConf.update(merged, f"data.{split}", [value])


def _option(merged: DictConfig, group: str, options: Mapping[str, type]) -> type:
    name = OmegaConf.select(merged, f"{group}.name", throw_on_missing=False)
    if name not in options:
        known = ", ".join(options)
        raise ConfigError("config", f"{group}.name is {name!r}", f"Choose one of: {known}.")
    return options[name]


def _unknown_key(error: ConfigKeyError | ConfigAttributeError, known: Sequence[str]) -> ConfigError:
    full_key = str(error.full_key)
    parent, _, wrong = full_key.rpartition(".")
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    prefix = f"{parent}." if parent else ""
    fix = f"Known here: {', '.join(known)}."
    if near:
        fix = f"Did you mean '{prefix}{near[0]}'?"
    elif not known:
        fix = f"'{parent}' is a value, not a group."
    return ConfigError("config", f"unknown key '{full_key}'", fix)


def _check_ranges(config: Config) -> None:
    for key, f, value in _leaves(config):
        if "low" not in f.metadata or value is None:
            continue
        low, high, open_ends = (f.metadata[k] for k in ("low", "high", "open"))
        if isinstance(value, int) and value > MAX_NUMBER:
            raise ConfigError("config", f"{key}={value} is too large", f"Use {MAX_NUMBER} or less.")
        above = value > low if open_ends in ("low", "both") else value >= low
        below = value < high if open_ends in ("high", "both") or high == math.inf else value <= high
        if not (above and below):  # written so that NaN fails
            left = "(" if open_ends in ("low", "both") or low == -math.inf else "["
            right = ")" if open_ends in ("high", "both") or high == math.inf else "]"
            raise ConfigError(
                "config", f"{key}={value} is out of range", f"Use {left}{low:g}, {high:g}{right}."
            )


def _check_together(config: Config) -> None:
    """Rules that join two settings."""
    data, trainer = config.data, config.trainer
    if not _NAME.fullmatch(config.name):
        raise ConfigError(
            "config", f"name={config.name!r} is no name", "Use up to 100 of A-Z a-z 0-9 . _ -"
        )
    for key in ("source_language", "target_language"):
        code = getattr(data, key)
        # YAML reads an unquoted `no` as False, and the schema makes that the text "False".
        letters = code.replace("-", "").replace("_", "")
        if not (code.isascii() and letters.isalnum()) or code in ("True", "False"):
            raise ConfigError("config", f"data.{key}={code!r} is no language code", "Quote it.")
    if data.grammar.min_words > data.grammar.max_words:
        raise ConfigError("config", "data.grammar.min_words is above max_words", "Swap them.")
    if (trainer.batch_sentences is None) == (trainer.batch_tokens is None):
        raise ConfigError(
            "config",
            "exactly one of trainer.batch_sentences and trainer.batch_tokens must be given",
            "Set the other to null.",
        )
    if isinstance(config.attention, MultiHeadConfig):
        _check_heads(config.attention.heads, config.model)
    _check_decode(config.decode, config.attention.name)
    if any(number < 1 for number in config.evaluate.heatmaps):
        raise ConfigError(
            "config",
            f"evaluate.heatmaps={config.evaluate.heatmaps} names no sentence",
            "1 is first.",
        )
    languages = (data.source_language, data.target_language)
    if Examples.figure3 in config.evaluate.examples and languages != ("en", "fr"):
        raise ConfigError(
            "config",
            f"evaluate.examples=[figure3] is English-French, data is {'-'.join(languages)}",
            "Use evaluate.examples=[].",
        )
    if not config.stages:
        raise ConfigError("config", "stages is empty", "Name at least one.")


def _check_decode(decode: DecodeConfig, attention: AttentionKind) -> None:
    if decode.n_best > decode.beam_size:
        raise ConfigError(
            "config",
            f"decode.n_best={decode.n_best} is above decode.beam_size={decode.beam_size}",
            "Widen the beam.",
        )
    if decode.replace_unknown and decode.forbid_unknown:
        raise ConfigError(
            "config",
            "decode.replace_unknown has nothing to replace with decode.forbid_unknown=true",
            "Set one of them to false.",
        )
    if decode.replace_unknown and attention is AttentionKind.fixed:
        raise ConfigError(
            "config",
            "decode.replace_unknown follows the attention, and attention=fixed has none",
            "Set it to false.",
        )


def _check_heads(heads: int, model: ModelConfig) -> None:
    sizes = {"model.align_size": model.align_size, "2 * model.hidden_size": 2 * model.hidden_size}
    for name, size in sizes.items():
        if size % heads:
            raise ConfigError(
                "config",
                f"attention.heads={heads} does not divide {name}={size}",
                "Choose a divisor of both.",
            )


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
        return ConfigError(
            "config",
            f"cannot read override {error.override!r}",
            "Write key=value; quote a value with commas, brackets or letters beyond ASCII.",
        )
    if is_about_a_group(error):
        what, fix = "a group was given something else than a name", "Write it as in model=small."
        return ConfigError("config", what, fix)
    what, fix = str(error).splitlines()[0], "See python train.py --help."
    if isinstance(error, MissingConfigException) and error.options:
        fix = f"Available: {', '.join(error.options)}."
    elif "'experiment'" in what and "No match in the defaults list" in what:
        fix = "Write +experiment=NAME, with the plus."
    return ConfigError("config", what, fix)
