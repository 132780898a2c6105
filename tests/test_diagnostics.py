"""What is logged of the inside of a model, against the oracle's loops; looking changes nothing."""

import math
from itertools import cycle

import numpy as np
import pytest
import torch
from conftest import (
    FAMILY,
    STACKED,
    VOCAB,
    attention_of,
    batch_loss,
    oracle_of,
    random_batch,
    random_pairs,
    tiny_model,
)

from seq2seq.config.schema import Backend, Reset, StateWord
from seq2seq.model import EncoderDecoder
from seq2seq.training import loss
from seq2seq.training.diagnostics import (
    Probe,
    read,
    weight_groups,
)
from seq2seq.training.loss import sentence_losses
from seq2seq.training.validation import loss_by_length


class Recorder:
    """Keeps the gates of every step of every unit, of stacks that at the bottom."""

    def gated_unit(self, name, x, h, c=None):
        for letter in "zr" if name.endswith("unit") else "":
            net = self.matrix(f"{name}.W_{letter}") @ x + self.matrix(f"{name}.U_{letter}") @ h
            if c is not None:
                net = net + self.matrix(f"{name}.C_{letter}") @ c
            part = name.split(".")[0]
            self.gates.setdefault(f"gates/{part}_{letter}", []).extend(1 / (1 + np.exp(-net)))
        return super().gated_unit(name, x, h, c)


def expected(model: EncoderDecoder, pairs) -> dict[str, float]:
    """The same numbers, sentence by sentence."""
    oracle = oracle_of(model)
    oracle.__class__, oracle.gates = type("Recorder", (Recorder, type(oracle)), {}), {}
    entropies, greatest = [], []
    for src, tgt in pairs:
        for alpha in oracle.force(src, tgt).alignments:
            a = alpha[alpha > 0] / alpha.sum()
            entropies.append(-(a * np.log(a)).sum())
            greatest.append(math.log(len(src)))
    found = {}
    for name, values in oracle.gates.items():
        found[f"{name}_low"] = np.mean(np.array(values) < 0.05)
        found[f"{name}_high"] = np.mean(np.array(values) > 0.95)
    if attention_of(model)[0] not in ("fixed", "uniform"):
        found["attention/entropy"] = np.mean(entropies)
        found["attention/entropy_share"] = np.sum(entropies) / np.sum(greatest)
    return found


CHANGES = [
    {"attention": kind, "state_word": word} for kind, word in zip(FAMILY.values(), cycle(StateWord))
] + [{"reset": Reset.after}, {"backend": Backend.fused}]
CHANGES += [{"decoder": STACKED[kind]} for kind in ("between", "bottom", "top", "fed")]


@pytest.mark.parametrize("changes", CHANGES, ids=[*FAMILY, "reset after", "fused", *"1234"])
def test_gates_and_entropy_are_those_of_the_oracle(changes):
    model = tiny_model(scale=1.5, align_size=4, **changes)
    found = read(Probe(model).look(random_batch(3)))
    wanted = expected(model, random_pairs(3))
    assert found == pytest.approx(wanted, rel=1e-6)
    for part in ("encoder", "decoder"):
        assert 0 < wanted[f"gates/{part}_z_low"] < 1, "the case should have saturated gates"


def noisy(kind) -> EncoderDecoder:
    """A model that draws whenever it is in training mode."""
    dropout = dict.fromkeys(("embedding_dropout", "annotation_dropout", "readout_dropout"), 0.5)
    return tiny_model(attention=kind, align_size=4, **dropout).train()


@pytest.mark.parametrize("kind", FAMILY.values(), ids=FAMILY)
def test_looking_changes_nothing(kind):
    model, batch = noisy(kind), random_batch(1)
    batch_loss(model, batch).smoothed.backward()
    parameters = [p.detach().clone() for p in model.parameters()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    probe = Probe(model)
    first = probe.look(batch)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert read(first) == read(Probe(noisy(kind).eval()).look(batch)), "nothing was drawn"
    probe.ratios(probe.weights())
    assert all(map(torch.equal, parameters, model.parameters()))
    for before, parameter in zip(grads, model.parameters(), strict=True):
        assert before is parameter.grad or torch.equal(before, parameter.grad)
        assert parameter.requires_grad


def test_nothing_waits_for_the_device():
    """A tensor on the meta device has no numbers: whoever asks for one fails."""
    model = tiny_model().to("meta")
    probe = Probe(model)
    found = probe.ratios(probe.weights()) | probe.look(random_batch(0).to(torch.device("meta")))
    assert len(found) == 5 + 8 + 2
    assert {x.device.type for x in found.values()} == {"meta"}
    with pytest.raises(NotImplementedError, match="meta"):
        read(found)


# Updates --------------------------------------------------------------------------------------

GROUPS = {
    "embeddings": {"encoder.embedding.E.weight", "decoder.embedding.bias"},
    "encoder": {"encoder.forward_unit.W_z.weight", "encoder.backward_unit.U.weight"},
    "attention": {"decoder.attention.W_a.weight", "decoder.attention.v_a.weight"},
    "decoder": {"decoder.unit.C_r.weight", "decoder.W_s.bias"},
    "readout": {f"decoder.{x}.weight" for x in ("U_o", "V_o", "C_o", "W_o.0", "W_o.1")},
}


@pytest.mark.parametrize("kind", ["additive", "fixed"])
def test_ratios_are_those_of_numpy(kind):
    model = tiny_model(attention=FAMILY[kind])
    names = dict(model.named_parameters())
    groups = {k: v & names.keys() for k, v in GROUPS.items() if v & names.keys()}
    assert ("attention" in groups) == (kind == "additive")
    whole = weight_groups(model)
    for group, members in groups.items():
        assert {id(names[name]) for name in members} <= {id(p) for p in whole[group]}
    assert sum(map(len, whole.values())) == len(names)
    before = {name: p.detach().numpy().copy() for name, p in names.items()}
    probe = Probe(model)
    snapshot = probe.weights()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    found = read(probe.ratios(snapshot))
    assert found.keys() == {f"update_ratio/{group}" for group in groups}
    for group in groups:
        members = [n for n, p in names.items() if any(p is other for other in whole[group])]
        moved = np.concatenate([(names[n].detach().numpy() - before[n]).ravel() for n in members])
        all_before = np.concatenate([before[n].ravel() for n in members])
        ratio = np.sqrt((moved**2).sum()) / np.sqrt((all_before**2).sum())
        assert found[f"update_ratio/{group}"] == pytest.approx(ratio, rel=1e-6)


# Batches --------------------------------------------------------------------------------------


# Loss by length -------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 1000])
@pytest.mark.parametrize("backend", [Backend.reference, Backend.fused])
def test_the_cost_of_each_sentence_is_that_of_the_oracle(backend, rows, monkeypatch):
    monkeypatch.setattr(loss, "SLICE_BYTES", rows * 4 * VOCAB)
    model = tiny_model(backend=backend)
    found = sentence_losses(model, random_batch(2)).tolist()
    oracle = oracle_of(model)
    assert found == pytest.approx([oracle.force(*pair).cost for pair in random_pairs(2)], rel=1e-12)


CASES = [  # sentences (cost, source tokens, target tokens), and nats per target token
    ([], {}),
    ([(3.0, 1, 2), (5.0, 10, 2), (8.0, 11, 4)], {"1-10": 2.0, "11-20": 2.0}),
    ([(1.0, 0, 1)], {"1-10": 1.0}),  # a blank line: the end symbol alone
    ([(6.0, 60, 2), (4.0, 61, 1), (4.0, 999, 3)], {"51-60": 3.0, "61+": 2.0}),
]


@pytest.mark.parametrize(("sentences", "found"), CASES)
def test_loss_by_length(sentences, found):
    assert loss_by_length(*([s[i] for s in sentences] for i in range(3))) == found
