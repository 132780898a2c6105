"""Attention along given translations, scored: its measures, and against gold word links.

The paper shows alignments and does not score them; the rate is Och & Ney's (2003, A Systematic
Comparison of Various Statistical Alignment Models). Attention is read as one link a target word.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seq2seq.data.prepare import load_text
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.data.words import Splitter, word_spans
from seq2seq.inference.forced import force
from seq2seq.inference.links import GoldLinks, alignment_errors, best_links, read_links
from seq2seq.inference.measures import Measures, advice, average, measure
from seq2seq.inference.translate import Translation
from seq2seq.inference.word_level import WordAlignment, to_words
from seq2seq.model import RNNSearch
from seq2seq.reading import expected
from seq2seq.run import RunDir
from seq2seq.settings import DecodeConfig

GOLD = "corpus/test.links"
"""Gold links of a run's test set, `source-target` between words counted from 0; not all have it."""


@dataclass(frozen=True)
class GoldAlignment:
    """How the attention of a run agrees with gold links; rates are shares of 1.

    Attention may lag behind the words. Under `model.state_word=previous` it has to guess, as the
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
    gold = None
    if run.path(GOLD).exists():
        with expected(run.path(GOLD)):
            gold = [read_links(line) for line in load_text(run, "test", "links")]
            pairs = [pair for pair, _ in zip(zip(source, target, strict=True), gold, strict=True)]
    else:
        pairs = list(zip(source, target, strict=True))
    return score_attention(force(model, tokenizers, pairs, cfg), gold)


def score_attention(
    found: Iterable[Translation],
    gold: Sequence[GoldLinks] | None,
    split: Splitter = word_spans,
) -> AttentionScores:
    """Measure attention between words, also against gold links, if there are some.

    Args:
        found: The best candidate of each counts; forced ones, to have the words of `gold`.
        gold: Links of each, between words as `split` finds them.
        split: What a word is.
    """
    words = [to_words(t, t.candidates[0], split) if t.candidates else None for t in found]
    measures = average([measure(w.alignment, ended=w.ended) for w in words if w])
    return AttentionScores(measures, None if gold is None else score_links(words, gold))


def score_links(
    words: Sequence[WordAlignment | None], gold: Sequence[GoldLinks]
) -> GoldAlignment | None:
    """Compare attention with gold links.

    Returns:
        None if not one sentence could be matched with its words.
    """
    rows = [(w, g) for w, g in zip(words, gold, strict=True) if w is not None and w.matched]
    if not rows:
        return None
    wanted = [links for _, links in rows]
    now, later, earlier = (
        alignment_errors([best_links(w.alignment, shift, ended=w.ended) for w, _ in rows], wanted)
        for shift in (0, 1, -1)
    )
    return GoldAlignment(
        error_rate=now.error_rate,
        precision=now.precision,
        recall=now.recall,
        later_error_rate=later.error_rate,
        earlier_error_rate=earlier.error_rate,
        sentences=len(rows),
        skipped=len(gold) - len(rows),
    )
