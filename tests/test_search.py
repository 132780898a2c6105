"""Beam search against search by exhaustion, a greedy loop, and the authors' algorithm in loops."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from conftest import EOS, FAMILY, PAD, STACKED, oracle_of, run, tiny_model
from oracles import Oracle

from seq2seq.data.batching import collate, pad_ids
from seq2seq.decoding.search import Hypothesis, SearchRules, beam_search
from seq2seq.model import EncoderDecoder

# The search sums float32 log-probabilities, whatever the model computes in.
SCORE_TOLERANCE = 1e-5
ALPHA_TOLERANCE = 1e-6

RULES = SearchRules(
    beam_size=4,
    n_best=1000,
    length_penalty=0.0,
    min_ratio=0.5,
    max_ratio=3.0,
    extra_steps=0,
    forbidden=(PAD,),
    start=PAD,
    eos=EOS,
)


def search(model: EncoderDecoder, sources: Sequence[Sequence[int]], rules: SearchRules):
    src, mask = pad_ids(sources, PAD)
    with torch.no_grad():
        return beam_search(model, src, mask, rules)


def random_sources(seed: int, lengths: Sequence[int], vocab: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[*rng.integers(2, vocab, length - 1).tolist(), EOS] for length in lengths]


def forced(
    model: EncoderDecoder, source: Sequence[int], targets: Sequence[Sequence[int]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Log-probability of each word (Ty,) and alpha (Ty, Tx) along given targets."""
    batch = collate([(source, target) for target in targets], PAD)
    with torch.no_grad():
        log_p, _, alpha = run(model, batch)
    words = log_p.gather(1, batch.tgt[batch.tgt_mask][:, None]).squeeze(1)
    lengths = [len(target) for target in targets]
    return [
        (rows.numpy(), alpha[b, : lengths[b]].numpy())
        for b, rows in enumerate(words.split(lengths))
    ]


# Against independent searches -----------------------------------------------------------------


FOUND = [(seed, {}, penalty) for seed in (1, 2, 3) for penalty in (0.0, 1.0)]
OTHERS = [{"decoder": decoder} for decoder in STACKED.values()]
OTHERS += [{"attention": FAMILY["coverage"]}, {**OTHERS[0], "attention": FAMILY["coverage"]}]


@pytest.mark.parametrize(
    ("seed", "changes", "length_penalty"), FOUND + [(4, changes, 1.0) for changes in OTHERS]
)
def test_a_wide_beam_finds_what_exhaustion_finds(seed, changes, length_penalty):
    vocab, bound = 5, 4
    rules = replace(
        RULES,
        beam_size=200,  # more than the 3 * 3 * 3 * 4 continuations of the last step
        length_penalty=length_penalty,
        min_ratio=0.0,
        max_ratio=bound / 2,
    )
    model = tiny_model(seed, vocab=vocab, **changes)
    [source] = random_sources(seed, [2], vocab)
    targets = [
        (*words, EOS)
        for length in range(bound)
        for words in itertools.product(range(2, vocab), repeat=length)
    ]
    scores = {
        target: log_p.sum() / len(target) ** length_penalty
        for target, (log_p, _) in zip(targets, forced(model, source, targets), strict=True)
    }
    [found] = search(model, [source], rules)
    assert len(found) == len(targets) == 1 + 3 + 9 + 27
    ranked = sorted(scores, key=scores.get, reverse=True)
    for hypothesis, target in zip(found, ranked, strict=True):  # pytest's diff of lists is slow
        assert hypothesis.ids == target, f"seed {seed}"
        assert hypothesis.score == pytest.approx(scores[target], abs=SCORE_TOLERANCE)


@torch.no_grad()
def greedy(model: EncoderDecoder, source: Sequence[int], most: int) -> list[int]:
    """Take the likeliest word, again and again."""
    state = model.begin(torch.tensor([source]), torch.ones(1, len(source)).bool())
    y, ids = torch.tensor([PAD]), []
    while len(ids) < most and EOS not in ids:
        prediction, state = model.step(y, state)
        log_probs = prediction.log_probs()[0].clone()
        log_probs[PAD] = -torch.inf
        if len(ids) < len(source) // 2:
            log_probs[EOS] = -torch.inf
        y = log_probs.argmax()[None]
        ids.append(int(y))
    return ids


def test_D10_a_beam_of_one_is_greedy():
    ended = Counter()
    for seed, changes in enumerate([{}] * 20 + OTHERS):
        model = tiny_model(seed, scale=1.0, **changes)
        sources = random_sources(seed, [5, 2, 3], 7)
        for source, [hypothesis] in zip(
            sources, search(model, sources, replace(RULES, beam_size=1)), strict=True
        ):
            ids = greedy(model, source, 3 * len(source))
            assert list(hypothesis.ids) == ids, f"seed {seed}"
            assert hypothesis.finished == (ids[-1] == EOS)
            ended[hypothesis.finished] += 1
    assert min(ended[True], ended[False]) > 5, f"both endings must occur: {ended}"


@dataclass(frozen=True)
class Slow:
    ids: tuple[int, ...]
    log_prob: float
    state: np.ndarray
    alphas: tuple[np.ndarray, ...]


def authors_search(
    oracle: Oracle, source: Sequence[int], rules: SearchRules
) -> tuple[list[Slow], bool]:
    """`sample.py` of the authors: one sentence, one hypothesis at a time, a beam that shrinks."""
    L, k = len(source), rules.beam_size
    h = oracle.annotate(source)
    live, finished, candidates = [Slow((), 0.0, oracle.start(h), ())], [], []
    for t in range(max(1, math.floor(rules.max_ratio * L) + rules.extra_steps)):
        options = []
        for hypothesis in live:
            y_prev = hypothesis.ids[-1] if hypothesis.ids else None
            p, alpha, c = oracle.predict(hypothesis.state, y_prev, h)
            for word in range(len(p)):
                if word in rules.forbidden:
                    continue
                if word == rules.eos and t < math.floor(rules.min_ratio * L):
                    continue
                options.append((hypothesis.log_prob + np.log(p[word]), word, hypothesis, alpha, c))
        options.sort(key=lambda option: -option[0])
        candidates, live = [], []
        for log_prob, word, parent, alpha, c in options[:k]:
            y_prev = parent.ids[-1] if parent.ids else None
            moved = oracle.advance(parent.state, c, y_prev=y_prev, y=word)
            child = Slow((*parent.ids, word), log_prob, moved, (*parent.alphas, alpha))
            candidates.append(child)
            (finished if word == rules.eos else live).append(child)
        k -= len(candidates) - len(live)
        if k == 0 or not live:
            break
    return finished or candidates, bool(finished)


def rules_of(seed: int) -> SearchRules:
    rng = np.random.default_rng(seed)
    return replace(
        RULES,
        beam_size=int(rng.choice([1, 2, 3, 5, 9])),  # 9 is more than the vocabulary
        length_penalty=float(rng.choice([0.0, 0.6, 1.0])),
        min_ratio=float(rng.choice([0.0, 0.5, 0.9])),
        max_ratio=float(rng.choice([0.3, 1.0, 1.5, 3.0])),
        extra_steps=int(rng.choice([0, 2])),
        forbidden=(PAD,) if rng.random() < 0.5 else (PAD, 3),
    )


def check_rules(hypotheses: Sequence[Hypothesis], source: Sequence[int], rules: SearchRules):
    L = len(source)
    least = math.floor(rules.min_ratio * L)
    most = max(1, math.floor(rules.max_ratio * L) + rules.extra_steps)
    assert 1 <= len(hypotheses) <= rules.beam_size
    assert len({h.ids for h in hypotheses}) == len(hypotheses)
    assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
    assert len({h.finished for h in hypotheses}) == 1
    for h in hypotheses:
        words = h.ids[:-1] if h.finished else h.ids
        assert h.finished == (h.ids[-1] == EOS)
        assert EOS not in words
        assert len(h.ids) <= most
        assert len(words) >= least if h.finished else len(words) == most
        assert not set(h.ids) & set(rules.forbidden)
        assert len(h.token_log_probs) == len(h.ids)
        assert sum(h.token_log_probs) == pytest.approx(h.log_prob, abs=1e-5)
        assert h.score == pytest.approx(h.log_prob / len(h.ids) ** rules.length_penalty)
        assert h.alpha.shape == (len(h.ids), L)


def check_forced(model: EncoderDecoder, source: Sequence[int], hypotheses: Sequence[Hypothesis]):
    """Scores and weights are those of the model along the same words."""
    targets = [h.ids for h in hypotheses]
    for h, (log_p, alpha) in zip(hypotheses, forced(model, source, targets), strict=True):
        assert h.log_prob == pytest.approx(log_p.sum(), abs=SCORE_TOLERANCE)
        np.testing.assert_allclose(h.token_log_probs, log_p, rtol=0, atol=SCORE_TOLERANCE)
        np.testing.assert_allclose(h.alpha, alpha, rtol=0, atol=ALPHA_TOLERANCE)


@pytest.mark.e2e
def test_search_is_the_authors_algorithm():
    seen = Counter()
    for seed in range(50):
        rules = rules_of(seed)
        vocab = 5 + seed % 3
        model = tiny_model(seed, vocab=vocab, scale=1.0)
        sources = random_sources(seed, [4, 1, 3] if seed % 2 else [2], vocab)
        oracle = oracle_of(model)
        for source, found in zip(sources, search(model, sources, rules), strict=True):
            note = f"seed {seed}, source {source}"
            slow, finished = authors_search(oracle, source, rules)
            slow.sort(key=lambda h: -h.log_prob / len(h.ids) ** rules.length_penalty)
            assert [h.ids for h in found] == [h.ids for h in slow], note
            for ours, theirs in zip(found, slow, strict=True):
                assert ours.finished == finished, note
                assert ours.log_prob == pytest.approx(theirs.log_prob, abs=SCORE_TOLERANCE), note
                weights = np.array(theirs.alphas)
                np.testing.assert_allclose(ours.alpha, weights, rtol=0, atol=ALPHA_TOLERANCE)
            check_rules(found, source, rules)
            check_forced(model, source, found)
            seen["finished" if finished else "unfinished"] += 1
            seen["shrunk"] += finished and 1 < len(found) == rules.beam_size
            seen["cut at the bound"] += finished and len(found) < rules.beam_size
            seen["beam wider than vocabulary"] += rules.beam_size > vocab
            seen["both orders differ"] += bool(
                rules.length_penalty
                and [h.log_prob for h in found] != sorted((h.log_prob for h in found), reverse=True)
            )
    assert len(seen) == 6, seen
    assert min(seen.values()) >= 5, f"a case that hardly occurs proves nothing: {seen}"


# Batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("min_ratio", "max_ratio", "extra", "length", "bounds"),
    [
        (0.5, 3.0, 0, 1, (0, 3)),
        (0.5, 3.0, 0, 5, (2, 15)),  # floor(L / 2), 3 L
        (0.5, 3.0, 0, 6, (3, 18)),
        (0.0, 2.0, 10, 4, (0, 18)),
        (0.0, 0.1, 0, 3, (0, 1)),  # never less than one step
        (0.1, 0.7, 0, 10, (1, 7)),
    ],
)
def test_bounds(min_ratio, max_ratio, extra, length, bounds):
    rules = replace(RULES, min_ratio=min_ratio, max_ratio=max_ratio, extra_steps=extra)
    assert rules.bounds(length) == bounds
