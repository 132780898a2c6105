"""Two passes that have to agree (R-Drop, SimCut) against NumPy, and as options of a training."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from conftest import PAD, follow, loss_of, random_batch, tiny_model, tiny_transformer
from runs import composed, goes_on_to_the_bit, template_pairs, write_corpus

from seq2seq.config.registry import build
from seq2seq.config.schema import LikelihoodConfig, Normalize, RDropConfig, SimCutConfig
from seq2seq.model.draws import entry_keys, name_sites
from seq2seq.run.errors import ConfigError
from seq2seq.training.gradient import accumulated_gradient
from seq2seq.training.objective import AgreementLoss, Cutoff, Shares, draw_keys

SIZES = ((4, 3), (1, 5), (5, 2), (2, 2), (3, 4))


def numpy_objective(z_1, z_2, targets, smoothing, shares):
    """As printed, of complex numbers too: a step along the imaginary axis gives derivatives."""
    p_1, p_2 = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (z_1, z_2))
    rows, count = np.arange(len(targets)), z_1.shape[1]
    wanted = np.full(z_1.shape, smoothing / count)
    wanted[rows, targets] += 1 - smoothing
    losses = [-(wanted * np.log(p)).sum() for p in (p_1, p_2)]
    forward = (p_1 * np.log(p_1 / p_2)).sum()
    backward = (p_2 * np.log(p_2 / p_1)).sum()
    own = shares.first * losses[0] + shares.second * losses[1]
    return own + shares.forward * forward + shares.backward * backward


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "shares", [Shares(0.5, 0.5, 1.25, 1.25), Shares(1.0, 0.0, 3.0, 0.0), Shares(0.3, 0.9, 0.2, 2)]
)
def test_the_objective_and_its_gradient_are_those_of_numpy(shares, smoothing):
    random = np.random.default_rng(1)
    z = [random.normal(size=(6, 5)) for _ in range(2)]
    targets = random.integers(5, size=6)
    own = [torch.tensor(one, requires_grad=True) for one in z]
    total, objective = AgreementLoss.apply(*own, torch.tensor(targets), smoothing, shares)
    (2 * objective).backward()
    assert objective.item() == pytest.approx(numpy_objective(*z, targets, smoothing, shares), 1e-12)
    nats = -torch.log_softmax(own[0], dim=1)[torch.arange(6), torch.tensor(targets)].sum()
    assert total.item() == pytest.approx(nats.item(), rel=1e-12)
    step = 1e-30
    for number, logits in enumerate(own):
        for place in np.ndindex(6, 5):
            moved = [one.astype(complex) for one in z]
            moved[number][place] += 1j * step
            slope = numpy_objective(*moved, targets, smoothing, shares).imag / step
            assert logits.grad[place].item() == pytest.approx(2 * slope, rel=1e-10, abs=1e-12)


@cache
def base():
    return composed("debug")


def config(objective, smoothing=0.1):
    cfg = copy.deepcopy(base())
    cfg.trainer.normalize, cfg.trainer.label_smoothing = Normalize.words, smoothing
    return replace(cfg, objective=objective)


def gradient(model, batch, objective, parts=1, smoothing=0.1):
    """The loss, and the gradient of every weight."""
    cfg = config(objective, smoothing)
    kind = build(objective, cfg, ())
    keys = draw_keys(3, 5, batch.num_sentences, kind.passes)
    found = accumulated_gradient(model, kind, batch, keys, parts, cfg)
    return found.total.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-6)  # added up in float32
    for name, grad in one[1].items():
        torch.testing.assert_close(grad, other[1][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [tiny_model, tiny_transformer])
@pytest.mark.parametrize("weight", [0.0, 4.0])
def test_rdrop_with_equal_passes_is_the_plain_loss(make, weight):
    model, batch = make(1), random_batch(1, SIZES)  # without dropout
    plain = gradient(model, batch, LikelihoodConfig())
    assert_same(gradient(model, batch, RDropConfig(weight=weight)), plain)
    assert_same(gradient(model, batch, SimCutConfig(weight=weight, cutoff=0.0)), plain)


@pytest.mark.parametrize("make", [tiny_model, tiny_transformer])
@pytest.mark.parametrize(
    ("objective", "shares"),
    [
        (RDropConfig(weight=2.0), Shares(0.5, 0.5, 0.5, 0.5)),  # half of what is printed
        (SimCutConfig(weight=3.0, cutoff=0.4), Shares(1.0, 0.0, 3.0, 0.0)),
    ],
)
def test_two_passes_of_a_model_give_what_numpy_says(make, objective, shares):
    """Each pass follows the batch alone, with its own draws; the second without the words cut."""
    model = (make(2, embedding_dropout=0.4) if make is tiny_model else make(2)).train()
    batch = random_batch(2, SIZES)
    name_sites(model)
    kind, targets = build(objective, config(objective), ()), batch.tgt[batch.tgt_mask]
    keys = draw_keys(0, 1, len(SIZES), passes=2)
    loss = loss_of(kind, model, batch, keys)
    cut = kind.cutoff(batch, keys[:, 1])
    z = [
        model.logits(follow(model, one, number=number).t).detach().numpy()
        for number, one in enumerate((batch, cut))
    ]
    wanted = numpy_objective(*z, targets.numpy(), 0.1, shares)
    assert loss.smoothed.item() == pytest.approx(wanted, rel=1e-10)
    assert not np.allclose(*z)


@pytest.mark.parametrize("objective", [RDropConfig(), SimCutConfig(cutoff=0.4)])
def test_parts_of_a_batch_add_up(objective):
    model, batch = tiny_model(3, embedding_dropout=0.4).train(), random_batch(3, SIZES)
    whole = gradient(model, batch, objective)
    for parts in (2, 5):
        assert_same(gradient(model, batch, objective, parts), whole)


def test_as_many_words_are_cut_as_asked_for_whatever_the_padding():
    batch = random_batch(4, ((30, 20),) * 400, vocab=50)
    keys, cutoff = entry_keys(1, 1, 400), Cutoff(0.2)
    cut = cutoff(batch, keys)
    for before, after in ((batch.src, cut.src), (batch.tgt, cut.tgt)):
        gone = after != before
        assert bool((after[gone] == PAD).all())
        assert float(gone.float().mean()) == pytest.approx(0.2, abs=0.015)
    both = (cut.src[:, :20] == PAD) & (cut.tgt == PAD)
    assert float(both.float().mean()) == pytest.approx(0.04, abs=0.01), "the sides are independent"
    narrow = replace(batch, src=batch.src[:, :7], src_mask=batch.src_mask[:, :7])
    assert torch.equal(cutoff(narrow, keys).src, cut.src[:, :7])
    assert torch.equal(cutoff(narrow, keys).tgt, cut.tgt)
    assert torch.equal(cut.src_mask, batch.src_mask)


@pytest.mark.parametrize("name", ["rdrop", "simcut"])
def test_hard_attention_has_a_loss_of_its_own(name):
    with pytest.raises(ConfigError, match=f"objective={name} cannot train attention=hard"):
        composed("debug", ["attention=hard", f"objective={name}"])


@pytest.mark.e2e
@pytest.mark.parametrize("own", [["objective=rdrop"], ["objective=simcut", "trainer.swa_start=0"]])
def test_a_run_goes_on_to_the_bit(own, tmp_path):
    names = write_corpus(tmp_path / "corpus", template_pairs(120))
    changes = [*names, *own, "stages=[tokenize,train]", "tokenizer.vocab_size=120"]
    changes += ["trainer.validate_every=2", "trainer.ema_decay=0.9", "model.embedding_dropout=0.2"]
    goes_on_to_the_bit(tmp_path, changes)
