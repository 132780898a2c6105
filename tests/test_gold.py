"""Alignment error rate: by hand, against another reckoning, and on models whose answer is known."""

import random
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import copy_of, tiny_run

import seq2seq
from seq2seq.data.prepare import SIDES
from seq2seq.data.tokenizer import EOS, UNK
from seq2seq.data.words import split_words
from seq2seq.inference.gold import (
    GoldAlignment,
    align_test_set,
    alignment_errors,
    best_links,
    force_align,
    map_words,
    read_links,
    score_alignment,
    word_weights,
)
from seq2seq.inference.translate import END
from seq2seq.run import RunDir

# The rate -----------------------------------------------------------------------------------


def test_a_table_by_hand():
    """Three sentences: 5 links predicted, 4 sure, 3 of them found; 4 of the 5 are possible."""
    predicted = [((0, 0), (1, 1)), ((0, 0), (2, 1)), ((1, 0),)]
    sure = [((0, 0), (1, 1)), ((0, 0),), ((0, 0),)]
    possible = [((0, 0), (1, 1)), ((0, 0), (1, 1), (2, 1)), ((0, 0),)]
    found = alignment_errors(predicted, sure, possible)
    assert found.error_rate == pytest.approx(1 - (3 + 4) / (5 + 4))
    assert found.precision == pytest.approx(4 / 5)
    assert found.recall == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([((0, 0), (1, 1))], (0, 1, 1)),
        ([((1, 0), (0, 1))], (1, 0, 0)),
        ([((0, 0), (0, 0), (1, 1))], (0, 1, 1)),  # twice the same link is one link
        ([()], (1, 0, 0)),
    ],
)
def test_perfect_wrong_and_missing_links(predicted, expected):
    gold = [((0, 0), (1, 1))]
    found = alignment_errors(predicted, gold, gold)
    assert (found.error_rate, found.precision, found.recall) == expected


@pytest.mark.parametrize("seed", range(20))
def test_another_reckoning_agrees(seed):
    """Cell by cell over whole tables, in fractions; with S = P the rate is 1 - F."""
    rng = random.Random(seed)
    tables = []
    for _ in range(rng.randint(1, 6)):
        rows, columns = rng.randint(1, 7), rng.randint(1, 7)
        cells = [(j, i) for i in range(rows) for j in range(columns)]
        tables.append([(c, *(rng.random() < q for q in (0.4, 0.3, 0.2))) for c in cells])
    tables[0][0] = ((0, 0), True, True, True)
    predicted = [tuple(c for c, a, _, _ in t if a) for t in tables]
    sure = [tuple(c for c, _, s, _ in t if s) for t in tables]
    possible = [tuple(c for c, _, s, p in t if s or p) for t in tables]

    def count(condition) -> int:
        return sum(bool(condition(a, s, s or p)) for t in tables for _, a, s, p in t)

    num_a, num_s = count(lambda a, s, p: a), count(lambda a, s, p: s)
    a_and_s, a_and_p = count(lambda a, s, p: a and s), count(lambda a, s, p: a and p)
    found = alignment_errors(predicted, sure, possible)
    assert found.error_rate == pytest.approx(float(1 - Fraction(a_and_s + a_and_p, num_a + num_s)))
    assert found.precision == pytest.approx(a_and_p / num_a)
    assert found.recall == pytest.approx(a_and_s / num_s)
    alone = alignment_errors(predicted, sure, sure)
    f = 2 * alone.precision * alone.recall / (alone.precision + alone.recall)
    assert alone.error_rate == pytest.approx(1 - f)


# From weights to links ----------------------------------------------------------------------

WEIGHTS = np.array(
    [
        [0.1, 0.7, 0.0],
        [0.2, 0.1, 0.6],
        [0.3, 0.3, 0.2],
        [0.0, 0.0, 0.9],  # the end symbol's row
    ]
)


@pytest.mark.parametrize(
    ("shift", "links"),
    [
        (0, ((1, 0), (2, 1), (0, 2))),
        (1, ((2, 0), (0, 1), (2, 2))),
        (-1, ((1, 0), (1, 1), (2, 2))),
    ],
)
def test_each_target_word_links_to_its_largest_weight(shift, links):
    assert best_links(WEIGHTS, shift) == links


def test_a_word_that_looks_at_nothing_but_the_end_has_no_link():
    assert best_links(np.array([[0.0, 0.0], [0.0, 0.4], [1.0, 0.0]]), 0) == ((1, 1),)


def test_links_are_read_as_they_are_written():
    assert read_links("0-0 10-2 3-11") == ((0, 0), (10, 2), (3, 11))
    assert read_links("") == ()


# From pieces to words -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pieces", "groups", "group_of"),
    [
        ("L'homme dort.", "▁L ' ho mme ▁dor t .", [[0, 1], [2, 3], [4, 5], [6]], [0, 1, 2, 3]),
        ("L'homme dort.", "▁L' ▁homme ▁dort ▁.", [[0], [1], [2], [3]], [0, 1, 2, 3]),
        ("Daniel's cat", "▁Daniel ▁'s ▁cat", [[0, 1], [2]], [0, 0, 1]),  # Moses' words
        ("l'\u00e9l\u00e8ve", "▁l' \u00e9l\u00e8ve", [[0], [1]], [0, 1]),
        ("un ho\ufb01 !", "▁un ▁hofi ▁ !", [[0], [1], [2, 3]], [0, 1, 2]),  # normalised
        ("a  b", "▁a ▁b", [[0], [1]], [0, 1]),
    ],
)
def test_pieces_are_laid_over_the_words_of_the_text(text, pieces, groups, group_of):
    found = map_words(text, pieces.replace("▁", "\u2581").split(" "))
    assert (found.groups, found.group_of) == (groups, group_of)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Well\u2026 no", ["\u2581Well", ".", "..", "\u2581no"]),  # one word became three
        ("a b", ["\u2581a"]),
        ("", []),
        ("a", []),
    ],
)
def test_words_that_cannot_be_found_are_not_guessed(text, pieces):
    assert map_words(text, pieces) is None


def test_weights_between_words_sum_over_the_source_and_average_over_the_target():
    """`La chat` from `the cat`: pieces la, ch, at, end; the, c, at, end."""
    src = map_words("the cat", ["\u2581the", "\u2581c", "at"])
    tgt = map_words("la chat", ["\u2581la", "\u2581ch", "at"])
    alpha = np.array(
        [[0.5, 0.1, 0.2, 0.2], [0.1, 0.2, 0.3, 0.4], [0.3, 0.4, 0.1, 0.2], [0, 0, 0, 1]]
    )
    expected = [[0.5, 0.3], [0.2, 0.5], [0, 0]]
    np.testing.assert_allclose(word_weights(alpha, src, tgt), expected, atol=1e-15)


def test_words_in_one_piece_share_its_row_and_the_first_has_its_weight():
    both = map_words("New York", ["\u2581New\u2581York"])
    alpha = np.array([[0.9, 0.1], [0.4, 0.6]])
    np.testing.assert_allclose(word_weights(alpha, both, both), [[0.9, 0], [0.9, 0], [0.4, 0]])


# Models whose answer is known ---------------------------------------------------------------


class Words:
    """A vocabulary of whole words; what it has not seen at first is unknown."""

    def __init__(self, text: str) -> None:
        self.known = ["", "<unk>", "</s>", *sorted({*split_words(text)})]

    def encode(self, texts):
        index = {word: i for i, word in enumerate(self.known)}
        return [[index.get(word, UNK) for word in split_words(text)] for text in texts]

    def tokens(self, texts):
        return [[f"\u2581{word}" for word in split_words(text)] for text in texts]


class Follows(torch.nn.Module):
    """Looks at the source word as far into the sentence as the target word, `lag` words late."""

    def __init__(self, lag: int) -> None:
        super().__init__()
        self.lag = lag
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.eval()

    def forward(self, src, src_mask, tgt, tgt_mask):
        assert (src[src_mask] != 0).all()
        assert (src[torch.arange(len(src)), src_mask.sum(dim=1) - 1] == EOS).all()
        alpha = torch.zeros(len(src), tgt.shape[1], src.shape[1])
        for b, row in enumerate(src_mask.sum(dim=1).tolist()):
            for i in range(tgt.shape[1]):
                alpha[b, i, min(max(i - self.lag, 0), row - 1)] = 1
        return SimpleNamespace(alpha=alpha)


PAIRS = [("the big cat sleeps .", "x y z w ."), ("a dog", "u v"), ("birds sing today", "p q r")]
GOLD = [tuple((i, i) for i in range(len(split_words(src)))) for src, _ in PAIRS]


@pytest.mark.parametrize("batch_sentences", [1, 2, 64])
def test_a_model_that_follows_the_words_makes_no_error(batch_sentences):
    words = Words(" ".join(f"{a} {b}" for a, b in PAIRS))
    found = score_alignment(Follows(0), (words, words), PAIRS, GOLD, batch_sentences)
    assert (found.error_rate, found.precision, found.recall) == (0, 1, 1)
    assert (found.sentences, found.skipped) == (3, 0)
    # Later: the last words ask the end symbol's row, which looks at no word; 7 wrong links.
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
def test_a_lag_shows_in_the_shifted_reading(lag, reading, rate):
    words = Words(" ".join(f"{a} {b}" for a, b in PAIRS))
    found = score_alignment(Follows(lag), (words, words), PAIRS, GOLD, 64)
    assert found.error_rate >= 0.7
    assert getattr(found, reading) == pytest.approx(rate)


def test_sentences_whose_words_are_lost_are_counted():
    words = Words(" ".join(f"{a} {b}" for a, b in PAIRS))
    pairs = [*PAIRS, ("the zebra sings .", "p t q .")]
    gold = [*GOLD, ((0, 0), (1, 1), (2, 2), (3, 3))]
    found = score_alignment(Follows(0), (words, words), pairs, gold, 2)
    assert (found.error_rate, found.sentences, found.skipped) == (0, 4, 0), "unknown is a word, too"
    words.tokens = lambda texts: [["\u2581a"] for _ in texts]
    assert score_alignment(Follows(0), (words, words), pairs, gold, 2) is None


def test_it_is_shown_in_percent():
    shown = str(GoldAlignment(0.25, 0.5, 1.0, 0.75, 0.875, 1200, 3))
    assert shown == (
        "error rate 25.0%, precision 50.0%, recall 100.0%; read one word later 75.0%, "
        "earlier 87.5%; 1,200 sentences, 3 skipped"
    )


# A trained run ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def told(trained):
    """The model, and translations whose text is cut into the very pieces that were emitted."""
    model = seq2seq.load(trained, ["device=cpu"])
    lines = (trained / "corpus/test.source").read_text("utf-8").splitlines()

    def emitted(t) -> bool:
        target = model.tokenizers[1]
        return (*target.pieces(target.encode([t.text])[0]), END) == t.candidates[0].tokens

    found = [t for t in model.translate(lines) if emitted(t)]
    assert len(found) > 10
    return model, found


def test_forced_along_its_own_translation_a_model_looks_where_it_looked(told):
    """The search kept its weights; forcing must give the same ones, word for word."""
    model, translations = told
    pairs = [(t.source, t.text) for t in translations]
    forced = force_align(model.model, model.tokenizers, pairs, 4)
    for t, found in zip(translations, forced, strict=True):
        src = map_words(t.source, t.source_tokens[:-1])
        tgt = map_words(t.text, t.candidates[0].tokens[:-1])
        np.testing.assert_allclose(found, word_weights(t.alignment, src, tgt), atol=1e-5)
        assert found.shape == (len(split_words(t.text)) + 1, len(split_words(t.source)))


def test_a_run_is_scored_if_it_has_gold_links(told, trained, tmp_path):
    """With the links of its own attention as gold, but for the first one, which is taken out."""
    model, _ = told
    assert align_test_set(RunDir.open(trained), model.model, model.tokenizers, 8) is None
    run = RunDir.open(copy_of(trained, tmp_path / "run"))
    sides = [run.path(f"corpus/test.{s}").read_text("utf-8").splitlines() for s in SIDES]
    pairs = list(zip(*sides, strict=True))
    links = [best_links(a, 0) for a in force_align(model.model, model.tokenizers, pairs, 8)]
    count = sum(map(len, links))
    lines = [" ".join(f"{i}-{j}" for i, j in row) for row in (links[0][1:], *links[1:])]
    run.write("corpus/test.links", "".join(f"{line}\n" for line in lines))
    found = align_test_set(run, model.model, model.tokenizers, 8)
    assert (found.recall, found.sentences) == (1, 20)
    assert found.precision == pytest.approx((count - 1) / count)
    assert found.error_rate == pytest.approx(1 / (2 * count - 1))
    assert max(found.later_error_rate, found.earlier_error_rate) > found.error_rate
