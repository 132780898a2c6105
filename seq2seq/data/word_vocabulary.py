"""The paper's vocabulary (4.1): Moses words, the most frequent ones; every other is unknown.

Tokenised as the paper's corpus was, case kept; nothing is escaped or normalised.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from seq2seq.config.schema import WordsConfig
from seq2seq.data.tokenizer import BLANK, EOS, PAD, UNK
from seq2seq.run.errors import DataError, RunDirError

NUM_SPECIAL = 3
"""Ids of no word: y_0 and padding, the unknown word, the end symbol."""

_SPECIAL = {PAD: "<pad>", UNK: f"{BLANK}<unk>", EOS: "</s>"}
"""No word of Moses looks like one of them: it sets `<` and `>` apart."""


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
        """Cut a text into words, none of which holds a blank; control characters vanish."""
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
        data: The list, as `learn_words` gives it.
        cfg: What it was learnt with.
        language: Whose Moses rules apply.
        where: What to name in an error.

    Raises:
        RunDirError: this is no such list.
    """

    def __init__(self, data: bytes, cfg: WordsConfig, language: str, where: str) -> None:
        words = _read_words(data, cfg, where)
        self._moses = Moses(language)
        self._pieces = [_SPECIAL[i] for i in range(NUM_SPECIAL)] + [BLANK + word for word in words]
        self._ids = {word: i for i, word in enumerate(words, start=NUM_SPECIAL)}

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without the end symbol; a blank text gives no ids."""
        return [[self._ids.get(word, UNK) for word in self._moses.words(text)] for text in texts]

    def sample(self, texts: Sequence[str], rate: float, seed: int) -> list[list[int]]:
        """Like `encode`: there is one way to cut a text into words."""
        return self.encode(texts)

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the words of texts, one for each id of `encode`, unknown ones as they stand."""
        return [[BLANK + word for word in self._moses.words(text)] for text in texts]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id, U+2581 in front of words."""
        return [self._pieces[int(i)] for i in ids]

    def join(self, pieces: Sequence[str]) -> str:
        """Write pieces as text by the rules of Moses; padding and end symbols vanish."""
        return self._moses.join([piece[1:] for piece in pieces if piece.startswith(BLANK)])

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids back into text."""
        return self.join(self.pieces(ids))


def learn_words(lines: Iterable[str], cfg: WordsConfig, language: str) -> bytes:
    """Return the most frequent words of training text, one a line, the most frequent first.

    Of equally frequent words the one that sorts first is kept. A text with fewer words than fit
    gives a smaller vocabulary.

    Raises:
        DataError: there is no word.
    """
    moses = Moses(language)
    counts = Counter(chain.from_iterable(map(moses.words, lines)))
    if not counts:
        raise DataError("tokenizer", "no vocabulary could be learnt (no word)", "Give more text.")
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return "".join(f"{word}\n" for word in ranked[: cfg.vocab_size - NUM_SPECIAL]).encode()


def _read_words(data: bytes, cfg: WordsConfig, where: str) -> list[str]:
    """Read what `learn_words` gave and refuse everything else."""
    what = None
    try:
        words = data.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        words, what = [], f"invalid UTF-8 at byte {error.start + 1}"
    odd = next((n for n, word in enumerate(words, 1) if word.split() != [word]), None)
    if what is None and not data.endswith(b"\n"):
        what = "its last line has no end" if data else "empty"
    elif odd is not None:
        what = f"line {odd} is no word"
    elif len(set(words)) < len(words):
        what = f"holds {Counter(words).most_common(1)[0][0]!r} twice"
    elif len(words) > cfg.vocab_size - NUM_SPECIAL:
        what = f"holds {len(words)} words, too many for tokenizer.vocab_size={cfg.vocab_size}"
    if what is not None:
        raise RunDirError(where, what, "Restore it from a copy.")
    return words
