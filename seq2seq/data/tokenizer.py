"""Text to ids and back: the interfaces of vocabularies, and what all kinds share.

Words, the paper's choice, are in `word_vocabulary.py`, SentencePiece's subwords in
`subword_vocabulary.py`, characters in `character_vocabulary.py`. The registry builds a
`VocabularyKind` from `cfg.tokenizer`.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise, starmap, zip_longest
from typing import NamedTuple, Protocol

import regex

from seq2seq.data.words import Span, WordCounter
from seq2seq.run.errors import ConfigError

# There is no start symbol: y_0 is the padding id, whose embedding stays the zero vector.
PAD, UNK, EOS = 0, 1, 2

Draw = Callable[[], float]
"""Returns the next random number of a text, in [0, 1)."""
Draws = Sequence[Draw]
Texts = Sequence[Sequence[str]]
"""The lines of each side."""
Names = Sequence[str]

# A space, as written in pieces.
SPACE = "\u2581"

# White space that would break a line of output.
LINE_BREAKS = str.maketrans(dict.fromkeys("\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029", " "))


class Token(NamedTuple):
    """A piece of a text: its id, its written form with spaces as U+2581, and its position."""

    id: int
    piece: str  # as in the text if unknown
    span: Span  # may be empty if one character became several


class Tokenizer(Protocol):
    """A learnt vocabulary."""

    def __len__(self) -> int:
        """Return the number of ids, special ones included."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without the end symbol; an empty text gives no ids."""

    def sample(self, texts: Sequence[str], rate: float, draws: Draws) -> list[list[int]]:
        """Like `encode`, but segment each text at random, using its own draws from [0, 1)."""

    def tokens(self, texts: Sequence[str]) -> list[list[Token]]:
        """Segment texts like `encode`; return each id with its piece and span."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id, with spaces as U+2581."""

    def write(self, pieces: Sequence[str]) -> tuple[str, list[Span]]:
        """Turn pieces, of this vocabulary or not, into text; return the span of each."""

    def lost(self, texts: Sequence[str]) -> list[str | None]:
        """Return the first word or character of each text that its ids cannot express, or None."""


def symbol_ids(tokenizer: Tokenizer, symbols: Iterable[str]) -> list[int]:
    """Return the ids of protected symbols.

    Raises:
        ConfigError: the vocabulary was learnt without one of them.
    """
    ids = []
    for symbol in symbols:
        [tokens] = tokenizer.tokens([symbol])
        whole = [token.id for token in tokens if token.piece.strip(SPACE) == symbol]
        if not whole:
            fix = "Learn a vocabulary with it: leave init.run out."
            raise ConfigError("config", f"the vocabulary has no {symbol}", fix)
        ids.append(whole[0])
    return ids


class RightToLeft:
    """Wraps a vocabulary to reverse the order of tokens: the last token comes first."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.left_to_right = self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`, also for the methods below."""
        return [ids[::-1] for ids in self._tokenizer.encode(texts)]

    def sample(self, texts: Sequence[str], rate: float, draws: Draws) -> list[list[int]]:
        """Segment at random."""
        return [ids[::-1] for ids in self._tokenizer.sample(texts, rate, draws)]

    def tokens(self, texts: Sequence[str]) -> list[list[Token]]:
        """Return each id with its piece and span."""
        return [row[::-1] for row in self._tokenizer.tokens(texts)]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id."""
        return self._tokenizer.pieces(ids)

    def write(self, pieces: Sequence[str]) -> tuple[str, list[Span]]:
        """Turn pieces into text."""
        text, spans = self._tokenizer.write(pieces[::-1])
        return text, spans[::-1]

    def lost(self, texts: Sequence[str]) -> list[str | None]:
        """Return what ids cannot express."""
        return self._tokenizer.lost(texts)


class VocabularyKind(Protocol):
    """Learns, saves and loads vocabularies of one kind."""

    ending: str  # extension of its files: source.ENDING, target.ENDING

    def learn(self, texts: Texts, languages: Names, names: Names, workers: int = 1) -> list[bytes]:
        """Learn from the training text of each side; return the contents of its file.

        `names` name the texts in errors; the result is the same for any number of workers.
        """

    def load(self, data: bytes, side: int, language: str, where: str) -> Tokenizer:
        """Build a vocabulary from what `learn` returned for a side; `where` is for errors."""

    def grown(self, data: bytes, size: int, symbols: Sequence[str], pieces: Sequence[str]) -> bytes:
        """Return the first `size` ids of what `learn` returned, plus new symbols and pieces.

        Text without any of them is segmented as before.
        """

    def parts(self, piece: str) -> Sequence[str]:
        """Return the pieces with which an unknown piece could be written."""

    def word_counter(self, language: str) -> WordCounter:
        """Return the function that counts words for length limits."""


def surface(pieces: Sequence[str]) -> tuple[str, list[Span]]:
    """Join pieces to a line of text; return the text and the span of each piece.

    Runs of spaces become one and are stripped at the ends; other white space stays, unless it
    would break the line. The space before a word belongs to its piece.
    """
    text, ends = "", [0]
    for piece in pieces:
        written = _spaced(piece)
        text += written[1:] if written[:1] == " " and text[-1:] in ("", " ") else written
        ends.append(len(text))
    text = text.rstrip(" ")
    if len(text) < ends[-1]:
        ends = [min(end, len(text)) for end in ends]
    return text, [*starmap(Span, pairwise(ends))]


@lru_cache(maxsize=1 << 16)  # texts have few distinct pieces
def _spaced(piece: str) -> str:
    """Return a piece as text, its runs of spaces as one."""
    return re.sub(" +", " ", piece.replace(SPACE, " ").translate(LINE_BREAKS))


def parted_at(symbols: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a function that splits a text around symbols; the longest match wins."""
    if not symbols:
        return lambda text: [text]
    either = "|".join(map(re.escape, sorted(symbols, key=len, reverse=True)))
    return lambda text: [part for part in re.split(f"({either})", text) if part]


def composed(text: str) -> str:
    """Normalise letters with marks to one spelling (NFC), whatever the order of the marks.

    SentencePiece's own rules compose neighbours only: with a mark in between, two spellings of the
    same text would become different pieces.
    """
    return unicodedata.normalize("NFC", text)


def places_before_composing(text: str) -> list[int]:
    """Map each character of `composed(text)`, and its end, to its position in the text."""
    if unicodedata.is_normalized("NFC", text):
        return [*range(len(text) + 1)]
    places: list[int] = []
    for match in regex.finditer(r"\X", text):  # composition never crosses these
        count = len(composed(match[0]))
        places += (min(match.start() + i, match.end()) for i in range(count))
    return [*places, len(text)]


def without_space(text: str) -> str:
    """Remove all white space."""
    bare: str = regex.sub(r"\s+", "", text)
    return bare


def first_difference(text: str, other: str) -> str | None:
    """Return the first differing character, ignoring white space and composition; or None."""
    ours, theirs = (composed(without_space(side)) for side in (text, other))
    pairs = zip_longest(ours, theirs, fillvalue="")
    return next((a or b for a, b in pairs if a != b), None)
