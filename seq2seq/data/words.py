r"""What one word is, for word-level vocabularies, gold links and heatmap labels; and what is blank.

A word is a run of letters and digits with their marks, joiners, soft hyphens and inner hyphens,
that takes a following apostrophe with it (`l'`, `qu'`). Where no spaces part words, in Chinese or
Thai, each character is one; whoever has a segmenter gives text cut by it and takes `blank_spans`.
Every other printing character stands alone, an emoji with all that belongs to it (Unicode's
grapheme cluster). Text stays untouched: words are spans of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import regex

from seq2seq.data.languages import UNSPACED

# White space, controls, format characters and what Unicode has ignored by default (U+00AD, U+200B,
# U+3164); U+2800 is the empty Braille cell. Some format characters show: Arabic number signs.
_UNSEEN = (
    r"[[\s\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]--\p{Prepended_Concatenation_Mark}]"
)
_LETTER = rf"[[\w\p{{N}}]--[{UNSPACED}\u30fc\uff70]--{_UNSEEN}]"
# What goes on with a letter. U+200B stands where words part.
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


class Span(NamedTuple):
    """Characters [start, end) of a text."""

    start: int
    end: int


# What a word is: finds the words of a text, in order.
Splitter = Callable[[str], list[Span]]

# Counts the words of a text, for limits on length.
WordCounter = Callable[[str], int]


def is_blank(text: str) -> bool:
    """Return whether there is nothing to see: no text to translate, to score or to learn from."""
    return _BLANK.fullmatch(text) is not None


def joins(char: str) -> bool:
    """Return whether a word goes on from such a character to another such one."""
    return _JOINS.fullmatch(char) is not None


def word_spans(text: str) -> list[Span]:
    """Return the words of a text in order, as spans."""
    return [Span(*match.span()) for match in _WORD.finditer(text)]


def split_words(text: str) -> list[str]:
    """Return the words of a text: `L'homme dort.` gives `L'`, `homme`, `dort`, `.`."""
    return [text[start:end] for start, end in word_spans(text)]


def blank_spans(text: str) -> list[Span]:
    """Return what stands between blanks, as spans: the words of a text that is tokenised."""
    return [Span(*match.span()) for match in _UNBROKEN.finditer(text)]


def count_words(text: str) -> int:
    """Count what stands between spaces and can be seen."""
    return sum(1 for _ in _UNBROKEN.finditer(text))
