"""Alignments against gold word links: forced along the reference, scored by error rate.

The paper shows alignments and does not score them; the rate is Och & Ney's (2003, A Systematic
Comparison of Various Statistical Alignment Models). Attention is read as one link a target word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from seq2seq.data.batching import collate
from seq2seq.data.pair import Links
from seq2seq.data.prepare import load_text
from seq2seq.data.tokenizer import EOS, PAD, Tokenizer, surface
from seq2seq.data.words import split_words
from seq2seq.inference.alignment import Weights, group_pieces, merge_words
from seq2seq.model import RNNSearch
from seq2seq.reading import expected
from seq2seq.run import RunDir

GOLD = "corpus/test.links"
"""Gold links of a run's test set, `source-target` between words counted from 0; not all have it."""


@dataclass(frozen=True)
class LinkScores:
    """Predicted links against gold ones, over all sentences together."""

    error_rate: float
    precision: float  # share of predicted links that are possible
    recall: float  # share of sure links that were predicted


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

    def __str__(self) -> str:
        return (
            f"error rate {self.error_rate:.1%}, precision {self.precision:.1%}, "
            f"recall {self.recall:.1%}; read one word later {self.later_error_rate:.1%}, "
            f"earlier {self.earlier_error_rate:.1%}; {self.sentences:,} sentences, "
            f"{self.skipped:,} skipped"
        )


@dataclass(frozen=True)
class WordMap:
    """Which pieces make up which words of a sentence, the end symbol left out."""

    groups: list[list[int]]  # the pieces of each group, in order, every piece once
    group_of: list[int]  # for each word its group; words that share a piece share a group


def alignment_errors(
    predicted: Sequence[Links], sure: Sequence[Links], possible: Sequence[Links]
) -> LinkScores:
    """Score predicted links A against sure links S and possible links P (S within P).

        rate      = 1 - (|A n S| + |A n P|) / (|A| + |S|)
        precision = |A n P| / |A|
        recall    = |A n S| / |S|

    Counts are summed over the corpus first; links are sets, a repeated one counts once.

    Args:
        predicted: Links of each sentence.
        sure: The same sentences.
        possible: The same sentences; `sure` where gold links are of one kind.
    """
    num_predicted = num_sure = in_sure = in_possible = 0
    for a, s, p in zip(map(set, predicted), map(set, sure), map(set, possible), strict=True):
        num_predicted += len(a)
        num_sure += len(s)
        in_sure += len(a & s)
        in_possible += len(a & p)
    return LinkScores(
        error_rate=1 - (in_sure + in_possible) / max(num_predicted + num_sure, 1),
        precision=in_possible / max(num_predicted, 1),
        recall=in_sure / max(num_sure, 1),
    )


def align_test_set(
    run: RunDir, model: RNNSearch, tokenizers: tuple[Tokenizer, Tokenizer], batch_sentences: int
) -> GoldAlignment | None:
    """Compare attention along a run's test references with its gold links, if it has some."""
    if not run.path(GOLD).exists():
        return None
    sides = (load_text(run, "test", side) for side in ("source", "target"))
    with expected(run.path(GOLD)):
        gold = [read_links(line) for line in load_text(run, "test", "links")]
        pairs = [pair for pair, _ in zip(zip(*sides, strict=True), gold, strict=True)]
    return score_alignment(model, tokenizers, pairs, gold, batch_sentences)


def read_links(line: str) -> Links:
    """Read `0-0 1-2`: source word, target word."""
    return tuple((int(i), int(j)) for i, j in (link.split("-") for link in line.split()))


def score_alignment(
    model: RNNSearch,
    tokenizers: tuple[Tokenizer, Tokenizer],
    pairs: Sequence[tuple[str, str]],
    gold: Sequence[Links],
    batch_sentences: int,
) -> GoldAlignment | None:
    """Compare attention along the references with gold links, all of them sure.

    Args:
        model: In eval mode.
        tokenizers: Source and target vocabulary.
        pairs: Source and reference sentences.
        gold: Links of each pair, between words as `words.split_words` splits the text.
        batch_sentences: Pairs that go through the model at once.

    Returns:
        None if not one sentence could be matched with its words.
    """
    weights = force_align(model, tokenizers, pairs, batch_sentences)
    found = [(alpha, sure) for alpha, sure in zip(weights, gold, strict=True) if alpha is not None]
    if not found:
        return None
    sure = [links for _, links in found]
    now, later, earlier = (
        alignment_errors([best_links(alpha, shift) for alpha, _ in found], sure, sure)
        for shift in (0, 1, -1)
    )
    return GoldAlignment(
        error_rate=now.error_rate,
        precision=now.precision,
        recall=now.recall,
        later_error_rate=later.error_rate,
        earlier_error_rate=earlier.error_rate,
        sentences=len(found),
        skipped=len(gold) - len(found),
    )


def best_links(alpha: Weights, shift: int) -> Links:
    """Link each target word to the source word with the largest weight, the first of equals.

    Args:
        alpha: (target words + 1, source words), the end symbol's row last.
        shift: Row i + shift speaks for target word i; the first word has no row before it and
            keeps its own. The row of the end symbol comes after the last word.

    Returns:
        Links; none for a word whose row has no weight on any source word.
    """
    num_words = len(alpha) - 1
    rows = ((i, alpha[max(i + shift, 0)]) for i in range(num_words))
    return tuple((int(row.argmax()), i) for i, row in rows if row.max(initial=0) > 0)


def force_align(
    model: RNNSearch,
    tokenizers: tuple[Tokenizer, Tokenizer],
    pairs: Sequence[tuple[str, str]],
    batch_sentences: int,
) -> list[Weights | None]:
    """Return the attention between words of given pairs, in order.

    The model reads the reference as in training; nothing is searched.

    Returns:
        (target words + 1, source words), see `word_weights`; None where the pieces of a side do
        not match its words.
    """
    assert not model.training
    device = next(model.parameters()).device
    ids = [
        tokenizer.encode(list(texts))
        for tokenizer, texts in zip(tokenizers, zip(*pairs, strict=True), strict=True)
    ]
    rows = [([*src, EOS], [*tgt, EOS]) for src, tgt in zip(*ids, strict=True)]
    by_length = sorted(range(len(rows)), key=lambda i: max(map(len, rows[i])))
    found: list[Weights | None] = [None] * len(rows)
    for start in range(0, len(by_length), batch_sentences):
        numbers = by_length[start : start + batch_sentences]
        batch = collate([rows[i] for i in numbers], PAD).to(device)
        with torch.inference_mode():
            output = model(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
        for i, alpha in zip(numbers, output.alpha.double().cpu().numpy(), strict=True):
            src, tgt = (
                map_words(text, tokenizer.tokens([text])[0])
                for text, tokenizer in zip(pairs[i], tokenizers, strict=True)
            )
            if src is not None and tgt is not None:
                num_src, num_tgt = map(len, rows[i])
                found[i] = word_weights(alpha[:num_tgt, :num_src], src, tgt)
    return found


def map_words(text: str, pieces: Sequence[str]) -> WordMap | None:
    """Say which pieces make up which word of a sentence.

    Pieces are laid over the text by their printing characters, so blanks do not matter. Where
    these differ (normalised characters), the words of the written pieces stand for
    those of the text, if they are equally many.

    Args:
        text: The sentence.
        pieces: Its pieces as `Tokenizer.tokens` gives them: unknown ones as they stand.

    Returns:
        None if pieces and words cannot be matched, or there are none.
    """
    written, offsets = surface(pieces)
    num_words = len(split_words(text))
    if "".join(written.split()) == "".join(text.split()):
        places = [*(i for i, c in enumerate(text) if not c.isspace()), len(text)]
        before = list(accumulate((not c.isspace() for c in written), initial=0))
        offsets = [(places[before[start]], places[before[end]]) for start, end in offsets]
        written = text
    labels, groups = group_pieces(written, offsets)
    group_of = [i for i, label in enumerate(labels) for _ in split_words(label)]
    return WordMap(groups, group_of) if 0 < len(group_of) == num_words else None


def word_weights(alpha: Weights, src: WordMap, tgt: WordMap) -> Weights:
    """Turn weights between pieces into weights between words, without the end symbol's column.

    Words that share a piece share a row; of source words that share one the first has its weight.

    Args:
        alpha: (Ty, Tx), end symbols included.
        src: Words of the source.
        tgt: Words of the target.

    Returns:
        (target words + 1, source words), the end symbol's row last.
    """
    ends = [[size - 1] for size in alpha.shape]
    merged = merge_words(alpha, [*src.groups, ends[1]], [*tgt.groups, ends[0]])
    weights = np.zeros((len(tgt.group_of) + 1, len(src.group_of)))
    first = [src.group_of.index(group) for group in range(len(src.groups))]
    weights[:, first] = merged[[*tgt.group_of, -1], :-1]
    return weights
