"""Selects weights by name patterns, and abbreviates lists of weight names."""

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from seq2seq.config.compose import is_within
from seq2seq.run.errors import ConfigError


def matching(model: nn.Module, patterns: Sequence[str], key: str) -> set[str]:
    """Return the names of the weights that match any of the patterns of the setting `key`.

    A pattern is a prefix of names (`encoder`, `decoder.embedding`), or has wildcards
    (`*.E.weight`). Shared weights match by any of their names; the first is returned.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    firsts = {weight: name for name, weight in model.named_parameters()}
    names = {n: firsts[weight] for n, weight in model.named_parameters(remove_duplicate=False)}
    found: set[str] = set()
    for pattern in patterns:
        meant = {first for name, first in names.items() if means(pattern, name)}
        if not meant:
            known = sorted({".".join(name.split(".")[:2]) for name in names})
            what = f"{key}: {pattern!r} matches no weight"
            raise ConfigError("config", what, f"Known: {', '.join(known)}, and all below.")
        found |= meant
    return found


def means(pattern: str, name: str) -> bool:
    """Return whether a pattern matches the name of a weight."""
    return is_within(name, [pattern]) or fnmatchcase(name, pattern)


def in_short(names: Iterable[str], others: Collection[str]) -> str:
    """Abbreviate names to the shortest prefixes that no other name has: `encoder, decoder.E`."""
    parts = set()
    for name in names:
        words = name.split(".")
        heads = (".".join(words[:count]) for count in range(1, len(words) + 1))
        parts.add(next(head for head in heads if not any(is_within(o, [head]) for o in others)))
    return ", ".join(sorted(parts)) or "none"
