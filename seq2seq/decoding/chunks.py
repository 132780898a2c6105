"""The loop behind translation and forced decoding: one result per line, in order.

Lines are read in chunks, so memory holds one chunk, not the whole text. A chunk is sorted by length
and cut into batches with little padding. Sentences are independent: a result does not depend on
its batch.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from seq2seq.config.schema import DecodeConfig
from seq2seq.data.placeholders import tokens_of
from seq2seq.data.tags import UNTAGGED, Tagging
from seq2seq.data.tokenizer import EOS, Token, Tokenizer
from seq2seq.data.words import Span
from seq2seq.run.errors import MemoryLimitError
from seq2seq.run.memory import OutOfMemory
from seq2seq.run.workers import chunked

log = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")

Texts = tuple[str, ...]  # one item: a sentence to translate, or a sentence and its translation
Ids = tuple[list[int], ...]  # the token ids of an item, one list per side, with end symbols
CHUNK_BATCHES = 16  # batches per chunk: more of them mean less padding and a later first result
CHUNK_CHARACTERS = 1 << 20  # a chunk that reaches this size is full
LINE_CHARACTERS = 1 << 17
"""The rest of a longer line is not tokenized.

Without this limit, a line of megabytes would be cut into pieces, at some hundred bytes each, before
all but the first `max_source_tokens` are dropped.
"""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text that are used, without the end symbol."""

    ids: list[int]
    written: tuple[str, ...]  # as in the text, even unknown ones
    spans: tuple[Span, ...]  # positions in the text


def always() -> bool:
    """Return True: all lines are available, as in a file or a list."""
    return True


@dataclass(frozen=True)
class Feed:
    """How the items of a text come."""

    tags: Tagging = UNTAGGED  # the language that each is translated to
    first: int = 1  # number of the first one, which keys samples and stands in warnings
    ready: Callable[[], bool] = always  # whether the next one is there; if not, a chunk ends


def in_chunks(
    items: Iterable[Texts],
    tokenizers: Sequence[Tokenizer],
    compute: Callable[[Sequence[Ids], Sequence[int]], Sequence[R]],
    cfg: DecodeConfig,
    feed: Feed,
) -> Iterator[tuple[Texts, Sequence[Tokens], R | None]]:
    """Yield each item with its tokens and its result, in order.

    `compute` returns the results of a batch, given its ids and the numbers of its items. An item
    with an empty side has no result. A side of more than `max_source_tokens` is cut, with a warning
    that names its line.

    Raises:
        MemoryLimitError: a batch does not fit in memory.
    """

    def size(item: tuple[int, Texts]) -> int:
        return sum(map(len, item[1]))

    for chunk in chunks_of(enumerate(items, feed.first), size, cfg, feed.ready):
        # Tokenize each side.
        sides = [[texts[side] for _, texts in chunk] for side in range(len(tokenizers))]
        cut = tokens_of(tokenizers, [[text[:LINE_CHARACTERS] for text in own] for own in sides])
        numbers = [number for number, _ in chunk]
        used = (_used(*side, cfg) for side in zip([numbers] * len(cut), sides, cut, strict=True))
        rows = list(zip(*used, strict=True))
        # Compute batch by batch; put the results back in line order.
        results: list[R | None] = [None] * len(rows)
        for batch in _batches(rows, cfg.batch_sentences):
            ids = [tuple([*side.ids, EOS] for side in rows[i]) for i in batch]
            for i, (src, *_) in zip(batch, ids, strict=True):
                src[:0] = feed.tags.of_line(chunk[i][0])
            with OutOfMemory() as oom:
                found = compute(ids, [chunk[i][0] for i in batch])
            if oom:
                raise _too_large(chunk[batch[-1]][0], ids, cfg)
            for i, own in zip(batch, found, strict=True):
                results[i] = own
        for (_, texts), tokens, result in zip(chunk, rows, results, strict=True):
            yield texts, tokens, result


def chunks_of(
    items: Iterable[T], size: Callable[[T], int], cfg: DecodeConfig, ready: Callable[[], bool]
) -> Iterator[list[T]]:
    """Group items into chunks; `size` returns the characters of one."""
    return chunked(items, size, cfg.batch_sentences * CHUNK_BATCHES, CHUNK_CHARACTERS, ready)


def _used(
    numbers: Sequence[int], texts: Sequence[str], rows: Sequence[Sequence[Token]], cfg: DecodeConfig
) -> Iterator[Tokens]:
    """Yield the used tokens of each line; warn of lines that are too long and cut them."""
    for number, text, row in zip(numbers, texts, rows, strict=True):
        used = row[: cfg.max_source_tokens]
        if len(text) > LINE_CHARACTERS:
            log.warning(
                "line %d: cut from %d characters to %d tokens", number, len(text), len(used)
            )
        elif len(used) < len(row):
            log.warning("line %d: cut from %d to %d tokens", number, len(row), len(used))
        ids, pieces = [token.id for token in used], tuple(token.piece for token in used)
        yield Tokens(ids, pieces, tuple(token.span for token in used))


def _batches(rows: Sequence[Sequence[Tokens]], size: int) -> Iterator[list[int]]:
    """Cut the rows of a chunk into batches, shortest first; skip rows with an empty side."""
    lengths = [[len(side.ids) for side in row] for row in rows]
    whole = (i for i, row in enumerate(lengths) if all(row))
    by_length = sorted(whole, key=lambda i: max(lengths[i]))
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]


def _too_large(line: int, batch: Sequence[Ids], cfg: DecodeConfig) -> MemoryLimitError:
    """Return an error that names the longest item of a batch (the last) and what to lower."""
    beam, key = f", and a beam of {cfg.beam_size}", ", decode.beam_size"
    if cfg.sample:
        beam, key = f", and {cfg.n_best} samples of each", ", decode.n_best"
    if len(batch[-1]) == 2:  # forced decoding
        beam, key = "", ""
    size = f"{len(batch)} sentences of up to {max(map(len, batch[-1]))} tokens, this the longest"
    batch_sentences = cfg.batch_sentences
    fix = f"Lower decode.batch_sentences (now {batch_sentences}){key} or decode.max_source_tokens."
    return MemoryLimitError(f"line {line}", f"out of memory with {size}{beam}", fix)
