"""Kinds of texts that are carried over unchanged, their patterns and their symbols."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from seq2seq.run.errors import ConfigError

MOST_ALIKE = 9
"""Number of symbols per kind, `<url1>` to `<url9>`; further texts in a sentence stay text."""

KINDS = {
    "url": r"(?:https?://|ftp://|www\.)[^\s<>\"]*[^\s<>\"'.,:;!?()\[\]{}]",
    "email": r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+",
    "number": r"(?<!\w)\d+(?:[.,:/-]\d+)*(?!\w)",
    "tag": r"</?\w[^<>]*>",
}
"""Predefined kinds and their patterns."""

_KIND = re.compile(r"([a-z]{1,20})(?:=(.*))?", re.DOTALL)


def patterns_of(placeholders: Sequence[str]) -> dict[str, str]:
    """Return the pattern of each kind of `data.placeholders`.

    Raises:
        ConfigError: a kind is unknown or given twice, or its pattern is invalid.
    """
    found: dict[str, str] = {}
    for text in placeholders:
        parts = _KIND.fullmatch(text)
        kind, own = parts.groups() if parts else ("", None)
        pattern = KINDS.get(kind) if own is None else own
        if pattern is None:
            fix = f"Known: {', '.join(KINDS)}; give others as name=PATTERN, in letters a-z."
            raise ConfigError("config", f"data.placeholders: {text!r} is not a known kind", fix)
        if kind in found:
            twice = f"data.placeholders: {kind!r} is given twice"
            raise ConfigError("config", twice, "Join its patterns by |.")
        try:
            found[kind] = re.compile(pattern).pattern
        except re.error as error:
            wrong = f"data.placeholders: {text!r} is not a valid regular expression ({error})"
            raise ConfigError("config", wrong, "Fix it.") from None
    return found


def numbered(kind: str) -> list[str]:
    """Return the symbols of a kind."""
    return [f"<{kind}{i}>" for i in range(1, MOST_ALIKE + 1)]


def all_symbols(config: Any) -> list[str]:
    """Return the protected symbols: language tags, `tokenizer.symbols`, then placeholders."""
    kinds: Iterable[str] = patterns_of(config.data.placeholders)
    tags = [*config.data.tags.values()]
    own = (symbol for symbol in getattr(config.tokenizer, "symbols", []) if symbol not in tags)
    return [*tags, *own, *(symbol for kind in kinds for symbol in numbered(kind))]
