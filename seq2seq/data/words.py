"""What one word is, for word-level vocabularies, gold links and heatmap labels.

A word is a run of letters and digits, inner hyphens included, that takes a following apostrophe
with it (`l'`, `qu'`); every other printing character stands alone. Text stays untouched: words
are spans of it.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

_WORD = re.compile(r"\w+(?:-\w+)*['’]?|[^\w\s]")
_UNBROKEN = re.compile(r"\S+")


class Span(NamedTuple):
    """Characters [start, end) of a text."""

    start: int
    end: int


# What a word is: finds the words of a text, in order.
Splitter = Callable[[str], list[Span]]

# Counts the words of a text, for limits on length.
WordCounter = Callable[[str], int]


def word_spans(text: str) -> list[Span]:
    """Return the words of a text in order, as spans."""
    return [Span(*match.span()) for match in _WORD.finditer(text)]


def split_words(text: str) -> list[str]:
    """Return the words of a text: `L'homme dort.` gives `L'`, `homme`, `dort`, `.`."""
    return _WORD.findall(text)


def blank_spans(text: str) -> list[Span]:
    """Return what stands between blanks, as spans: the words of a text that is tokenised."""
    return [Span(*match.span()) for match in _UNBROKEN.finditer(text)]


def count_words(text: str) -> int:
    """Count what stands between spaces."""
    return len(text.split())
