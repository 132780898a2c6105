"""IBM-1 and the HMM against the sum over all alignments, written out in loops."""

import math
import random
from collections import Counter, defaultdict
from itertools import pairwise, product

import numpy as np
import pytest

from seq2seq.alignment import ibm

P0 = 0.2


def probability(src, tgt, a, t, s):
    """Return p(f, a | e), and the jumps that the alignment makes; see `all_alignments`."""
    p, memory, jumps = 1.0, 0, []
    for i, f in zip(a, tgt, strict=True):
        p *= t[([0, *src][i], f)]
        if s is None:
            p /= len(src) + 1
        elif i == 0:
            p *= P0
        else:
            p *= (1 - P0) * s[i - memory] / sum(s[k - memory] for k in range(1, len(src) + 1))
            jumps.append((len(src), memory, i))
            memory = i
    return p, jumps


def all_alignments(pairs, t, s):
    """Log-likelihood, posteriors and expected jumps, from the probability of every alignment.

    Args:
        pairs: Word ids of source and target.
        t: (source word, target word) -> probability.
        s: jump width -> weight; None: IBM-1.
    """
    total, posterior, moves = 0.0, Counter(), Counter()
    for number, (src, tgt) in enumerate(pairs):
        if not src or not tgt:
            continue
        every = [*product(range(len(src) + 1), repeat=len(tgt))]
        probabilities = [probability(src, tgt, a, t, s) for a in every]
        likelihood = sum(p for p, _ in probabilities)
        total += math.log(likelihood)
        for a, (p, jumps) in zip(every, probabilities, strict=True):
            for j, i in enumerate(a):
                posterior[number, j, i] += p / likelihood
            for jump in jumps:
                moves[jump] += p / likelihood
    return total, posterior, moves


def random_pairs(rng, count=7, words=3, most=4):
    def sentence(least):
        return [rng.randint(1, words) for _ in range(rng.randint(least, most))]

    return [(sentence(1), sentence(1)) for _ in range(count)] + [([], [1]), ([2], []), ([], [])]


def random_start(bitext, rng, *, hmm):
    t = np.array([rng.uniform(0.05, 1) for _ in bitext.lexicon_src])
    s = np.array([rng.uniform(0.05, 1) for _ in range(2 * bitext.most_src)])
    return ibm.Parameters(t, s if hmm else None)


def by_name(bitext, now):
    """Parameters as in the formulas."""
    words = zip(bitext.lexicon_src.tolist(), bitext.lexicon_tgt.tolist(), strict=True)
    t = dict(zip(words, now.t, strict=True))
    return t, now.s if now.s is None else {d - bitext.most_src + 1: x for d, x in enumerate(now.s)}


def cells(bitext, posterior):
    found = {}
    for group in bitext.groups:
        block = posterior[group.cells].reshape(-1, group.num_src + 1)
        for pair, j, row in zip(group.pairs.tolist(), group.places.tolist(), block, strict=True):
            found |= {(pair, j, i): p for i, p in enumerate(row)}
    return found


@pytest.mark.parametrize("hmm", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_an_em_step_is_that_of_the_sum_over_all_alignments(hmm, seed):
    rng = random.Random(seed)
    pairs = random_pairs(rng)
    bitext = ibm.arrange(*zip(*pairs, strict=True))
    now = random_start(bitext, rng, hmm=hmm)
    t, s = by_name(bitext, now)
    total, posterior, moves = all_alignments(pairs, t, s)

    # E step.
    found = ibm.expect(bitext, now)
    assert found.log_likelihood == pytest.approx(total, abs=1e-10)
    assert cells(bitext, found.posterior) == pytest.approx(posterior, abs=1e-10)
    jumps = {
        (size, m, i + 1): x
        for size, matrix in found.moves.items()
        for (m, i), x in np.ndenumerate(matrix)
    }
    assert jumps == pytest.approx({key: moves[key] for key in jumps}, abs=1e-10)
    assert sum(jumps.values()) == pytest.approx(sum(moves.values()))

    # M step: shares of the counts; weights of jumps that balance what is expected and counted.
    counts, totals = Counter(), Counter()
    for (pair, j, i), p in posterior.items():
        e = [0, *pairs[pair][0]][i]
        counts[e, pairs[pair][1][j]] += p
        totals[e] += p
    after = ibm.maximize(bitext, now, found)
    expected = {(e, f): counts[e, f] / totals[e] for e, f in t}
    assert by_name(bitext, after)[0] == pytest.approx(expected, abs=1e-10)
    if hmm:
        s = now.s
        for _ in range(2000):
            s = ibm._jump_weights(bitext, s, found.moves)
        counted, wanted = defaultdict(float), defaultdict(float)
        for (size, m, i), x in moves.items():
            leaving = sum(moves[size, m, k] for k in range(1, size + 1))
            weights = {k: s[k - m + bitext.most_src - 1] for k in range(1, size + 1)}
            counted[i - m] += x
            wanted[i - m] += leaving * weights[i] / sum(weights.values())
        assert dict(counted) == pytest.approx(dict(wanted), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_likelihood_never_falls(seed):
    rng = random.Random(seed)
    bitext = ibm.arrange(*zip(*random_pairs(rng, 40, words=12, most=9), strict=True))
    now = ibm.uniform(bitext)
    for hmm in (False, True):
        now = ibm.with_jumps(bitext, now) if hmm else now
        likelihoods = []
        for _ in range(12):
            found = ibm.expect(bitext, now)
            likelihoods.append(found.log_likelihood)
            now = ibm.maximize(bitext, now, found)
        gains = [b - a for a, b in pairwise(likelihoods)]
        assert min(gains) > -1e-9
        assert gains[0] > 1


def test_targets_of_one_word_never_jump_back():
    """As in a dictionary: most weights of jumps are zero, and nothing is divided by their sum."""
    pairs = [([1], [5]), ([2], [6]), ([1, 2, 3], [5]), ([2, 4], [6]), ([3], [7])]
    bitext = ibm.arrange(*zip(*pairs, strict=True))
    now = ibm.with_jumps(bitext, ibm.uniform(bitext))
    for _ in range(6):
        found = ibm.expect(bitext, now)
        total, posterior, _ = all_alignments(pairs, *by_name(bitext, now))
        assert found.log_likelihood == pytest.approx(total, abs=1e-10)
        assert cells(bitext, found.posterior) == pytest.approx(posterior, abs=1e-10)
        now = ibm.maximize(bitext, now, found)
    assert now.s.tolist()[:3] == [0, 0, 0]  # the widths -2, -1 and 0
    expected = [((0, 0),), ((0, 0),), ((0, 0),), ((0, 0),), ((0, 0),)]
    assert ibm.align(*zip(*pairs, strict=True))["HMM"] == expected


def test_a_reversed_language_is_learnt_by_the_hmm_alone():
    """Sentences repeat words, and only the order tells the copies apart."""
    rng = random.Random(1)
    sources = [[rng.randint(1, 20) for _ in range(rng.randint(3, 12))] for _ in range(300)]
    # A target word without a source stands in front of every other sentence.
    targets = [[99] * (n % 2) + source[::-1] for n, source in enumerate(sources)]
    found = ibm.align(sources, targets)
    gold = [
        {(len(source) - 1 - k, k + n % 2) for k in range(len(source))}
        for n, source in enumerate(sources)
    ]
    wrong = {name: sum(len({*a} ^ b) for a, b in zip(links, gold, strict=True))
             for name, links in found.items()}  # fmt: skip
    assert wrong["HMM"] < 0.02 * sum(map(len, gold)) < wrong["IBM-1"]


def test_order_names_and_copies_change_nothing():
    rng = random.Random(2)
    pairs = random_pairs(rng, 30, words=8, most=7)
    found = ibm.align(*zip(*pairs, strict=True))
    assert [len(links) for links in found.values()] == [33, 33]
    assert found["HMM"][-3:] == [(), (), ()]
    assert found["HMM"] != found["IBM-1"]
    order = rng.sample(range(33), 33)
    names = dict(zip(range(1, 9), rng.sample(range(1, 100), 8), strict=True))
    renamed = [[[names[word] for word in side] for side in pairs[k]] for k in order]
    again = ibm.align(*zip(*renamed, *renamed, strict=True))
    for name, links in found.items():
        assert again[name] == [links[k] for k in order] * 2
    assert ibm.align([], []) == {"IBM-1": [], "HMM": []}
