"""The registry: the config classes (options) of each group, and the builders of their parts.

A part of a model or of training is one class with one config class. The same two decorators
register them, inside or outside this package:

    @option("cell")                      # `cell.name: lstm` in YAML, `cell=lstm` to choose it
    @dataclass(kw_only=True)
    class LSTMConfig:
        name: str = "lstm"
        forget_bias: float = number(default=1.0)

    @builds(LSTMConfig)
    def lstm(cfg: LSTMConfig, ...) -> LSTMCell: ...

Config classes do not need torch, so a config is checked before torch is imported. A config class
may have a method `check(config)`, which gets the whole config and may raise a ConfigError, and
`claims`, the parts of the paper it implements (`seq2seq/fidelity/reference/paper.yaml`).
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from seq2seq.run.errors import ConfigError

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])

_options: dict[str, dict[str, type]] = {}
_builders: dict[type, Callable[..., Any]] = {}


def option(group: str) -> Callable[[C], C]:
    """Register a config class as an option of a group, under the default of its field `name`."""

    def register(config: C) -> C:
        defaults = {field.name: (field.default, field.default_factory) for field in fields(config)}
        empty = [name for name, both in defaults.items() if both == (MISSING, MISSING)]
        assert not empty, f"{config.__name__}.{empty[0]} needs a default"
        name, _ = defaults["name"]
        known = _options.setdefault(group, {})
        assert isinstance(name, str), f"{config.__name__}.name is to be a text"
        assert known.get(name, config).__qualname__ == config.__qualname__, f"{group}={name} twice"
        known[name] = config
        return config

    return register


def builds(config: type) -> Callable[[F], F]:
    """Register the function or class that builds the part of a config class."""

    def register(builder: F) -> F:
        _builders[config] = builder
        return builder

    return register


def groups() -> Mapping[str, Mapping[str, type]]:
    """Return the config classes of all groups, by group and name."""
    return _options


def build(config: Any, *args: Any, **kwargs: Any) -> Any:
    """Build the part that a config describes.

    Raises:
        ConfigError: no builder is registered for its class.
    """
    builder = _builders.get(type(config))
    if builder is None:
        what = f"nothing builds {type(config).__name__} (name: {config.name})"
        raise ConfigError("config", what, "Load the module that does with --extension MODULE.")
    return builder(config, *args, **kwargs)
