"""Search on the kernels against search on the reference decoder."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from conftest import EOS, PAD, tiny_model
from test_search import RULES, random_sources, search

from seq2seq.config.schema import Backend, Readout, Reset, StateWord
from seq2seq.data.batching import pad_ids
from seq2seq.decoding.search import beam_search
from seq2seq.kernels import native
from seq2seq.kernels.search import FusedSearch
from seq2seq.kernels.words import rescored
from seq2seq.model.output import best_logits, largest
from seq2seq.model.protocols import Barred

LENGTHS = (6, 3, 9, 1, 4)


@pytest.fixture(params=["C", "torch"])
def by(request, monkeypatch) -> str:
    """What search does its steps with in float32."""
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("no C compiler")
    return request.param


def fused(model, sources, rules, dtype=torch.float64):
    src, mask = pad_ids(sources, PAD)
    with torch.inference_mode():
        return beam_search(FusedSearch(model.encoder, model.decoder, dtype), src, mask, rules)


@pytest.mark.parametrize("readout", Readout)
@pytest.mark.parametrize("state_word", StateWord)
@pytest.mark.parametrize("reset", Reset)
@pytest.mark.parametrize("changes", [{}, {"bias": False, "output_rank": None}], ids=str)
def test_both_find_the_same(changes, reset, state_word, readout):
    for seed, beam in ((1, 1), (3, 12)):
        model = tiny_model(
            seed, vocab=11, reset=reset, state_word=state_word, readout=readout, **changes
        )
        sources = random_sources(seed, LENGTHS, 11)
        rules = replace(RULES, beam_size=beam)
        for found, expected in zip(
            fused(model, sources, rules), search(model, sources, rules), strict=True
        ):
            assert [h.ids for h in found] == [h.ids for h in expected], f"seed {seed}"
            for ours, theirs in zip(found, expected, strict=True):
                assert ours.log_prob == pytest.approx(theirs.log_prob, abs=1e-5)
                assert ours.token_log_probs == pytest.approx(theirs.token_log_probs, abs=1e-5)
                assert ours.alpha == pytest.approx(theirs.alpha, abs=1e-6)
                assert ours.finished == theirs.finished


@pytest.mark.parametrize(
    "changes", [{}, {"bias": False, "reset": Reset.after, "readout": Readout.tanh}], ids=str
)
def test_float32_finds_what_the_reference_finds(by, changes):
    for seed, beam in ((1, 1), (2, 3), (3, 12)):
        model = tiny_model(seed, vocab=300, scale=0.5, **changes).float()
        sources = random_sources(seed, LENGTHS, 300)
        rules = replace(RULES, beam_size=beam)
        for found, expected in zip(
            fused(model, sources, rules, torch.float32), search(model, sources, rules), strict=True
        ):
            assert [h.ids for h in found] == [h.ids for h in expected], f"seed {seed}"
            for ours, theirs in zip(found, expected, strict=True):
                assert ours.token_log_probs == pytest.approx(theirs.token_log_probs, abs=1e-3)
                assert ours.alpha == pytest.approx(theirs.alpha, abs=1e-4)


def test_a_table_of_words_changes_nothing(monkeypatch):
    model, sources = tiny_model(4, vocab=11), random_sources(4, LENGTHS, 11)
    src, mask = pad_ids(sources, PAD)
    found = []
    for size in (0, 1 << 20):
        monkeypatch.setattr("seq2seq.kernels.search._TABLE_BYTES", size)
        with torch.inference_mode():
            searcher = FusedSearch(model.encoder, model.decoder, torch.float64)
            found.append(beam_search(searcher, src, mask, RULES))
        assert (searcher.table is not None) == (size > 0)
    for some, others in zip(*found, strict=True):
        assert [h.ids for h in some] == [h.ids for h in others]
        assert [h.score for h in some] == pytest.approx([h.score for h in others], abs=1e-6)


def finds_almost_the_same(rounded: Callable[..., Any], **changes: object) -> None:
    """Compare what a search in low precision finds with what the model finds in float32."""
    near = 0
    for seed in range(5):
        model = tiny_model(seed, vocab=40, scale=0.5, **changes).float()
        sources, rules = random_sources(seed, LENGTHS, 40), replace(RULES, n_best=1)
        found = rounded(model, sources, rules), search(model, sources, rules)
        for [ours], [theirs] in zip(*found, strict=True):
            assert abs(sum(ours.token_log_probs) - ours.log_prob) < 1e-4
            near += ours.ids == theirs.ids
            if ours.ids == theirs.ids:
                assert ours.log_prob == pytest.approx(theirs.log_prob, abs=0.05 * len(ours.ids))
    assert near >= 20, f"only {near} of 25 are the same"


def test_bf16_scores_what_it_finds_almost_as_float32_does(by):
    """Products with the state are rounded to 8 bits; the output layer's probabilities are not."""
    finds_almost_the_same(lambda *given: fused(*given, torch.bfloat16))


def test_for_search_takes_the_kernel_where_there_is_one():
    model = tiny_model(1, backend=Backend.auto).float()
    assert model.for_search().dtype is torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert model.for_search().dtype is torch.bfloat16
    reference = tiny_model(1, backend=Backend.reference)
    assert reference.for_search() is reference


# Best words -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [5, 63, 64, 400, 401, 1000])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_largest_is_topk(width, count):
    for seed in range(5):
        scores = torch.randn(7, width, generator=torch.Generator().manual_seed(seed))
        scores[:, ::7] = -torch.inf
        values, places = largest(scores, count, block=16)
        expected = scores.topk(count, dim=-1)
        assert torch.equal(values, expected.values)
        assert torch.equal(places, expected.indices)


def test_rounded_logits_are_computed_again_where_they_count():
    generator = torch.Generator().manual_seed(3)
    exact = 3 * torch.randn(6, 300, generator=generator)
    rounded = exact.bfloat16()
    too_early = torch.tensor([True, False] * 3)
    barred = Barred(torch.tensor([0, 7]), EOS, too_early)
    find = partial(best_logits, rounded.clone(), barred=barred)
    best = rescored(find, lambda words: exact.gather(1, words), 4)
    expected = torch.log_softmax(exact, dim=-1)
    expected[:, [0, 7]] = -torch.inf
    expected[too_early, EOS] = -torch.inf
    values, words = expected.topk(4, dim=-1)
    assert torch.equal(best.words, words)
    torch.testing.assert_close(best.log_probs, values, rtol=0, atol=5e-3)
