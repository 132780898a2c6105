"""From lines to translations: one out for each one in, in order, whatever the batch."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from seq2seq.alignment.heatmap import plot_alignment
from seq2seq.alignment.word_level import as_words
from seq2seq.config.schema import DecodeConfig
from seq2seq.data.batching import pad_ids
from seq2seq.data.tokenizer import EOS, PAD, UNK, Tokenizer
from seq2seq.data.words import Splitter, word_spans
from seq2seq.decoding.search import Floats, Hypothesis, SearchRules, beam_search
from seq2seq.model import RNNSearch
from seq2seq.model.protocols import Stepper
from seq2seq.run.errors import MemoryLimitError
from seq2seq.run.memory import OutOfMemory
from seq2seq.training.precision import autocast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

T = TypeVar("T")

END = "</s>"
"""How the end symbol is written in labels: it is attended to, and attends."""

_CHUNK_BATCHES = 16
"""Lines are sorted by length inside so many batches, so that a batch has little padding."""

_CHUNK_CHARACTERS = 1 << 20
"""No line is added to a chunk that holds so many."""

_MOST_NATS = 700.0
"""e to more than 709 is no float."""

_LINE_CHARACTERS = 1 << 17
"""So many characters of a line are read.

Without a bound a line of megabytes would be cut into pieces, at some hundred bytes each, before
all but the first `max_source_tokens` are dropped.
"""


@dataclass(frozen=True)
class Candidate:
    """One translation of a line and how the search came to it."""

    text: str
    tokens: tuple[str, ...]  # as in the text; the end symbol included where it was reached
    token_log_probs: tuple[float, ...]  # nats
    log_prob: float  # nats, summed
    score: float  # log_prob / len(tokens) ** decode.length_penalty
    alignment: np.ndarray[Any, np.dtype[np.float32]]  # (len(tokens), len(source_tokens))
    finished: bool

    @property
    def perplexity(self) -> float:
        """Of a token."""
        return perplexity(self.log_prob, len(self.tokens))


@dataclass(frozen=True)
class Translation:
    """A line and its translations, best first. A blank line has none, and blank text."""

    source: str
    source_tokens: tuple[str, ...]  # as in the line, unknown ones too; the end symbol included
    candidates: tuple[Candidate, ...]

    @property
    def text(self) -> str:
        """The best translation."""
        return self.candidates[0].text if self.candidates else ""

    @property
    def score(self) -> float:
        """Score of the best translation; 0 for a blank line."""
        return self.candidates[0].score if self.candidates else 0.0

    @property
    def alignment(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Attention of the best translation, (target tokens, source tokens)."""
        empty = np.zeros((0, len(self.source_tokens)), np.float32)
        return self.candidates[0].alignment if self.candidates else empty

    def words(self, split: Splitter = word_spans) -> "Translation":
        """Return the same with words for tokens; `word_level.py` has the rule.

        Args:
            split: What a word is; `data.words.blank_spans` for text that is tokenised.
        """
        return as_words(self, split)

    def plot(self, number: int = 0, *, font: str | None = None) -> "Figure":
        """Draw where the model looked, as in the paper's Fig. 3.

        translation.plot().savefig("attention.pdf")
        translation.words().plot()

        Args:
            number: Of the candidate; 0 is the best.
            font: Font file for characters that the installed fonts lack.

        Returns:
            A matplotlib figure; a notebook shows it.

        Raises:
            IndexError: there is no such candidate; a blank line has none.
        """
        best = self.candidates[number]
        return plot_alignment(best.alignment, self.source_tokens, best.tokens, font=font)

    def to_html(self) -> str:
        """Return an HTML page that shows the attention of every candidate, to point at.

        It needs nothing else, no network either: write it to a file and open that.
        """
        from seq2seq.report.sentence import translation_page  # it reads what is defined here

        return translation_page(self)

    def _repr_html_(self) -> str:
        """Show that page in a notebook."""
        from seq2seq.report.sentence import translation_frame

        return translation_frame(self)

    def as_dict(self) -> dict[str, Any]:
        """Return what a JSON line of `scripts/decode.py` holds."""
        return {
            "source": self.source,
            "text": self.text,
            "source_tokens": list(self.source_tokens),
            "hypotheses": [
                {
                    "text": c.text,
                    "score": c.score,
                    "log_prob": c.log_prob,
                    "finished": c.finished,
                    "tokens": list(c.tokens),
                    "token_log_probs": [round(p, 6) for p in c.token_log_probs],
                    "attention": [[round(float(a), 6) for a in row] for row in c.alignment],
                }
                for c in self.candidates
            ],
        }


def perplexity(log_prob: float, num_tokens: int) -> float:
    """Return e to the negative mean log-probability of a token, as far as floats go."""
    return math.exp(min(-log_prob / max(num_tokens, 1), _MOST_NATS))


def always() -> bool:
    """All lines are there already, as in a file or a list."""
    return True


def translate(
    model: RNNSearch,
    tokenizers: tuple[Tokenizer, Tokenizer],
    lines: Iterable[str],
    cfg: DecodeConfig,
    ready: Callable[[], bool] = always,
) -> Iterator[Translation]:
    """Translate lines of text; yields one translation a line, in order.

    Memory holds one chunk of lines. A line longer than `max_source_tokens` is cut, with a warning
    that names it.

    Args:
        model: In evaluation mode.
        tokenizers: Of its source and of its target.
        lines: Any number of them, without line ends.
        cfg: How to search.
        ready: Says whether the next of `lines` is there or has yet to be waited for; rather than
            wait, those that were read are translated.
    """
    # Training weights may be averaged or in training mode; the caller hands over an eval model.
    assert not model.training
    searcher = for_search(model, cfg)
    for chunk in chunks(lines, cfg.batch_sentences, len, ready):
        yield from _translate_chunk(model, searcher, tokenizers, chunk, cfg)


def chunks(
    items: Iterable[T],
    batch_sentences: int,
    characters: Callable[[T], int],
    ready: Callable[[], bool] = always,
) -> Iterator[list[tuple[int, T]]]:
    """Number lines, or pairs of them, from 1 and group them; memory holds one group.

    Args:
        items: Any number of them.
        batch_sentences: How many go through the model at once.
        characters: Of an item.
        ready: Says whether the next one is there; rather than wait, a group ends.
    """
    chunk: list[tuple[int, T]] = []
    held = 0
    for number, item in enumerate(items, start=1):
        chunk.append((number, item))
        held += characters(item)
        full = len(chunk) == batch_sentences * _CHUNK_BATCHES or held >= _CHUNK_CHARACTERS
        if full or not ready():
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _translate_chunk(
    model: RNNSearch,
    searcher: Stepper,
    tokenizers: tuple[Tokenizer, Tokenizer],
    chunk: Sequence[tuple[int, str]],
    cfg: DecodeConfig,
) -> list[Translation]:
    source, target = tokenizers
    texts = [readable(text) for _, text in chunk]
    rows = source.encode(texts)
    for (number, text), row in zip(chunk, rows, strict=True):
        cut(number, text, row, cfg.max_source_tokens)
    found: list[list[Hypothesis]] = [[] for _ in rows]
    # Blank lines never reach the model: their translation is blank.
    by_length = sorted((i for i, row in enumerate(rows) if row), key=lambda i: len(rows[i]))
    for start in range(0, len(by_length), cfg.batch_sentences):
        batch = by_length[start : start + cfg.batch_sentences]
        ids = [[*rows[i], EOS] for i in batch]
        with OutOfMemory() as oom:
            hypotheses = search_batch(model, searcher, ids, cfg)
        if oom:
            raise MemoryLimitError(
                f"line {chunk[batch[-1]][0]}",
                f"out of memory with {len(ids)} sentences of up to {len(ids[-1])} tokens, this the "
                f"longest, and a beam of {cfg.beam_size}",
                f"Lower decode.batch_sentences (now {cfg.batch_sentences}), decode.beam_size or "
                "decode.max_source_tokens.",
            )
        for i, best in zip(batch, hypotheses, strict=True):
            found[i] = best
    translations = []
    for (_, text), row, tokens, best in zip(chunk, rows, source.tokens(texts), found, strict=True):
        copied = tokens[: len(row)]
        translations.append(
            Translation(
                source=text,
                source_tokens=(*copied, END) if row else (),
                candidates=tuple(
                    _candidate(target, h, copied if cfg.replace_unknown else None) for h in best
                ),
            )
        )
    return translations


def replace_unknown(
    ids: Sequence[int], pieces: Sequence[str], alpha: Floats, source_tokens: Sequence[str]
) -> list[str]:
    """Put the source token with the greatest weight in place of each unknown symbol.

    The idea of Luong et al. 2015 (arXiv:1410.8206) and Jean et al. 2015 (arXiv:1412.2007),
    without their dictionary: names and numbers often stay the same.

    Args:
        ids: Of the target, without the end symbol.
        pieces: Their written form.
        alpha: (at least len(ids), Tx); the end symbol's column is never looked at.
        source_tokens: Tx - 1 tokens, the end symbol left out. Of equal weights the first counts.
    """
    most = alpha[:, : len(source_tokens)].argmax(axis=1)
    return [
        source_tokens[most[i]] if token == UNK else piece
        for i, (token, piece) in enumerate(zip(ids, pieces, strict=True))
    ]


@torch.inference_mode()
def for_search(model: RNNSearch, cfg: DecodeConfig) -> Stepper:
    """Return what `search_batch` searches with, as long as the weights stay as they are."""
    with autocast(next(model.parameters()).device, cfg.precision):
        return model.for_search()


@torch.inference_mode()
def search_batch(
    model: RNNSearch, searcher: Stepper, rows: Sequence[Sequence[int]], cfg: DecodeConfig
) -> list[list[Hypothesis]]:
    """Search translations of token rows that already end with the end symbol."""
    device = next(model.parameters()).device
    src, mask = (tensor.to(device) for tensor in pad_ids(rows, PAD))
    with autocast(device, cfg.precision):
        return beam_search(searcher, src, mask, search_rules(cfg))


def search_rules(cfg: DecodeConfig) -> SearchRules:
    """Translate the config into ids."""
    return SearchRules(
        beam_size=cfg.beam_size,
        n_best=cfg.n_best,
        length_penalty=cfg.length_penalty,
        min_ratio=cfg.min_ratio,
        max_ratio=cfg.max_ratio,
        extra_steps=cfg.extra_steps,
        forbidden=(PAD, UNK) if cfg.forbid_unknown else (PAD,),
        start=PAD,
        eos=EOS,
    )


def readable(text: str) -> str:
    """Return as much of a line as is made into tokens."""
    return text[:_LINE_CHARACTERS]


def cut(number: int, text: str, row: list[int], max_tokens: int) -> None:
    """Shorten the tokens of a line that is too long, and say so.

    Args:
        number: Of the line.
        text: The line; tokens are those of `readable(text)`.
        row: These tokens; changed in place.
        max_tokens: How many may stay.
    """
    whole = len(text) <= _LINE_CHARACTERS
    if len(row) > max_tokens or not whole:
        size = f"{len(row)}" if whole else f"{len(text)} characters"
        del row[max_tokens:]
        log.warning("line %d: cut from %s to %d tokens", number, size, len(row))


def _candidate(target: Tokenizer, h: Hypothesis, copied: Sequence[str] | None) -> Candidate:
    """Write a hypothesis as text; source tokens in `copied` stand in for its unknown words."""
    words = h.ids[:-1] if h.finished else h.ids
    pieces = target.pieces(words)
    if copied is not None:
        pieces = replace_unknown(words, pieces, h.alpha, copied)
    return Candidate(
        text=" ".join(target.join(pieces).split()),
        tokens=(*pieces, END) if h.finished else tuple(pieces),
        token_log_probs=h.token_log_probs,
        log_prob=h.log_prob,
        score=h.score,
        alignment=h.alpha,
        finished=h.finished,
    )
