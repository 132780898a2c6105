"""The help of `seq2seq train`: every setting, group and preset, read from the schema and the YAML.

The meaning of a setting is the comment at its field in the source of its class, on the same line or
on the lines above; so it is written once, and extensions describe theirs in the same way.
"""

import difflib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum, EnumType
from functools import cache
from itertools import zip_longest
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import yaml

from seq2seq.config.compose import CONFIGS, DEFAULTS
from seq2seq.config.registry import groups
from seq2seq.config.schema import Config
from seq2seq.config.schema.ranges import interval
from seq2seq.run.errors import ConfigError
from seq2seq.run.jsonable import to_json
from seq2seq.run.naming import expanded

USAGE = """\
seq2seq train [+experiment=PRESET] [GROUP=OPTION] [KEY=VALUE] [OPTIONS]

Compose a config from the defaults, a preset and the command line. Then prepare the corpus, train,
translate the test set and score it, in a new directory below outputs/.

  run_dir=DIRECTORY         where the run goes (default: outputs/NAME/TIME)
  resume=RUN                continue a run, given by its path, its name or latest
  on_existing=resume        with run_dir: start, continue, or do nothing if all is done
  -m, --multirun            one run for each combination of values: seed=1,2,3
  --config-dir DIRECTORY    presets of your own: DIRECTORY/experiment/NAME.yaml
  --extension MODULE        load a module that adds options
  --cfg job                 print the config and exit
  --help [WORD]             all of this, or the part about a group, a setting or presets
  --hydra-help, --version   the other options of Hydra; the version
"""

_FIELD = re.compile(r"    (\w+): .*?(?:  # (.*))?$")
_ENUMERATION = re.compile(r"(\w+) = StrEnum\(.*?\)(?:  # (.*))?$")
_NOT_MEANT = re.compile(r"@package|(python train\.py|seq2seq train) ")
_TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", list: "list"}
_TYPES |= {dict: "mapping", Any: "any"}


@dataclass(frozen=True)
class Setting:
    """A setting, its default and what the help says about it."""

    key: str
    default: object
    kind: str
    meaning: str

    def __str__(self) -> str:
        value = self.default if isinstance(self.default, str) else _inline(self.default)
        meaning = textwrap.indent(textwrap.fill(self.meaning, 92), " " * 6)
        return f"  {self.key}={value}  ({self.kind})\n{meaning}".rstrip()


def help_text(arguments: Sequence[str] = ()) -> str:
    """Return the help, or its parts about the words among the arguments.

    Raises:
        ConfigError: there is nothing about a word.
    """
    options = re.compile(r"-.*|.*=.*")
    words = [word for word in arguments if not options.fullmatch(word)]
    directory = _option(arguments, "--config-dir", "-cd")
    words = [word for word in words if word != directory]
    parts = {"presets": _presets(directory), "settings": _settings(Config, without_groups=True)}
    parts |= {name: _group(name) for name in (*groups(), "init", *DEFAULTS)}
    if not words:
        return "\n\n".join([USAGE, *(_part(name, lines) for name, lines in parts.items())])
    return "\n\n".join(_about(word, parts) for word in words)


def _about(word: str, parts: dict[str, list[str | Setting]]) -> str:
    if word in parts:
        return _part(word, parts[word])
    known = [line for lines in parts.values() for line in lines if isinstance(line, Setting)]
    if found := [str(line) for line in known if f".{line.key}".endswith(f".{word}")]:
        return "\n".join(found)
    near = difflib.get_close_matches(word, [*parts, *(line.key for line in known)], cutoff=0.5)
    fix = f"Did you mean {' or '.join(near)}?" if near else f"There is: {', '.join(parts)}."
    raise ConfigError("--help", f"has nothing about {word!r}", fix)


def _part(name: str, lines: Sequence[object]) -> str:
    return "\n".join([f"== {name}", *map(str, lines)])


def _presets(directory: str | None) -> list[str | Setting]:
    places = [CONFIGS, *([expanded(directory)] if directory else [])]
    files = {file.stem: file for place in places for file in place.glob("experiment/*.yaml")}
    return [_titled(f"+experiment={name}", _top_comment(files[name])) for name in sorted(files)]


def _group(group: str) -> list[str | Setting]:
    """Describe the options of a group, and each of their settings once."""
    options: dict[str, type] = dict(groups().get(group, {}))
    own = type(getattr(Config(), group))
    titles = {name: inspect.getdoc(config) or "" for name, config in options.items()}
    if group in DEFAULTS:
        titles[DEFAULTS[group]] = inspect.getdoc(own) or ""
    files = (CONFIGS / group).glob("*.yaml")
    titles = {file.stem: _top_comment(file) for file in sorted(files)} | titles
    lines: list[str | Setting] = [
        _titled(f"{group}={name}", text.partition("\n\n")[0]) for name, text in titles.items()
    ]
    found: dict[Setting, list[str]] = {}
    for name, config in (options or {"": own}).items():
        for setting in _settings(config, f"{group}."):
            if isinstance(setting, Setting) and setting.key != f"{group}.name":
                found.setdefault(setting, []).append(name)
    for each, names in found.items():
        of = "" if len(names) == max(len(options), 1) else f"; of {', '.join(names)}"
        lines.append(Setting(each.key, each.default, each.kind + of, each.meaning))
    return lines


def _settings(
    config: type, prefix: str = "", *, without_groups: bool = False
) -> list[str | Setting]:
    """Describe the fields of a config class, nested ones included."""
    found: list[str | Setting] = []
    for f in fields(config):
        inner = next((t for t in (f.type, *get_args(f.type)) if is_dataclass(t)), None)
        if without_groups and (inner is not None or f.type is Any):
            continue
        if inner is not f.type:
            enum = next((t for t in (f.type, *get_args(f.type)) if isinstance(t, EnumType)), None)
            meaning = _meanings(config).get(f.name, "")
            if enum is not None and enum.__name__ in (names := _names(enum.__module__)):
                meaning = _sentences(names[enum.__name__], meaning)
            found.append(Setting(f"{prefix}{f.name}", _default(f), _kind(f), meaning))
        if isinstance(inner, type):
            number = "" if inner is f.type else "N."
            found += _settings(inner, f"{prefix}{f.name}.{number}")
    return found


def _sentences(*texts: str) -> str:
    """Join descriptions: of several, each is a sentence."""
    given = [text for text in texts if text]
    if len(given) < 2:
        return "".join(given)
    return " ".join(f"{text[0].upper()}{text[1:].removesuffix('.')}." for text in given)


def _default(f: Field[Any]) -> object:
    value = f.default_factory() if f.default_factory is not MISSING else f.default
    value = to_json(value)
    return tuple(value) if isinstance(value, list) else value  # hashable


def _kind(f: Field[Any]) -> str:
    """Return the type of a field in words, with its range or choices."""
    types = [t for t in get_args(f.type) or (f.type,) if t is not NoneType]
    kind: Any = next((t for t in (*map(get_origin, (f.type, *types)), *types) if t in _TYPES), None)
    enum = next((t for t in types if isinstance(t, EnumType)), None)
    text = _TYPES.get(kind, "")
    if enum is not None:
        choices: Iterator[Enum] = iter(enum)
        text = f"{f'{text} of' if text else 'one of'} {', '.join(c.name for c in choices)}"
    if "low" in f.metadata:
        text += f" in {interval(f.metadata)}"
    return text + (" or null" if NoneType in get_args(f.type) else "")


@cache
def _meanings(config: type) -> dict[str, str]:
    """Return the comments of the fields of a class and of the classes it inherits from."""
    found: dict[str, str] = {}
    for base in filter(is_dataclass, reversed(config.__mro__)):
        found |= _comments(inspect.getsource(base), _FIELD)
    return found


@cache
def _names(module: str) -> dict[str, str]:
    """Return the comments of the enumerations of a module."""
    return _comments(inspect.getsource(sys.modules[module]), _ENUMERATION)


def _comments(source: str, definition: re.Pattern[str]) -> dict[str, str]:
    """Return the comment of each definition: the lines above it, then the end of its own."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in source.splitlines():
        if match := definition.match(line):
            found[match[1]] = " ".join([*above, match[2] or ""]).strip()
        above = [*above, line.strip("# ")] if line.lstrip().startswith("# ") else []
    return {name: text for name, text in found.items() if text}


def _top_comment(path: Path) -> str:
    """Return the comment that begins a YAML file, without the command that runs it."""
    text = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not _NOT_MEANT.match(line.strip("# ")):
            text.append(line.strip("# "))
    return " ".join(text)


def _titled(title: str, text: str) -> str:
    return textwrap.fill(f"{title:35} {' '.join(text.split())}", 98, subsequent_indent=" " * 36)


def _inline(value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text: str = yaml.safe_dump(plain, default_flow_style=True, width=10**6)
    return text.removesuffix("\n...\n").strip()


def _option(arguments: Sequence[str], *names: str) -> str | None:
    for word, following in zip_longest(arguments, arguments[1:]):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else following
    return None
