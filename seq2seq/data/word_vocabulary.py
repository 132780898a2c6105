"""The paper's vocabulary (4.1): Moses words, the most frequent ones; every other is unknown.

Tokenised as the paper's corpus was, case kept; nothing is escaped or normalised.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from seq2seq.config.registry import builds
from seq2seq.config.schema import WordsConfig
from seq2seq.data.tokenizer import EOS, PAD, SPACE, UNK
from seq2seq.data.words import WordCounter
from seq2seq.run.errors import DataError, RunDirError

# Ids of no word: y_0 and padding, the unknown word, the end symbol.
NUM_SPECIAL = 3

# No word of Moses looks like one of them: it sets `<` and `>` apart.
_SPECIAL = {PAD: "<pad>", UNK: f"{SPACE}<unk>", EOS: "</s>"}


class Moses:
    """The Moses rules of a language: text to words, and words to text.

    Args:
        language: A code such as `fr` or `pt_BR`, whose first part counts. A language without
            rules of its own is cut by the English list of abbreviations.
    """

    def __init__(self, language: str) -> None:
        from sacremoses import MosesDetokenizer, MosesTokenizer  # takes a second

        rules = language.replace("_", "-").partition("-")[0].lower()
        self._tokenizer, self._detokenizer = MosesTokenizer(rules), MosesDetokenizer(rules)

    def words(self, text: str) -> list[str]:
        """Cut a text into words, none of which holds a space; control characters vanish."""
        words: list[str] = self._tokenizer.tokenize(text, escape=False)
        return words

    def join(self, words: Sequence[str]) -> str:
        """Write words as text."""
        try:
            text: str = self._detokenizer.detokenize(words, unescape=False)
        except TypeError:  # a slip in the Czech rules of sacremoses 0.2.0: `ab' - mail`
            return " ".join(words)
        return text


class WordTokenizer:
    """A list of words; ids are the special ones, then the words in their order.

    An unknown word is written `<unk>`.

    Args:
        words: The list.
        language: Whose Moses rules apply.
    """

    def __init__(self, words: Sequence[str], language: str) -> None:
        self._moses = Moses(language)
        self._pieces = [_SPECIAL[i] for i in range(NUM_SPECIAL)] + [SPACE + word for word in words]
        self._ids = {word: i for i, word in enumerate(words, start=NUM_SPECIAL)}

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without the end symbol; an empty text gives no ids."""
        return [[self._ids.get(word, UNK) for word in self._moses.words(text)] for text in texts]

    def sample(
        self, texts: Sequence[str], rate: float, draws: Sequence[Callable[[], float]]
    ) -> list[list[int]]:
        """Like `encode`: there is one way to cut a text into words."""
        return self.encode(texts)

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the words of texts, one for each id of `encode`, unknown ones as they stand."""
        return [[SPACE + word for word in self._moses.words(text)] for text in texts]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id, U+2581 in front of words."""
        return [self._pieces[int(i)] for i in ids]

    def join(self, pieces: Sequence[str]) -> str:
        """Write pieces as text by the rules of Moses; padding and end symbols vanish."""
        return self._moses.join([piece[1:] for piece in pieces if piece.startswith(SPACE)])


@builds(WordsConfig)
class Words:
    """Lists of words, one for each side, the most frequent word first."""

    ending = "words"

    def __init__(self, cfg: WordsConfig) -> None:
        self.cfg = cfg

    def learn(
        self, texts: Sequence[Sequence[str]], languages: Sequence[str], names: Sequence[str]
    ) -> list[bytes]:
        """Take the most frequent words of each text, one a line.

        Of equally frequent words the one that sorts first is kept. A text with fewer words than
        fit gives a smaller vocabulary.

        Raises:
            DataError: there is no word.
        """
        return [self._most_frequent(*side) for side in zip(texts, languages, strict=True)]

    def _most_frequent(self, lines: Iterable[str], language: str) -> bytes:
        counts = Counter(chain.from_iterable(map(Moses(language).words, lines)))
        if not counts:
            what = "no vocabulary could be learnt (no word)"
            raise DataError("tokenizer", what, "Give more text.")
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        return "".join(f"{word}\n" for word in ranked[: self.cfg.vocab_size - NUM_SPECIAL]).encode()

    def load(self, data: bytes, language: str, where: str) -> WordTokenizer:
        """Make a vocabulary of what `learn` returned, and refuse everything else."""
        text = data.decode(errors="replace")  # what was replaced differs from the bytes
        words = [*dict.fromkeys(text.split())]
        if not words or "".join(f"{word}\n" for word in words).encode() != data:
            what = "is not a list of words, each of them on one line of its own"
            raise RunDirError(where, what, "Restore it from a copy.")
        return WordTokenizer(words, language)

    def word_counter(self, language: str) -> WordCounter:
        """Count words of Moses, as the paper's limits do."""
        moses = Moses(language)
        return lambda text: len(moses.words(text))
