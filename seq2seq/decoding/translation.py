"""The results of decoding: a line and its translations, with probabilities and attention."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.alignment.heatmap import plot_alignment
from seq2seq.alignment.words import Maps, SoftAlignment, to_words
from seq2seq.data.tokenizer import UNK, RightToLeft, Tokenizer
from seq2seq.data.words import Span, Splitter, word_spans
from seq2seq.decoding.search import Hypothesis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

END = "</s>"  # the end symbol in labels, on both sides of an attention matrix
_MAX_NATS = 700.0  # exp of more than 709 overflows a float


def perplexity(log_prob: float, num_tokens: int) -> float:
    """Return exp of the negative mean log-probability per token, capped to a finite float."""
    return math.exp(min(-log_prob / max(num_tokens, 1), _MAX_NATS))


@dataclass(frozen=True)
class Candidate:
    """One translation of a line: found by the search, or given and scored."""

    text: str
    tokens: tuple[str, ...]  # as in the text, with the end symbol if it was reached
    token_log_probs: tuple[float, ...]  # nats
    log_prob: float  # nats, summed
    score: float  # see `Ranking`
    alignment: NDArray[np.float32]  # (len(tokens), len(source_tokens))
    finished: bool
    # Positions of the tokens in the text, without the end symbol; None: to be found by matching
    spans: tuple[Span, ...] | None = None
    maps: Maps = field(default_factory=dict)  # if requested and the model has layers or heads
    utility: float | None = None  # 0-100, if `decode.mbr` ordered the candidates
    unknown: bool = False  # whether a token is the unknown symbol, even if it has been replaced

    @property
    def perplexity(self) -> float:
        """Perplexity per token."""
        return perplexity(self.log_prob, len(self.tokens))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; token log-probabilities and attention to six digits."""
        utility = {} if self.utility is None else {"utility": self.utility}
        return {
            "text": self.text,
            **utility,
            "score": self.score,
            "log_prob": self.log_prob,
            "finished": self.finished,
            "tokens": list(self.tokens),
            "token_log_probs": [round(p, 6) for p in self.token_log_probs],
            "attention": [[round(float(a), 6) for a in row] for row in self.alignment],
        }


def candidate_of(
    h: Hypothesis, target: Tokenizer, text: str, pieces: Sequence[str], spans: Sequence[Span]
) -> Candidate:
    """Return a hypothesis written as text, given its pieces there without the end symbol.

    Tokens are in the order of the text, the end symbol last. For a right-to-left model, the
    `decoder` maps (attention to the tokens generated before) make no sense in this order and are
    dropped.
    """
    tokens = (*pieces, END) if h.finished else tuple(pieces)
    log_probs, alpha, maps = h.token_log_probs, h.alpha, h.maps
    # From the order of generation to that of the text; the end symbol is last in both.
    if isinstance(target, RightToLeft):
        order = [*range(len(pieces))[::-1], *range(len(pieces), len(tokens))]
        tokens, spans = tuple(tokens[i] for i in order), spans[::-1]
        log_probs, alpha = tuple(log_probs[i] for i in order), alpha[order]
        kept = {name: weights for name, weights in maps.items() if name != "decoder"}
        maps = {k: x[..., order, :] if k == "heads" else x for k, x in kept.items()}
    return Candidate(
        text=text,
        tokens=tokens,
        token_log_probs=log_probs,
        log_prob=h.log_prob,
        score=h.score,
        alignment=alpha,
        finished=h.finished,
        spans=tuple(spans),
        maps=maps,
        unknown=UNK in h.ids,
    )


@dataclass(frozen=True)
class Translation:
    """A line and its translations, best first. An empty line has no candidates and empty text."""

    source: str
    source_tokens: tuple[str, ...]  # as in the line, even unknown ones; with the end symbol
    candidates: tuple[Candidate, ...]
    source_spans: tuple[Span, ...] | None = None  # see `Candidate.spans`
    unknown: bool = False  # of the source; see `Candidate.unknown`

    @property
    def text(self) -> str:
        """The best translation."""
        return self.candidates[0].text if self.candidates else ""

    @property
    def score(self) -> float:
        """Score of the best translation; 0 for an empty line."""
        return self.candidates[0].score if self.candidates else 0.0

    @property
    def alignment(self) -> NDArray[np.float32]:
        """Attention of the best translation, (target tokens, source tokens)."""
        empty = np.zeros((0, len(self.source_tokens)), np.float32)
        return self.candidates[0].alignment if self.candidates else empty

    def soft_alignment(self, number: int = 0) -> SoftAlignment:
        """Return the attention of a candidate together with both texts and their tokens."""
        candidate = self.candidates[number]
        return SoftAlignment(
            source=self.source,
            target=candidate.text,
            source_tokens=self.source_tokens,
            target_tokens=candidate.tokens,
            log_probs=candidate.token_log_probs,
            weights=candidate.alignment,
            ended=candidate.finished,
            source_spans=self.source_spans,
            target_spans=candidate.spans,
            maps=candidate.maps,
        )

    def words(self, split: Splitter = word_spans) -> "Translation":
        """Return the same translation with words as tokens; `alignment/words.py` has the rule.

        A side whose words cannot be found in its pieces keeps the pieces. For tokenised text, split
        by `data.words.blank_spans`.
        """
        tokens, spans, candidates = self.source_tokens, self.source_spans, []
        for i, candidate in enumerate(self.candidates):
            words = to_words(self.soft_alignment(i), split)
            tokens, spans = words.source_tokens, words.source_spans
            joined = replace(
                candidate,
                tokens=words.target_tokens,
                token_log_probs=words.log_probs,
                alignment=words.weights.astype(np.float32),
                spans=words.target_spans,
                maps=words.maps,
            )
            candidates.append(joined)
        return Translation(self.source, tokens, tuple(candidates), spans, self.unknown)

    def plot(
        self,
        number: int = 0,
        *,
        words: bool = True,
        title: str | None = None,
        font: str | None = None,
    ) -> "Figure":
        """Draw the attention of a candidate (0 is the best), as in the paper's Fig. 3.

        translation.plot().savefig("attention.pdf")     # a notebook shows the figure
        translation.plot(words=False)                   # the tokens of this translation: subwords
        translation.plot(font="some.ttf")               # for characters that no installed font has

        Raises:
            IndexError: there is no such candidate; an empty line has none.
        """
        pairs = self.soft_alignment(number)
        pairs = to_words(pairs) if words else pairs
        sides = pairs.source_tokens, pairs.target_tokens
        return plot_alignment(pairs.weights, *sides, title=title, font=font)

    def to_html(self) -> str:
        """Return a self-contained HTML page that shows the attention of every candidate.

        Write it to a file and open that; it needs no network.
        """
        from seq2seq.report.sentence import translation_page

        return translation_page(self.source, self._by_rank())

    def _repr_html_(self) -> str:
        """Show the page in a notebook."""
        from seq2seq.report.sentence import translation_frame

        return translation_frame(self.source, self._by_rank())

    def _by_rank(self) -> list[tuple[SoftAlignment, float]]:
        return [(self.soft_alignment(i), c.score) for i, c in enumerate(self.candidates)]

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of a JSON line of `scripts/decode.py`."""
        return {
            "source": self.source,
            "text": self.text,
            "source_tokens": list(self.source_tokens),
            "hypotheses": [candidate.as_dict() for candidate in self.candidates],
        }
