"""Minimum Bayes risk against a direct computation with sacreBLEU."""

import json
import math

import numpy as np
import pytest
from runs import assert_fails
from sacrebleu.metrics import BLEU, CHRF
from test_translate import PLAIN

import seq2seq
from seq2seq.config.schema import Utility
from seq2seq.decoding.minimum_bayes_risk import by_utility, sentence_score
from seq2seq.decoding.translation import Candidate

METRICS = {"bleu": BLEU(effective_order=True), "chrf": CHRF()}

BEAM = ["decode.beam_size=6", "decode.n_best=6"]
SAMPLES = ["decode.sample=true", "decode.n_best=8", "decode.temperature=2"]


def utility(candidates, i, kind, by_probability) -> float:
    others = [c for j, c in enumerate(candidates) if j != i]
    weights = [math.exp(c.log_prob) if by_probability else 1 for c in others]
    scores = [METRICS[kind].sentence_score(candidates[i].text, [c.text]).score for c in others]
    return sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)


@pytest.mark.e2e
@pytest.mark.parametrize("rules", [BEAM, SAMPLES], ids=["beam", "samples"])
@pytest.mark.parametrize("kind", METRICS)
def test_candidates_stand_in_the_order_of_their_utility(run, kind, rules):
    before = seq2seq.load(run, rules).translate(PLAIN)
    after = seq2seq.load(run, [*rules, f"decode.mbr={kind}"]).translate(PLAIN)
    for old, new in zip(before, after, strict=True):
        expected = [
            utility(old.candidates, i, kind, rules is BEAM) for i in range(len(old.candidates))
        ]
        order = sorted(range(len(expected)), key=lambda i: -expected[i])
        assert [c.text for c in new.candidates] == [old.candidates[i].text for i in order]
        assert [c.utility for c in new.candidates] == pytest.approx([expected[i] for i in order])
        assert [c.score for c in new.candidates] == [old.candidates[i].score for i in order]
    assert [t.text for t in before] != [t.text for t in after]


@pytest.mark.parametrize("kind", Utility)
def test_candidates_of_equal_utility_stay_in_the_order_of_their_scores(kind):
    texts = [f"the cat sees the dog {x}" for x in "abcd"]
    alpha = np.zeros((1, 1), np.float32)
    rng = np.random.default_rng(1)
    for log_probs in -np.sort(rng.uniform(0, 9, (20, len(texts)))):
        found = [
            Candidate(text, ("",), (), float(p), float(p), alpha, finished=True)
            for text, p in zip(texts, log_probs, strict=True)
        ]
        ordered = by_utility(found, kind, uniform=False)
        assert [candidate.text for candidate in ordered] == texts


@pytest.mark.e2e
def test_scripts_write_the_order_and_the_utilities(run, script):
    options = [*BEAM, "decode.mbr=chrf", "--format"]
    found = script("decode", run, *options, "jsonl", stdin=f"{PLAIN[0]}\n\n".encode())
    first, empty = map(json.loads, found.out.decode().splitlines())
    utilities = [h["utility"] for h in first["hypotheses"]]
    assert utilities == sorted(utilities, reverse=True)
    assert len(utilities) > 1
    assert empty["hypotheses"] == []
    rows = script("decode", run, *options, "nbest", stdin=f"{PLAIN[0]}\n".encode()).out.decode()
    texts = [row.split("\t")[2] for row in rows.splitlines()]
    assert texts == [h["text"] for h in first["hypotheses"]]
    [own] = seq2seq.load(run, BEAM).translate(PLAIN[:1])
    assert "utility" not in own.as_dict()["hypotheses"][0]
    alone = script("decode", run, "decode.mbr=bleu", "decode.n_best=1", stdin=b"a\n")
    assert_fails(alone, 1, "decode.mbr=bleu has nothing to choose from with decode.n_best=1")


def test_bleu_is_cut_as_the_script_asks():
    texts = "\u732b\u5728\u5bb6\u91cc\u7761\u89c9", "\u732b\u5728\u5bb6\u91cc\u5403\u996d"
    score = sentence_score(Utility.bleu, texts)
    expected = BLEU(effective_order=True, tokenize="zh").sentence_score(texts[0], [texts[1]]).score
    assert score(*texts) == pytest.approx(expected)
    assert score(texts[0], texts[0]) == pytest.approx(100)
