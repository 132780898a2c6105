"""Measures of attention: by hand, against loops, and at their bounds."""

import math
import random
from itertools import pairwise

import numpy as np
import pytest

from seq2seq.alignment.measures import (
    Measures,
    advice,
    average,
    coverage,
    fertility,
    measure,
    positions,
    reading,
)

HAND = np.array(
    [
        [0.5, 0.5, 0.0, 0.0],
        [0.0, 0.25, 0.25, 0.5],
        [1.0, 0.0, 0.0, 0.0],
        [0.1, 0.1, 0.1, 0.7],  # the end symbol's
    ]
)


def test_a_matrix_by_hand():
    """Three target words, three source words and the end symbols."""
    found = measure(HAND, ended=True)
    assert found.entropy == pytest.approx((math.log(2) + 1.5 * math.log(2) + 0) / 3)
    assert found.relative_entropy == pytest.approx(found.entropy / math.log(4))
    # coverage 1.5, 0.75, 0.25; argmax 0, 1 (of equals the first), 0; positions 0.5, 1.5, 0
    assert (found.uncovered, found.overcovered) == (pytest.approx(1 / 3), 0)
    assert found.unlinked == pytest.approx(1 / 3)
    assert found.monotonicity == 0.5
    assert found.kendall == pytest.approx((1 - 1 - 1) / 3)
    np.testing.assert_allclose(coverage(HAND[:3, :3]), [1.5, 0.75, 0.25])
    np.testing.assert_array_equal(fertility(HAND[:3, :3]), [2, 1, 0])
    np.testing.assert_allclose(positions(HAND[:3, :3]), [0.5, 1.5, 0.0])


def test_where_nothing_is_to_be_measured():
    only_end = np.ones((1, 1))
    assert measure(only_end, ended=True) == Measures(*[None] * 7)
    # A word that looks at the end symbol alone looks at no word; there is none either.
    found = measure(np.ones((2, 1)), ended=True)
    assert found == Measures(0, None, None, None, None, None, None)
    blind = np.array([[0.0, 0.0, 1.0]] * 3)
    found = measure(blind, ended=True)
    assert found == Measures(0, 0, 1, 0, 1, None, None)


def by_loops(alpha: np.ndarray) -> dict[str, float]:
    rows = [list(map(float, row)) for row in alpha[:-1]]
    num_words = alpha.shape[1] - 1
    entropies = [-sum(p * math.log(p) for p in row if p > 0) for row in rows]
    covered = [sum(row[j] for row in rows) for j in range(num_words)]
    where = [sum(j * row[j] for j in range(num_words)) / sum(row[:num_words]) for row in rows]
    links = [max(range(num_words), key=lambda j: row[j]) for row in rows]
    pairs = [(a, b) for b in range(len(where)) for a in range(b)]
    order = [(where[b] > where[a]) - (where[b] < where[a]) for a, b in pairs]
    return {
        "entropy": sum(entropies) / len(rows),
        "relative_entropy": sum(entropies) / len(rows) / math.log(num_words + 1),
        "uncovered": sum(c < 0.5 for c in covered) / num_words,
        "overcovered": sum(c > 2 for c in covered) / num_words,
        "unlinked": sum(j not in links for j in range(num_words)) / num_words,
        "monotonicity": sum(b >= a for a, b in pairwise(where)) / (len(where) - 1),
        "kendall": sum(order) / len(pairs),
    }


def random_alpha(rng: random.Random) -> np.ndarray:
    size = rng.randint(3, 9), rng.randint(2, 9)
    weights = np.random.default_rng(rng.randrange(1 << 30)).gamma(0.3, size=size) + 1e-6
    return weights / weights.sum(axis=1, keepdims=True)


def test_loops_agree_on_random_matrices_and_bounds_hold():
    rng = random.Random(1)
    for number in range(200):
        alpha = random_alpha(rng)
        found = vars(measure(alpha, ended=True))
        assert found == pytest.approx(by_loops(alpha), abs=1e-12), number
        for name, value in vars(measure(alpha.astype(np.float32), ended=True)).items():
            low = -1 if name == "kendall" else 0
            assert low <= value <= (math.log(10) if name == "entropy" else 1 + 1e-6), name


def test_the_mean_is_over_sentences_that_have_a_value():
    found = average([measure(np.eye(2), ended=True), measure(HAND, ended=True)])
    assert found.entropy == pytest.approx(measure(HAND, ended=True).entropy / 2)
    assert found.monotonicity == 0.5, "one word has no step"
    assert average([]) == Measures(*[None] * 7)


def test_measures_are_shown_in_a_line():
    assert str(measure(HAND, ended=True)) == (
        "entropy 0.58 nats (42% of log length); of the source words 33.3% uncovered, 0.0% "
        "overcovered; monotone 50.0%"
    )
    assert str(average([])).startswith("entropy - nats (- of log length)")


@pytest.mark.parametrize(
    ("rates", "start"),
    [
        ((0.2, 0.9, 0.8), "Use it as it is"),
        ((0.6, 0.2, 0.8), "Read it one target word later (row i+1 for word i): that lowers the"),
        ((0.6, 0.9, 0.55), "Read it one target word earlier (row i-1 for word i): that lowers"),
        ((0.8, 0.81, 0.79), "Do not use it as a word alignment: its error rate is 80.0%"),
    ],
)
def test_advice_is_one_plain_sentence(rates, start):
    found = advice(*rates)
    assert found.startswith(start)
    assert found.endswith(".")
    assert "\n" not in found


@pytest.mark.parametrize(
    ("alpha", "width", "share", "order"),
    [
        (np.eye(9), "one place", "0%", "; it goes through the source from left to right"),
        (np.full((9, 9), 1 / 9), "all words alike", "0%",
         "; it goes through the source from left to right"),
        (np.eye(9)[[7, 3, 6, 1, 5, 0, 2, 4, 8]], "one place", "0%",
         "; it goes through the source in no order"),
        (np.eye(9)[[8] * 9], "one place", "100%", ""),
    ],
)  # fmt: skip
def test_a_plain_reading(alpha, width, share, order):
    assert reading(measure(alpha, ended=True)) == (
        f"Each target word attends to {width}; {share} of the source words get hardly any "
        f"attention{order}."
    )
    assert reading(average([])) == "There is no sentence to measure."
