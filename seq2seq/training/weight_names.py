"""Weights by name: chosen by patterns, and named in few words."""

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from seq2seq.config.compose import is_within
from seq2seq.run.errors import ConfigError


def matching(model: nn.Module, patterns: Sequence[str], key: str) -> set[str]:
    """Return the names of the weights that patterns mean.

    A pattern is the beginning of names (`encoder`, `decoder.embedding`), or has wildcards
    (`*.E.weight`). Weights that are shared go by all their names, and are returned by the first.

    Args:
        model: Whose weights.
        patterns: To look for.
        key: Of the setting that has them, for errors.

    Raises:
        ConfigError: a pattern means none.
    """
    firsts = {weight: name for name, weight in model.named_parameters()}
    names = {n: firsts[weight] for n, weight in model.named_parameters(remove_duplicate=False)}
    found: set[str] = set()
    for pattern in patterns:
        meant = {first for name, first in names.items() if means(pattern, name)}
        if not meant:
            known = sorted({".".join(name.split(".")[:2]) for name in names})
            what = f"{key}: {pattern!r} is the name of no weight"
            raise ConfigError("config", what, f"Known are {', '.join(known)}, and all below.")
        found |= meant
    return found


def means(pattern: str, name: str) -> bool:
    """Return whether a pattern means a weight of this name."""
    return is_within(name, [pattern]) or fnmatchcase(name, pattern)


def in_short(names: Iterable[str], others: Collection[str]) -> str:
    """Name weights by the longest parts of which none is among the others: `encoder, decoder.E`."""
    parts = set()
    for name in names:
        words = name.split(".")
        heads = (".".join(words[:count]) for count in range(1, len(words) + 1))
        parts.add(next(head for head in heads if not any(is_within(o, [head]) for o in others)))
    return ", ".join(sorted(parts)) or "none"
