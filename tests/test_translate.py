"""One line in, one line out, in order, whatever the line and whatever the batch."""

import random

import numpy as np
import pytest

import seq2seq
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.decoding.translation import END, Translation

pytestmark = pytest.mark.e2e

PLAIN = [
    "the cat sees the dog .",
    "the teacher waits for the boy today .",
    "the wolf follows the neighbour again .",
    "the pupil likes the bear .",
    "the sailor hears the baker often .",
    "the boy",
    "the dog carries the wolf again . the cat looks for the pupil today .",
    ".",
    "the baker helps the teacher today .",
]
BLANK = ["", " ", "     ", "\u00a0", "\t", "\t \u00a0 \t", "\r", "\u2003", "\ufeff"]
STRANGE = [
    "the \U0001f600 sees the \u732b .",
    "\u0627\u0644\u0642\u0637 \u064a\u0631\u0649 \u0627\u0644\u0643\u0644\u0628 .",  # right to left
    "\u202ethe cat\u202c sees",
    "</s> the <s> <pad> <unk> cat </s>",
    "\u2581the \u2581cat",
    "the\tcat\u2028sees\u0085the\u000bdog .",
    "\x01\x02the \x1b[31mcat\x07 sees\x7f .",
    "e\u0301le\u0300ve e\u0300",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "{'$': \"\\n\"} & <b>",
    "THE CAT SEES THE DOG .",
    "\ufffd\ufffe",
]
NOTHING_LEFT = ["\x01", "\x07\x1b"]
"""Control characters alone: normalisation leaves nothing of them."""


@pytest.fixture(scope="module")
def model(run) -> Pretrained:
    return seq2seq.load(run, ["device=cpu"])


@pytest.fixture(scope="module")
def lines() -> list[str]:
    every = [*PLAIN, *BLANK, *STRANGE, *NOTHING_LEFT]
    random.Random(5).shuffle(every)
    return every


@pytest.fixture(scope="module")
def translations(model, lines) -> list[Translation]:
    return model.translate(lines)


def assert_same(found: list[Translation], expected: list[Translation]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.source == b.source
        assert a.source_tokens == b.source_tokens
        assert [c.text for c in a.candidates] == [c.text for c in b.candidates]
        assert [c.tokens for c in a.candidates] == [c.tokens for c in b.candidates]
        for c, d in zip(a.candidates, b.candidates, strict=True):
            assert c.score == pytest.approx(d.score, abs=1e-5)
            assert c.log_prob == pytest.approx(d.log_prob, abs=1e-4)  # summed over the words
            np.testing.assert_allclose(c.alignment, d.alignment, atol=1e-5)


@pytest.mark.parametrize("count", [80, pytest.param(1000, marks=pytest.mark.slow)])
def test_D9_a_line_alone_is_the_line_in_any_batch(run, model, lines, tally, count):
    """Lines of all kinds in six ways to batch: size, order, mates."""
    rng = random.Random(count)
    lines = [*lines] + [
        " ".join(rng.choices(" ".join(PLAIN).split(), k=rng.randint(1, 15))) for _ in range(count)
    ]
    alone = [model.translate([line])[0] for line in lines]
    for size in (2, 7, 64, 1000):
        other = seq2seq.load(run, [f"decode.batch_sentences={size}"])
        assert_same(other.translate(lines), alone)
    order = rng.sample(range(len(lines)), len(lines))
    assert_same(model.translate([lines[i] for i in order]), [alone[i] for i in order])
    mates = model.translate([x for line in lines for x in (line, " ".join(PLAIN * 3), "")])
    assert_same(mates[::3], alone)
    note = "same text, scores within 1e-5"
    tally("D9", "lines batched in six other ways", len(lines), len(lines), note)


def test_lines_are_read_as_they_are_needed(run):
    """Memory holds a chunk of 16 batches, not the file."""
    model = seq2seq.load(run, ["decode.batch_sentences=1"])
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield "the cat ."

    stream = model.stream(endless())
    first = next(stream)
    assert taken == 16
    assert first.text == next(stream).text


@pytest.mark.parametrize("line", [*BLANK, *NOTHING_LEFT], ids=ascii)
def test_D1_a_blank_line_stays_blank(model, line):
    [found] = model.translate([line])
    assert found.text == ""
    assert found.source == line
    assert found.candidates == found.source_tokens == ()
    assert found.score == 0.0
    assert found.alignment.shape == (0, 0)
    assert model.translate([]) == []


@pytest.mark.parametrize("line", STRANGE, ids=ascii)
def test_D3_strange_text_gives_one_printable_line(model, line):
    [found] = model.translate([line])
    found.text.encode("utf-8")
    assert len(found.text.splitlines()) <= 1
    assert found.text == " ".join(found.text.split())
    assert END not in found.text
    assert found.source_tokens[-1] == END


# Hypotheses and their numbers.


def test_O4_attention_rows_are_distributions(translations):
    for t in translations:
        for c in t.candidates:
            assert c.alignment.shape == (len(c.tokens), len(t.source_tokens))
            np.testing.assert_allclose(c.alignment.sum(axis=1), 1.0, atol=1e-5)
            assert c.alignment.min() >= 0.0


# Loading.


def test_D10_one_step_and_no_more(run):
    short = seq2seq.load(run, ["decode.max_ratio=0.0001", "decode.extra_steps=1"])
    for t in short.translate([*PLAIN, *STRANGE]):
        assert {len(c.tokens) for c in t.candidates} == {1}
        assert all(c.finished == (c.tokens == (END,)) for c in t.candidates)
    none = seq2seq.load(run, ["decode.max_ratio=0.0001", "decode.extra_steps=0"])
    assert_same(none.translate(PLAIN), short.translate(PLAIN))
