"""What decoding gives: a line and its translations, with their probabilities and attention."""

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.alignment.heatmap import plot_alignment
from seq2seq.alignment.words import Maps, SoftAlignment, to_words
from seq2seq.data.tokenizer import RightToLeft, Tokenizer
from seq2seq.data.words import Span, Splitter, word_spans

if TYPE_CHECKING:
    from matplotlib.figure import Figure

END = "</s>"
"""How the end symbol is written in labels: it is attended to, and attends."""

_MAX_NATS = 700.0
"""e to more than 709 is not a float."""


def perplexity(log_prob: float, num_tokens: int) -> float:
    """Return e to the negative mean log-probability of a token, as far as floats go."""
    return math.exp(min(-log_prob / max(num_tokens, 1), _MAX_NATS))


@dataclass(frozen=True)
class Candidate:
    """One translation of a line: found by the search, or given and scored."""

    text: str
    tokens: tuple[str, ...]  # as in the text; the end symbol included where it was reached
    token_log_probs: tuple[float, ...]  # nats
    log_prob: float  # nats, summed
    score: float  # of `Ranking`
    alignment: NDArray[np.float32]  # (len(tokens), len(source_tokens))
    finished: bool
    # Where tokens stand in the text, the end symbol left out; None: to be found by their letters
    spans: tuple[Span, ...] | None = None
    maps: Maps = field(default_factory=dict)  # where it was asked for, and the model has layers
    utility: float | None = None  # 0-100, where `decode.mbr` has ordered the candidates by it

    @property
    def perplexity(self) -> float:
        """Of a token."""
        return perplexity(self.log_prob, len(self.tokens))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; log-probabilities and attention to six digits."""
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


def in_reading_order(candidate: Candidate, target: Tokenizer) -> Candidate:
    """Return a candidate of which what stands first in the text comes first, the end symbol last.

    A model that writes right to left has had the tokens before in another order than maps of
    attention between them can show: of layers and heads those to the source stay.
    """
    if not isinstance(target, RightToLeft):
        return candidate
    count = len(candidate.tokens) - candidate.finished
    order = [*range(count)[::-1], *range(count, len(candidate.tokens))]
    return replace(
        candidate,
        tokens=tuple(candidate.tokens[i] for i in order),
        token_log_probs=tuple(candidate.token_log_probs[i] for i in order),
        alignment=candidate.alignment[order],
        spans=candidate.spans and candidate.spans[::-1],
        maps={
            name: weights[..., order, :] if name == "heads" else weights
            for name, weights in candidate.maps.items()
            if name != "decoder"
        },
    )


@dataclass(frozen=True)
class Translation:
    """A line and its translations, best first. An empty line has none, and empty text."""

    source: str
    source_tokens: tuple[str, ...]  # as in the line, unknown ones too; the end symbol included
    candidates: tuple[Candidate, ...]
    source_spans: tuple[Span, ...] | None = None  # as those of a candidate

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
        """Return the attention of a candidate with all that it stands between."""
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
        """Return the same with words for tokens; `alignment/words.py` has the rule.

        Where the words of a side are not found in its pieces, these stay.

        Args:
            split: What a word is; `data.words.blank_spans` for text that is tokenised.
        """
        tokens, spans, candidates = self.source_tokens, self.source_spans, []
        for i, candidate in enumerate(self.candidates):
            words = to_words(self.soft_alignment(i), split)
            weights = words.weights.astype(np.float32)
            tokens, spans = words.source_tokens, words.source_spans
            candidate = replace(candidate, tokens=words.target_tokens, spans=words.target_spans)
            candidate = replace(candidate, alignment=weights, token_log_probs=words.log_probs)
            candidate = replace(candidate, maps=words.maps)
            candidates.append(candidate)
        return Translation(self.source, tokens, tuple(candidates), spans)

    def plot(self, number: int = 0, *, font: str | None = None) -> "Figure":
        """Draw the attention of a candidate, 0 being the best, as in the paper's Fig. 3.

        translation.plot().savefig("attention.pdf")     # a notebook shows it
        translation.words().plot(font="some.ttf")       # for characters that no installed font has

        Raises:
            IndexError: there is no such candidate; an empty line has none.
        """
        best = self.candidates[number]
        return plot_alignment(best.alignment, self.source_tokens, best.tokens, font=font)

    def to_html(self) -> str:
        """Return an HTML page that shows the attention of every candidate, to point at.

        It needs nothing else, no network either: write it to a file and open that.
        """
        from seq2seq.report.sentence import translation_page

        return translation_page(self.source, self._by_rank())

    def _repr_html_(self) -> str:
        """Show that page in a notebook."""
        from seq2seq.report.sentence import translation_frame

        return translation_frame(self.source, self._by_rank())

    def _by_rank(self) -> list[tuple[SoftAlignment, float]]:
        return [(self.soft_alignment(i), c.score) for i, c in enumerate(self.candidates)]

    def as_dict(self) -> dict[str, Any]:
        """Return what a JSON line of `scripts/decode.py` holds."""
        return {
            "source": self.source,
            "text": self.text,
            "source_tokens": list(self.source_tokens),
            "hypotheses": [candidate.as_dict() for candidate in self.candidates],
        }
