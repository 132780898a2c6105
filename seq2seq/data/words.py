r"""Defines words, for word-level vocabularies, gold links and heatmap labels; and blank text.

A word is a run of letters and digits with their marks, joiners, soft hyphens and inner hyphens,
including a following apostrophe (`l'`, `qu'`). In scripts without spaces, such as Chinese or Thai,
each character is a word; for text cut by a segmenter, use `blank_spans`. Any other printing
character stands alone, an emoji as a whole grapheme cluster. Text is never changed: words are
spans of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import regex

from seq2seq.data.languages import UNSPACED

# White space, controls, format characters and Unicode's default ignorables (U+00AD, U+200B,
# U+3164); U+2800 is the empty Braille cell. Arabic number signs are visible format characters.
_UNSEEN = (
    r"[[\s\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]--\p{Prepended_Concatenation_Mark}]"
)
_LETTER = rf"[[\w\p{{N}}]--[{UNSPACED}\u30fc\uff70]--{_UNSEEN}]"
# Characters that continue a word. U+200B separates words.
_REST = (
    r"[[\w\p{N}\p{M}\p{Cf}\p{Default_Ignorable_Code_Point}]"
    rf"--[{UNSPACED}\u30fc\uff70\u200b]]"
)
# Hyphens, the middle dot of Catalan, gereshayim, the turned comma of Uzbek.
_INNER = r"[-\u2010\u2011\u058a\u05be\u00b7\u0387\u2027\u05f3\u05f4\u2018]"
_WORD = regex.compile(
    rf"(?V1){_LETTER}{_REST}*(?:{_INNER}{_LETTER}{_REST}*)*['\u2019\u05f3\u1fbd\u1fbf]?|(?!{_UNSEEN})\X"
)
_JOINS = regex.compile(rf"(?V1)[[\w\p{{N}}\p{{M}}]--[{UNSPACED}\u30fc\uff70]]")
_UNBROKEN = regex.compile(rf"(?V1)(?:(?!\s){_UNSEEN})*+(?!{_UNSEEN})\S+")
_BLANK = regex.compile(rf"(?V1){_UNSEEN}*")
_MARKS = "\u0300"  # Latin letters come before it; printable but ignorable characters do not


class Span(NamedTuple):
    """Characters [start, end) of a text."""

    start: int
    end: int


# Finds the words of a text, in order.
Splitter = Callable[[str], list[Span]]

# Counts the words of a text, for length limits.
WordCounter = Callable[[str], int]


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character: nothing to translate, score or learn."""
    return _BLANK.fullmatch(text) is not None


def joins(char: str) -> bool:
    """Return whether a word continues between this character and another like it."""
    return _JOINS.fullmatch(char) is not None


def word_spans(text: str) -> list[Span]:
    """Return the words of a text in order, as spans."""
    return [Span(*match.span()) for match in _WORD.finditer(text)]


def split_words(text: str) -> list[str]:
    """Return the words of a text: `L'homme dort.` gives `L'`, `homme`, `dort`, `.`."""
    return [text[start:end] for start, end in word_spans(text)]


def blank_spans(text: str) -> list[Span]:
    """Return the spans between white space: the words of tokenised text."""
    return [Span(*match.span()) for match in _UNBROKEN.finditer(text)]


def count_words(text: str) -> int:
    """Count the visible words between white space."""
    if text.isprintable() and max(text, default="") < _MARKS:  # no unseen characters but spaces
        return len(text.split())
    return sum(1 for _ in _UNBROKEN.finditer(text))
