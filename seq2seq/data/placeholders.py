"""Carries texts over unchanged: URLs, numbers, tags, names (`data.placeholders`).

Before tokenization, each such text becomes a symbol, `<url1>`, which is one id of the vocabulary;
in a target, only texts that also occur in the source. After the search, symbols become the source's
texts again (`decoding/carried.py`). Tokens that are shown hold the texts, not the symbols.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from seq2seq.config.schema import Config
from seq2seq.config.schema.placeholders import numbered, patterns_of
from seq2seq.data.pair import Pair
from seq2seq.data.tokenizer import SPACE, Draws, Token, Tokenizer, symbol_ids
from seq2seq.data.words import Span

Symbols = Mapping[Span, str]
"""The symbols that replace spans of a text, in order."""


class Placeholders:
    """Finds the texts to carry over, and assigns them symbols.

    Args:
        patterns: One per kind; if two match at the same place, the first wins.
        others: Protected symbols, inside which nothing is found.
    """

    def __init__(self, patterns: Mapping[str, str], others: Iterable[str] = ()) -> None:
        self.kinds = [*patterns]
        self.symbols = [symbol for kind in patterns for symbol in numbered(kind)]
        # A text that looks like a symbol is carried over itself, so it cannot be mistaken for one.
        first = [("", "|".join(map(re.escape, others)) or "(?!)")]
        first += [(kind, "|".join(numbered(kind))) for kind in patterns]
        self._patterns = [(kind, re.compile(p)) for kind, p in [*first, *patterns.items()]]

    def source(self, text: str) -> Symbols:
        """Return the symbols of a source."""
        return _numbered(self._found(text))

    def target(self, source: str, symbols: Symbols, text: str) -> Symbols:
        """Return the symbols of a target: each symbol of the source once, for the same text."""
        left: dict[str, list[str]] = {}
        for span, symbol in symbols.items():
            left.setdefault(source[slice(*span)], []).append(symbol)
        spans = (span for _, span in self._found(text) if left.get(text[slice(*span)]))
        return {span: left[text[slice(*span)]].pop(0) for span in spans}

    def pair(self, pair: Pair) -> Pair:
        """Return a training pair with symbols for texts that occur on both sides.

        Each symbol of the source is then in the target, once.
        """
        theirs = Counter(pair.tgt[slice(*span)] for _, span in self._found(pair.tgt))
        shared = []
        for kind, span in self._found(pair.src):
            text = pair.src[slice(*span)]
            if theirs[text]:
                theirs[text] -= 1
                shared.append((kind, span))
        symbols = _numbered(shared)
        target, _ = _put(pair.tgt, self.target(pair.src, symbols, pair.tgt))
        return Pair(_put(pair.src, symbols)[0], target)

    def _found(self, text: str) -> list[tuple[str, Span]]:
        """Return kind and span of the texts found, from left to right."""
        every = (
            (match.start(), rank, kind, Span(*match.span()))
            for rank, (kind, pattern) in enumerate(self._patterns)
            for match in pattern.finditer(text)
            if match[0].strip()
        )
        found, end = [], 0
        for start, _, kind, span in sorted(every):
            if start >= end:
                found.append((kind, span))
                end = span.end
        return [each for each in found if each[0]]


def _numbered(found: Iterable[tuple[str, Span]]) -> Symbols:
    left: dict[str, list[str]] = {}
    symbols = {}
    for kind, span in found:
        if own := left.setdefault(kind, numbered(kind)):
            symbols[span] = own.pop(0)
    return symbols


def _put(text: str, symbols: Symbols) -> tuple[str, list[int]]:
    """Insert symbols; also return the original position of each character and of the end."""
    written, places, at = "", [], 0
    for (start, end), symbol in symbols.items():
        written += text[at:start] + symbol
        places += [*range(at, start), *[start] * len(symbol)]
        at = end
    return written + text[at:], [*places, *range(at, len(text) + 1)]


class CarryingTokenizer:
    """A source vocabulary that carries texts over.

    Args:
        source: The source vocabulary.
        target: The target vocabulary.
        placeholders: Finds the texts.
    """

    def __init__(self, source: Tokenizer, target: Tokenizer, placeholders: Placeholders) -> None:
        self._source, self._target, self.placeholders = source, target, placeholders
        self._symbols = {*placeholders.symbols}
        ours, theirs = (symbol_ids(t, placeholders.symbols) for t in (source, target))
        self._target_of = dict(zip(ours, theirs, strict=True))
        self.written = dict(zip(theirs, placeholders.symbols, strict=True))
        """The symbol of each target id that stands for one."""

    def __len__(self) -> int:
        return len(self._source)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Turn texts into ids, without the end symbol."""
        return [[token.id for token in row] for row in self.tokens(texts)]

    def sample(self, texts: Sequence[str], rate: float, draws: Draws) -> list[list[int]]:
        """Segment each text at random; training text already has its symbols."""
        return self._source.sample(texts, rate, draws)

    def tokens(self, texts: Sequence[str]) -> list[list[Token]]:
        """Segment texts like `encode`; pieces and spans are those of the original texts."""
        return self._tokens(self._source, texts, map(self.placeholders.source, texts))

    def target_tokens(self, sources: Sequence[str], texts: Sequence[str]) -> list[list[Token]]:
        """Segment targets, with the symbols of their sources."""
        p = self.placeholders
        pairs = zip(sources, texts, strict=True)
        symbols = (p.target(source, p.source(source), text) for source, text in pairs)
        return self._tokens(self._target, texts, symbols)

    def _tokens(
        self, tokenizer: Tokenizer, texts: Sequence[str], symbols: Iterable[Symbols]
    ) -> list[list[Token]]:
        put = [_put(text, own) for text, own in zip(texts, symbols, strict=True)]
        rows = tokenizer.tokens([text for text, _ in put])
        sides = zip(texts, put, rows, strict=True)
        return [
            [self._shown(*token, text, places) for token in row] for text, (_, places), row in sides
        ]

    def _shown(self, token: int, piece: str, put: Span, text: str, places: Sequence[int]) -> Token:
        """Convert a token of a text with symbols to one of the original text."""
        span = Span(places[put.start], places[put.end])
        if (symbol := piece.strip(SPACE)) in self._symbols:
            piece = piece.replace(symbol, text[slice(*span)].strip().replace(" ", SPACE))
        return Token(token, piece, span)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the written form of each id."""
        return self._source.pieces(ids)

    def write(self, pieces: Sequence[str]) -> tuple[str, list[Span]]:
        """Turn pieces into text."""
        return self._source.write(pieces)

    def lost(self, texts: Sequence[str]) -> list[str | None]:
        """Return the first word or character of each text that ids cannot express, or None."""
        return self._source.lost(texts)

    def carried(
        self, text: str, ids: Sequence[int], spans: Sequence[Span]
    ) -> dict[int, tuple[str, int]]:
        """Return the target ids that a translation must have once, with text and source position.

        It must not have any other id of `written`.
        """
        return {
            self._target_of[token]: (text[slice(*span)], i)
            for i, (token, span) in enumerate(zip(ids, spans, strict=True))
            if token in self._target_of
        }


def tokens_of(
    tokenizers: Sequence[Tokenizer], texts: Sequence[Sequence[str]]
) -> list[list[list[Token]]]:
    """Segment sources, or sources and targets, each side with its vocabulary."""
    source, *targets = tokenizers
    if isinstance(source, CarryingTokenizer) and targets:
        return [source.tokens(texts[0]), source.target_tokens(*texts)]
    return [tokenizer.tokens(side) for tokenizer, side in zip(tokenizers, texts, strict=True)]


def placeholders_of(cfg: Config) -> Placeholders | None:
    """Return the placeholders of a config, or None."""
    if not cfg.data.placeholders:
        return None
    others = [*cfg.data.tags.values(), *cfg.tokenizer.symbols]
    return Placeholders(patterns_of(cfg.data.placeholders), others)
