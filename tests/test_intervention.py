"""Changed attention weights: the context follows, in search as along known targets."""

import pytest
import torch
from conftest import FAMILY, PAD, STACKED, VOCAB, random_pairs, tiny_model, tiny_transformer
from test_search import RULES, random_sources, search
from torch.nn import functional

from seq2seq.config.schema import Norm
from seq2seq.data.batching import collate
from seq2seq.decoding.forced import force_ids, maps_along
from seq2seq.decoding.ranking import Ranking
from seq2seq.model.intervention import intervened
from seq2seq.run.errors import ConfigError

KINDS = {name: {"attention": kind} for name, kind in FAMILY.items() if name != "fixed"}
STACKS = {name: {"decoder": decoder} for name, decoder in STACKED.items()}
STACKS["between, coverage"] = STACKS["between"] | KINDS["coverage"]
STACKS["top, multi_head"] = STACKS["top"] | KINDS["multi_head"]
MODELS = [*KINDS, *STACKS, "transformer"]


def model_of(name, seed=3):
    if name == "transformer":
        return tiny_transformer(seed, norm=Norm.pre, layer=1)
    return tiny_model(seed, align_size=4, **(KINDS | STACKS)[name])


def unchanged(weights, _mask, _step, _layer):
    return weights


def reversed_at_one(weights, mask, step, _layer):
    """At step 1: the weights of real tokens from right to left."""
    if step != 1:
        return weights
    lengths = mask.sum(dim=-1, keepdim=True)
    places = torch.arange(mask.shape[-1]).expand_as(mask)
    order = torch.where(mask, lengths - 1 - places, places)
    return weights.gather(-1, order.expand_as(weights))


@pytest.mark.parametrize("name", MODELS)
def test_without_a_change_every_number_stays(name):
    model = model_of(name)
    same = intervened(model, unchanged)
    sources = random_sources(4, [4, 1, 6], VOCAB)
    found = search(model, sources, RULES)
    for expected, hypotheses in zip(found, search(same, sources, RULES), strict=True):
        assert [h.ids for h in hypotheses] == [h.ids for h in expected]
        for h, other in zip(hypotheses, expected, strict=True):
            assert h.log_prob == pytest.approx(other.log_prob, abs=1e-5)
            assert h.alpha == pytest.approx(other.alpha, abs=1e-6)
    pairs = random_pairs(4)
    for h, other in zip(*(force_ids(m, pairs, Ranking()) for m in (same, model)), strict=True):
        assert h.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-5)
        assert h.alpha == pytest.approx(other.alpha, abs=1e-6)
    for key, maps in maps_along(model, *pairs[0]).items():
        assert maps_along(same, *pairs[0])[key] == pytest.approx(maps, abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_a_change_at_a_step_is_the_same_in_search_and_along_targets(name):
    """Two hypotheses a sentence; words before the step do not know of it."""
    model = model_of(name)
    changed = intervened(model, reversed_at_one)
    pairs = random_pairs(8, ((4, 4), (2, 4), (6, 4)))
    batch = collate(pairs, PAD)
    parts = batch.src, batch.src_mask, batch.tgt, batch.tgt_mask
    log_p = [
        functional.log_softmax(m.logits(m.follow(*parts).t), dim=-1).view(3, 4, -1)
        for m in (model, changed)
    ]
    assert torch.allclose(log_p[1][:, 0], log_p[0][:, 0], atol=1e-12)
    assert (log_p[1][:, 1] - log_p[0][:, 1]).abs().amax() > 1e-3 or name == "uniform"
    alpha = changed.follow(*parts).alpha
    sentences, state = torch.arange(3), changed.begin(*parts[:2])
    y = torch.full((3,), PAD)
    for i in range(4):
        prediction, state = changed.step(y, state)
        own = prediction.log_probs().view(3, -1, log_p[1].shape[-1])
        assert torch.allclose(own, log_p[1][:, i, None].expand_as(own))
        weights = prediction.alpha.view(3, -1, alpha.shape[-1])
        assert torch.allclose(weights, alpha[:, i, None].expand_as(weights))
        state = state.select(
            sentences, 2, torch.arange(len(y)).repeat_interleave(2 if i == 0 else 1)
        )
        y = batch.tgt[:, i].repeat_interleave(2)


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_the_context_follows_from_the_weights(name):
    """All weight on source word 1 at step 2: the readout reads its value alone, Eq. (5)."""
    model = model_of(name)

    def to_word_one(weights, _mask, step, _layer):
        return torch.eye(weights.shape[-1], dtype=weights.dtype)[1] if step == 2 else weights

    changed = intervened(model, to_word_one)
    pairs = random_pairs(5, ((4, 4), (3, 4)))
    batch = collate(pairs, PAD)
    followed = changed.follow(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
    # The state before word 2 is that of the unchanged model.
    memory = model.encoder(batch.src, batch.src_mask)
    state, y = model.decoder.begin(memory), torch.full((2,), PAD)
    for i in range(2):
        _, state = model.step(y, state)
        y = batch.tgt[:, i]
    decoder, word = model.decoder, y if model.decoder.moved_by_emitted else state.y
    cell = decoder.unit.step(decoder.unit.project(decoder.embed(word)), state.cell, state.c)
    source = decoder.attention.prepare(memory)
    c = source.values[:, 1] if name != "multi_head" else decoder.attention.W_O(source.values[:, 1])
    t = decoder.readout(decoder.unit.output(cell), decoder.embed(y), c)
    assert torch.allclose(followed.t.view(2, 4, -1)[:, 2], t)
    assert torch.equal(followed.alpha[:, 2, 1], torch.ones(2, dtype=torch.float64))


def test_layers_are_changed_one_by_one():
    model, pairs = model_of("transformer"), random_pairs(6)
    seen = set()

    def of_layer_one(weights, mask, step, layer):
        seen.add((layer, step, weights.shape[1]))
        return mask / mask.sum(dim=-1, keepdim=True) if layer == 1 else weights

    maps = [maps_along(m, *pairs[0])["heads"] for m in (model, intervened(model, of_layer_one))]
    assert maps[1][0] == pytest.approx(maps[0][0])
    assert maps[1][1] == pytest.approx(1 / len(pairs[0][0]))
    assert seen == {(layer, step, 2) for layer in range(2) for step in range(len(pairs[0][1]))}


def test_a_context_without_weights_is_refused():
    with pytest.raises(ConfigError, match="FixedContext has no attention weights to change"):
        intervened(tiny_model(1, attention=FAMILY["fixed"]), unchanged)
