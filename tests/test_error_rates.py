"""Exact match and error rates: by hand, against the plain recursion, and for selection."""

import random
from functools import cache

import pytest
from test_selection import run_of

from seq2seq.config.schema import CharactersConfig, Config, SelectBy
from seq2seq.evaluation.error_rates import (
    NAMES,
    RATES,
    are_shown,
    by_source,
    edit_distance,
    metrics,
    score_exactness,
)
from seq2seq.evaluation.scoring import Score
from seq2seq.evaluation.significance import compare
from seq2seq.evaluation.test_set import Results
from seq2seq.training import selection
from seq2seq.training.validation import MOST_NOISE, noise_level


def recursive(a, b) -> int:
    """The definition: what ends both texts is matched, substituted, inserted or deleted."""

    @cache
    def of(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        same = of(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(same, of(i - 1, j) + 1, of(i, j - 1) + 1)

    return of(len(a), len(b))


def test_edits_are_those_of_the_definition():
    draw = random.Random(1)
    for _ in range(400):
        a, b = ("".join(draw.choices("abc", k=draw.randrange(12))) for _ in range(2))
        assert edit_distance(a, b) == recursive(a, b), (a, b)


# outputs, lists of references; exact match, character error rate, symbol error rate
CASES = {
    "equal": (["a b", "c"], [["a b", "c"]], 100, 0, 0),
    "white space": ([" a  b "], [["a b"]], 100, 0, 0),
    "one of four": (["a b c d"], [["a x c d"]], 0, 100 / 7, 25),
    "no output": (["", "x"], [["ab c", "x"]], 50, 80, 200 / 3),
    "above 100": (["a b c"], [["d"]], 0, 500, 300),
    "summed, no mean of lines": (["a", "x y z"], [["b", "x y z"]], 50, 100 / 6, 25),
    "marks": (["e\u0301\u0323"], [["\u1eb9\u0301"]], 100, 0, 100),  # one letter in two spellings
    "nearest": (["a b c", "q"], [["x", "q"], ["a b d", None]], 50, 100 / 6, 25),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_by_hand(case):
    outputs, references, *expected = CASES[case]
    found = score_exactness(outputs, references).scores
    assert [*found] == [*NAMES.values()]
    assert [score.value for score in found.values()] == pytest.approx(expected)
    assert all(s.low <= s.value + 1e-9 and s.high >= s.value - 1e-9 for s in found.values())


def test_rates_and_intervals_of_random_text():
    draw = random.Random(2)
    outputs, first, second = (
        [" ".join(draw.choices("ABC", k=draw.randrange(1, 6))) for _ in range(200)]
        for _ in range(3)
    )
    edits, length, exact = 0, 0, 0
    for output, *answers in zip(outputs, first, second, strict=True):
        every = [(recursive(output.split(), x.split()), -len(x.split())) for x in answers]
        nearest = min(every)
        edits, length = edits + nearest[0], length - nearest[1]
        exact += output in answers
    match, _, rate = score_exactness(outputs, [first, second]).scores.values()
    assert (match.value, rate.value) == pytest.approx((exact / 2, 100 * edits / length))
    # The interval of a share of 200 lines: the normal approximation
    half = 1.96 * (match.value * (100 - match.value) / 200) ** 0.5
    assert (match.high - match.low) / 2 == pytest.approx(half, rel=0.15)
    assert rate.low < rate.value < rate.high
    assert rate.signature.startswith("nrefs:2|unit:symbol|version:")


def test_a_source_with_several_answers_counts_once():
    sources, outputs = ["read", "a", "read"], ["R EH D", "AH", "R EH D"]
    texts, answers = by_source(sources, outputs, ["R IY D", "EY", "R EH D"])
    assert texts == ["R EH D", "AH"]
    assert answers == [("R IY D", "EY"), ("R EH D", None)]
    match, _, rate = score_exactness(texts, answers).scores.values()
    assert (match.value, rate.value) == (50, 25)
    assert match.signature.startswith("nrefs:var|")


@pytest.mark.e2e
def test_systems_are_compared_by_them_too():
    sources, references = [f"w{i}" for i in range(40)] * 2, ["a b c", "a b"] * 20 + ["a b d"] * 40
    good = ["a b c" if i % 3 else "x" for i in range(40)] * 2
    found = compare({"a": good, "b": ["x y z"] * 80}, references, "13a", "", sources)
    assert {"exact match", "symbol error rate", "BLEU"} < {*found}
    first, second = found["symbol error rate"].systems
    assert first.value < second.value == 100
    assert max(second.p.values()) < 0.01
    assert first.low < first.value < first.high
    assert "BLEU" in compare({"a": good, "b": good}, references, "13a")
    assert "exact match" not in compare({"a": good, "b": good}, references, "13a")


def test_they_are_shown_where_they_suit():
    results = Results(
        sentences=1, scores={name: Score(1.0, "s") for name in ("BLEU", *NAMES.values())}
    )
    names = [*NAMES.values(), "BLEU"]
    assert [*results.shown] == names
    assert [line.split("  ")[0] for line in str(results).splitlines()[1:]] == names
    cfg = Config()
    assert not are_shown(cfg)
    cfg.trainer.select_by = SelectBy.exact_match
    assert are_shown(cfg)
    assert are_shown(Config(tokenizer=CharactersConfig()))


# The best validation ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", NAMES)
def test_the_best_is_the_lowest_rate_or_the_highest_match(by):
    """Loss, then noise, then a value that gets better, worse for three validations."""
    values = [100.0, 99.5, 40.0, 30.0, 31.0, 32.0, 33.0, 1.0]
    if by not in RATES:
        values = [100 - value for value in values]
    progress, cfg, said = run_of(
        [6.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.4, 1.3], [0.0] * 8, by, [{by.name: x} for x in values]
    )
    assert (progress.update, progress.best_update, progress.reductions) == (70, 40, 1)
    best = 30.0 if by in RATES else 70.0
    assert selection.best_value(progress, cfg.trainer) == best
    assert said[1] == f"best loss so far, as {NAMES[by]} is still noise"
    assert said[-1] == f"no better {by.name}: 3 of 3"
    closing = selection.closing_line(progress, cfg.trainer, begun_at=0)
    assert f"best {by.name} {best:.2f} after update 40" in closing


@pytest.mark.parametrize("by", NAMES)
def test_noise_is_what_other_references_score(by):
    cfg = Config()
    cfg.trainer.select_by = by
    words = ("K AE T", "D AO G", "B ER D", "HH AW S")
    level = noise_level(words, cfg, "arpabet")
    others = [*words[1:], words[0]]
    score = metrics()[by].corpus_score(others, [words]).score
    expected = 1.2 * (100 - score if by in RATES else score)
    assert level == pytest.approx(min(max(1.0, expected), MOST_NOISE))
