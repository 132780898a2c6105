"""From pieces to words: which pieces make up which word, and weights between words.

The rule: pieces are laid over the text by their printing characters, and a piece belongs to the
word of which it covers most. Attention *to* a word is the sum over its pieces, attention *from* a
word the mean over its pieces (Clark et al. 2019, arXiv:1906.04341), its log-probability the sum.
Words that share a piece share its row; of words that share one the first has its column and its
log-probability. End symbols stay as they are. So every row still sums to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

from seq2seq.alignment.heatmap import Weights, group_pieces, merge_words
from seq2seq.data.tokenizer import surface
from seq2seq.data.words import Splitter, word_spans

if TYPE_CHECKING:
    from seq2seq.decoding.translate import Candidate, Translation


@dataclass(frozen=True)
class WordMap:
    """Which pieces make up which words of a sentence, the end symbol left out."""

    groups: list[list[int]]  # the pieces of each group, in order, every piece once
    group_of: list[int]  # for each word its group; words that share a piece share a group


@dataclass(frozen=True)
class WordAlignment:
    """Attention between the words of two sentences; the end symbols, last, are kept."""

    source_words: tuple[str, ...]
    words: tuple[str, ...]
    log_probs: tuple[float, ...]  # nats, one a target word
    alignment: Weights  # (len(words), len(source_words))
    ended: bool  # False: the target came to no end, so it has no end symbol
    matched: bool  # False: on some side these are pieces, in which no words could be found


def as_words(translation: "Translation", split: Splitter = word_spans) -> "Translation":
    """Let the tokens of a translation and of its candidates be words.

    Where the words of a side cannot be found in its pieces these stay as they are.
    """
    found = [to_words(translation, candidate, split) for candidate in translation.candidates]
    if not found:
        return translation
    candidates = (
        replace(
            candidate,
            tokens=words.words,
            token_log_probs=words.log_probs,
            alignment=words.alignment.astype(np.float32),
        )
        for candidate, words in zip(translation.candidates, found, strict=True)
    )
    return replace(translation, source_tokens=found[0].source_words, candidates=tuple(candidates))


def to_words(
    translation: "Translation", candidate: "Candidate", split: Splitter = word_spans
) -> WordAlignment:
    """Turn the attention of a candidate into that between words.

    Args:
        translation: Whose candidate it is.
        candidate: One of its candidates.
        split: What a word is.
    """
    *src_pieces, end = translation.source_tokens
    tgt_pieces = candidate.tokens[: len(candidate.tokens) - candidate.finished]
    source, src_map = _words(translation.source, src_pieces, split)
    target, tgt_map = _words(candidate.text, tgt_pieces, split)
    src_used, tgt_used = src_map or _each(source), tgt_map or _each(target)
    return WordAlignment(
        source_words=(*source, end),
        words=(*target, *candidate.tokens[len(tgt_pieces) :]),
        log_probs=(
            *_word_sums(candidate.token_log_probs, tgt_used),
            *candidate.token_log_probs[len(tgt_pieces) :],
        ),
        alignment=word_weights(candidate.alignment.astype(np.float64), src_used, tgt_used),
        ended=candidate.finished,
        matched=src_map is not None and tgt_map is not None,
    )


def _word_sums(log_probs: Sequence[float], words: WordMap) -> list[float]:
    """Sum over the pieces of each word; of words that share pieces the first has the sum."""
    first = [words.group_of.index(group) for group in range(len(words.groups))]
    sums = [0.0] * len(words.group_of)
    for word, group in zip(first, words.groups, strict=True):
        sums[word] = sum(log_probs[piece] for piece in group)
    return sums


def _words(
    text: str, pieces: Sequence[str], split: Splitter
) -> tuple[Sequence[str], WordMap | None]:
    """Return the words of a text and their pieces; the pieces, where that cannot be told."""
    found = map_words(text, pieces, split)
    return ([text[slice(*span)] for span in split(text)] if found else pieces), found


def _each(pieces: Sequence[str]) -> WordMap:
    """Let each piece be a word."""
    return WordMap([[i] for i in range(len(pieces))], list(range(len(pieces))))


def map_words(text: str, pieces: Sequence[str], split: Splitter = word_spans) -> WordMap | None:
    """Say which pieces make up which word of a sentence.

    Pieces are laid over the text by their printing characters, so blanks do not matter. Where
    these differ (normalised characters), the words of the written pieces stand for
    those of the text, if they are equally many.

    Args:
        text: The sentence.
        pieces: Its pieces as `Tokenizer.tokens` gives them: unknown ones as they stand.
        split: What a word is.

    Returns:
        None if pieces and words cannot be matched.
    """
    written, offsets = surface(pieces)
    num_words = len(split(text))
    if "".join(written.split()) == "".join(text.split()):
        places = [*(i for i, c in enumerate(text) if not c.isspace()), len(text)]
        before = list(accumulate((not c.isspace() for c in written), initial=0))
        offsets = [(places[before[start]], places[before[end]]) for start, end in offsets]
        written = text
    labels, groups = group_pieces(written, offsets, split)
    group_of = [i for i, label in enumerate(labels) for _ in split(label)]
    fits = len(group_of) == num_words and set(group_of) == set(range(len(groups)))
    return WordMap(groups, group_of) if fits else None


def word_weights(alpha: Weights, src: WordMap, tgt: WordMap) -> Weights:
    """Turn weights between pieces into weights between words.

    Args:
        alpha: (Ty, Tx) between pieces; what is more than the pieces of a map is the end symbol.
        src: Words of the source.
        tgt: Words of the target.

    Returns:
        (target words, source words), the end symbols last, where `alpha` has them.
    """
    sizes = [sum(map(len, side.groups)) for side in (tgt, src)]
    ends = [
        [[i] for i in range(size, total)] for size, total in zip(sizes, alpha.shape, strict=True)
    ]
    merged = merge_words(alpha, [*src.groups, *ends[1]], [*tgt.groups, *ends[0]])
    rows = [*tgt.group_of, *range(len(tgt.groups), len(merged))]
    columns = [*src.group_of, *range(len(src.groups), merged.shape[1])]
    first = [columns.index(group) for group in range(merged.shape[1])]
    weights = np.zeros((len(rows), len(columns)))
    weights[:, first] = merged[rows]
    return weights
