"""Text lengths: in words, or in characters for scripts without spaces.

Length limits apply to both sides of a pair, so they count in words: for a script without spaces,
characters are converted to words.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import regex

from seq2seq.data.languages import Unit, is_spaced, length_unit

CHARACTERS_PER_WORD = 2.5
"""Characters of a script without spaces per word of an English translation.

About 1.6 in Chinese, 2.3 in Japanese, 3.5 to 4 in Thai, Khmer and Burmese (marks do not count
separately): no estimate is wrong by a factor of more than 1.6.
"""

SAMPLE, SAMPLE_CHARACTERS = 100, 200
"""Number of texts, and of characters of each, to detect the script of an unknown language."""

# A visible character, with its marks.
_CHARACTER = regex.compile(r"(?=[^\s\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800])\X")
# Blocks that cover every script without spaces; a fast test (a microsecond) before the exact one.
_UNSPACED_BLOCKS = re.compile(
    "[\u0e00-\u109f\u1780-\u1b7f\u2e80-\ua4cf\ua980-\uaa7f\uf900-\ufaff\U00010000-\U0003ffff]"
)


def count_characters(text: str) -> int:
    """Count user-perceived characters without spaces; the same in NFC and NFD."""
    return len(_CHARACTER.findall(text))


@dataclass(frozen=True)
class Length:
    """Measures the length of texts of a language.

    Args:
        language: Its code; if the text is evidently in another script, the text decides.
        words: Counts the words of a text with spaces.
    """

    language: str
    words: Callable[[str], int]

    def __call__(self, text: str) -> int:
        """Return the length of a text in words, or in characters."""
        return self.words(text) if self._has_spaces(text) else count_characters(text)

    def in_words(self, text: str) -> float:
        """Return the length of a text in words, for limits."""
        if self._has_spaces(text):
            return self.words(text)
        return count_characters(text) / CHARACTERS_PER_WORD

    def unit(self, sample: Iterable[str]) -> Unit:
        """Return the unit in which lengths of such texts are counted."""
        if self.in_characters:
            return "characters"
        texts = (text[:SAMPLE_CHARACTERS] for text in islice(sample, SAMPLE))
        return length_unit(self.language, "\n".join(texts))

    @property
    def in_characters(self) -> bool:
        """Whether all texts are counted in characters, for limits, too."""
        return self.words is count_characters

    def _has_spaces(self, text: str) -> bool:
        if self.in_characters:
            return True
        if not self._spaced or _UNSPACED_BLOCKS.search(text) is None:
            return self._spaced
        return is_spaced(self.language, text)

    @cached_property
    def _spaced(self) -> bool:
        return is_spaced(self.language)


class Tally:
    """Mean and maximal length of the texts of a side."""

    def __init__(self, length: Length) -> None:
        self._length = length
        self._count, self._sum, self._longest = 0, 0.0, 0.0
        self._sample: list[str] = []

    def add(self, text: str, words: float) -> None:
        """Add a text and its length in words."""
        self._count += 1
        self._sum += words
        self._longest = max(self._longest, words)
        if len(self._sample) < SAMPLE:
            self._sample.append(text[:SAMPLE_CHARACTERS])

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: the unit of lengths, their mean and maximum."""
        unit = self._length.unit(self._sample)
        converted = unit == "characters" and not self._length.in_characters
        scale = CHARACTERS_PER_WORD if converted else 1
        mean = scale * self._sum / max(1, self._count)
        return {"unit": unit, "mean": round(mean, 2), "longest": round(scale * self._longest)}
