"""Stacked decoders and coverage against NumPy loops written from their papers."""

import dataclasses

import pytest
import torch
from conftest import FAMILY, STACKED, follow, oracle_of, random_batch, tiny_model
from test_equations import (
    TOLERANCE,
    assert_gradients_are_the_oracles,
    assert_values_are_the_oracles,
    differences,
)

from seq2seq.config.schema import Backend, GatedConfig, LSTMConfig, MinGRUConfig
from seq2seq.model.initialization import SCHEMES
from seq2seq.model.protocols import Source
from seq2seq.model.stacked_decoder import StackedDecoder

KINDS = {name: {"decoder": cfg} for name, cfg in STACKED.items()}
KINDS |= {
    "lstm in between": {"decoder": STACKED["between, residual"], "cell": LSTMConfig()},
    "lstm, fed": {"decoder": STACKED["fed"], "cell": LSTMConfig()},
    "min_gru at the top": {"decoder": STACKED["top, residual"], "cell": MinGRUConfig()},
    "deep transition": {"decoder": STACKED["bottom"], "cell": GatedConfig(transitions=2)},
    "coverage in between": {"decoder": STACKED["between"], "attention": FAMILY["coverage"]},
    "coverage at the top": {"decoder": STACKED["top"], "attention": FAMILY["coverage"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_the_oracles_along_targets_and_word_by_word(kind):
    assert_values_are_the_oracles(lambda seed: tiny_model(seed, **KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_oracles(kind):
    assert_gradients_are_the_oracles(tiny_model(12, **KINDS[kind]), seed=12, entries=0)


@pytest.mark.parametrize("attention", FAMILY)
def test_every_attention_at_the_top_is_the_oracle_along_all_targets_at_once(attention):
    changes = {"decoder": STACKED["top"], "attention": FAMILY[attention], "align_size": 6}
    model = tiny_model(3, **changes)
    assert model.decoder.at_once == (attention != "coverage" and "hard" not in attention)
    worst = differences(model, oracle_of(model), random_batch(3))
    assert max(worst.values()) < TOLERANCE, worst


@pytest.mark.parametrize("kind", ["top", "top, residual"])
def test_the_loop_and_all_at_once_are_the_same_and_draw_the_same(kind, monkeypatch):
    decoder = dataclasses.replace(STACKED[kind], dropout=0.5, readout_dropout=0.5)
    model, batch = tiny_model(4, decoder=decoder).train(), random_batch(4)
    at_once = follow(model, batch, 4).t
    monkeypatch.setattr(StackedDecoder, "at_once", False)
    torch.testing.assert_close(follow(model, batch, 4).t, at_once)
    for part in (*model.decoder.dropouts, model.decoder.readout_dropout):
        p, part.p = part.p, 0.0
        assert not torch.allclose(follow(model, batch, 4).t, at_once)
        part.p = p


@pytest.mark.parametrize("kind", [*STACKED, "coverage"])
def test_every_weight_is_drawn(kind):
    model = tiny_model(5, **KINDS.get(kind, {"attention": FAMILY["coverage"]}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    model.initialize(SCHEMES["paper"])
    assert not [name for name, p in model.named_parameters() if (p == 7.0).any()]


@pytest.mark.parametrize(
    ("kind", "cell", "unknown"),
    [
        ("top", GatedConfig(), None),
        ("top", LSTMConfig(), "LSTMCell"),
        ("fed", GatedConfig(), "StackedDecoder"),
        ("between", GatedConfig(), "StackedDecoder"),
    ],
)
def test_only_cells_that_nothing_attended_comes_back_to_run_on_kernels(kind, cell, unknown):
    model = tiny_model(1, decoder=STACKED[kind], cell=cell, backend=Backend.auto)
    reason = unknown and f"{unknown} has no fused kernel"
    assert model.backend.obstacle(model.encoder, model.decoder) == reason


# A wrong model is noticed -----------------------------------------------------------------------


def feeds_nothing(model):
    fed = model.decoder._fed
    model.decoder._fed = lambda c, t: 0 * fed(c, t)


def adds_nothing(model):
    model.decoder.residual = False


def asks_with_the_state_before(model):
    """s_{i-1} instead of s_i."""
    attention, asked = model.decoder.attention, []
    plain = attention.forward

    def mutated(query, source, state=None):
        asked.append(query)
        late = asked[-2] if len(asked) > 1 and asked[-2].shape == query.shape else query
        return plain(late, source, state)

    attention.forward = mutated


def layers_start_at_zero(model):
    for cell in model.decoder.upper:
        cell.begin = lambda h: (torch.zeros_like(h),)


def upper_layers_without_context(model):
    with torch.no_grad():
        model.decoder.upper[0].C.weight.zero_()


def second_cell_moves_the_old_state(model):
    """conditional(c_i, s_{i-1}) instead of s'_i."""
    unit, conditional, old = model.decoder.unit, model.decoder.conditional, []
    first, second = unit.step, conditional.step

    def noted(x, state, c=None):
        old.append(state)
        return first(x, state, c)

    unit.step = noted
    conditional.step = lambda x, state, c=None: second(x, old[-1], c)


def readout_before_the_step(model):
    """From s_{i-1}, as the paper's decoder."""
    readout, before = model.decoder.readout, []

    def mutated(s, Ey, c):
        before.append(s)
        return readout(before[-2] if len(before) > 1 and len(before[-2]) == len(s) else s, Ey, c)

    model.decoder.readout = mutated


def never_covers(model):
    attention = model.decoder.attention
    plain = attention.forward
    attention.forward = lambda query, source, state=None: plain(query, source)


def every_word_asks_for_as_many(model):
    prepare = model.decoder.attention.prepare

    def mutated(memory) -> Source:
        source = prepare(memory)
        return dataclasses.replace(source, fertility=torch.ones_like(source.fertility))

    model.decoder.attention.prepare = mutated


def covers_by_the_last_word_alone(model):
    attention = model.decoder.attention
    plain = attention.forward

    def mutated(query, source, state=None):
        attended = plain(query, source, state)
        last = attended.state if state is None else attended.state - state
        return dataclasses.replace(attended, state=last)

    attention.forward = mutated


MUTATIONS = [
    (feeds_nothing, "bottom"),
    (feeds_nothing, "fed"),
    (adds_nothing, "top, residual"),
    (adds_nothing, "between, residual"),
    (asks_with_the_state_before, "between"),
    (asks_with_the_state_before, "bottom"),
    (asks_with_the_state_before, "fed"),
    (layers_start_at_zero, "top"),
    (upper_layers_without_context, "bottom"),
    (upper_layers_without_context, "between, residual"),
    (second_cell_moves_the_old_state, "between"),
    (readout_before_the_step, "between"),
    (never_covers, "coverage in between"),
    (every_word_asks_for_as_many, "coverage at the top"),
    (covers_by_the_last_word_alone, "coverage in between"),
]


@pytest.mark.parametrize(("mutate", "kind"), MUTATIONS, ids=lambda x: getattr(x, "__name__", x))
def test_a_wrong_model_is_noticed(mutate, kind):
    model, batch = tiny_model(21, **KINDS[kind]), random_batch(21)
    oracle = oracle_of(model)
    mutate(model)
    assert max(differences(model, oracle, batch).values()) > 1e-4
