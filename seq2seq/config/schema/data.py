"""Where text comes from and how it becomes ids."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from seq2seq.config.registry import option
from seq2seq.config.schema.placeholders import all_symbols, patterns_of
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
Direction = tuple[str, str]
"""Source and target language."""


@dataclass(kw_only=True)
class CorpusConfig:
    """One of several corpora, in the forms of `DataConfig`."""

    train: list[str] = field(default_factory=list)
    # A direction has the validation and test sets of all its corpora, of one of them at least
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    # Null: those of `data`
    source_language: str | None = None
    target_language: str | None = None
    weight: float = 1.0  # makes its pairs this many times as likely to be drawn


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
    # Several corpora in place of `train`, `validation` and `test`, which are then empty. With more
    # than one target language a tag before the source says which is meant (Johnson et al. 2017,
    # arXiv:1611.04558).
    corpora: list[CorpusConfig] = field(default_factory=list)
    # Of n pairs and weight w, a corpus is drawn from with probability ~ w n^(1/temperature): 1 is
    # by size, much more is all alike (Arivazhagan et al. 2019, arXiv:1907.05019)
    temperature: float = number(0, default=1.0, open_ends="low")
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
    # Use only the first n training pairs, of each corpus; null for all
    limit: int | None = at_least(1, default=None)
    # `right_to_left` writes targets from their last token to their first, for reranking (Liu et al.
    # 2016, Agreement on Target-bidirectional Neural Machine Translation)
    target_order: TargetOrder = TargetOrder.left_to_right
    grammar: GrammarConfig = field(default_factory=GrammarConfig)
    # Texts that are carried over as they are: `url`, `email`, `number`, `tag`, or `name=PATTERN`
    # with a regular expression of Python. Of two that match at one place the first counts.
    placeholders: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list["DataConfig"]:
        """Each corpus as if it were the only one."""
        if not self.corpora:
            return [self]
        keys = ("train", "validation", "test", "source_language", "target_language")
        given = ({key: getattr(corpus, key) for key in keys} for corpus in self.corpora)
        found = ({key: x for key, x in each.items() if x is not None} for each in given)
        return [replace(self, corpora=[], **each) for each in found]

    @property
    def directions(self) -> list[Direction]:
        """Source and target languages, each pair of them once, in the order of the corpora."""
        return [*dict.fromkeys((part.source_language, part.target_language) for part in self.parts)]

    @property
    def tags(self) -> dict[str, str]:
        """What is put before a source, by the target language; nothing if there is only one."""
        targets = dict.fromkeys(target for _, target in self.directions)
        return {target: f"<2{target}>" for target in targets} if len(targets) > 1 else {}

    def check(self, config: Any) -> None:
        """See that languages are codes, the grammar has lengths, and placeholders have symbols."""
        if patterns_of(self.placeholders) and not hasattr(config.tokenizer, "symbols"):
            name = config.tokenizer.name
            lacking = f"data.placeholders needs symbols, and tokenizer={name} has none"
            raise ConfigError("config", lacking, "Choose another.")
        if self.placeholders and self.target_order is TargetOrder.right_to_left:
            what = "data.placeholders and data.target_order=right_to_left do not go together"
            raise ConfigError("config", what, "Leave one of them out.")
        if self.grammar.min_words > self.grammar.max_words:
            raise ConfigError("config", "data.grammar.min_words is above max_words", "Swap them.")
        if not self.corpora and self.temperature != 1:
            alone = f"data.temperature={self.temperature:g} is for several corpora"
            raise ConfigError("config", alone, "Name them in data.corpora.")
        self._check_languages(config.tokenizer.name)

    def _check_languages(self, tokenizer: str) -> None:
        """See that languages are codes, and that corpora go together."""
        for i, part in enumerate(self.parts):
            where = f"data.corpora.{i}" if self.corpora else "data"
            for key in ("source_language", "target_language"):
                code = getattr(part, key)
                # YAML reads an unquoted `no` as False, and the schema makes that the text "False".
                letters = code.replace("-", "").replace("_", "")
                if not (code.isascii() and letters.isalnum()) or code in ("True", "False"):
                    what = f"{where}.{key}={code!r} is not a language code"
                    raise ConfigError("config", what, "Quote it.")
        for i, corpus in enumerate(self.corpora):
            direction = (self.parts[i].source_language, self.parts[i].target_language)
            if len({*direction}) == 1 < len(self.directions):
                same = f"data.corpora.{i} translates {'-'.join(direction)}, the others do not"
                raise ConfigError("config", same, "Set its source_language or target_language.")
            if not 0 < corpus.weight < math.inf:
                outside = f"data.corpora.{i}.weight={corpus.weight:g} is out of range"
                raise ConfigError("config", outside, "Use (0, inf), or leave the corpus out.")
        sides = zip(*self.directions, strict=True)
        if tokenizer == "words" and any(len({*side}) > 1 for side in sides):
            mixed = "tokenizer=words has the rules of one language a side, data.corpora has several"
            raise ConfigError("config", mixed, "Use tokenizer=sentencepiece.")


def check_symbols(symbols: Sequence[str]) -> None:
    """See that protected symbols can stand in text, and in a vocabulary once."""
    for i, symbol in enumerate(symbols):
        wrong = None
        if symbol in ("<pad>", "<unk>", "</s>"):
            wrong = "is special already"
        elif symbol in symbols[:i]:
            wrong = "is given twice"
        elif not symbol or " " in symbol or not symbol.isprintable() or {*symbol} & {*_OF_PIECES}:
            wrong = "is empty, or has a blank or a sign of pieces"
        elif not unicodedata.is_normalized("NFC", f"e{symbol}"):
            wrong = "has a mark apart from its letter"
        if wrong is not None:
            fix = "Give distinct texts such as <2de>, without blanks."
            raise ConfigError("config", f"tokenizer.symbols: {symbol!r} {wrong}", fix)


_OF_PIECES = "\u2581\u2585\u203f\u2423"
"""What stands for spaces and joints in pieces."""


@option("tokenizer")
@dataclass(kw_only=True)
class WordsConfig:
    """Moses words with their case, the most frequent of the training text; others unknown (4.1)."""

    name: str = "words"
    # Ids per language: y_0 (never produced), the unknown word, the end symbol, then words; in the
    # authors' code the 29,998 most frequent ones
    vocab_size: int = number(4, 1_000_000, default=30_001)
    # Texts that stay whole wherever they stand, [<2de>, <2fr>]; each has an id, right after the
    # special ones
    symbols: list[str] = field(default_factory=list)

    def check(self, config: Any) -> None:
        """See that symbols and a word have a place."""
        check_symbols(symbols := all_symbols(config))
        if self.vocab_size < 4 + len(symbols):
            what = f"tokenizer.vocab_size={self.vocab_size} has no place for words"
            raise ConfigError("config", what, f"Use {4 + len(symbols)} or more.")


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
    # Texts that stay whole wherever they stand, [<2de>, <2fr>]; each has an id, right after the
    # special ones
    symbols: list[str] = field(default_factory=list)

    def check(self, config: Any) -> None:
        """See that symbols can stand in text."""
        check_symbols(all_symbols(config))
