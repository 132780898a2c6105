"""Attention along given translations, scored: its measures, and against gold word links.

The paper shows alignments and does not score them; the rate is Och & Ney's (2003, A Systematic
Comparison of Various Statistical Alignment Models). Attention is read as one link a target word.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from seq2seq.alignment.links import GoldLinks, alignment_errors, best_links, read_links
from seq2seq.alignment.measures import Measures, advice, average, measure
from seq2seq.alignment.word_level import to_words
from seq2seq.config.schema import DecodeConfig
from seq2seq.data.pair import Links
from seq2seq.data.prepare import load_text
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.data.words import Splitter, word_spans
from seq2seq.decoding.forced import force
from seq2seq.decoding.translate import Translation
from seq2seq.model import RNNSearch
from seq2seq.run.directory import RunDir
from seq2seq.run.reading import expected

GOLD = "corpus/test.links"
"""Gold links of a run's test set, `source-target` between words counted from 0; not all have it."""


@dataclass(frozen=True)
class GoldAlignment:
    """How the attention of a run agrees with gold links; rates are shares of 1.

    Attention may lag behind the words. Under `decoder.state_word=previous` it has to guess, as the
    state it asks with has not seen the word before. So two more readings are given: the row of
    target word i taken from the word after it or before it.
    """

    error_rate: float
    precision: float
    recall: float
    later_error_rate: float  # of the reading alpha_{i+1}
    earlier_error_rate: float  # of the reading alpha_{i-1}
    sentences: int
    skipped: int  # more sentences, whose pieces could not be matched with their words

    @property
    def advice(self) -> str:
        """What the shift test means for those who want to use the alignment."""
        return advice(self.error_rate, self.later_error_rate, self.earlier_error_rate)

    def __str__(self) -> str:
        return (
            f"error rate {self.error_rate:.1%}, precision {self.precision:.1%}, "
            f"recall {self.recall:.1%}; read one word later {self.later_error_rate:.1%}, "
            f"earlier {self.earlier_error_rate:.1%}; {self.sentences:,} sentences, "
            f"{self.skipped:,} skipped"
        )


@dataclass(frozen=True)
class AttentionScores:
    """What attention does between the words of a test set and its references."""

    measures: Measures
    gold: GoldAlignment | None  # None without gold links, or where no sentence has its words


def align_test_set(
    run: RunDir, model: RNNSearch, tokenizers: tuple[Tokenizer, Tokenizer], cfg: DecodeConfig
) -> AttentionScores:
    """Measure attention along a run's test references, also against its gold links, if it has some.

    Args:
        run: With the text of its test set.
        model: In evaluation mode.
        tokenizers: Source and target vocabulary.
        cfg: How much goes through the model at once.
    """
    source, target = (load_text(run, "test", side) for side in ("source", "target"))
    pairs = list(zip(source, target, strict=True))
    gold: Sequence[GoldLinks | None] = [None] * len(pairs)
    if run.path(GOLD).exists():
        with expected(run.path(GOLD)):
            gold = [read_links(line) for line in load_text(run, "test", "links")]
            pairs = [pair for pair, _ in zip(pairs, gold, strict=True)]
    found = AttentionTally()
    for translation, links in zip(force(model, tokenizers, pairs, cfg), gold, strict=True):
        found.add(translation, links)
    return found.scores()


class AttentionTally:
    """Sums up the attention of sentence after sentence; keeps no matrix.

    Args:
        split: What a word is, for the measures and for the gold links; None measures pieces.
    """

    def __init__(self, split: Splitter | None = word_spans) -> None:
        self._split = split
        self._measures: list[Measures] = []
        self._gold: list[GoldLinks] = []
        self._readings: list[tuple[Links, Links, Links]] = []
        self._skipped = 0

    def add(self, translation: Translation, gold: GoldLinks | None) -> None:
        """Count the best candidate of a sentence; a blank one has nothing to count.

        Args:
            translation: Forced, to have the words of the gold links.
            gold: Its links, between words as `split` finds them; None where there are none.
        """
        if not translation.candidates:
            self._skipped += 1
            return
        best = translation.candidates[0]
        if self._split is None:
            self._measures.append(measure(best.alignment, ended=best.finished))
            return
        words = to_words(translation, best, self._split)
        self._measures.append(measure(words.alignment, ended=words.ended))
        if gold is None:
            return
        if not words.matched:
            self._skipped += 1
            return
        self._gold.append(gold)
        now, later, earlier = (
            best_links(words.alignment, shift, ended=words.ended) for shift in (0, 1, -1)
        )
        self._readings.append((now, later, earlier))

    def scores(self) -> AttentionScores:
        """Return the measures, and the agreement with gold links if they were there."""
        return AttentionScores(average(self._measures), self._agreement())

    def _agreement(self) -> GoldAlignment | None:
        if not self._gold:
            return None
        now, later, earlier = (
            alignment_errors([row[reading] for row in self._readings], self._gold)
            for reading in range(3)
        )
        return GoldAlignment(
            error_rate=now.error_rate,
            precision=now.precision,
            recall=now.recall,
            later_error_rate=later.error_rate,
            earlier_error_rate=earlier.error_rate,
            sentences=len(self._gold),
            skipped=self._skipped,
        )
