"""Subwords by SentencePiece: BPE or a unigram model, learnt from the training text."""

import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain

import sentencepiece

from seq2seq.config.registry import builds
from seq2seq.config.schema import SentencePieceConfig
from seq2seq.data.sampling import Sampler
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
    first_difference,
    places_before_composing,
    surface,
    without_space,
)
from seq2seq.data.words import Span, WordCounter, count_words, is_blank
from seq2seq.run.errors import ConfigError, DataError, RunDirError

NFC = "nfc"
"""The rule that only composes letters with their marks; ours, not the library's."""

# Upper limit for `vocab_size=null`, unless the alphabet is larger.
MOST_PIECES = 8000
# Below the limit, the size grows with the square root of the text: 2,000 merges are best for
# 100,000 words (Sennrich & Zhang 2019, arXiv:1905.11901), and some 8,000 for millions.
MERGES, WORDS, LETTERS = 2000, 100_000, 6  # letters per word, with its space

# One letter in two spellings; only `identity` keeps them distinct.
_E_ACUTE = ("\u00e9", "e\u0301")
_RESTORE = "Restore it from a copy."


# Characters with a special meaning in SentencePiece: its space, and a mark that makes its trainer
# drop the line. They are replaced by noncharacters, which occur in no text.
_RESERVED = {ord(SPACE): "\ufdd0", ord("\u2585"): "\ufdd1"}
_UNRESERVED = {ord(standing): chr(reserved) for reserved, standing in _RESERVED.items()}

# The text of special symbols.
_WRITTEN = {"<pad>": "", "</s>": "", "<unk>": " \u2047 "}


class SentencePieceTokenizer:
    """A trained SentencePiece model.

    Args:
        model: Its serialised bytes.
        where: Its name in errors.
        compose: Whether to apply NFC before its rules; implied by all rules but `identity`.
    """

    def __init__(self, model: bytes, where: str, compose: bool = False) -> None:
        self._where = where
        self._sampler: Sampler | None = None
        try:
            # Given empty bytes, SentencePiece would make a processor without a model.
            self._processor = p = sentencepiece.SentencePieceProcessor(model_proto=model or b"x")
        except RuntimeError:
            raise RunDirError(where, "not a SentencePiece model", _RESTORE) from None
        if (p.pad_id(), p.unk_id(), p.eos_id(), p.bos_id()) != (PAD, UNK, EOS, -1):
            raise RunDirError(where, "has other special ids than ours", _RESTORE)
        with self._text():  # detects a damaged piece now, not during decoding
            self.composes = compose or _E_ACUTE[0] in p.normalize(_E_ACUTE[1])
            pieces = {*p.id_to_piece(list(range(len(self))))}
        # Vocabularies of 0.1.0, or of text without these characters, lack the noncharacters.
        self.escapes = {key: char for key, char in _RESERVED.items() if char in pieces}

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without the end symbol; a blank text gives no ids."""
        ids: list[list[int]] = self._processor.encode(self._prepared(texts))
        return ids

    def sample(self, texts: Sequence[str], rate: float, draws: Draws) -> list[list[int]]:
        """Segment each text at random: BPE-dropout, or sampling from the unigram lattice."""
        if self._sampler is None or self._sampler.rate != rate:
            self._sampler = Sampler(self._processor, rate)
        return self._sampler.sample(self._prepared(texts), draws)

    def tokens(self, texts: Sequence[str]) -> list[list[Token]]:
        """Segment texts like `encode`; return each id with its piece and span."""
        with self._text():
            rows = self._processor.encode(self._prepared(texts), return_type="offset_mapping")
        found = []
        for text, row in zip(texts, rows, strict=True):
            at = places_before_composing(text) if self.composes else range(len(text) + 1)
            spans = (Span(at[start], at[end]) for start, end in row["offsets"])
            found.append([*map(Token, row["ids"], row["pieces"], spans)])
        return found

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id, with spaces as U+2581."""
        return [self._processor.id_to_piece(int(i)) for i in ids]

    def write(self, pieces: Sequence[str]) -> tuple[str, list[Span]]:
        """Turn pieces into text; padding and end symbols are dropped."""
        text, spans = surface([_WRITTEN.get(piece, piece) for piece in pieces])
        return text.translate(_UNRESERVED), spans

    def lost(self, texts: Sequence[str]) -> list[str | None]:
        """Return the first character of each text that its ids do not restore, or None."""
        return [*map(self._lost, texts, self.encode(texts))]

    def _lost(self, text: str, ids: Sequence[int]) -> str | None:
        # Nearly every text is restored; apart from white space this is seen without writing it.
        if "".join([self._bare[i] for i in ids]) == text.replace(" ", ""):
            return None
        return first_difference(text, self.write(self.pieces(ids))[0])

    @cached_property
    def _bare(self) -> list[str]:
        """Each id as text without white space."""
        return [without_space(self.write([piece])[0]) for piece in self.pieces(range(len(self)))]

    def _prepared(self, texts: Sequence[str]) -> list[str]:
        """Return texts for the library; apart from NFC, each character stays one character."""
        shown = ("" if is_blank(text) else text.translate(self.escapes) for text in texts)
        return [*map(composed, shown)] if self.composes else list(shown)

    @contextmanager
    def _text(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError:
            raise RunDirError(self._where, "holds text that is not valid UTF-8", _RESTORE) from None


@builds(SentencePieceConfig)
class Subwords:
    """SentencePiece models, one per side or one for both."""

    ending = "model"

    def __init__(self, cfg: SentencePieceConfig) -> None:
        self.cfg = cfg

    def learn(self, texts: Texts, languages: Names, names: Names, workers: int = 1) -> list[bytes]:
        """Learn a model from each text, or one from all of them.

        Raises:
            UserError: as in `train_sentencepiece`; if the size is too large for some texts, the
                error names the smallest of them and a size that fits all.
        """
        # Sample the lines of a long text evenly.
        samples = [text[:: max(1, -(-len(text) // self.cfg.max_lines))] for text in texts]
        rules = [self._rule(side) for side in range(len(texts))]
        if self.cfg.joint:
            samples, names = [[*chain(*samples)]], [" and ".join(names)]
        models, too_large = [], []
        for sample, name, rule in zip(samples, names, rules, strict=False):
            try:
                models.append(train_sentencepiece(sample, self.cfg, rule))
            except VocabularyTooLargeError as error:
                too_large.append((error.largest, error.asked, name))
        if too_large:
            largest, asked, name = min(too_large)
            raise VocabularyTooLargeError(asked, largest, name)
        return models * (len(texts) // len(models))

    def load(self, data: bytes, side: int, language: str, where: str) -> SentencePieceTokenizer:
        """Build a vocabulary from what `learn` returned."""
        return SentencePieceTokenizer(data, where, compose=self._rule(side) == NFC)

    def grown(self, data: bytes, size: int, symbols: Sequence[str], pieces: Sequence[str]) -> bytes:
        """Add symbols, and pieces with the score of the rarest piece."""
        from sentencepiece import sentencepiece_model_pb2 as proto

        model, kinds = proto.ModelProto.FromString(data), proto.ModelProto.SentencePiece
        del model.pieces[size:]
        known = {piece.piece: piece for piece in model.pieces}
        rarest = min(piece.score for piece in model.pieces)
        for symbol in symbols:
            if symbol in known:
                known[symbol].type = kinds.USER_DEFINED
            else:
                model.pieces.add(piece=symbol, score=0.0, type=kinds.USER_DEFINED)
        for piece in (piece for piece in pieces if piece not in known):
            model.pieces.add(piece=piece, score=rarest, type=kinds.NORMAL)
        same = model == proto.ModelProto.FromString(data)
        return data if same else bytes(model.SerializeToString())

    def parts(self, piece: str) -> Sequence[str]:
        """Return the letters of the piece."""
        return [letter for letter in piece if letter != SPACE]

    def _rule(self, side: int) -> str:
        """Return the normalisation rule of a side; a joint vocabulary follows the target's rule."""
        source, target = self.cfg.normalization, self.cfg.target_normalization
        return source if target is None or (side == 0 and not self.cfg.joint) else target

    def word_counter(self, language: str) -> WordCounter:
        """Count words between spaces."""
        return count_words


class VocabularyTooLargeError(DataError):
    """The text does not give that many pieces."""

    def __init__(self, asked: int, largest: int, text: str = "this corpus") -> None:
        self.asked, self.largest = asked, largest
        what = f"tokenizer.vocab_size={asked} is too large for {text}; at most {largest}"
        fix = f"Set tokenizer.vocab_size={largest} or less, or null for as many as the text gives."
        super().__init__("config", what, fix)
        self.args = (asked, largest, text)  # from which pickle and copy rebuild it


class AlphabetTooLargeError(ConfigError):
    """The vocabulary has no place for each letter."""

    def __init__(self, asked: int, smallest: int) -> None:
        self.smallest = smallest
        what = f"tokenizer.vocab_size={asked} is smaller than the alphabet of the corpus"
        fix = f"Use {smallest} or more, or lower tokenizer.character_coverage."
        super().__init__("config", what, fix)
        self.args = (asked, smallest)


def train_sentencepiece(
    lines: Iterable[str], cfg: SentencePieceConfig, rule: str, most: int | None = None
) -> bytes:
    """Learn a vocabulary from training text and return the model's bytes.

    Args:
        lines: The text; read more than once if `vocab_size` is null.
        cfg: Kind and size.
        rule: The normalisation rule.
        most: Maximal number of pieces if `vocab_size` is null; None picks it by the text's size.

    Raises:
        VocabularyTooLargeError: with the largest size that works.
        AlphabetTooLargeError: with the smallest.
        ConfigError: the normalization is unknown.
        DataError: there is no usable text.
    """
    model = io.BytesIO()
    size = cfg.vocab_size or most or suitable_size(lines, cfg.joint) + len(cfg.symbols)
    spell = str if rule == "identity" else composed
    texts = (spell(line.translate(_RESERVED)) for line in lines)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),  # the model would store a file's name
            model_writer=model,
            model_type=cfg.kind.name,
            vocab_size=size,
            normalization_rule_name="identity" if rule == NFC else rule,
            character_coverage=cfg.character_coverage,
            max_sentence_length=1 << 20,  # bytes; longer lines would be dropped silently
            num_threads=1,  # unigram scores depend on the number
            pad_id=PAD,
            unk_id=UNK,
            eos_id=EOS,
            bos_id=-1,
            hard_vocab_limit=cfg.vocab_size is not None,  # otherwise as many as the text gives
            user_defined_symbols=cfg.symbols,
            minloglevel=2,
        )
        return model.getvalue()
    except RuntimeError as error:
        problem = _explained(str(error), rule, size)
    # A size that we chose is raised to that of the alphabet.
    if cfg.vocab_size is None and isinstance(problem, AlphabetTooLargeError):
        return train_sentencepiece(lines, cfg, rule, problem.smallest)
    raise problem


def suitable_size(lines: Iterable[str], joint: bool) -> int:
    """Return a vocabulary size for a text: its alphabet plus merges by its size."""
    letters: set[str] = set()
    count = 0
    for line in lines:
        letters.update(line)
        count += len(line)
    words = count / LETTERS / (2 if joint else 1)
    return min(MOST_PIECES, len(letters) + round(MERGES * math.sqrt(words / WORDS)))


def _explained(message: str, rule: str, size: int) -> ConfigError | DataError:
    """Convert a message of the library, which names C++ source lines, to one of our errors."""
    if found := re.search(r"set it to a value <= (\d+)", message):
        return VocabularyTooLargeError(size, int(found.group(1)))
    if found := re.search(r"required_chars\. (\d+) vs (\d+)", message):
        return AlphabetTooLargeError(size, int(found.group(2)))
    if "charsmap" in message:
        what = f"tokenizer.normalization={rule!r} is unknown"
        fix = "Use nfc, nmt_nfkc, nfkc, nmt_nfkc_cf, nfkc_cf or identity."
        return ConfigError("config", what, fix)
    empty = "all_chars_count" in message or "sentences_.empty" in message
    reason = f"{rule!r} leaves no letter of the text" if empty else message
    fix = "Give more text, or set tokenizer.normalization=identity."
    return DataError("tokenizer", f"no vocabulary could be learnt: {reason}", fix)
