"""Where text comes from and how it becomes ids."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import at_least, number, share
from seq2seq.run.errors import ConfigError


@dataclass(kw_only=True)
class GrammarConfig:
    """The embedded corpus: sizes of its splits and lengths of its sentences."""

    seed: int = at_least(0, default=1)  # every seed gives another corpus; one seed always the same
    train_pairs: int = at_least(1, default=30_000)
    validation_pairs: int = at_least(1, default=500)
    test_pairs: int = at_least(1, default=500)
    min_words: int = number(3, 60, default=3)  # shortest English sentence, in words
    max_words: int = number(3, 60, default=20)  # longest English sentence, in words


# What becomes of a training pair of which a line cannot be read
OnBadLine = StrEnum("OnBadLine", "error skip")

# From where to where the tokens of a target are written
TargetOrder = StrEnum("TargetOrder", "left_to_right right_to_left")


@dataclass(kw_only=True)
class DataConfig:
    """Where sentence pairs come from, and which of them are kept for training.

    The defaults are WMT 2014 English-French (4.1, 5.1): newstest2012 and 2013 joined for
    development, the 3,003 sentences of newstest2014 as test set (sacreBLEU's `wmt14` is the set
    filtered for the contest). The paper trains on a selection of 348M words of this corpus; the
    selection was never published.
    """

    source_language: str = "en"
    target_language: str = "fr"
    root: str = "."  # folder that relative file names start from
    # `[embedded]`, two parallel files, one .tsv/.jsonl/.parquet file, `[hub:NAME:CONFIG]` (a pinned
    # commit: `hub:NAME@COMMIT:CONFIG`), or `[sacrebleu:NAME+NAME]`
    train: list[str] = field(default_factory=lambda: ["hub:wmt/wmt14:fr-en"])
    validation: list[str] = field(default_factory=lambda: ["sacrebleu:wmt12+wmt13"])
    test: list[str] = field(default_factory=lambda: ["sacrebleu:wmt14/full"])
    # Training pairs with a longer side are dropped; 50 is RNNsearch-50's (4.2). Counted, without
    # the end symbol, are the words of `tokenizer: words`, and with subwords what spaces separate.
    max_words: int = at_least(1, default=50)
    # Training pairs whose longer side has over this many times the words are dropped. The paper has
    # no such filter: no pair of at most 50 words exceeds 50.
    max_ratio: float = at_least(1, default=50.0)
    drop_duplicates: bool = False  # keep only the first of equal training pairs
    # `error` stops at a line that is not UTF-8, holds a NUL, or is no row of its table; `skip`
    # drops the training pair and counts it in `data_report.json`. Nothing is ever replaced, and the
    # validation and test sets are always read strictly.
    on_bad_line: OnBadLine = OnBadLine.error
    # Use only the first n training pairs; null for all
    limit: int | None = at_least(1, default=None)
    # `right_to_left` writes targets from their last token to their first, for reranking (Liu et al.
    # 2016, Agreement on Target-bidirectional Neural Machine Translation)
    target_order: TargetOrder = TargetOrder.left_to_right
    grammar: GrammarConfig = field(default_factory=GrammarConfig)

    def check(self, _config: Any) -> None:
        """See that languages are codes, and that the grammar has lengths to choose from."""
        for key in ("source_language", "target_language"):
            code = getattr(self, key)
            # YAML reads an unquoted `no` as False, and the schema makes that the text "False".
            letters = code.replace("-", "").replace("_", "")
            if not (code.isascii() and letters.isalnum()) or code in ("True", "False"):
                what = f"data.{key}={code!r} is not a language code"
                raise ConfigError("config", what, "Quote it.")
        if self.grammar.min_words > self.grammar.max_words:
            raise ConfigError("config", "data.grammar.min_words is above max_words", "Swap them.")


@option("tokenizer")
@dataclass(kw_only=True)
class WordsConfig:
    """Moses words with their case, the most frequent of the training text; others unknown (4.1)."""

    name: str = "words"
    # Ids per language: y_0 (never produced), the unknown word, the end symbol, then words; in the
    # authors' code the 29,998 most frequent ones
    vocab_size: int = number(4, 1_000_000, default=30_001)


PieceModel = StrEnum("PieceModel", "bpe unigram")  # how SentencePiece chooses its pieces


@option("tokenizer")
@dataclass(kw_only=True)
class SentencePieceConfig:
    """Subwords, learnt from the training text."""

    name: str = "sentencepiece"
    kind: PieceModel = PieceModel.bpe
    joint: bool = False  # one vocabulary for both languages
    # Pieces per vocabulary, the special ones included; null for as many as suit the size of the
    # text: some 2,000 of 100,000 words, at most 8,000 or its alphabet
    vocab_size: int | None = number(5, 1_000_000, default=30_000)
    # Of the source, a rule of SentencePiece: `nmt_nfkc` folds compatibility characters, `identity`
    # leaves all; or `nfc`, which only composes letters with their marks
    normalization: str = "nmt_nfkc"
    # Of the target, and of both sides of a joint vocabulary: what is folded here cannot be written.
    # null: as the source
    target_normalization: str | None = "nfc"
    character_coverage: float = number(0.9, 1.0, default=1.0)
    # Subword regularisation in training: BPE-dropout rate or unigram temperature; 0 is off
    sampling: float = share(0.0)
    # The vocabulary is learnt from at most n lines a language, spread over the corpus
    max_lines: int = at_least(1, default=1_000_000)
