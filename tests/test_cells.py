"""Other cells than the paper's, against NumPy loops written from their papers and torch's own."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from cell_oracle import CellOracle
from conftest import (
    PAD,
    TINY,
    follow,
    oracle_of,
    random_batch,
    random_pairs,
    tiny_model,
    weights_of,
    with_values,
)
from test_equations import (
    TOLERANCE,
    assert_gradients_are_the_oracles,
    assert_values_are_the_oracles,
    differences,
)
from torch import nn
from torch.nn import functional

from seq2seq.config.schema import (
    Backend,
    Bidirectional,
    FixedConfig,
    GatedConfig,
    LayersAttentionConfig,
    LSTMConfig,
    MinGRUConfig,
    Reset,
    StackedEncoderConfig,
    TransformerDecoderConfig,
)
from seq2seq.data.batching import collate
from seq2seq.model import EncoderDecoder, build_model
from seq2seq.model.backend import Backend as Reference
from seq2seq.model.draws import entry_keys, keyed
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.model.min_gru import MinGRU
from seq2seq.model.recurrence import run_cell
from seq2seq.model.stacked_encoder import StackedEncoder

OF_LAYERS = {
    "decoder": TransformerDecoderConfig(layers=1, inner_size=6),
    "attention": LayersAttentionConfig(heads=2),
    "embedding_size": 4,
}
"""A decoder without cells."""

STACKS = {
    "bottom": StackedEncoderConfig(layers=3, residual=True),
    "all": StackedEncoderConfig(bidirectional=Bidirectional.all),
    "all, residual": StackedEncoderConfig(bidirectional=Bidirectional.all, residual=True),
    "one layer": StackedEncoderConfig(layers=1),
}

RECURRENT = {
    "lstm": {"cell": LSTMConfig()},
    "lstm, normalised": {"cell": LSTMConfig(layer_norm=True)},
    "normalised": {"cell": GatedConfig(layer_norm=True)},
    "gated, 3 transitions": {"cell": GatedConfig(transitions=3)},
    "lstm, 2 transitions": {"cell": LSTMConfig(transitions=2)},
    "normalised, 2 transitions, no bias": {
        "cell": GatedConfig(layer_norm=True, transitions=2, reset=Reset.after),
        "bias": False,
    },
}
RECURRENT |= {f"stacked, {name}": {"encoder": encoder} for name, encoder in STACKS.items()}
RECURRENT["stacked, no attention"] = {"encoder": STACKS["all"], "attention": FixedConfig()}
"""Members of the family besides the paper's: changes of `tiny_model`, by name."""

ENCODERS = {
    "min_gru": {"cell": MinGRUConfig(), **OF_LAYERS},
    "min_gru, stacked": {"cell": MinGRUConfig(), "encoder": STACKS["bottom"], **OF_LAYERS},
}
"""Of what is compared in the encoder alone, for no recurrent decoder can have it."""


@pytest.mark.parametrize("kind", RECURRENT)
def test_values_are_the_oracles_along_targets_and_word_by_word(kind):
    assert_values_are_the_oracles(lambda seed: tiny_model(seed, **RECURRENT[kind]))


@pytest.mark.e2e
@pytest.mark.parametrize("kind", RECURRENT)
def test_gradients_are_the_oracles(kind):
    assert_gradients_are_the_oracles(tiny_model(11, **RECURRENT[kind]), seed=11)


def encoder_oracle(model: EncoderDecoder) -> CellOracle:
    reading = {"state_word": "emitted", "reset": "before", "readout": "maxout"}
    oracle = CellOracle(weights_of(model), **reading)
    oracle.residual = isinstance(model.encoder, StackedEncoder)
    return oracle


def annotated(oracle: CellOracle, pairs) -> list[np.ndarray]:
    """Of each sentence the annotations one after another, then the summary."""
    of_pairs = [[*oracle.annotate(src), oracle.summary] for src, _ in pairs]
    return [np.concatenate(vectors) for vectors in of_pairs]


def encoded(model: EncoderDecoder, pairs) -> list[torch.Tensor]:
    """The same of a padded batch."""
    batch = collate(pairs, PAD)
    memory = model.encoder(batch.src, batch.src_mask)
    rows = zip(memory.states, batch.src_mask, memory.summary, strict=True)
    return [torch.cat([states[real].flatten(), summary]) for states, real, summary in rows]


def distance(model: EncoderDecoder, oracle: CellOracle, pairs) -> float:
    both = zip(encoded(model, pairs), annotated(oracle, pairs), strict=True)
    return max(float(np.abs(found.detach().numpy() - wanted).max()) for found, wanted in both)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_is_the_oracles_values_and_gradients(kind):
    model, pairs, rng = (
        tiny_model(13, **ENCODERS[kind]),
        random_pairs(13),
        np.random.default_rng(13),
    )
    oracle = encoder_oracle(model)
    assert distance(model, oracle, pairs) < TOLERANCE
    found = encoded(model, pairs)
    weights = [rng.normal(size=x.shape) for x in found]
    sum((x * torch.from_numpy(w)).sum() for x, w in zip(found, weights, strict=True)).backward()
    plain = oracle.weights
    for name, parameter in model.encoder.named_parameters(prefix="encoder"):
        direction = rng.normal(size=parameter.shape)
        oracle.weights = {**plain, name: plain[name] + 1e-30j * direction}
        moved = zip(annotated(oracle, pairs), weights, strict=True)
        expected = sum((x * w).sum() for x, w in moved).imag / 1e-30
        assert abs(expected) > 1e-6, f"{name} has no gradient to compare"
        actual = (parameter.grad.numpy() * direction).sum()
        assert actual == pytest.approx(expected, rel=1e-10, abs=1e-10), name


# A cell that needs no loop ----------------------------------------------------------------------


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("length", [1, 2, 5, 8, 37])
def test_a_scan_is_the_loop(length, backward):
    """Values and gradients, also of gates that are shut or open, from any start."""
    unit = MinGRU(3, 4).double()
    nn.init.normal_(unit.W.weight, std=3.0)
    x = 4 * torch.randn(3, length, 3, dtype=torch.float64)
    start = torch.randn(3, 4, dtype=torch.float64)
    mask = torch.arange(length) < torch.tensor([length, max(1, length - 3), 1])[:, None]
    positions = range(length)
    order = [*positions][:: -1 if backward else 1]
    inputs = [x.requires_grad_(), start.requires_grad_(), *unit.parameters()]
    for begin in (start, None):
        results = run_cell(unit, x, mask, order, begin), unit.run(x, mask, begin, backward=backward)
        weight = torch.randn_like(results[0])
        grads = [
            torch.autograd.grad((h * weight).sum(), inputs, allow_unused=begin is None)
            for h in results
        ]
        for found, expected in zip(
            *([h, *g] for h, g in zip(results, grads, strict=True)), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_an_encoder_runs_a_scan_instead_of_a_loop(monkeypatch):
    monkeypatch.setattr(MinGRU, "step", lambda *_: pytest.fail("a step in a loop"))
    model, batch = tiny_model(1, **ENCODERS["min_gru"]), random_batch(1)
    model.encoder(batch.src, batch.src_mask)


# Stacks -----------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kind", STACKS)
def test_a_stack_runs_on_kernels_and_shows_the_gates_of_each_layer(kind):
    """Gradients of both backends are compared in `test_family.py`."""
    batch, results = random_batch(5), []
    for backend in (Backend.fused, Backend.reference):
        model = tiny_model(5, encoder=STACKS[kind], backend=backend)
        assert model.backend.obstacle(model.encoder, model.decoder) is None
        memory = model.encoder(batch.src, batch.src_mask)
        gates = model.encoder.probes(batch.src, memory)
        numbers = range(1, len(model.encoder.layers) + 1)
        assert [*gates] == [f"{letter}{number}" for number in numbers for letter in "zr"]
        results.append([x[batch.src_mask] for x in (memory.states, *gates.values())])
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape == results[0][0].shape
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_a_stack_of_one_layer_is_the_papers_encoder():
    stack, plain = tiny_model(6, encoder=STACKS["one layer"]), tiny_model(6)
    batch = random_batch(6)
    assert torch.equal(follow(stack, batch).t, follow(plain, batch).t)
    memory = plain.encoder(batch.src, batch.src_mask)
    gates = stack.encoder.probes(batch.src, memory)
    for letter, values in plain.encoder.probes(batch.src, memory).items():
        assert torch.equal(gates[f"{letter}1"], values)


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


# Recurrent dropout ------------------------------------------------------------------------------

DROPPED = {
    "gated": {"cell": GatedConfig(recurrent_dropout=0.4)},
    "gated, reset after": {"cell": GatedConfig(recurrent_dropout=0.4, reset=Reset.after)},
    "lstm": {"cell": LSTMConfig(recurrent_dropout=0.4)},
    "transitions": {"cell": GatedConfig(recurrent_dropout=0.4, transitions=2)},
}
"""That a sentence draws the same in any company is in `test_draws.py`."""


@pytest.mark.parametrize("kind", DROPPED)
def test_a_recurrent_mask_is_one_for_all_steps_and_fair(kind):
    model, sentences, steps = tiny_model(7, **DROPPED[kind], hidden_size=16), 200, 5
    unit, plain = model.encoder.forward_unit, model.encoder.backward_unit
    plain.load_state_dict(unit.state_dict())
    seen = []
    layers = [m for name, m in unit.named_modules() if name.split(".")[-1] in ("U", "U_z", "U_r")]
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0] == 0))
    x, mask = torch.randn(sentences, steps, 3).double(), torch.ones(sentences, steps).bool()
    start = torch.ones(sentences, 16).double()
    with keyed(entry_keys(7, 1, sentences)):
        unit.train()
        h = run_cell(unit, x, mask, range(steps), start)
        [dropped] = unit.begin(start)[-1:]
    dead = dropped == 0
    assert len(seen) == steps * len(layers)
    assert all(torch.equal(zeros, dead) for zeros in seen)
    assert dead.double().mean().item() == pytest.approx(0.4, abs=0.03)
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert len(dead.unique(dim=0)) > 190, "every sentence draws for itself"
    # In evaluation there is none; what was dropped was used in training.
    assert len(plain.begin(start)) == (2 if kind == "lstm" else 1)
    expected = run_cell(plain, x, mask, range(steps), start)
    assert (h - expected).abs().amax(dim=(1, 2)).min() > 1e-3


def test_without_options_the_unit_is_the_papers_and_with_them_the_reference_runs(
    caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    assert tiny_model(1, cell=GatedConfig()).decoder.unit.__class__ is GatedUnit
    with caplog.at_level(logging.INFO, "seq2seq"):
        tiny_model(1, backend=Backend.auto, **DROPPED["gated"])
    [line] = caplog.messages
    assert line.endswith("in part: RegularizedUnit has no fused kernel")


def test_no_weight_of_a_transition_is_empty_and_kernels_leave_it_alone():
    for kind in (
        "gated, 3 transitions",
        "lstm, 2 transitions",
        "normalised, 2 transitions, no bias",
    ):
        model = tiny_model(1, backend=Backend.auto, **RECURRENT[kind])
        assert all(p.numel() for p in model.parameters()), kind
        obstacle = model.backend.obstacle(model.encoder, model.decoder)
        assert obstacle == "Transitions has no fused kernel"


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


def gate_and_candidate_exchanged(model):
    unit = model.encoder.forward_unit
    unit.W.weight.copy_(unit.W.weight.roll(unit.hidden_size, dims=0))


def transitions_in_another_order(model):
    cells = model.encoder.backward_unit.cells
    cells[1], cells[2] = cells[2], cells[1]


def bias_left_out(model):
    model.decoder.unit.cells[1].b.zero_()


def first_without_context(model):
    first, last = model.decoder.unit.cells
    model.decoder.unit.step = lambda x, state, c=None: last.step(
        last.project(x[..., :0]), first.step(x, state)
    )


def padding_is_read(model):
    unit = model.encoder.backward_unit
    plain = unit.run
    unit.run = lambda x, mask, start, *, backward: plain(
        x, torch.ones_like(mask), start, backward=backward
    )


def without_residual(model):
    model.encoder.layers[1].residual = False


def summary_of_the_first_layer(model):
    encode, layer = model.encoder.forward, model.encoder.layers[0]

    def mutated(src, mask):
        [_, first] = layer.read(model.encoder.embedding(src), mask)
        return dataclasses.replace(encode(src, mask), summary=first[:, 0])

    model.encoder.forward = mutated


def padding_has_words(model):
    encode = model.encoder.forward
    model.encoder.forward = lambda src, mask: encode(src, torch.ones_like(mask))


def one_norm_a_gate(model):
    norm, n = model.decoder.unit.norm_U.gates, model.decoder.unit.hidden_size
    gain = norm.weight.chunk(2)
    norm.forward = lambda x: torch.cat(
        [
            functional.layer_norm(half, (n,), g)
            for half, g in zip(x.chunk(2, -1), gain, strict=True)
        ],
        dim=-1,
    )


def context_not_normalised(model):
    model.decoder.unit.norm_C = nn.Identity()


def memory_not_normalised(model):
    model.decoder.unit.norm_m = nn.Identity()


def normalised_before_the_reset(model):
    model.decoder.unit.reset_before ^= True


MUTATIONS = [
    (one_norm_a_gate, "normalised"),
    (context_not_normalised, "lstm, normalised"),
    (memory_not_normalised, "lstm, normalised"),
    (normalised_before_the_reset, "normalised"),
    (gates_in_another_order, "lstm"),
    (without_context, "lstm"),
    (memory_starts_as_the_state, "lstm"),
    (output_of_the_memory, "lstm"),
    (transitions_in_another_order, "gated, 3 transitions"),
    (bias_left_out, "gated, 3 transitions"),
    (first_without_context, "lstm, 2 transitions"),
    (without_residual, "stacked, bottom"),
    (summary_of_the_first_layer, "stacked, all"),
    (padding_has_words, "stacked, bottom"),
    (gate_and_candidate_exchanged, "min_gru"),
    (padding_is_read, "min_gru"),
]


@pytest.mark.parametrize(("mutate", "kind"), MUTATIONS, ids=lambda x: getattr(x, "__name__", x))
def test_a_wrong_cell_is_noticed(mutate, kind):
    model = tiny_model(21, **(RECURRENT | ENCODERS)[kind])
    if kind in RECURRENT:
        oracle, batch = oracle_of(model), random_batch(21)
        worst = lambda: max(differences(model, oracle, batch).values())  # noqa: E731
    else:
        oracle, pairs = encoder_oracle(model), random_pairs(21)
        worst = lambda: distance(model, oracle, pairs)  # noqa: E731
    assert worst() < TOLERANCE
    with torch.no_grad():
        mutate(model)
    assert worst() > 1e-4
