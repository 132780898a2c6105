"""Text to ids and back: what the pipeline asks of a vocabulary, and subwords by SentencePiece.

Words, the paper's choice, are in `word_vocabulary.py`.
"""

import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import sentencepiece

from seq2seq.config.schema import SentencePieceConfig
from seq2seq.data.sampling import Sampler
from seq2seq.run.errors import ConfigError, DataError, RunDirError

PAD, UNK, EOS = 0, 1, 2
"""There is no start symbol: y_0 is the padding id, whose embedding stays the zero vector."""

BLANK = "\u2581"
"""How a blank is written in pieces."""

MOST_PIECES = 8000
"""What `vocab_size=null` is at most, unless the alphabet is larger."""


class Tokenizer(Protocol):
    """What the pipeline asks of a vocabulary."""

    def __len__(self) -> int:
        """Return the number of ids, the special ones included."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without the end symbol; a blank text gives no ids."""
        ...

    def sample(self, texts: Sequence[str], rate: float, seed: int) -> list[list[int]]:
        """Like `encode`, each text cut at random; the same seed cuts the same way."""
        ...

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """Cut texts as `encode` does: for each id what stands in the text, blanks as U+2581."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id, blanks shown as U+2581."""
        ...

    def join(self, pieces: Sequence[str]) -> str:
        """Turn pieces, which need not be of this vocabulary, into text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids back into text."""
        ...


_E_ACUTE = ("\u00e9", "e\u0301")
"""One letter in two spellings; `identity` alone keeps them apart."""


def composed(text: str) -> str:
    """Spell letters with marks in one way (NFC), whatever the order of the marks.

    The rules of SentencePiece compose neighbours only: with a mark between them, two spellings of
    one text would become different pieces.
    """
    return unicodedata.normalize("NFC", text)


class SentencePieceTokenizer:
    """A trained SentencePiece model.

    Args:
        model: Its serialised bytes.
        where: What to name in an error.
    """

    def __init__(self, model: bytes, where: str) -> None:
        damaged = RunDirError(where, "not a SentencePiece model", "Restore it from a copy.")
        if not model:  # SentencePiece would take it for "none yet"
            raise damaged
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise damaged from None
        self._sampler: Sampler | None = None
        p = self._processor
        if (p.pad_id(), p.unk_id(), p.eos_id(), p.bos_id()) != (PAD, UNK, EOS, -1):
            raise RunDirError(where, "has other special ids than ours", "Restore it from a copy.")
        self._where = where
        with self._text():  # now, not in the middle of a decoding
            self._composes = _E_ACUTE[0] in p.normalize(_E_ACUTE[1])
            p.id_to_piece(list(range(len(self))))

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without the end symbol; a blank text gives no ids."""
        ids: list[list[int]] = self._processor.encode(self._composed(texts))
        return ids

    def sample(self, texts: Sequence[str], rate: float, seed: int) -> list[list[int]]:
        """Cut each text at random: BPE-dropout, or sampling from the unigram lattice."""
        if self._sampler is None or self._sampler.rate != rate:
            self._sampler = Sampler(self._processor, rate)
        return self._sampler.sample(self._composed(texts), seed)

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """Cut texts as `encode` does: for each id what stands in the text, blanks as U+2581."""
        with self._text():
            tokens: list[list[str]] = self._processor.encode(self._composed(texts), out_type=str)
        return tokens

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id, blanks shown as U+2581."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def join(self, pieces: Sequence[str]) -> str:
        """Turn pieces into text; padding and end symbols vanish."""
        # Of a piece that it does not know the library would leave U+2581 as it is.
        parts = ([BLANK, p[1:]] if self._is_foreign_word(p) else [p] for p in pieces)
        with self._text():
            text: str = self._processor.decode([part for some in parts for part in some])
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids back into text; padding and end symbols vanish."""
        with self._text():
            text: str = self._processor.decode([int(i) for i in ids])
        return text

    def _composed(self, texts: Sequence[str]) -> list[str]:
        return [*map(composed, texts)] if self._composes else list(texts)

    @contextmanager
    def _text(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError:
            what = "makes text that is no UTF-8"
            raise RunDirError(self._where, what, "Restore it from a copy.") from None

    def _is_foreign_word(self, piece: str) -> bool:
        return piece.startswith(BLANK) and self._processor.piece_to_id(piece) == UNK


def train_sentencepiece(
    lines: Iterable[str], cfg: SentencePieceConfig, *, threads: int = 1
) -> bytes:
    """Learn a vocabulary from training text and return the model's bytes.

    The lines are handed over one by one, never as a file name: SentencePiece would store the path
    in the model. One thread, because unigram scores depend on the count.

    Args:
        lines: Gone through twice where `vocab_size` is null.
        cfg: Kind, size and rules.
        threads: For SentencePiece.

    Raises:
        VocabularyTooLargeError: with the largest size that works.
        AlphabetTooLargeError: with the smallest.
        ConfigError: the normalization is unknown.
        DataError: there is no usable text.
    """
    if cfg.vocab_size is not None:
        return _train(lines, cfg, cfg.vocab_size, threads)
    try:
        return _train(lines, cfg, MOST_PIECES, threads)
    except AlphabetTooLargeError as error:
        return _train(lines, cfg, error.smallest, threads)


def _train(lines: Iterable[str], cfg: SentencePieceConfig, size: int, threads: int) -> bytes:
    model = io.BytesIO()
    texts = lines if cfg.normalization == "identity" else map(composed, lines)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=cfg.kind.name,
            vocab_size=size,
            normalization_rule_name=cfg.normalization,
            character_coverage=cfg.character_coverage,
            max_sentence_length=1 << 20,  # bytes; longer lines would be dropped in silence
            num_threads=threads,
            pad_id=PAD,
            unk_id=UNK,
            eos_id=EOS,
            bos_id=-1,
            hard_vocab_limit=cfg.vocab_size is not None,  # otherwise what the text gives
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(str(error), cfg, size) from None
    return model.getvalue()


class VocabularyTooLargeError(DataError):
    """The corpus does not hold so many pieces.

    Args:
        asked: The vocabulary size of the config.
        largest: The largest that this text supports.
        text: What the text is called.
    """

    def __init__(self, asked: int, largest: int, text: str = "this corpus") -> None:
        self.asked, self.largest = asked, largest
        super().__init__(
            "config",
            f"tokenizer.vocab_size={asked} is too large for {text}; at most {largest}",
            f"Set tokenizer.vocab_size={largest} or less, or null for as many as the text gives.",
        )


class AlphabetTooLargeError(ConfigError):
    """The vocabulary has no place for each letter.

    Args:
        asked: The vocabulary size of the config.
        smallest: The smallest that holds the alphabet.
    """

    def __init__(self, asked: int, smallest: int) -> None:
        self.smallest = smallest
        super().__init__(
            "config",
            f"tokenizer.vocab_size={asked} is smaller than the alphabet of the corpus",
            f"Use {smallest} or more, or lower tokenizer.character_coverage.",
        )


def _explain(message: str, cfg: SentencePieceConfig, size: int) -> ConfigError | DataError:
    if found := re.search(r"set it to a value <= (\d+)", message):
        return VocabularyTooLargeError(size, int(found.group(1)))
    if found := re.search(r"required_chars\. (\d+) vs (\d+)", message):
        return AlphabetTooLargeError(size, int(found.group(2)))
    if "all_chars_count" in message or "sentences_.empty" in message:
        return DataError(
            "tokenizer",
            f"no vocabulary could be learnt: {cfg.normalization!r} leaves no letter of the text",
            "Give more text, or set tokenizer.normalization=identity.",
        )
    if "charsmap" in message:
        return ConfigError(
            "config",
            f"tokenizer.normalization={cfg.normalization!r} is unknown",
            "Use nmt_nfkc, nfkc, nmt_nfkc_cf, nfkc_cf or identity.",
        )
    return DataError("tokenizer", f"no vocabulary could be learnt ({message})", "Give more text.")


def surface(pieces: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Join pieces to text and return where each one stands in it.

    Returns:
        The text, and the characters [start, end) of each piece; the blank before a word belongs
        to its piece.
    """
    text, offsets = "", []
    for piece in pieces:
        written = piece.replace(BLANK, " ")
        if not text:
            written = written.lstrip(" ")
        offsets.append((len(text), len(text) + len(written)))
        text += written
    return text, offsets
