"""The model against NumPy loops written from the paper."""

import dataclasses
import itertools
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import (
    FAMILY,
    PAD,
    oracle_of,
    per_sentence,
    random_batch,
    random_pairs,
    run,
    tiny_model,
)
from oracles import Oracle
from torch import nn

from seq2seq.config.schema import Readout, Reset, StateWord
from seq2seq.data.batching import Batch, collate
from seq2seq.model import EncoderDecoder
from seq2seq.model.backend import Backend as Reference
from seq2seq.model.gated_unit import GatedUnit
from seq2seq.model.recurrence import Unrolled, read, run_cell

TOLERANCE = 1e-12  # float64, tiny sizes

READINGS = [
    {"state_word": state_word, "reset": reset, "readout": readout}
    for state_word, reset, readout in itertools.product(StateWord, Reset, Readout)
]
EXTRAS = [
    {"output_rank": rank, "embedding_bias": embedding_bias, "bias": bias}
    for rank, embedding_bias, bias in itertools.product((None, 3), (False, True), (False, True))
]


def name_of(changes: dict) -> str:
    return "-".join(f"{key}={getattr(value, 'name', value)}" for key, value in changes.items())


def differences(model: EncoderDecoder, oracle: Oracle, batch: Batch) -> dict[str, float]:
    """Greatest distance from the oracle: `follow` over the batch, then word by word."""
    worst = dict.fromkeys(["log_p", "alpha", "cost", "log_p by word", "alpha by word"], 0.0)

    def note(key: str, actual: torch.Tensor, expected: np.ndarray) -> None:
        worst[key] = max(worst[key], float(np.abs(actual.numpy() - expected).max()))

    with torch.no_grad():
        log_p, cost, alpha = run(model, batch)
        total = 0.0
        for b, rows in enumerate(per_sentence(log_p, batch)):
            src, tgt = batch.src[b][batch.src_mask[b]], batch.tgt[b][batch.tgt_mask[b]]
            forced = oracle.force(src.tolist(), tgt.tolist())
            total += forced.cost
            note("log_p", rows, np.log(forced.distributions))
            note("alpha", alpha[b, : len(tgt), : len(src)], forced.alignments)
            state = model.begin(src[None], torch.ones(1, len(src), dtype=torch.bool))
            for i, y_prev in enumerate(torch.cat([torch.tensor([PAD]), tgt[:-1]])):
                word, state = model.step(y_prev[None], state)
                note("log_p by word", word.log_probs()[0], np.log(forced.distributions[i]))
                note("alpha by word", word.alpha[0], forced.alignments[i])
        worst["cost"] = abs(float(cost) - total)
    return worst


@pytest.mark.parametrize("changes", READINGS, ids=name_of)
@pytest.mark.parametrize("extras", EXTRAS, ids=name_of)
def test_model_is_the_oracle(changes, extras):
    for seed in (1, 2):
        model, batch = tiny_model(seed, **changes, **extras), random_batch(seed)
        worst = differences(model, oracle_of(model), batch)
        # the cost sums 11 words
        assert max(worst.values()) < TOLERANCE, f"seed {seed}: {worst}"


def test_sizes_that_all_differ_and_sizes_of_one():
    wide = {"embedding_size": 5, "hidden_size": 3, "align_size": 2, "readout_size": 4}
    single = dict.fromkeys(["embedding_size", "hidden_size", "align_size", "readout_size"], 1)
    for sizes in (wide, single):
        model = tiny_model(3, **sizes, output_rank=1)
        worst = differences(model, oracle_of(model), random_batch(3))
        assert max(worst.values()) < TOLERANCE, worst


@pytest.mark.parametrize("changes", READINGS, ids=name_of)
@pytest.mark.parametrize("extras", [EXTRAS[0], EXTRAS[-1]], ids=name_of)
def test_gradients_are_the_oracles(changes, extras):
    assert_gradients_are_the_oracles(tiny_model(11, **changes, **extras), seed=11)


def assert_values_are_the_oracles(build: Callable[[int], EncoderDecoder]) -> None:
    """Compare two models, by their seeds, along targets and word by word."""
    for seed in (1, 2):
        model = build(seed)
        worst = differences(model, oracle_of(model), random_batch(seed))
        assert max(worst.values()) < TOLERANCE, f"seed {seed}: {worst}"


def assert_gradients_are_the_oracles(
    model: EncoderDecoder, seed: int, without: tuple = (), entries: int = 2
) -> None:
    """Compare the cost's gradient; the layers in `without` must have none."""
    pairs = random_pairs(seed, ((3, 3), (1, 2), (4, 1)))
    oracle, rng = oracle_of(model), np.random.default_rng(seed)
    _, cost, _ = run(model, collate(pairs, PAD))
    cost.backward()
    for name, parameter in model.named_parameters():
        if name.split(".")[-2] in without:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        grad = parameter.grad.numpy()
        assert np.abs(grad).max() > 1e-6, f"{name} has no gradient to compare"
        # Along a dense direction every entry counts; single entries say where a fault is.
        directions = [rng.normal(size=grad.shape)]
        for entry in rng.choice(grad.size, size=min(entries, grad.size), replace=False):
            directions.append(np.zeros(grad.shape))
            directions[-1].flat[entry] = 1.0
        for d in directions:
            expected, actual = oracle.derivative(pairs, name, d), float((grad * d).sum())
            error = abs(actual - expected)
            assert error < 1e-11 * np.abs(grad).max() * np.abs(d).sum(), f"{name}: seed {seed}"


@pytest.mark.parametrize("state_word", StateWord)
@pytest.mark.parametrize("kind", FAMILY)
def test_every_attention_in_the_model_is_the_oracle(kind, state_word):
    """Values of whole models; ragged lengths, one source word too."""
    for seed in (1, 2):
        changes = {"state_word": state_word, "align_size": 6}
        model, batch = tiny_model(seed, attention=FAMILY[kind], **changes), random_batch(seed)
        worst = differences(model, oracle_of(model), batch)
        assert max(worst.values()) < TOLERANCE, f"{kind}, seed {seed}: {worst}"


@pytest.mark.parametrize("kind", FAMILY)
def test_gradients_of_every_attention_are_the_oracles(kind):
    model = tiny_model(16, attention=FAMILY[kind], align_size=6)
    # Taking the most likely position has no gradient in these: REINFORCE moves them.
    without = ("W_a", "U_a", "v_a", "baseline") if kind == "hard" else ("baseline",)
    assert_gradients_are_the_oracles(model, seed=16, without=without)


def test_the_complex_step_is_the_finite_difference():
    """The oracle's derivative is no less to be proven than the model's."""
    reading = {"state_word": "emitted", "reset": "before", "readout": "maxout"}
    oracle, pairs = oracle_of(tiny_model(5)), random_pairs(5, ((3, 3),))
    rng = np.random.default_rng(5)
    for name, weight in oracle.weights.items():
        direction, step = rng.normal(size=weight.shape), 1e-5
        ends = [
            Oracle({**oracle.weights, name: weight + move * direction}, **reading).cost(pairs)
            for move in (step, -step)
        ]
        expected = (ends[0] - ends[1]) / (2 * step)
        assert oracle.derivative(pairs, name, direction) == pytest.approx(expected, abs=1e-8)


# The comparison has to notice a wrong model ---------------------------------------------------


def reset_elsewhere_in_the_decoder(model):
    model.decoder.unit.reset_before ^= True


def reset_elsewhere_in_the_encoder(model):
    model.encoder.forward_unit.reset_before ^= True


def with_backend(model, **functions):
    backend = Reference()
    for name, function in functions.items():
        setattr(backend, name, function)
    model.encoder.backend = model.decoder.backend = backend


def readout_from_the_new_state(model):
    """Eq. (4) taken alone: s_i instead of s_{i-1}."""

    def mutated(unit, attention, words, s_0, source, mask):
        state, rows = unit.begin(s_0), []
        for i in range(words.shape[1]):
            attended = attention(unit.output(state), source)
            state = unit.step(unit.project(words[:, i]), state, attended.c)
            rows.append((unit.output(state), attended.c, attended.alpha))
        return Unrolled(*(torch.stack(parts, dim=1) for parts in zip(*rows, strict=True)))

    with_backend(model, unroll=mutated)


def query_with_the_new_state(model):
    """First move the state, then attend with it, as common re-implementations do."""

    def mutated(unit, attention, words, s_0, source, mask):
        state, rows = unit.begin(s_0), []
        for i in range(words.shape[1]):
            old = unit.output(state)
            state = unit.step(unit.project(words[:, i]), state, attention(old, source).c)
            attended = attention(unit.output(state), source)
            rows.append((old, attended.c, attended.alpha))
        return Unrolled(*(torch.stack(parts, dim=1) for parts in zip(*rows, strict=True)))

    with_backend(model, unroll=mutated)


def moved_by_the_other_word(model):
    model.decoder.moved_by_emitted ^= True


def without_bias(module):
    def dropped(model):
        model.get_submodule(module).bias = None

    dropped.__name__ = f"no_bias_of_{module}"
    return dropped


def transposed_alignment(model):
    """U_a is square here: 2n = n'."""
    U_a = model.decoder.attention.U_a
    U_a.weight = nn.Parameter(U_a.weight.T.contiguous())


def maxout_over_halves(model):
    def readout(self, s_prev, Ey, c):
        t_tilde = self.U_o(s_prev) + self.V_o(Ey) + self.C_o(c)
        return torch.maximum(*t_tilde.chunk(2, dim=-1))

    model.decoder.readout = types.MethodType(readout, model.decoder)


def y_0_is_a_word(model):
    model.decoder.embedding.zero_id = -1
    with torch.no_grad():
        model.decoder.embedding.E.weight[PAD] = 0.5


def y_0_has_the_embedding_bias(model):
    readout = model.decoder.readout

    def mutated(s_prev, Ey, c):
        is_first = (Ey == 0).all(dim=-1, keepdim=True)
        return readout(s_prev, torch.where(is_first, model.decoder.embedding.bias, Ey), c)

    model.decoder.readout = mutated


def inverted_update_gate(model):
    """sigmoid(-a) = 1 - sigmoid(a)."""
    unit = model.decoder.unit
    with torch.no_grad():
        for layer in (unit.W_z, unit.U_z, unit.C_z):
            layer.weight.neg_()


def gates_without_context(model):
    with torch.no_grad():
        model.decoder.unit.C_r.weight.zero_()


def start_from_the_last_word(model):
    encode = model.encoder.forward

    def mutated(src, mask):
        memory = encode(src, mask)
        last = mask.sum(dim=1) - 1
        n = model.decoder.unit.hidden_size
        return dataclasses.replace(memory, summary=memory.states[torch.arange(len(src)), last, n:])

    model.encoder.forward = mutated


def directions_swapped(model):
    encode = model.encoder.forward

    def mutated(src, mask):
        memory = encode(src, mask)
        return dataclasses.replace(memory, states=torch.cat(memory.states.chunk(2, -1)[::-1], -1))

    model.encoder.forward = mutated


def backward_reads_the_padding(model):
    """A pad has no gate bias to wake it, so its embedding must be alive for this to show."""
    with torch.no_grad():
        model.encoder.embedding.E.weight[PAD] = 0.5
    with_backend(model, read=lambda units, Ex, mask: read(units, Ex, torch.ones_like(mask)))


def attention_sees_the_padding(model):
    attend = model.decoder.attention.forward

    def mutated(query, source, state=None):
        everywhere = torch.ones_like(source.mask)
        return attend(query, dataclasses.replace(source, mask=everywhere))

    model.decoder.attention.forward = mutated


BIASES = [
    *("encoder.embedding", "encoder.forward_unit.W", "encoder.backward_unit.W"),
    *("decoder.embedding", "decoder.unit.W", "decoder.W_s", "decoder.U_o", "decoder.W_o.1"),
]
MUTATIONS = [
    reset_elsewhere_in_the_decoder,
    reset_elsewhere_in_the_encoder,
    readout_from_the_new_state,
    query_with_the_new_state,
    moved_by_the_other_word,
    transposed_alignment,
    maxout_over_halves,
    y_0_is_a_word,
    y_0_has_the_embedding_bias,
    inverted_update_gate,
    gates_without_context,
    start_from_the_last_word,
    directions_swapped,
    backward_reads_the_padding,
    attention_sees_the_padding,
    *(without_bias(module) for module in BIASES),
]


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_wrong_model_is_noticed(mutate):
    model, batch = tiny_model(21, align_size=8), random_batch(21)
    oracle = oracle_of(model)
    assert max(differences(model, oracle, batch).values()) < TOLERANCE
    mutate(model)
    assert max(differences(model, oracle, batch).values()) > 1e-4


# torch.nn.GRU ---------------------------------------------------------------------------------


def torch_gru(units: list[GatedUnit]) -> nn.GRU:
    """torch's unit with our weights; its z weights the old state, so that gate is negated."""
    [size, hidden] = units[0].W.in_features, units[0].hidden_size
    gru = nn.GRU(size, hidden, batch_first=True, bidirectional=len(units) == 2).double()
    with torch.no_grad():
        for unit, end in zip(units, ("", "_reverse"), strict=False):
            for kind, ours in (("ih", "W"), ("hh", "U")):
                r, z, new = (getattr(unit, ours + gate).weight for gate in ("_r", "_z", ""))
                getattr(gru, f"weight_{kind}_l0{end}").copy_(torch.cat([r, -z, new]))
                getattr(gru, f"bias_{kind}_l0{end}").zero_()
            getattr(gru, f"bias_ih_l0{end}")[2 * hidden :] = unit.W.bias
    return gru


def test_reset_after_is_torchs_gru_and_before_is_not():
    for reset, equal in ((Reset.after, True), (Reset.before, False)):
        model, batch = tiny_model(31, reset=reset), random_batch(31)
        encoder = model.encoder
        gru = torch_gru([encoder.forward_unit, encoder.backward_unit])
        with torch.no_grad():
            h = encoder(batch.src, batch.src_mask).states
            lengths = batch.src_mask.sum(dim=1)
            packed = nn.utils.rnn.pack_padded_sequence(
                encoder.embedding(batch.src), lengths, batch_first=True, enforce_sorted=False
            )
            expected, _ = nn.utils.rnn.pad_packed_sequence(gru(packed)[0], batch_first=True)
        worst = float((h - expected)[batch.src_mask].abs().max())
        assert (worst < TOLERANCE) if equal else (worst > 1e-3), (reset, worst)


def test_masked_step_copies_the_state():
    model, batch = tiny_model(32), random_batch(32)
    Ex = torch.randn(*batch.src.shape, 3, dtype=torch.float64)  # also where there is padding
    positions = range(batch.src.shape[1])
    unit, mask = model.encoder.forward_unit, batch.src_mask
    with torch.no_grad():
        forward = run_cell(unit, Ex, mask, positions)
        backward = run_cell(unit, Ex, mask, reversed(positions))
    for b, length in enumerate(mask.sum(dim=1).tolist()):
        assert (forward[b, length:] == forward[b, length - 1]).all()
        assert (backward[b, length:] == 0).all()


# Causality ------------------------------------------------------------------------------------


@pytest.mark.parametrize("state_word", StateWord)
@pytest.mark.parametrize("through_state_alone", [False, True])
def test_where_a_target_word_first_shows(state_word, through_state_alone):
    """y_k shows first at step k+1, in the attention as in the prediction, under `emitted`.

    Under `previous` V_o alone carries it to the prediction of k+1; the state follows at k+2.
    """
    model = tiny_model(41, state_word=state_word)
    if through_state_alone:
        nn.init.zeros_(model.decoder.V_o.weight)
    [(src, tgt)] = random_pairs(41, ((5, 8),))
    emitted = state_word is StateWord.emitted
    with torch.no_grad():
        log_p, _, alpha = run(model, collate([(src, tgt)], PAD))
        for k in range(1, len(tgt) + 1):  # counted from 1
            other = tgt.copy()
            other[k - 1] = 2 + (tgt[k - 1] + 1) % 4  # another word
            assert other != tgt
            log_p2, _, alpha2 = run(model, collate([(src, other)], PAD))
            changed = [i for i in range(len(tgt)) if (log_p[i] != log_p2[i]).any()]
            asked = [i for i in range(len(tgt)) if (alpha[0, i] != alpha2[0, i]).any()]
            # Row k (from 0) is step k+1 (from 1).
            reach = k if emitted else k + 1
            assert asked == list(range(reach, len(tgt))), k
            first = reach if through_state_alone else k
            assert changed == list(range(first, len(tgt))), k
