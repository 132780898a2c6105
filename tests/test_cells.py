"""Other cells than the paper's, against NumPy loops written from their papers and torch's own."""

import pytest
import torch
from conftest import PAD, TINY, oracle_of, random_batch, tiny_model, with_values
from test_equations import TOLERANCE, assert_gradients_are_the_oracles, differences
from torch import nn

from seq2seq.config.schema import LSTMConfig
from seq2seq.model import build_model
from seq2seq.model.backend import Backend as Reference

CELLS = {"lstm": {"cell": LSTMConfig()}}
"""Changes of `tiny_model`, by name."""


@pytest.mark.parametrize("kind", CELLS)
def test_values_are_the_oracles_along_targets_and_word_by_word(kind):
    for seed in (1, 2):
        model, batch = tiny_model(seed, **CELLS[kind]), random_batch(seed)
        worst = differences(model, oracle_of(model), batch)
        assert max(worst.values()) < TOLERANCE, f"seed {seed}: {worst}"


@pytest.mark.parametrize("kind", CELLS)
def test_gradients_are_the_oracles(kind):
    assert_gradients_are_the_oracles(tiny_model(11, **CELLS[kind]), seed=11)


# torch.nn.LSTM ----------------------------------------------------------------------------------


def test_an_lstm_is_torchs():
    """Both directions over a padded batch; values, and gradients of inputs and weights."""
    encoder, batch = tiny_model(31, cell=LSTMConfig()).encoder, random_batch(31)
    theirs = nn.LSTM(3, 4, batch_first=True, bidirectional=True).double()
    pairs = []
    for unit, end in zip(encoder.units, ("", "_reverse"), strict=True):
        of_unit = ((unit.W.weight, "weight_ih"), (unit.U.weight, "weight_hh"), (unit.b, "bias_ih"))
        pairs += [(ours, getattr(theirs, f"{name}_l0{end}")) for ours, name in of_unit]
        nn.init.zeros_(getattr(theirs, f"bias_hh_l0{end}"))
    with torch.no_grad():
        for ours, other in pairs:
            other.copy_(ours)
    x = torch.randn(*batch.src.shape, 3, dtype=torch.float64, requires_grad=True)
    lengths, mask = batch.src_mask.sum(dim=1), batch.src_mask
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    found = torch.cat(Reference().read(encoder.units, x, mask), dim=-1)
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=TOLERANCE)
    weight = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((h * weight)[mask].sum(), [x, *weights])
        for h, weights in zip((found, expected), zip(*pairs, strict=True), strict=True)
    ]
    for actual, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-10)


# Initial weights --------------------------------------------------------------------------------


@torch.no_grad()
def test_an_lstm_starts_gate_by_gate_and_remembers():
    torch.manual_seed(1)
    cfg = with_values(TINY, cell=LSTMConfig(forget_bias=2.5), hidden_size=6)
    unit = build_model(cfg, num_source=5, num_target=5, pad=PAD).decoder.unit
    assert unit.b.chunk(4)[1].tolist() == [2.5] * 6
    assert not torch.cat([unit.b[:6], unit.b[12:]]).any()
    for rows in unit.U.weight.chunk(4):
        torch.testing.assert_close(rows @ rows.T, torch.eye(6), rtol=0, atol=1e-5)
    assert unit.C.weight.std().item() == pytest.approx(0.01, rel=0.2)


# A wrong cell is noticed ------------------------------------------------------------------------


def gates_in_another_order(model):
    unit = model.decoder.unit
    i, f, g, o = unit.U.weight.chunk(4)
    unit.U.weight.copy_(torch.cat([i, f, o, g]))


def without_context(model):
    model.decoder.unit.C.weight.zero_()


def memory_starts_as_the_state(model):
    model.encoder.forward_unit.begin = lambda h: (h, h + 1)


def output_of_the_memory(model):
    model.decoder.unit.output = lambda state: state[1]


MUTATIONS = [
    (gates_in_another_order, "lstm"),
    (without_context, "lstm"),
    (memory_starts_as_the_state, "lstm"),
    (output_of_the_memory, "lstm"),
]


@pytest.mark.parametrize(("mutate", "kind"), MUTATIONS, ids=lambda x: getattr(x, "__name__", x))
def test_a_wrong_cell_is_noticed(mutate, kind):
    model, batch = tiny_model(21, **CELLS[kind]), random_batch(21)
    oracle = oracle_of(model)
    assert max(differences(model, oracle, batch).values()) < TOLERANCE
    with torch.no_grad():
        mutate(model)
    assert max(differences(model, oracle, batch).values()) > 1e-4
