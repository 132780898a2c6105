"""Attention between words, scored on models whose answer is known."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import composed

from seq2seq.alignment.links import GoldLinks, best_links
from seq2seq.data.tokenizer import EOS, UNK, Token
from seq2seq.data.words import split_words, word_spans
from seq2seq.decoding.forced import force
from seq2seq.evaluation.attention import GoldAlignment, Tally, as_table
from seq2seq.run.jsonable import from_json, to_json

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


class Heads(Follows):
    """Two layers of two heads: head 2 of layer 1 follows the words, others lag or hurry."""

    def follow(self, src, src_mask, tgt, tgt_mask):
        lags = ((1, 0), (-2, 3))
        heads = [[Follows(lag).follow(src, src_mask, tgt, tgt_mask) for lag in row] for row in lags]
        maps = torch.stack([torch.stack([f.alpha for f in row], dim=1) for row in heads])
        found = heads[1][0]  # which is the one that is shown
        found.maps = lambda: {"heads": maps}
        return found


def test_error_rates_by_layer_and_head(words):
    cfg = composed("debug").decode
    tally = Tally(shown=(2, 1))
    list(tally.along(force(Heads(0), (words, words), PAIRS, cfg, maps=True), GOLD))
    found = tally.attention()
    # Sentences of 5, 2 and 3 words: a lag leaves the first word of each right, 3 of 10. Two words
    # ahead nothing is right. Of the equal weights of a mean the first counts, that of the lag.
    heads = found.alignment.heads
    assert heads.rates[0] == pytest.approx([0.7, 0, 0.7])
    assert heads.rates[1] == pytest.approx([1, 0.7, 0.7])
    assert found.alignment.error_rate == heads.rates[1][0]
    line = "best: layer 1, head 2, AER 0.0%; shown: layer 2, head 1, AER 100.0%"
    assert line in found.lines()[-1]
    shown = as_table({"run": found})
    assert line in shown
    assert ["layer 1", "70.0%", "0.0%", "70.0%"] in [re.split(r"  +", r) for r in shown.split("\n")]
    # As `scores.json` holds it; without the field, as before there were layers.
    values = to_json(found.alignment)
    assert from_json(GoldAlignment, json.loads(json.dumps(values))) == found.alignment
    del values["heads"]
    assert from_json(GoldAlignment, values).heads is None
    assert "best: layer 1, head 2, AER 0.0%; shown: layer 2, mean of heads, AER 70.0%" in (
        replace(heads, head=None).best
    )


def test_sentences_whose_words_are_lost_are_counted(words):
    pairs, gold = [*PAIRS, ("the zebra sings", "p t q"), ("", "p")], [*GOLD, GOLD[2], GOLD[2]]
    found = scored(0, words, pairs, gold, 2)
    assert (found.error_rate, found.sentences, found.skipped) == (0, 4, 1), "unknown is a word, too"
    real = words.tokens
    words.tokens = lambda texts: [real([t])[0][: 1 if "zebra" in t else None] for t in texts]
    assert scored(0, words, pairs, gold, 2).skipped == 2
    words.tokens = lambda texts: [real([t])[0][:1] for t in texts]
    assert scored(0, words, pairs, gold, 2) is None


# A trained run ------------------------------------------------------------------------------------
