"""Where text comes from and how it becomes ids."""

from dataclasses import dataclass
from enum import Enum

from seq2seq.config.schema.ranges import at_least, number, share


@dataclass(kw_only=True)
class GrammarConfig:
    """The embedded corpus: sizes of its splits and lengths of its sentences."""

    seed: int = at_least(0)
    """Every seed gives another corpus; one seed always the same."""
    train_pairs: int = at_least(1)
    validation_pairs: int = at_least(1)
    test_pairs: int = at_least(1)
    min_words: int = number(3, 60)
    """Shortest English sentence, in words."""
    max_words: int = number(3, 60)
    """Longest English sentence, in words."""


class OnBadLine(Enum):
    """What becomes of a training pair of which a line cannot be read."""

    error = "error"
    skip = "skip"


@dataclass(kw_only=True)
class DataConfig:
    """Where sentence pairs come from, and which of them are kept for training."""

    source_language: str
    target_language: str
    root: str
    """Folder that relative file names start from."""
    train: list[str]
    """`[embedded]`, two parallel files, one .tsv/.jsonl/.parquet file, `[hub:NAME:CONFIG]`
    (a pinned commit: `hub:NAME@COMMIT:CONFIG`), or `[sacrebleu:NAME+NAME]`."""
    validation: list[str]
    test: list[str]
    max_words: int = at_least(1)
    """Training pairs with a longer side are dropped. Counted, without the end symbol, are the
    words of `tokenizer: words`, and what stands between blanks with subwords."""
    max_ratio: float = at_least(1)
    """Training pairs whose longer side has over this many times the words are dropped."""
    drop_duplicates: bool
    """Keep only the first of equal training pairs."""
    on_bad_line: OnBadLine
    """`error` stops at a line that is not UTF-8, holds a NUL, or is no row of its table; `skip`
    drops the training pair and counts it in `data_report.json`. Nothing is ever replaced, and the
    validation and test sets are always read strictly."""
    limit: int | None = at_least(1)
    """Use only the first so many training pairs; null for all."""
    grammar: GrammarConfig


class TokenizerKind(Enum):
    """How text becomes ids."""

    words = "words"
    sentencepiece = "sentencepiece"


@dataclass(kw_only=True)
class WordsConfig:
    """Moses words, the most frequent of the training text; the rest is unknown (4.1)."""

    name: TokenizerKind
    vocab_size: int = number(4, 1_000_000)
    """Ids per language: y_0 (never produced), the unknown word, the end symbol, then words."""


class PieceModel(Enum):
    """How SentencePiece chooses its pieces."""

    bpe = "bpe"
    unigram = "unigram"


@dataclass(kw_only=True)
class SentencePieceConfig:
    """Subwords, learnt from the training text."""

    name: TokenizerKind
    kind: PieceModel
    joint: bool
    """One vocabulary for both languages."""
    vocab_size: int | None = number(5, 1_000_000)
    """Pieces per vocabulary, the special ones included; null for as many as the text gives, at
    most 8,000 or its alphabet."""
    normalization: str
    """SentencePiece rule: `nmt_nfkc` (folds compatibility characters) or `identity`."""
    character_coverage: float = number(0.9, 1.0)
    sampling: float = share()
    """Subword regularisation in training: BPE-dropout rate or unigram temperature; 0 is off."""
    max_lines: int = at_least(1)
    """The vocabulary is learnt from at most so many lines a language, spread over the corpus."""
