"""Text to ids and back: what the pipeline asks of a vocabulary, whatever its kind.

Words, the paper's choice, are in `word_vocabulary.py`, SentencePiece's subwords in
`subword_vocabulary.py`. The registry builds a `VocabularyKind` from `cfg.tokenizer`.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise, zip_longest
from typing import NamedTuple, Protocol

import regex

from seq2seq.data.words import Span, WordCounter

# There is no start symbol: y_0 is the padding id, whose embedding stays the zero vector.
PAD, UNK, EOS = 0, 1, 2

# How a space is written in pieces.
SPACE = "\u2581"

# White space that would break a line of output.
_BREAKS = str.maketrans(dict.fromkeys("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029", " "))


class Token(NamedTuple):
    """A piece of a text: its id, how it is written, spaces as U+2581, and where it stands."""

    id: int
    piece: str  # an unknown one as in the text
    span: Span  # may be empty, where a character became several


class Tokenizer(Protocol):
    """A vocabulary that was learnt."""

    def __len__(self) -> int:
        """Return the number of ids, the special ones included."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without the end symbol; an empty text gives no ids."""
        ...

    def sample(
        self, texts: Sequence[str], rate: float, draws: Sequence[Callable[[], float]]
    ) -> list[list[int]]:
        """Like `encode`, each text cut at random, by its own numbers out of [0, 1)."""
        ...

    def tokens(self, texts: Sequence[str]) -> list[list[Token]]:
        """Cut texts as `encode` does, and say what each id stands for."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id, spaces shown as U+2581."""
        ...

    def write(self, pieces: Sequence[str]) -> tuple[str, list[Span]]:
        """Turn pieces, of this vocabulary or not, into text; return where each one stands."""
        ...

    def lost(self, texts: Sequence[str]) -> list[str | None]:
        """Return the first word or character of each text that its ids cannot say, or None."""
        ...


class RightToLeft:
    """A vocabulary whose texts are read and written from their last token to their first."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.left_to_right = self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`, and so below."""
        return [ids[::-1] for ids in self._tokenizer.encode(texts)]

    def sample(
        self, texts: Sequence[str], rate: float, draws: Sequence[Callable[[], float]]
    ) -> list[list[int]]:
        """Cut at random."""
        return [ids[::-1] for ids in self._tokenizer.sample(texts, rate, draws)]

    def tokens(self, texts: Sequence[str]) -> list[list[Token]]:
        """Cut, and say what each id stands for."""
        return [row[::-1] for row in self._tokenizer.tokens(texts)]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id."""
        return self._tokenizer.pieces(ids)

    def write(self, pieces: Sequence[str]) -> tuple[str, list[Span]]:
        """Turn pieces into text."""
        text, spans = self._tokenizer.write(pieces[::-1])
        return text, spans[::-1]

    def lost(self, texts: Sequence[str]) -> list[str | None]:
        """Return what ids cannot say."""
        return self._tokenizer.lost(texts)


class VocabularyKind(Protocol):
    """How vocabularies of one kind are learnt, saved and used."""

    ending: str  # of its files: source.ENDING, target.ENDING

    def learn(
        self, texts: Sequence[Sequence[str]], languages: Sequence[str], names: Sequence[str]
    ) -> Sequence[bytes]:
        """Learn from the training text of each side; return what its file holds.

        `names` are what errors call the texts.
        """
        ...

    def load(self, data: bytes, side: int, language: str, where: str) -> Tokenizer:
        """Make a vocabulary of what `learn` returned for a side; `where` is for errors."""
        ...

    def grown(self, data: bytes, size: int, symbols: Sequence[str], pieces: Sequence[str]) -> bytes:
        """Return the first `size` ids of what `learn` returned, then symbols and pieces it lacks.

        Text without any of them is cut as before.
        """
        ...

    def parts(self, piece: str) -> Sequence[str]:
        """Return the pieces by which an unknown one could be written."""
        ...

    def word_counter(self, language: str) -> WordCounter:
        """Return how words are counted for limits on length."""
        ...


def surface(pieces: Sequence[str]) -> tuple[str, list[Span]]:
    """Join pieces to a line of text and return where each one stands in it.

    Runs of spaces become one, and there are none at the ends; other white space stays, unless it
    would break the line.

    Returns:
        The text, and the characters of each piece; the space before a word belongs to its piece.
    """
    text, ends = "", [0]
    for piece in pieces:
        written = re.sub(" +", " ", piece.replace(SPACE, " ").translate(_BREAKS))
        text += written[1:] if text[-1:] in ("", " ") and written[:1] == " " else written
        ends.append(len(text))
    text = text.rstrip(" ")
    return text, [Span(min(a, len(text)), min(b, len(text))) for a, b in pairwise(ends)]


def parted_at(symbols: Sequence[str]) -> Callable[[str], list[str]]:
    """Return what cuts a text before and after each symbol; of two at one place the longer."""
    if not symbols:
        return lambda text: [text]
    either = "|".join(map(re.escape, sorted(symbols, key=len, reverse=True)))
    return lambda text: [part for part in re.split(f"({either})", text) if part]


def composed(text: str) -> str:
    """Spell letters with marks in one way (NFC), whatever the order of the marks.

    The rules of SentencePiece compose neighbours only: with a mark between them, two spellings of
    one text would become different pieces.
    """
    return unicodedata.normalize("NFC", text)


def places_before_composing(text: str) -> list[int]:
    """Return for each character of `composed(text)`, and for its end, where it comes from."""
    if unicodedata.is_normalized("NFC", text):
        return [*range(len(text) + 1)]
    places: list[int] = []
    for match in regex.finditer(r"\X", text):  # composition stays inside of these
        count = len(composed(match[0]))
        places += (min(match.start() + i, match.end()) for i in range(count))
    return [*places, len(text)]


def first_difference(text: str, other: str) -> str | None:
    """Return the first character in which texts differ, or None; white space and NFC aside."""
    ours, theirs = (composed(regex.sub(r"\s+", "", side)) for side in (text, other))
    pairs = zip_longest(ours, theirs, fillvalue="")
    return next((a or b for a, b in pairs if a != b), None)
