"""Ancestral sampling: the model's own distribution, cut where NumPy cuts it, whatever the batch."""

import itertools
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import EOS, PAD, oracle_of, random_pairs, tiny_model, tiny_transformer
from runs import assert_fails, config_of
from test_report import data_of
from test_search import RULES, check_forced, random_sources
from test_translate import PLAIN, STRANGE, assert_same

import seq2seq
from seq2seq.cli.stages import trainer_of
from seq2seq.data.batching import pad_ids
from seq2seq.decoding import translate
from seq2seq.decoding.sampling import SamplingRules, choices, draw, sample
from seq2seq.report.build import build
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import MemoryLimitError
from seq2seq.run.signals import StopRequest
from seq2seq.training.validation import validate

VOCAB = 5
SAMPLES = replace(RULES, n_best=4000, min_ratio=0.0, max_ratio=1.0)


def drawn(model, sources, rules, keys=None):
    src, mask = pad_ids(sources, PAD)
    return sample(model, src, mask, keys or range(1, len(sources) + 1), rules)


def cut(p: np.ndarray, temperature: float, top_k: int | None, top_p: float | None) -> np.ndarray:
    """What is drawn from, word by word, likeliest first, until enough are in."""
    p = p ** (1 / temperature)
    left = sorted(range(len(p)), key=lambda i: -p[i])[:top_k]
    whole, taken = sum(p[i] for i in left), []
    for i in left:
        if top_p is None or sum(p[taken]) / whole < top_p:
            taken.append(i)
    q = np.zeros_like(p)
    q[taken] = p[taken] / p[taken].sum()
    return q


RULE_SETS = [
    {},
    {"temperature": 0.5},
    {"top_k": 2},
    {"top_p": 0.7},
    {"temperature": 1.5, "top_k": 3, "top_p": 0.8},
]


def most(degrees: int) -> float:
    """What a chi-square statistic exceeds once in 1,000 times, by Wilson and Hilferty."""
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 3.09 * spread**0.5) ** 3


@pytest.mark.e2e
@pytest.mark.parametrize("changes", RULE_SETS, ids=str)
@pytest.mark.parametrize("make", [tiny_model, tiny_transformer])
def test_samples_have_the_distribution_of_the_model(make, changes):
    """All translations of at most three words, by the oracle; a chi-square test."""
    model, [source], count = make(1, vocab=VOCAB), random_sources(1, [3], VOCAB), SAMPLES.n_best
    given = [changes.get("temperature", 1.0), changes.get("top_k"), changes.get("top_p")]
    expected = {}
    for words in itertools.product((EOS, 2, 3, 4), repeat=3):
        target = words[: words.index(EOS) + 1] if EOS in words else words
        rows = oracle_of(model).force(source, target).distributions.real
        rows[:, PAD] = 0
        chances = [cut(row, *given)[word] for row, word in zip(rows, target, strict=True)]
        expected[target] = count * np.prod(chances)
    assert sum(expected.values()) == pytest.approx(count)

    [found] = drawn(model, [source], SamplingRules(SAMPLES, **changes))
    counts = Counter(h.ids for h in found)
    assert counts.total() == count
    assert all(expected[target] > 0 for target in counts)
    often = [target for target, number in expected.items() if number >= 5]
    cells = [(counts[target], expected[target]) for target in often]
    rest = count - sum(number for _, number in cells)
    if rest >= 1:  # the rare ones together
        cells.append((count - sum(seen for seen, _ in cells), rest))
    assert len(cells) > 2
    assert sum((seen - number) ** 2 / number for seen, number in cells) < most(len(cells) - 1)
    check_forced(model, source, found[:50])
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@pytest.mark.parametrize("changes", RULE_SETS, ids=str)
def test_choices_are_cut_where_numpy_cuts(changes):
    rules = SamplingRules(SAMPLES, **changes)
    logits = torch.randn(200, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    logits[:, 4] = -torch.inf
    words, p = choices(logits.log_softmax(dim=-1), rules)
    found = torch.zeros_like(logits).scatter(1, words, p / p.sum(dim=1, keepdim=True)).numpy()
    given = [changes.get("temperature", 1.0), changes.get("top_k"), changes.get("top_p")]
    expected = [cut(row, *given) for row in logits.softmax(dim=-1).numpy()]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_the_ends_of_the_unit_interval_draw_a_word_that_can_be():
    log_probs = torch.tensor([[-torch.inf, 0.5, 0.25, 0.25, -torch.inf]] * 3).log_()
    log_probs[:, [0, 4]] = -torch.inf
    u = torch.tensor([0.0, 0.5, 1.0])  # the last as float32 rounds what is just below
    assert draw(log_probs, u, SamplingRules(SAMPLES)).tolist() == [1, 2, 3]


def test_a_sample_depends_on_its_key_alone():
    """Not on the batch, nor on the number of samples; lengths and forbidden words hold."""
    model = tiny_model(2, scale=1.0)
    sources = [source for source, _ in random_pairs(3)]
    rules = SamplingRules(replace(RULES, n_best=5, min_ratio=0.9, forbidden=(PAD, 3)), seed=4)
    together = drawn(model, sources, rules, keys=[7, 3, 5, 9])
    for source, key, own in zip(sources, [7, 3, 5, 9], together, strict=True):
        [alone] = drawn(model, [source], rules, keys=[key])
        assert [h.ids for h in alone] == [h.ids for h in own]
        more = replace(rules, search=replace(rules.search, n_best=9))
        [many] = drawn(model, [source], more, keys=[key])
        assert not Counter(h.ids for h in own) - Counter(h.ids for h in many)
        for h in own:
            words = h.ids[:-1] if h.finished else h.ids
            assert len(words) >= int(0.9 * len(source))
            assert len(h.ids) <= 3 * len(source)
            assert not {PAD, 3} & set(h.ids)
            assert h.alpha.shape == (len(h.ids), len(source))
    other = drawn(model, sources, replace(rules, seed=5), keys=[7, 3, 5, 9])
    assert [h.ids for own in other for h in own] != [h.ids for own in together for h in own]
    swapped = drawn(model, sources, rules, keys=[3, 7, 5, 9])
    assert [h.ids for h in swapped[0]] != [h.ids for h in together[0]]


def test_weights_that_are_no_numbers_give_nothing():
    model = tiny_model(2)
    with torch.no_grad():
        model.decoder.embedding.E.weight.fill_(torch.nan)
    assert drawn(model, [[2, 3, EOS]], SamplingRules(replace(RULES, n_best=3))) == [[]]


# A trained run ----------------------------------------------------------------------------------

DRAWN = ["decode.sample=true", "decode.n_best=3", "decode.temperature=2", "decode.beam_size=1"]


@pytest.mark.e2e
def test_lines_are_sampled_whatever_the_batch(run, script):
    lines = [*PLAIN, *STRANGE, *PLAIN]
    whole = seq2seq.load(run, DRAWN).translate(lines)
    for size in (1, 7):
        assert_same(
            seq2seq.load(run, [*DRAWN, f"decode.batch_sentences={size}"]).translate(lines), whole
        )
    assert len({c.text for t in whole for c in t.candidates}) > len(lines)
    assert whole[0].candidates != whole[len(PLAIN) + len(STRANGE)].candidates, "another line"
    result = script("decode", run, *DRAWN, "--format", "nbest", stdin=f"{PLAIN[0]}\n".encode())
    rows = [row.split("\t")[2] for row in result.out.decode().splitlines()]
    assert rows == [c.text for c in whole[0].candidates]
    cold = ["decode.sample=true", "decode.n_best=3", "decode.top_k=1"]
    for t, greedy in zip(
        seq2seq.load(run, cold).translate(PLAIN),
        seq2seq.load(run, ["decode.beam_size=1"]).translate(PLAIN),
        strict=True,
    ):
        assert [c.text for c in t.candidates] == [greedy.text] * 3
    assert_fails(
        script("decode", run, "decode.top_k=3", stdin=b"a\n"), 1, "decode.top_k needs sampling"
    )


@pytest.mark.e2e
def test_too_little_memory_names_the_samples(run, monkeypatch):
    def hungry(*_args):
        raise MemoryError

    monkeypatch.setattr(translate, "sample", hungry)
    text = r"2 sentences of up to \d+ tokens, .*, and 3 samples of each.*, decode\.n_best or"
    with pytest.raises(MemoryLimitError, match=text):
        seq2seq.load(run, DRAWN).translate(PLAIN[:2])


@pytest.mark.e2e
def test_validation_searches_for_as_many_hypotheses_at_once_as_decoding(run, monkeypatch):
    data, sizes = trainer_of(config_of(run), RunDir(run), StopRequest()).data, []

    def searched(_model, src, _mask, _rules):
        sizes.append(len(src))
        raise MemoryError

    monkeypatch.setattr(translate, "beam_search", searched)
    for beam, size in ((1, 4), (2, 2), (4, 1), (7, 1)):
        model = seq2seq.load(run, ["decode.beam_size=4", "decode.batch_sentences=1"])
        cfg = replace(model.config, trainer=replace(model.config.trainer, validation_beam=beam))
        with pytest.raises(MemoryLimitError) as caught:
            validate(model.model, data, cfg, StopRequest())
        assert sizes.pop() == size
        assert re.match(r"validation: line \d+: out of memory with \d sent", str(caught.value))
        assert caught.value.fix == "Resume with a decode.batch_sentences below 1."


@pytest.mark.e2e
def test_validation_and_the_report_search_all_the_same(run):
    data, found = trainer_of(config_of(run), RunDir(run), StopRequest()).data, []
    for changes in ([], [*DRAWN, "decode.mbr=chrf"]):
        model = seq2seq.load(run, changes)
        cfg = replace(model.config, trainer=replace(model.config.trainer, validation_sentences=5))
        validated = validate(model.model, data, cfg, StopRequest())
        model.model.eval()
        page = data_of(build([run], changes[:-1], sentences=2, n_best=1))
        found.append(([t.text for t in validated.translations], page["sentences"]))
    assert found[0] == found[1]
