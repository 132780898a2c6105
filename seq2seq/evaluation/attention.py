"""Scores attention along given translations: its measures, and agreement with gold word links.

The paper shows alignments but does not score them. The alignment error rate is that of Och & Ney
(2003, A Systematic Comparison of Various Statistical Alignment Models), with one link per target
word read from attention.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from seq2seq.alignment.links import GoldLinks, alignment_errors, best_links, read_links
from seq2seq.alignment.measures import Measures, advice, average, formatted, measure, reading
from seq2seq.alignment.words import to_words
from seq2seq.cli.console import table
from seq2seq.data.pair import Links
from seq2seq.data.prepare import SIDES, directions_of, load_text, splitter_of
from seq2seq.data.words import Splitter, word_spans
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.decoding.translation import Translation, perplexity
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import printable
from seq2seq.run.reading import expected

GOLD = "corpus/test.links"
"""Optional gold links of a run's test set, `source-target` between words counted from 0."""

_SHIFTS = (0, 1, -1)
"""Readings of attention: the row of target word i, of the next word, and of the previous word."""

_HEADINGS = (
    "", "AER", "precision", "recall", "later", "earlier", "entropy", "of log", "uncovered",
    "overcovered", "unlinked", "monotone", "Kendall",
)  # fmt: skip

LEGEND = """\
AER, precision, recall: agreement with the gold links; later, earlier: AER if the alignment is read
one target word later or earlier. Entropy in nats, and as a share of the log of the source length.
Uncovered, overcovered: source words that get less than half of a target word's attention, more than
that of two. Unlinked: source words that no target word attends to most. Monotone: target words that
attend no further left than the word before them; Kendall: the same over all pairs, 1 same order, -1
reversed. All between words, or characters if these are the vocabulary, along the references."""


@dataclass(frozen=True)
class HeadRates:
    """Alignment error rates of the layers and heads of a model, counted from 1."""

    rates: Sequence[Sequence[float]]  # per layer: the rates of its heads, then of their mean
    layer: int  # the layer shown
    head: int | None  # the head shown; None: the mean

    @property
    def best(self) -> str:
        """The lowest rate, and the rate of the layer and head shown."""
        places = ((i, j) for i, of_layer in enumerate(self.rates) for j in range(len(of_layer)))
        lowest = min(places, key=lambda place: self.rates[place[0]][place[1]])
        shown = self.layer - 1, len(self.rates[0]) - 1 if self.head is None else self.head - 1
        return f"best: {self._describe(*lowest)}; shown: {self._describe(*shown)}"

    def _describe(self, layer: int, column: int) -> str:
        rates = self.rates[layer]
        head = f"head {column + 1}" if column < len(rates) - 1 else "mean of heads"
        return f"layer {layer + 1}, {head}, AER {rates[column]:.1%}"

    def as_table(self) -> str:
        """Return a table with a row per layer."""
        heads = [f"head {i}" for i in range(1, len(self.rates[0]))]
        rows = [
            [f"layer {i}", *(f"{rate:.1%}" for rate in of_layer)]
            for i, of_layer in enumerate(self.rates, start=1)
        ]
        return table(rows, ["AER", *heads, "mean"], "lr")


@dataclass(frozen=True)
class GoldAlignment:
    """Agreement of a run's attention with gold links; rates are between 0 and 1.

    Attention may lag behind the words. Under `decoder.state_word=previous` it has to guess, because
    the state that it queries with has not seen the previous word. So two more readings are given:
    target word i read from the row of the next or of the previous word.
    """

    error_rate: float
    precision: float
    recall: float
    later_error_rate: float  # of the reading alpha_{i+1}
    earlier_error_rate: float  # of the reading alpha_{i-1}
    sentences: int
    skipped: int  # further sentences, whose pieces could not be matched with their words
    heads: HeadRates | None = None  # for a model with layers or heads

    @property
    def advice(self) -> str:
        """Advice on how to use the alignment, by the shift test."""
        return advice(self.error_rate, self.later_error_rate, self.earlier_error_rate)

    def __str__(self) -> str:
        return (
            f"error rate {self.error_rate:.1%}, precision {self.precision:.1%}, "
            f"recall {self.recall:.1%}; read one word later {self.later_error_rate:.1%}, "
            f"earlier {self.earlier_error_rate:.1%}; {self.sentences:,} sentences, "
            f"{self.skipped:,} skipped"
        )


@dataclass(frozen=True, kw_only=True)
class AttentionScores:
    """Scores of the attention between the words of sentences and of their translations."""

    attention: Measures | None = None  # None if not measured
    alignment: GoldAlignment | None = None  # None, too, if no sentence has gold links or words

    def lines(self) -> list[str]:
        """Return the lines of a summary."""
        lines = [f"attention  {self.attention}"] if self.attention else []
        if self.alignment is not None:
            lines += [f"alignment  {self.alignment}", f"           {self.alignment.advice}"]
            if self.alignment.heads is not None:
                lines.append(f"           {self.alignment.heads.best}")
        return lines


@dataclass(frozen=True, kw_only=True)
class ForcedScores(AttentionScores):
    """Scores of given translations under a model, in total."""

    pairs: int  # pairs scored
    blank: int  # pairs not scored because a side is empty
    tokens: int  # target tokens, end symbols included; words at the level of words
    log_prob: float  # nats, summed over all tokens
    perplexity: float  # per token: e to the negative mean log-probability over all tokens

    def __str__(self) -> str:
        lines = [
            f"pairs      {self.pairs:,}, {self.blank:,} left out as a side is empty",
            f"tokens     {self.tokens:,}, ends included",
            f"log-prob   {self.log_prob:.4f} nats",
            f"perplexity {self.perplexity:.4f}",
        ]
        return "\n".join([*lines, *self.lines()])


class Tally:
    """Accumulates scores over forced translations, without storing attention matrices.

    `split` splits text into words, also for gold links; without it, pieces count. `shown` are the
    layer and head, from 1, reported as the attention; None is the last one, and the heads' mean.

    Attributes:
        aligned: Which of the sentences of `along`, from 0, were compared with gold links.
    """

    def __init__(
        self,
        split: Splitter | None = word_spans,
        shown: tuple[int | None, int | None] = (None, None),
    ) -> None:
        self.aligned: list[int] = []
        self._split, self._shown = split, shown
        self._pairs = self._empty = self._tokens = 0
        self._log_prob = 0.0
        self._measures: list[Measures] = []
        self._gold: list[GoldLinks] = []
        self._readings: list[list[Links]] = []  # per sentence with gold links, by `_SHIFTS`
        self._by_head: list[list[list[Links]]] = []  # the same, by layer and head, the mean last
        self._unmatched = 0

    def along(
        self, translations: Iterable[Translation], gold: Iterable[GoldLinks | None]
    ) -> Iterator[Translation]:
        """Add translations and yield them unchanged; see `add`."""
        for number, (translation, links) in enumerate(zip(translations, gold, strict=True)):
            if self.add(translation, links):
                self.aligned.append(number)
            yield translation

    def add(self, translation: Translation, gold: GoldLinks | None = None) -> bool:
        """Add a sentence; return whether it could be compared with gold links between its words."""
        if not translation.candidates:
            self._empty += 1
            return False
        tokens = to_words(translation.soft_alignment(), self._split)
        # Probability and measures need no gold links.
        self._pairs += 1
        self._tokens += len(tokens.target_tokens)
        self._log_prob += translation.candidates[0].log_prob
        self._measures.append(measure(tokens.weights, ended=tokens.ended))
        # Agreement with gold links, unshifted and shifted by a word.
        if gold is None or self._split is None:
            return False
        if not tokens.matched:
            self._unmatched += 1
            return False
        links = partial(best_links, ended=tokens.ended)
        self._gold.append(gold)
        self._readings.append([links(tokens.weights, shift) for shift in _SHIFTS])
        if (heads := tokens.maps.get("heads")) is not None:
            all_heads = np.concatenate([heads, heads.mean(axis=1, keepdims=True)], axis=1)
            self._by_head.append([[*map(links, layer)] for layer in all_heads])
        return True

    def attention(self) -> AttentionScores:
        """Return the measures, and the agreement with gold links if there are any."""
        return AttentionScores(attention=average(self._measures), alignment=self._agreement())

    def _agreement(self) -> GoldAlignment | None:
        if not self._gold:
            return None
        now, later, earlier = (
            alignment_errors(links, self._gold) for links in zip(*self._readings, strict=True)
        )
        rates = now.error_rate, now.precision, now.recall, later.error_rate, earlier.error_rate
        skipped, by_head = self._unmatched + self._empty, None
        if self._by_head:  # by sentence, layer and head; wanted by layer, head and sentence
            layers = [zip(*of_layer, strict=True) for of_layer in zip(*self._by_head, strict=True)]
            errors = [[alignment_errors(x, self._gold) for x in heads] for heads in layers]
            of_heads = [[own.error_rate for own in heads] for heads in errors]
            by_head = HeadRates(of_heads, self._shown[0] or len(of_heads), self._shown[1])
        return GoldAlignment(*rates, len(self._gold), skipped, by_head)

    def scores(self) -> ForcedScores:
        """Return all totals."""
        return ForcedScores(
            pairs=self._pairs,
            blank=self._empty,
            tokens=self._tokens,
            log_prob=self._log_prob,
            perplexity=perplexity(self._log_prob, self._tokens),
            **vars(self.attention()),
        )


def align_test_set(run: RunDir, model: Pretrained) -> AttentionScores:
    """Measure attention along a run's test references, and against its gold links if it has any.

    Gold links are between words; without them, characters count in a vocabulary of characters.
    """
    # Sentence pairs, and their gold links if the run has any.
    pairs = list(zip(*(load_text(run, "test", side) for side in SIDES), strict=True))
    gold: Sequence[GoldLinks | None] = [None] * len(pairs)
    if run.checked(GOLD).exists():
        with expected(run.path(GOLD)):
            gold = [read_links(line) for line in load_text(run, "test", "links")]
            pairs = [pair for pair, _ in zip(pairs, gold, strict=True)]
    tally = Tally(word_spans if any(gold) else splitter_of(model.config), model.shown)
    languages = [target for _, target in directions_of(run, model.config, "test")]
    found = model.force(pairs, maps=any(gold), target_language=languages)
    for _ in tally.along(found, gold):
        pass
    return tally.attention()


def as_table(runs: Mapping[str, AttentionScores]) -> str:
    """Return a table with a row per run, a legend, and a plain-language reading of each run."""
    named = [(printable(name), scores) for name, scores in runs.items()]
    rows = table([[name, *_cells(scores)] for name, scores in named], _HEADINGS, "lr")
    readings, by_head = [], []
    for name, scores in named:
        if scores.alignment and (heads := scores.alignment.heads):
            by_head += [f"{name}, by layer and head:", heads.as_table(), heads.best, ""]
        advice = [scores.alignment.advice] if scores.alignment else []
        text = reading(scores.attention or average([]))
        readings.append(" ".join([f"{name}:", text, *advice]))
    return "\n".join([rows, "", *by_head, LEGEND, "", *readings])


def _cells(scores: AttentionScores) -> list[str]:
    m = scores.attention or average([])
    rates = [*vars(scores.alignment).values()][:5] if scores.alignment else [None] * 5
    shares = [m.relative_entropy, m.uncovered, m.overcovered, m.unlinked, m.monotonicity]
    cells = [(m.entropy, ".2f"), *((share, ".1%") for share in shares), (m.kendall, ".2f")]
    return [formatted(*cell) for cell in [*((rate, ".1%") for rate in rates), *cells]]
