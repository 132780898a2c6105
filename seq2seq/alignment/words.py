"""Converts attention between pieces to attention between words.

The vocabulary gives the position of each piece in the text, and a piece belongs to the word of
which it covers most. Attention *to* a word is the sum over its pieces, attention *from* a word the
mean over its pieces (Clark et al. 2019, arXiv:1906.04341), its log-probability the sum. Words that
share a piece share its row; the first of them gets its column and its log-probability. End symbols
stay unchanged. Every row still sums to 1.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from seq2seq.alignment.heatmap import Weights
from seq2seq.data.tokenizer import surface
from seq2seq.data.words import Span, Splitter, is_blank, word_spans

Spans = Sequence[tuple[int, int]]  # characters [start, end) of a text
Maps = Mapping[str, Weights]
"""Attention of every layer and head, (layers, heads, rows, columns) each.

`heads`: from target to source tokens. `encoder`: between source tokens. `decoder`: from target
tokens to the start symbol, column 0, and the previous tokens. Kinds that a model lacks are absent.
"""


@dataclass(frozen=True)
class SoftAlignment:
    """Attention between the tokens (pieces or words) of a sentence and of its translation."""

    source: str  # the text
    target: str
    source_tokens: tuple[str, ...]  # the end symbol last
    target_tokens: tuple[str, ...]  # the end symbol last if `ended`
    log_probs: tuple[float, ...]  # nats, one per target token
    weights: Weights  # (target tokens, source tokens)
    ended: bool  # whether the target has an end symbol
    source_spans: tuple[Span, ...] | None = None  # of the tokens without the end symbol
    target_spans: tuple[Span, ...] | None = None
    matched: bool = True  # False: the pieces of a side could not be matched with its words
    maps: Maps = field(default_factory=dict)


@dataclass(frozen=True)
class WordMap:
    """The pieces of each word of a sentence, without the end symbol."""

    groups: list[list[int]]  # the pieces of each group, in order, every piece once
    group_of: list[int]  # the group of each word; words that share a piece share a group


def to_words(pieces: SoftAlignment, split: Splitter | None = word_spans) -> SoftAlignment:
    """Return attention between words; a side whose pieces match no words keeps its pieces.

    Without `split`, which finds words, both sides do.
    """
    if split is None:
        return pieces
    # Both sides without their end symbols.
    *src_pieces, src_end = pieces.source_tokens
    tgt_pieces = pieces.target_tokens[: len(pieces.target_tokens) - pieces.ended]
    tgt_end = len(tgt_pieces)  # index of the end symbol in target_tokens and log_probs
    src = _words_of(pieces.source, src_pieces, pieces.source_spans, split)
    tgt = _words_of(pieces.target, tgt_pieces, pieces.target_spans, split)
    return replace(
        pieces,
        source_tokens=(*src.tokens, src_end),
        target_tokens=(*tgt.tokens, *pieces.target_tokens[tgt_end:]),
        log_probs=(*_word_sums(pieces.log_probs, tgt.map), *pieces.log_probs[tgt_end:]),
        weights=word_weights(pieces.weights.astype(np.float64), src.map, tgt.map),
        maps=_word_maps(pieces, src.map, tgt.map),
        source_spans=src.spans,
        target_spans=tgt.spans,
        matched=src.matched and tgt.matched,
    )


class _Words(NamedTuple):
    tokens: Sequence[str]  # the words of a side, or else its pieces
    spans: tuple[Span, ...] | None
    map: WordMap
    matched: bool


def _words_of(
    text: str, pieces: Sequence[str], spans: tuple[Span, ...] | None, split: Splitter
) -> _Words:
    if (found := map_words(text, spans or lay_over(text, pieces), split)) is None:
        return _Words(pieces, spans, _one_each(pieces), matched=False)
    words = tuple(split(text))
    return _Words([text[a:b] for a, b in words], words, found, matched=True)


def _word_maps(pieces: SoftAlignment, src: WordMap, tgt: WordMap) -> Maps:
    """Convert the attention of all layers and heads by the same rule."""
    maps = {name: weights.astype(np.float64) for name, weights in pieces.maps.items()}
    if "decoder" in maps:
        # Add a column for the last piece if there is no end symbol; move the start symbol to the
        # end, where `word_weights` leaves it unchanged.
        padded = np.pad(maps["decoder"], [*[(0, 0)] * 3, (0, not pieces.ended)])
        maps["decoder"] = np.roll(padded, -1, axis=-1)
    sides = {"heads": (src, tgt), "encoder": (src, src), "decoder": (tgt, tgt)}
    joined = {name: word_weights(weights, *sides[name]) for name, weights in maps.items()}
    if "decoder" in maps:
        joined["decoder"] = np.roll(joined["decoder"], 1, axis=-1)
    return joined


def _one_each(pieces: Sequence[str]) -> WordMap:
    """Return a map with one word per piece."""
    return WordMap([[i] for i in range(len(pieces))], list(range(len(pieces))))


def _word_sums(log_probs: Sequence[float], words: WordMap) -> list[float]:
    """Sum over the pieces of each word; of words that share pieces the first gets the sum."""
    sums = [0.0] * len(words.group_of)
    for group, pieces in enumerate(words.groups):
        sums[words.group_of.index(group)] = sum(log_probs[piece] for piece in pieces)
    return sums


def lay_over(text: str, pieces: Sequence[str]) -> list[Span] | None:
    """Locate pieces in a text by matching non-space characters; return None if these differ.

    For pieces without positions, as in results of 0.1.0.
    """
    written, offsets = surface(pieces)
    if "".join(written.split()) != "".join(text.split()):
        return None
    places = [*(i for i, c in enumerate(text) if not c.isspace()), len(text)]
    before = list(accumulate((not c.isspace() for c in written), initial=0))
    return [Span(places[before[start]], places[before[end]]) for start, end in offsets]


def map_words(text: str, spans: Spans | None, split: Splitter = word_spans) -> WordMap | None:
    """Return the word map of a text, given the span of each piece.

    None if the spans are unknown, there are no words, or the text was cut before the last ones.
    """
    words = split(text)
    if spans is None or bool(words) != bool(spans):
        return None
    if not words:
        return WordMap([], [])
    end = max(end for _, end in spans)
    if any(word.start >= end and any(map(str.isalnum, text[slice(*word)])) for word in words):
        return None
    groups, begins = _grouped(text, spans, words)
    stops = [*begins[1:], len(words)]
    sizes = zip(begins, stops, strict=True)
    return WordMap(groups, [i for i, (a, b) in enumerate(sizes) for _ in range(a, b)])


def group_pieces(
    text: str, offsets: Spans, split: Splitter = word_spans
) -> tuple[list[str], list[list[int]]]:
    """Group the pieces of a text by word; return the labels of the groups and their pieces.

    Offsets are the characters [start, end) of each piece, in order; a span may include the space
    before a word, and may be empty.
    """
    words = split(text)
    if not words or not offsets:
        return ([text], [list(range(len(offsets)))]) if offsets else ([], [])
    groups, begins = _grouped(text, offsets, words)
    bounds = pairwise([*begins, len(words)])
    return [text[words[a].start : words[b - 1].end] for a, b in bounds], groups


def _grouped(text: str, spans: Spans, words: Sequence[Span]) -> tuple[list[list[int]], list[int]]:
    """Return the pieces of each group, and the first word of each group.

    A piece belongs to the word of which it covers most characters, on ties to the first
    (`l'ho` + `mme`: the first piece goes to `l'`). A piece without visible characters, such as a
    lone space or the first half of a rewritten character, belongs to the next word or, if it has
    no space, to the previous word that it touches (U+200B). A word left without a piece joins the
    group of the neighbour whose piece covers it: the single piece `homme.` stands for `homme` and
    `.`.
    """
    groups: dict[int, list[int]] = {}  # word -> its pieces
    word = 0
    for piece, (start, end) in enumerate(spans):
        word = max(word, _owner(text, Span(start, end), words))  # never go back
        groups.setdefault(word, []).append(piece)
    # A group begins at the first word that its first piece reaches but no earlier piece does.
    begins = [0]
    for (before, _), (word, group) in pairwise(groups.items()):
        reached = bisect_right(words, spans[group[0]][0], key=lambda span: span.end)
        begins.append(max(before + 1, min(reached, word)))
    return list(groups.values()), begins


def _owner(text: str, piece: Span, words: Sequence[Span]) -> int:
    """Return the index of the word that a piece belongs to; see `_grouped`."""
    first = next((i for i in range(*piece) if not is_blank(text[i])), piece.end)
    if first == piece.end and not any(map(str.isspace, text[slice(*piece)])):
        before = bisect_left(words, piece.start, key=lambda word: word.end)
        if first > piece.start and before < len(words) and words[before].end == piece.start:
            return before
    nearest = min(bisect_right(words, first, key=lambda word: word.end), len(words) - 1)
    stop = bisect_left(words, piece.end, key=lambda word: word.start)

    def overlap(word: int) -> int:
        return min(piece.end, words[word].end) - max(first, words[word].start)

    return max(range(nearest, max(stop, nearest + 1)), key=overlap)  # the first on ties


def merge_words(
    alpha: Weights, src_groups: Sequence[Sequence[int]], tgt_groups: Sequence[Sequence[int]]
) -> Weights:
    """Sum columns and average rows of weights (..., Ty, Tx) over the pieces of each word."""
    by_word = np.stack([alpha[..., list(group)].sum(axis=-1) for group in src_groups], axis=-1)
    means = [by_word[..., list(group), :].mean(axis=-2) for group in tgt_groups]
    return np.stack(means, axis=-2)


def word_weights(alpha: Weights, src: WordMap, tgt: WordMap) -> Weights:
    """Convert weights between pieces (..., Ty, Tx) to weights between words.

    A row or column beyond the pieces of a map is the end symbol's; it stays last.
    """
    # The end symbol of a side, if it has one, is a group of its own.
    sizes = [sum(map(len, side.groups)) for side in (tgt, src)]
    tgt_end, src_end = (
        [[i] for i in range(size, total)]
        for size, total in zip(sizes, alpha.shape[-2:], strict=True)
    )
    merged = merge_words(alpha, [*src.groups, *src_end], [*tgt.groups, *tgt_end])
    # All words of a group get its row and the first gets its column, so that rows sum to 1.
    num_rows, num_columns = merged.shape[-2:]
    rows = [*tgt.group_of, *range(len(tgt.groups), num_rows)]
    columns = [*src.group_of, *range(len(src.groups), num_columns)]
    weights = np.zeros((*merged.shape[:-2], len(rows), len(columns)))
    places = [columns.index(group) for group in range(num_columns)]
    weights[..., places] = merged[..., rows, :]
    return weights
