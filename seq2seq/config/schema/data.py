"""Settings of corpora and tokenizers: where text comes from and how it becomes ids."""

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

    seed: int = at_least(0, default=1)  # determines the corpus
    train_pairs: int = at_least(1, default=30_000)  # sentence pairs for training
    validation_pairs: int = at_least(1, default=500)  # sentence pairs for validation
    test_pairs: int = at_least(1, default=500)  # sentence pairs of the test set
    min_words: int = number(3, 60, default=3)  # shortest English sentence, in words
    max_words: int = number(3, 60, default=20)  # longest English sentence, in words


@dataclass(kw_only=True)
class DictionaryConfig:
    """The CMU Pronouncing Dictionary: how its words are divided, and written."""

    seed: int = at_least(0, default=1)  # determines the split of each word
    # Share of the words in the validation set, and in the test set
    held_out: float = number(0, 0.4, default=0.03, open_ends="low")
    # Keep the stress of vowels (AH0, AH1, AH2); most publications drop it, which leaves 39 phonemes
    stress: bool = False


# How to treat a training pair with an unreadable line
OnBadLine = StrEnum("OnBadLine", "error skip")

# The order in which the tokens of a target are written
TargetOrder = StrEnum("TargetOrder", "left_to_right right_to_left")
# What the numbers in a file of links count, as `--level` of the scripts
LinkLevel = StrEnum("LinkLevel", "words blanks")
Direction = tuple[str, str]
"""Source and target language."""


@dataclass(kw_only=True)
class CorpusConfig:
    """One of several corpora, in the forms of `DataConfig`."""

    train: list[str] = field(default_factory=list)  # as `data.train`
    # A direction uses the validation and test sets of all its corpora; at least one must have them
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)  # as `data.test`
    # Null takes those of `data`
    source_language: str | None = None
    target_language: str | None = None  # null takes that of `data`
    weight: float = 1.0  # multiplies the probability that its pairs are drawn


@dataclass(kw_only=True)
class DataConfig:
    """Where sentence pairs come from, and which of them are kept for training.

    The defaults are WMT 2014 English-French (4.1, 5.1): newstest2012 and 2013 joined for
    development, the 3,003 sentences of newstest2014 as the test set (sacreBLEU's `wmt14` is the set
    filtered for the shared task). The paper trains on a selection of 348M words of this corpus;
    the selection was never published.
    """

    source_language: str = "en"  # code, such as en
    target_language: str = "fr"  # code, such as fr
    root: str = "."  # directory that relative file names start from
    # `[embedded]`, two parallel files, one .tsv/.jsonl/.parquet file, `[hub:NAME:CONFIG]` (a pinned
    # commit: `hub:NAME@COMMIT:CONFIG`), `[sacrebleu:NAME+NAME]`, or `[cmudict]`
    train: list[str] = field(default_factory=lambda: ["hub:wmt/wmt14:fr-en"])
    validation: list[str] = field(default_factory=lambda: ["sacrebleu:wmt12+wmt13"])  # as `train`
    test: list[str] = field(default_factory=lambda: ["sacrebleu:wmt14/full"])  # as `train`
    # Several corpora, instead of `train`, `validation` and `test`, which must be empty. With more
    # than one target language, a tag before the source selects it (Johnson et al. 2017,
    # arXiv:1611.04558).
    corpora: list[CorpusConfig] = field(default_factory=list)
    # A corpus of n pairs and weight w is drawn from with probability ~ w n^(1/temperature): 1 is
    # by size, a large value is uniform (Arivazhagan et al. 2019, arXiv:1907.05019)
    temperature: float = number(0, default=1.0, open_ends="low")
    # Training pairs with a longer side are dropped; 50 is RNNsearch-50's (4.2). Counts the words of
    # `tokenizer: words`, space-separated words with subwords, or the characters of
    # `tokenizer: characters`; without the end symbol.
    max_words: int = at_least(1, default=50)
    # Training pairs whose longer side has over this many times the words of the other are dropped.
    # The paper has no such filter: no pair of at most 50 words exceeds 50.
    max_ratio: float = at_least(1, default=50.0)
    drop_duplicates: bool = False  # keep only the first of equal training pairs
    # `error` stops at a line that is not UTF-8, holds a NUL, or is not a row of its table; `skip`
    # drops the training pair and counts it in `data_report.json`. Nothing is ever replaced, and
    # the validation and test sets are always read strictly.
    on_bad_line: OnBadLine = OnBadLine.error
    # Processes that filter and encode; null is one per CPU, at most 16. The result is the same.
    workers: int | None = number(1, 1024, default=None)
    # Directory of prepared data that runs share by a checksum of settings and files; each has its
    # own copy. Null is outputs/prepared in a sweep, and none otherwise.
    prepared: str | None = None
    # Use only the first n training pairs, of each corpus; null for all
    limit: int | None = at_least(1, default=None)
    # `right_to_left` writes targets from their last token to their first, for reranking (Liu et al.
    # 2016, Agreement on Target-bidirectional Neural Machine Translation)
    target_order: TargetOrder = TargetOrder.left_to_right
    grammar: GrammarConfig = field(default_factory=GrammarConfig)
    cmudict: DictionaryConfig = field(default_factory=DictionaryConfig)
    # File with the word links of each training pair, for `objective=guided_alignment`: Pharaoh's
    # `0-0 1-2`, a line per pair before any filter. The embedded corpus has its own.
    links: str | None = None
    link_level: LinkLevel = LinkLevel.words  # `blanks`: strings between spaces
    # Texts to carry over unchanged: `url`, `email`, `number`, `tag`, or `name=PATTERN` with a
    # Python regular expression. If two match at the same place, the first wins.
    placeholders: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list["DataConfig"]:
        """Each corpus as a config of its own."""
        if not self.corpora:
            return [self]
        keys = ("train", "validation", "test", "source_language", "target_language")
        given = ({key: getattr(corpus, key) for key in keys} for corpus in self.corpora)
        found = ({key: x for key, x in each.items() if x is not None} for each in given)
        return [replace(self, corpora=[], **each) for each in found]

    @property
    def directions(self) -> list[Direction]:
        """Distinct pairs of source and target language, in the order of the corpora."""
        return [*dict.fromkeys((part.source_language, part.target_language) for part in self.parts)]

    @property
    def tags(self) -> dict[str, str]:
        """The tag put before a source, by target language; empty if there is only one."""
        targets = dict.fromkeys(target for _, target in self.directions)
        return {target: f"<2{target}>" for target in targets} if len(targets) > 1 else {}

    def check(self, config: Any) -> None:
        """Check language codes, the grammar's lengths, and that placeholders can have symbols."""
        if patterns_of(self.placeholders) and not hasattr(config.tokenizer, "symbols"):
            name = config.tokenizer.name
            lacking = f"data.placeholders needs symbols, and tokenizer={name} has none"
            raise ConfigError("config", lacking, "Choose another.")
        if self.placeholders and self.target_order is TargetOrder.right_to_left:
            what = "data.placeholders and data.target_order=right_to_left cannot be combined"
            raise ConfigError("config", what, "Leave one of them out.")
        if self.grammar.min_words > self.grammar.max_words:
            raise ConfigError("config", "data.grammar.min_words is above max_words", "Swap them.")
        if not self.corpora and self.temperature != 1:
            alone = f"data.temperature={self.temperature:g} is for several corpora"
            raise ConfigError("config", alone, "Name them in data.corpora.")
        if self.links is not None and self.corpora:
            what = "data.links is for a single corpus, and data.corpora has several"
            raise ConfigError("config", what, "Leave one of them out.")
        self._check_languages(config.tokenizer.name)

    def _check_languages(self, tokenizer: str) -> None:
        """Check that languages are codes, and that corpora are compatible."""
        for i, part in enumerate(self.parts):
            where = f"data.corpora.{i}" if self.corpora else "data"
            for key in ("source_language", "target_language"):
                code = getattr(part, key)
                # YAML reads an unquoted `no` as False, which the schema converts to "False".
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
            mixed = "tokenizer=words has one language per side, data.corpora several"
            raise ConfigError("config", mixed, "Use tokenizer=sentencepiece.")


def check_symbols(symbols: Sequence[str]) -> None:
    """Check that protected symbols can occur in text, and once in a vocabulary."""
    for i, symbol in enumerate(symbols):
        wrong = None
        if symbol in ("<pad>", "<unk>", "</s>"):
            wrong = "is already special"
        elif symbol in symbols[:i]:
            wrong = "is given twice"
        elif not symbol or " " in symbol or not symbol.isprintable() or {*symbol} & {*_OF_PIECES}:
            wrong = "is empty, or has a space or the piece marker U+2581"
        elif not unicodedata.is_normalized("NFC", f"e{symbol}"):
            wrong = "has a combining mark without its letter"
        if wrong is not None:
            fix = "Give distinct texts such as <2de>, without spaces."
            raise ConfigError("config", f"tokenizer.symbols: {symbol!r} {wrong}", fix)


_OF_PIECES = "\u2581\u2585\u203f\u2423"
"""Characters with a special meaning in pieces: spaces and joints."""


@option("tokenizer")
@dataclass(kw_only=True)
class WordsConfig:
    """The most frequent Moses words of the training text, case kept; others are unknown (4.1)."""

    name: str = "words"
    # Ids per language: y_0 (never produced), the unknown word, the end symbol, then words; the
    # 29,998 most frequent ones in the authors' code
    vocab_size: int = number(4, 1_000_000, default=30_001)
    # Texts that are never split, [<2de>, <2fr>]; each has an id, right after the special ones
    symbols: list[str] = field(default_factory=list)

    def check(self, config: Any) -> None:
        """Check that symbols and at least one word fit."""
        check_symbols(symbols := all_symbols(config))
        if self.vocab_size < 4 + len(symbols):
            what = f"tokenizer.vocab_size={self.vocab_size} has no place for words"
            raise ConfigError("config", what, f"Use {4 + len(symbols)} or more.")


PieceModel = StrEnum("PieceModel", "bpe unigram")  # SentencePiece's model types


@option("tokenizer")
@dataclass(kw_only=True)
class SentencePieceConfig:
    """Subwords, learnt from the training text."""

    name: str = "sentencepiece"
    kind: PieceModel = PieceModel.bpe
    joint: bool = False  # one vocabulary for both languages
    # Pieces per vocabulary, special ones included; null chooses it by the size of the text: some
    # 2,000 for 100,000 words, at most 8,000 or the size of the alphabet
    vocab_size: int | None = number(5, 1_000_000, default=30_000)
    # Normalisation of the source, a rule of SentencePiece: `nmt_nfkc` folds compatibility
    # characters, `identity` changes nothing; or `nfc`, which only composes letters with their marks
    normalization: str = "nmt_nfkc"
    # Normalisation of the target, and of both sides of a joint vocabulary: folded characters cannot
    # be written. Null uses the source's rule.
    target_normalization: str | None = "nfc"
    character_coverage: float = number(0.9, 1.0, default=1.0)  # share of characters that are pieces
    # Subword regularisation in training: BPE-dropout rate or unigram temperature; 0 is off
    sampling: float = share(0.0)
    # The vocabulary is learnt from at most n lines per language, spread over the corpus
    max_lines: int = at_least(1, default=1_000_000)
    # Texts that are never split, [<2de>, <2fr>]; each has an id, right after the special ones
    symbols: list[str] = field(default_factory=list)

    def check(self, config: Any) -> None:
        """Check that symbols can occur in text."""
        check_symbols(all_symbols(config))


# What has an id: characters as readers see them, or what stands between spaces
Units = StrEnum("Units", "characters tokens")


@option("tokenizer")
@dataclass(kw_only=True)
class CharactersConfig:
    """The characters of the training text, spaces included, or the tokens between its spaces.

    For spelling, pronunciation, transliteration, inflection, dates. Lengths (`data.max_words`,
    BLEU by length) are then in characters without spaces.
    """

    name: str = "characters"
    # A character is an extended grapheme cluster: a letter with its marks, an emoji sequence, a
    # syllable of Hangul. `tokens` is for text such as phonemes: `HH AH L OW`
    source: Units = Units.characters
    target: Units = Units.characters
    joint: bool = False  # one vocabulary for both sides
    min_count: int = at_least(1, default=1)  # rarer ones are unknown
    # Ids per vocabulary, special ones included: the most frequent ones; null is all
    vocab_size: int | None = number(4, 1_000_000, default=None)
    # Texts that are never split, [<2de>, <2fr>]; each has an id, right after the special ones
    symbols: list[str] = field(default_factory=list)

    def check(self, config: Any) -> None:
        """Check that symbols can occur in text, and that sides fit a joint vocabulary."""
        check_symbols(symbols := all_symbols(config))
        if self.joint and self.source is not self.target:
            what = f"tokenizer.joint=true with source={self.source}, target={self.target}"
            raise ConfigError("config", what, "Set both to the same.")
        if self.vocab_size is not None and self.vocab_size < 4 + len(symbols):
            small = f"tokenizer.vocab_size={self.vocab_size} has no place for characters"
            raise ConfigError("config", small, f"Use {4 + len(symbols)} or more, or null.")
