"""Attention between words, scored on models whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import composed, copy_of

import seq2seq
from seq2seq.alignment.links import GoldLinks, best_links, pharaoh, read_links
from seq2seq.alignment.words import to_words
from seq2seq.data.prepare import SIDES
from seq2seq.data.tokenizer import EOS, UNK, Token
from seq2seq.data.words import split_words, word_spans
from seq2seq.decoding.forced import force
from seq2seq.decoding.translation import END
from seq2seq.evaluation.attention import GoldAlignment, Tally, align_test_set
from seq2seq.run.directory import RunDir

WEIGHTS = np.array(
    [
        [0.1, 0.7, 0.0, 0.2],
        [0.2, 0.1, 0.6, 0.1],
        [0.3, 0.3, 0.2, 0.2],
        [0.0, 0.0, 0.4, 0.6],  # the end symbol's row
    ]
)


@pytest.mark.parametrize(
    ("alpha", "shift", "ended", "links"),
    [
        (WEIGHTS, 0, True, ((1, 0), (2, 1), (0, 2))),
        (WEIGHTS, 1, True, ((2, 0), (0, 1), (2, 2))),
        (WEIGHTS, -1, True, ((1, 0), (1, 1), (2, 2))),
        (WEIGHTS, 0, False, ((1, 0), (2, 1), (0, 2), (2, 3))),  # every row is a word
        (WEIGHTS[:3], 1, False, ((2, 0), (0, 1), (0, 2))),  # the last keeps its own
        # Words that attend to nothing but the end have no link.
        (np.array([[0, 0, 1], [0, 0.4, 0.6], [1, 0, 0]]), 0, True, ((1, 1),)),
    ],
)
def test_each_target_word_links_to_its_largest_weight(alpha, shift, ended, links):
    assert best_links(alpha, shift, ended=ended) == links


# Models whose answer is known ---------------------------------------------------------------------


class Words:
    """A vocabulary of whole words; what it has not seen at first is unknown."""

    def __init__(self, text: str) -> None:
        self.known = ["", "<unk>", "</s>", *sorted({*split_words(text)})]

    def encode(self, texts):
        index = {word: i for i, word in enumerate(self.known)}
        return [[index.get(word, UNK) for word in split_words(text)] for text in texts]

    def tokens(self, texts):
        spans = (word_spans(text) for text in texts)
        return [
            [
                Token(i, f"\u2581{word}", span)
                for i, word, span in zip(ids, split_words(text), at, strict=True)
            ]
            for ids, text, at in zip(self.encode(texts), texts, spans, strict=True)
        ]


class Follows(torch.nn.Module):
    """Attends to the source word as far into the sentence as the target word, `lag` words late."""

    def __init__(self, lag: int) -> None:
        super().__init__()
        self.lag = lag
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.eval()

    def follow(self, src, src_mask, tgt, tgt_mask):
        assert (src[src_mask] != 0).all()
        assert (src[torch.arange(len(src)), src_mask.sum(dim=1) - 1] == EOS).all()
        alpha = torch.zeros(len(src), tgt.shape[1], src.shape[1])
        for b, row in enumerate(src_mask.sum(dim=1).tolist()):
            for i in range(tgt.shape[1]):
                alpha[b, i, min(max(i - self.lag, 0), row - 1)] = 1
        return SimpleNamespace(alpha=alpha, t=torch.zeros(int(tgt_mask.sum()), 100))

    def logits(self, t):
        return t


PAIRS = [("the big cat sleeps .", "x y z w ."), ("a dog", "u v"), ("birds sing today", "p q r")]
ALONG = [tuple((i, i) for i in range(len(split_words(src)))) for src, _ in PAIRS]
GOLD = [GoldLinks(links, links) for links in ALONG]


@pytest.fixture
def words():
    return Words(" ".join(f"{a} {b}" for a, b in PAIRS))


def scored(lag, words, pairs=PAIRS, gold=GOLD, batch_sentences=64):
    cfg = replace(composed("debug").decode, batch_sentences=batch_sentences)
    tally = Tally()
    found = list(tally.along(force(Follows(lag), (words, words), pairs, cfg), gold))
    assert [t.source for t in found] == [source for source, _ in pairs]
    return tally.attention().alignment


@pytest.mark.parametrize("batch_sentences", [1, 2, 64])
def test_a_model_that_follows_the_words_makes_no_error(words, batch_sentences):
    found = scored(0, words, batch_sentences=batch_sentences)
    assert (found.error_rate, found.precision, found.recall) == (0, 1, 1)
    assert (found.sentences, found.skipped) == (3, 0)
    # Later: the last words ask the end symbol's row, which links to no word; 7 wrong links.
    assert found.later_error_rate == 1
    # Earlier: the three first words keep their row, the other 7 of 10 are wrong.
    assert found.earlier_error_rate == pytest.approx(7 / 10)


@pytest.mark.parametrize(
    ("lag", "reading", "rate"),
    [
        (1, "later_error_rate", 0),
        (-1, "earlier_error_rate", 3 / 10),  # first words have no row before them
    ],
)
def test_a_lag_shows_in_the_shifted_reading(words, lag, reading, rate):
    found = scored(lag, words)
    assert found.error_rate >= 0.7
    assert getattr(found, reading) == pytest.approx(rate)


def test_sentences_whose_words_are_lost_are_counted(words):
    pairs, gold = [*PAIRS, ("the zebra sings", "p t q"), ("", "p")], [*GOLD, GOLD[2], GOLD[2]]
    found = scored(0, words, pairs, gold, 2)
    assert (found.error_rate, found.sentences, found.skipped) == (0, 4, 1), "unknown is a word, too"
    real = words.tokens
    words.tokens = lambda texts: [real([t])[0][: 1 if "zebra" in t else None] for t in texts]
    assert scored(0, words, pairs, gold, 2).skipped == 2
    words.tokens = lambda texts: [real([t])[0][:1] for t in texts]
    assert scored(0, words, pairs, gold, 2) is None


def test_it_is_shown_in_percent():
    assert str(GoldAlignment(0.25, 0.5, 1.0, 0.75, 0.875, 1200, 3)) == (
        "error rate 25.0%, precision 50.0%, recall 100.0%; read one word later 75.0%, "
        "earlier 87.5%; 1,200 sentences, 3 skipped"
    )


# A trained run ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(run):
    return seq2seq.load(run, ["device=cpu"])


def test_forced_along_its_own_translation_a_model_attends_as_in_the_search(model, run):
    """Word for word, where a text is cut into the very pieces that were emitted."""
    target = model.tokenizers[1]
    lines = (run / "corpus/test.source").read_text("utf-8").splitlines()
    found = [
        t
        for t in model.translate(lines)
        if (*target.pieces(target.encode([t.text])[0]), END) == t.candidates[0].tokens
    ]
    assert len(found) > 10
    for t, again in zip(found, model.force((t.source, t.text) for t in found), strict=True):
        own, forced = (to_words(x.soft_alignment()) for x in (t, again))
        np.testing.assert_allclose(forced.weights, own.weights, atol=1e-5)
        assert forced.target_tokens == own.target_tokens == (*split_words(t.text), END)
        assert forced.source_tokens == own.source_tokens == (*split_words(t.source), END)
        assert forced.matched
        assert own.matched


def test_a_run_is_scored_if_it_has_gold_links(model, run, tmp_path):
    """With the links of its own attention as gold, but for the first one, which is taken out."""
    parts = (model.model, model.tokenizers, model.config.decode)
    assert align_test_set(RunDir.open(run), *parts).alignment is None
    linked = RunDir.open(copy_of(run, tmp_path / "linked"))
    sides = [linked.path(f"corpus/test.{s}").read_text("utf-8").splitlines() for s in SIDES]
    found = model.force(zip(*sides, strict=True))
    links = [best_links(to_words(t.soft_alignment()).weights) for t in found]
    count = sum(map(len, links))
    lines = [pharaoh(row) for row in (links[0][1:], *links[1:])]
    assert set(read_links(lines[1]).sure) == set(links[1])
    linked.write("corpus/test.links", "".join(f"{line}\n" for line in lines))
    found = align_test_set(linked, *parts)
    gold = found.alignment
    assert (gold.recall, gold.sentences) == (1, 20)
    assert gold.precision == pytest.approx((count - 1) / count)
    assert gold.error_rate == pytest.approx(1 / (2 * count - 1))
    assert max(gold.later_error_rate, gold.earlier_error_rate) > gold.error_rate
    assert 0 < found.attention.entropy < np.log(20)
