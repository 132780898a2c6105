"""The paper's vocabulary (4.1): the most frequent Moses words; all others are unknown.

Tokenised like the paper's corpus, case kept; nothing is escaped. Moses cannot always restore the
text: where its rules would insert a space that the text does not have, or the reverse, a word
carries a mark that says so. Plain English and French hardly need them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

import regex

from seq2seq.config.registry import builds
from seq2seq.config.schema import WordsConfig
from seq2seq.data.tokenizer import (
    EOS,
    PAD,
    SPACE,
    UNK,
    Draws,
    Names,
    Texts,
    Token,
    composed,
    parted_at,
    places_before_composing,
    surface,
)
from seq2seq.data.words import Span, WordCounter, is_blank, word_spans
from seq2seq.run.errors import DataError, RunDirError
from seq2seq.run.workers import chunked, mapped

# Special ids: y_0 and padding, the unknown word, the end symbol.
NUM_SPECIAL = 3

# No Moses word looks like one of them: Moses splits off `<` and `>`.
_SPECIAL = {PAD: "<pad>", UNK: f"{SPACE}<unk>", EOS: "</s>"}

# Number of characters above which no length limit accepts a line.
_LONG = 100_000

# Marks at an end of a word: no space here, a space here, against the rules of Moses. In text, they
# and U+2581 are replaced by noncharacters, which occur in no text.
JOINED, APART = "\u203f", "\u2423"
_RESERVED = {ord(SPACE): "\ufdd0", ord(JOINED): "\ufdd2", ord(APART): "\ufdd3"}
_UNRESERVED = {ord(standing): chr(reserved) for reserved, standing in _RESERVED.items()}

# Moses takes these for punctuation and cuts words at them.
_INSIDE = regex.compile(r"[\p{M}\p{Cf}\p{Emoji_Modifier}\p{Regional_Indicator}]")


class Moses:
    """The Moses rules of a language: text to words, and words to text.

    Args:
        language: A code such as `fr` or `pt_BR`; only the first part counts. A language without
            its own rules uses the English list of abbreviations.
    """

    def __init__(self, language: str) -> None:
        from sacremoses import MosesDetokenizer, MosesTokenizer  # takes a second

        rules = language.replace("_", "-").partition("-")[0].lower()
        self._tokenizer, self._detokenizer = MosesTokenizer(rules), MosesDetokenizer(rules)

    def words(self, text: str) -> list[str]:
        """Split a text into words without spaces; control characters are dropped."""
        words: list[str] = self._tokenizer.tokenize(text, escape=False)
        return words

    def join(self, words: Sequence[str]) -> str:
        """Join words to a text."""
        try:
            text: str = self._detokenizer.detokenize(words, unescape=False)
        except TypeError:  # a bug in the Czech rules of sacremoses 0.2.0: `ab' - mail`
            return " ".join(words)
        return text

    def placed(self, text: str) -> list[tuple[str, Span]]:
        """Return the words of a text with their spans."""
        words = self.words(text)
        spans = _found(text, words)
        if spans is None:  # a rule that rewrites
            words = text.split()
            spans = _found(text, words) or []
        return list(zip(words, spans, strict=True))

    def gaps(self, words: Sequence[str]) -> list[bool]:
        """Return whether the rules put a space before each word but the first."""
        spans = _found(self.join(words), words)
        if spans is None:  # a rule that rewrites
            return [True] * (len(words) - 1)
        return [a.end < b.start for a, b in pairwise(spans)]


def _found(text: str, words: Sequence[str]) -> list[Span] | None:
    """Return the spans of words in a text; None if it has anything else.

    White space and control characters are skipped.
    """
    spans, at = [], 0
    for word in words:
        places = []
        for char in word:
            while text[at : at + 1] != char and (
                "" < text[at : at + 1] <= " " or text[at : at + 1].isspace()
            ):
                at += 1
            if text[at : at + 1] != char:
                return None
            places.append(at)
            at += 1
        spans.append(Span(places[0], at))
    return spans


class MarkedWords:
    """Moses words with marks, from which the text can be restored.

    Where Moses splits a word of `data/words.py` at a combining mark or a joiner, the parts are
    rejoined. Symbols are always words of their own.
    """

    def __init__(self, language: str, symbols: Sequence[str] = ()) -> None:
        self._moses, self._symbols, self._parted = Moses(language), {*symbols}, parted_at(symbols)

    def cut(self, text: str) -> list[tuple[str, str, Span]]:
        """Return each word of a text, the word with its marks, and its span."""
        if is_blank(text):
            return []
        at, text = places_before_composing(text), composed(text).translate(_RESERVED)
        words, spans = self._placed(text)
        marked = list(words)
        neighbours = zip(pairwise(spans), self._moses.gaps(words), strict=True)
        for i, ((before, after), gap) in enumerate(neighbours):
            if (before.end < after.start) == gap:
                continue
            mark = JOINED if gap else APART
            # Mark punctuation rather than the word next to it; a symbol only if both are symbols.
            sign = words[i + 1][0].isalnum() and not words[i][-1].isalnum()
            left, right = (word in self._symbols for word in words[i : i + 2])
            if right > left or (sign and left == right):
                marked[i] += mark
            else:
                marked[i + 1] = mark + marked[i + 1]
        places = (Span(at[start], at[end]) for start, end in spans)
        return list(zip(words, marked, places, strict=True))

    def _placed(self, text: str) -> tuple[list[str], list[Span]]:
        words, spans, at = [], [], 0
        for part in self._parted(text):
            whole = ([part], [Span(0, len(part))])
            own = whole if part in self._symbols else _mended(part, self._moses.placed(part))
            words += own[0]
            spans += [Span(at + start, at + end) for start, end in own[1]]
            at += len(part)
        return words, spans

    def write(self, marked: Sequence[str]) -> list[str]:
        """Return the text of each word, with a leading space where there is one."""
        words = [plain(word) for word in marked]
        gaps = [False, *self._moses.gaps(words)] if words else []
        for i, (before, after) in enumerate(pairwise(marked), start=1):
            if {before[-1], after[0]} & {JOINED, APART}:
                gaps[i] = APART in (before[-1], after[0])
        return [" " * gap + word for gap, word in zip(gaps, words, strict=True)]


def plain(word: str) -> str:
    """Return a word without its marks; a word of marks alone is returned unchanged."""
    return word.strip(JOINED + APART) or word


def _mended(text: str, placed: Sequence[tuple[str, Span]]) -> tuple[list[str], list[Span]]:
    """Rejoin words that Moses has split."""
    words, spans = [word for word, _ in placed], [span for _, span in placed]
    if not _INSIDE.search(text):
        return words, spans
    inside = {i for span in word_spans(text) for i in range(span.start + 1, span.end)}
    for i in range(len(spans) - 1, 0, -1):
        at = spans[i].start
        sign = _INSIDE.match(text[at]) or _INSIDE.match(text[at - 1])
        if sign and at in inside and spans[i - 1].end == at:
            words[i - 1 : i + 1] = [words[i - 1] + words[i]]
            spans[i - 1 : i + 1] = [Span(spans[i - 1].start, spans[i].end)]
    return words, spans


class WordTokenizer:
    """A list of words; ids are the special ones, then the words in order.

    An unknown word is written `<unk>`; if it is known without its marks, that word's id is used.

    Args:
        words: The list; a mark as its first entry says that it was learnt with marks.
        language: The language of the Moses rules.
        symbols: Words that are never split.
    """

    def __init__(self, words: Sequence[str], language: str, symbols: Sequence[str] = ()) -> None:
        self._marks = words[0] == JOINED
        words = words[self._marks :]
        self._moses, self._words = Moses(language), MarkedWords(language, symbols)
        self._pieces = [_SPECIAL[i] for i in range(NUM_SPECIAL)] + [SPACE + word for word in words]
        self._ids = {word: i for i, word in enumerate(words, start=NUM_SPECIAL)}

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without the end symbol; a blank text gives no ids."""
        return [[token.id for token in row] for row in self.tokens(texts)]

    def sample(self, texts: Sequence[str], rate: float, draws: Draws) -> list[list[int]]:
        """Return the same as `encode`: there is only one way to split a text into words."""
        return self.encode(texts)

    def tokens(self, texts: Sequence[str]) -> list[list[Token]]:
        """Return the words of texts, one per id of `encode`, unknown ones as in the text."""
        return [[self._token(*word) for word in self._cut(text)] for text in texts]

    def _cut(self, text: str) -> list[tuple[str, str, Span]]:
        if self._marks:
            return self._words.cut(text)
        placed = [] if is_blank(text) else self._moses.placed(text)
        return [(word, word, span) for word, span in placed]

    def _token(self, word: str, marked: str, span: Span) -> Token:
        if (found := self._ids.get(marked)) is not None:
            return Token(found, SPACE + marked, span)
        return Token(self._ids.get(word, UNK), SPACE + word, span)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id, with U+2581 in front of words."""
        return [self._pieces[int(i)] for i in ids]

    def write(self, pieces: Sequence[str]) -> tuple[str, list[Span]]:
        """Write pieces as text by the Moses rules; padding and end symbols are dropped."""
        words = [piece[1:] for piece in pieces if piece.startswith(SPACE)]
        written = iter(self._words.write(words))
        text, spans = surface([next(written) if p.startswith(SPACE) else "" for p in pieces])
        return text.translate(_UNRESERVED), spans

    def lost(self, texts: Sequence[str]) -> list[str | None]:
        """Return the first word of each text that its ids cannot express, or None."""
        return [
            next((word for word, marked, _ in self._cut(text) if marked not in self._ids), None)
            for text in texts
        ]


@builds(WordsConfig)
class Words:
    """Word lists, one per side, the most frequent word first."""

    ending = "words"

    def __init__(self, cfg: WordsConfig) -> None:
        self.cfg = cfg

    def learn(self, texts: Texts, languages: Names, names: Names, workers: int = 1) -> list[bytes]:
        """Take the most frequent words of each text, one per line.

        Ties are broken by sort order. A text with too few words gives a smaller vocabulary.

        Raises:
            DataError: there is no word.
        """
        sides = zip(texts, languages, strict=True)
        return [self._most_frequent(*side, workers) for side in sides]

    def _most_frequent(self, lines: Iterable[str], language: str, workers: int) -> bytes:
        cut, symbols = MarkedWords(language, self.cfg.symbols).cut, {*self.cfg.symbols}

        def counted(chunk: Iterable[str]) -> Counter[str]:
            words = (cut_word for line in chunk for cut_word in cut(line))
            return Counter(marked for word, marked, _ in words if word not in symbols)

        counts: Counter[str] = Counter()
        for found in mapped(counted, chunked(lines, len), workers):
            counts.update(found)
        if not counts:
            what = "no vocabulary could be learnt (no word)"
            raise DataError("tokenizer", what, "Give more text.")
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        rest = self.cfg.vocab_size - NUM_SPECIAL - len(symbols)
        lines = [JOINED, *self.cfg.symbols, *ranked[:rest]]
        return "".join(f"{word}\n" for word in lines).encode()

    def load(self, data: bytes, side: int, language: str, where: str) -> WordTokenizer:
        """Build a vocabulary from what `learn` returned, and refuse anything else."""
        text = data.decode(errors="replace")  # replacements fail the comparison below
        words = [*dict.fromkeys(text.split())]
        if not {*words} - {JOINED} or "".join(f"{word}\n" for word in words).encode() != data:
            what = "is not a list of words, each of them on one line of its own"
            raise RunDirError(where, what, "Restore it from a copy.")
        return WordTokenizer(words, language, self.cfg.symbols)

    def grown(self, data: bytes, size: int, symbols: Sequence[str], pieces: Sequence[str]) -> bytes:
        """Add words at the end."""
        lines = data.decode().splitlines()
        kept = lines[: size - NUM_SPECIAL + (lines[0] == JOINED)]
        return "".join(f"{word}\n" for word in dict.fromkeys([*kept, *symbols, *pieces])).encode()

    def parts(self, piece: str) -> Sequence[str]:
        """Return the word itself."""
        return [piece.removeprefix(SPACE)]

    def word_counter(self, language: str) -> WordCounter:
        """Count Moses words, as the paper's limits do."""
        cut, moses = MarkedWords(language, self.cfg.symbols).cut, Moses(language)
        # For a line above all limits, Moses alone takes less memory.
        return lambda text: len(cut(text) if len(text) < _LONG else moses.words(text))
