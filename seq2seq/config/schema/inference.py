"""Beam search, scores and pictures."""

from dataclasses import dataclass
from enum import Enum

from seq2seq.config.schema.ranges import at_least, number
from seq2seq.config.schema.training import Precision


@dataclass(kw_only=True)
class DecodeConfig:
    """Beam search."""

    beam_size: int = number(1, 1000)
    length_penalty: float = at_least(0)
    """Scores are divided by (words + end symbol) to this power; 0 sums, 1 averages."""
    min_ratio: float = at_least(0)
    """The end symbol is forbidden before this share of the source length (end included)."""
    max_ratio: float = number(0, 100, open_ends="low")
    """At most this many times the source length (end included) in steps."""
    extra_steps: int = number(0, 10_000)
    """Steps allowed beyond `max_ratio`, for short sources."""
    forbid_unknown: bool
    """Never emit the unknown symbol."""
    replace_unknown: bool
    """Write the source token that it attends to most in place of an unknown symbol."""
    n_best: int = at_least(1)
    """Hypotheses kept per sentence, at most `beam_size`."""
    batch_sentences: int = number(1, 100_000)
    precision: Precision
    """Of matrix products; probabilities of the words that are chosen come from float32 ones."""
    max_source_tokens: int = number(1, 100_000)
    """A longer source is cut, with a warning; and so is one above 131,072 characters. A given
    translation that is scored is cut at as many."""


class Examples(Enum):
    """A named set of sentences to look at."""

    figure3 = "figure3"


@dataclass(kw_only=True)
class EvaluateConfig:
    """Scores and pictures of the test set."""

    heatmaps: list[int]
    """Test sentences (1 is the first) that are drawn."""
    examples: list[Examples]
    """Sets of sentences that are translated and drawn besides, whatever the test set is."""
    heatmap_words: bool
    """Join subwords to words in the pictures."""
    heatmap_font: str | None
    """Font file for scripts that the default fonts lack; null finds an installed one."""
    bleu_tokenizer: str
    """sacreBLEU tokenizer: 13a, or zh, ja-mecab, ko-mecab, char, ..."""
