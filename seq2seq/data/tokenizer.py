"""Text to ids and back: what the pipeline asks of a vocabulary, whatever its kind.

Words, the paper's choice, are in `word_vocabulary.py`, SentencePiece's subwords in
`subword_vocabulary.py`. The registry builds a `VocabularyKind` from `cfg.tokenizer`.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from seq2seq.data.words import WordCounter

# There is no start symbol: y_0 is the padding id, whose embedding stays the zero vector.
PAD, UNK, EOS = 0, 1, 2

# How a space is written in pieces.
SPACE = "\u2581"


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

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """Cut texts as `encode` does: for each id what stands in the text, spaces as U+2581."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id, spaces shown as U+2581."""
        ...

    def join(self, pieces: Sequence[str]) -> str:
        """Turn pieces, which need not be of this vocabulary, into text."""
        ...


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

    def load(self, data: bytes, language: str, where: str) -> Tokenizer:
        """Make a vocabulary of what `learn` returned; `where` is for errors."""
        ...

    def word_counter(self, language: str) -> WordCounter:
        """Return how words are counted for limits on length."""
        ...


def surface(pieces: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Join pieces to text and return where each one stands in it.

    Returns:
        The text, and the characters [start, end) of each piece; the space before a word belongs
        to its piece.
    """
    text, offsets = "", []
    for piece in pieces:
        written = piece.replace(SPACE, " ")
        if not text:
            written = written.lstrip(" ")
        offsets.append((len(text), len(text) + len(written)))
        text += written
    return text, offsets
