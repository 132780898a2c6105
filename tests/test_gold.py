"""Attention between words, scored on models whose answer is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from runs import composed, copy_of, tiny_run

import seq2seq
from seq2seq.alignment.gold import AttentionTally, GoldAlignment, align_test_set
from seq2seq.alignment.links import GoldLinks, best_links, read_links
from seq2seq.alignment.word_level import map_words, to_words, word_weights
from seq2seq.data.prepare import SIDES
from seq2seq.data.tokenizer import EOS, UNK
from seq2seq.data.words import blank_spans, split_words
from seq2seq.decoding.forced import force
from seq2seq.decoding.translate import END, Candidate, Translation
from seq2seq.run.directory import RunDir

# From weights to links ----------------------------------------------------------------------

WEIGHTS = np.array(
    [
        [0.1, 0.7, 0.0, 0.2],
        [0.2, 0.1, 0.6, 0.1],
        [0.3, 0.3, 0.2, 0.2],
        [0.0, 0.0, 0.4, 0.6],  # the end symbol's row
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


def test_without_an_end_every_row_is_a_word():
    assert best_links(WEIGHTS, ended=False) == ((1, 0), (2, 1), (0, 2), (2, 3))
    assert best_links(WEIGHTS[:3], 1, ended=False) == ((2, 0), (0, 1), (0, 2)), "the last keeps its"


def test_a_word_that_looks_at_nothing_but_the_end_has_no_link():
    assert best_links(np.array([[0, 0, 1], [0, 0.4, 0.6], [1, 0, 0]])) == ((1, 1),)


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
        ("", ["\u2581"]),
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
    expected = [[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0, 0, 1]]
    np.testing.assert_allclose(word_weights(alpha, src, tgt), expected, atol=1e-15)


def test_words_in_one_piece_share_its_row_and_the_first_has_its_weight():
    both = map_words("New York", ["\u2581New\u2581York"])
    alpha = np.array([[0.9, 0.1], [0.4, 0.6]])
    expected = [[0.9, 0, 0.1], [0.9, 0, 0.1], [0.4, 0, 0.6]]
    np.testing.assert_allclose(word_weights(alpha, both, both), expected)
    np.testing.assert_allclose(word_weights(alpha[:1], both, both), expected[:2])  # no end


@pytest.mark.parametrize(
    ("text", "pieces", "groups", "group_of"),
    [
        ("L'homme dort.", "_L ' ho mme _dor t .", [[0, 1, 2, 3], [4, 5, 6]], [0, 1]),
        ("l' homme dort .", "_l ' _homme _dort _.", [[0, 1], [2], [3], [4]], [0, 1, 2, 3]),
        ("", "", [], []),
    ],
)
def test_words_may_be_what_stands_between_blanks(text, pieces, groups, group_of):
    found = map_words(text, pieces.replace("_", "\u2581").split(), blank_spans)
    assert (found.groups, found.group_of) == (groups, group_of)


def test_where_words_cannot_be_found_the_pieces_stand_for_them():
    alpha = np.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.2, 0.2, 0.1]], np.float32)
    best = Candidate("", ("\u2581",), (-1.0,), -1.0, -1.0, alpha[:1], finished=False)
    found = to_words(Translation("Well\u2026", ("\u2581Well", ".", "..", END), (best,)), best)
    assert (found.source_words, found.words) == (("\u2581Well", ".", "..", END), ("\u2581",))
    assert not found.matched
    np.testing.assert_allclose(found.alignment, alpha[:1])
    ended = replace(best, tokens=("\u2581", END), alignment=alpha, finished=True)
    found = to_words(Translation("a b c", ("\u2581a", "\u2581b", "\u2581c", END), (ended,)), ended)
    assert (found.source_words, found.words) == (("a", "b", "c", END), ("\u2581", END))
    assert not found.matched
    np.testing.assert_allclose(found.alignment, alpha)


def test_an_empty_translation_has_no_words_and_its_end():
    alpha = np.array([[0.25, 0.75]], np.float32)
    best = Candidate("", (END,), (-1.0,), -1.0, -1.0, alpha, finished=True)
    found = to_words(Translation("a", ("\u2581a", END), (best,)), best)
    assert (found.words, found.matched) == ((END,), True)
    np.testing.assert_allclose(found.alignment, alpha)


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
        return SimpleNamespace(alpha=alpha, logits=torch.zeros(int(tgt_mask.sum()), 100))


PAIRS = [("the big cat sleeps .", "x y z w ."), ("a dog", "u v"), ("birds sing today", "p q r")]
ALONG = [tuple((i, i) for i in range(len(split_words(src)))) for src, _ in PAIRS]
GOLD = [GoldLinks(links, links) for links in ALONG]


def scored(model, words, pairs, gold, batch_sentences=64):
    cfg = replace(composed("debug").decode, batch_sentences=batch_sentences)
    tally = AttentionTally()
    for translation, links in zip(force(model, (words, words), pairs, cfg), gold, strict=True):
        tally.add(translation, links)
    return tally.scores().gold


@pytest.mark.parametrize("batch_sentences", [1, 2, 64])
def test_a_model_that_follows_the_words_makes_no_error(batch_sentences):
    words = Words(" ".join(f"{a} {b}" for a, b in PAIRS))
    found = scored(Follows(0), words, PAIRS, GOLD, batch_sentences)
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
    found = scored(Follows(lag), words, PAIRS, GOLD)
    assert found.error_rate >= 0.7
    assert getattr(found, reading) == pytest.approx(rate)


def test_sentences_whose_words_are_lost_are_counted():
    words = Words(" ".join(f"{a} {b}" for a, b in PAIRS))
    pairs = [*PAIRS, ("the zebra sings", "p t q")]
    gold = [*GOLD, GOLD[2]]
    found = scored(Follows(0), words, pairs, gold, 2)
    assert (found.error_rate, found.sentences, found.skipped) == (0, 4, 0), "unknown is a word, too"
    words.tokens = lambda texts: [["\u2581a"] for _ in texts]
    assert scored(Follows(0), words, pairs, gold, 2) is None


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
    forced = model.force((t.source, t.text) for t in translations)
    for t, again in zip(translations, forced, strict=True):
        found = to_words(again, again.candidates[0])
        own = to_words(t, t.candidates[0])
        np.testing.assert_allclose(found.alignment, own.alignment, atol=1e-5)
        assert found.words == own.words == (*split_words(t.text), END)
        assert found.source_words == own.source_words == (*split_words(t.source), END)
        assert found.matched
        assert own.matched


def test_a_run_is_scored_if_it_has_gold_links(told, trained, tmp_path):
    """With the links of its own attention as gold, but for the first one, which is taken out."""
    model, _ = told
    cfg = model.config.decode
    assert align_test_set(RunDir.open(trained), model.model, model.tokenizers, cfg).gold is None
    run = RunDir.open(copy_of(trained, tmp_path / "run"))
    sides = [run.path(f"corpus/test.{s}").read_text("utf-8").splitlines() for s in SIDES]
    found = model.force(zip(*sides, strict=True))
    links = [best_links(to_words(t, t.candidates[0]).alignment) for t in found]
    count = sum(map(len, links))
    lines = [" ".join(f"{i}-{j}" for i, j in row) for row in (links[0][1:], *links[1:])]
    assert read_links(lines[1]).sure == links[1]
    run.write("corpus/test.links", "".join(f"{line}\n" for line in lines))
    found = align_test_set(run, model.model, model.tokenizers, cfg)
    gold = found.gold
    assert (gold.recall, gold.sentences) == (1, 20)
    assert gold.precision == pytest.approx((count - 1) / count)
    assert gold.error_rate == pytest.approx(1 / (2 * count - 1))
    assert max(gold.later_error_rate, gold.earlier_error_rate) > gold.error_rate
    assert 0 < found.measures.entropy < np.log(20)
