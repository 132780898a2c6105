"""Loss, optimizer, schedule, clipping and averaging, each against its formula."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import VOCAB, batch_loss, random_batch, tiny_model
from torch import nn

from seq2seq.config.registry import groups
from seq2seq.config.schema import (
    AdadeltaConfig,
    AdamConfig,
    ConstantConfig,
    CosineConfig,
    InverseSqrtConfig,
    LinearConfig,
    Normalize,
    PlateauConfig,
)
from seq2seq.model.output import smoothed_loss
from seq2seq.training.averaging import WeightAverage
from seq2seq.training.optim import build_optimizer, clip_gradients, rate_factor

# Loss -----------------------------------------------------------------------------------------


def predicted(seed: int, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    batch = random_batch(seed)
    targets = batch.tgt[batch.tgt_mask]
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(len(targets), VOCAB, generator=generator, dtype=torch.float64)
    return logits.to(dtype).requires_grad_(), targets


def test_loss_is_finite_where_a_naive_softmax_is_not():
    logits, targets = predicted(1)
    with torch.no_grad():
        logits[0] = 0.0
        logits[0, targets[0]] = -1e4
    total, smoothed = smoothed_loss(logits, targets, 0.0)
    assert 1e4 < total.item() < 1e4 + 200
    smoothed.backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.5])
def test_smoothed_loss_and_gradient_are_torchs(amount):
    for seed in range(3):
        logits, targets = predicted(seed)
        expected = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=amount)
        total, smoothed = smoothed_loss(logits, targets, amount)
        torch.testing.assert_close(smoothed, expected, rtol=1e-14, atol=0)
        weight = 0.3  # a gradient that comes from behind a division
        [ours] = torch.autograd.grad(weight * smoothed, logits)
        [theirs] = torch.autograd.grad(weight * expected, logits)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-15)
        # What is reported stays the likelihood of the references, and has no gradient.
        rows = zip(logits.detach().numpy(), targets.tolist(), strict=True)
        by_hand = -sum(np.log(np.exp(row[y]) / np.exp(row).sum()) for row, y in rows)
        assert total.item() == pytest.approx(by_hand, rel=1e-14)
        assert not total.requires_grad


@pytest.mark.parametrize("amount", [0.0, 0.1])
def test_loss_of_bf16_logits_is_summed_in_float32(amount):
    logits, targets = predicted(4, torch.bfloat16)
    wide = logits.detach().double().requires_grad_()
    expected = F.cross_entropy(wide, targets, reduction="sum", label_smoothing=amount)
    total, smoothed = smoothed_loss(logits, targets, amount)
    assert total.dtype == smoothed.dtype == torch.float32
    assert smoothed.item() == pytest.approx(expected.item(), rel=1e-6)
    smoothed.backward()
    expected.backward()
    assert logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logits.grad, wide.grad.bfloat16(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_what_the_loss_is_divided_by(smoothing):
    loss = batch_loss(tiny_model(3), random_batch(3), smoothing)
    assert (loss.sentences, loss.tokens) == (4, 11)
    divisors = {Normalize.none: 1, Normalize.sentences: 4, Normalize.words: 11}
    assert set(divisors) == set(Normalize)
    for normalize, divisor in divisors.items():
        expected = loss.smoothed.item() / divisor
        assert loss.objective(normalize).item() == pytest.approx(expected, rel=1e-14)


# Optimizers -----------------------------------------------------------------------------------


def adadelta(cfg: AdadeltaConfig, theta, g, state, t):
    G = state["G"] = cfg.rho * state.get("G", 0) + (1 - cfg.rho) * g**2
    d = np.sqrt(state.get("D", 0) + cfg.eps) / np.sqrt(G + cfg.eps) * g
    state["D"] = cfg.rho * state.get("D", 0) + (1 - cfg.rho) * d**2
    return theta * (1 - cfg.lr * cfg.weight_decay) - cfg.lr * d


def adam(cfg: AdamConfig, theta, g, state, t):
    M = state["M"] = cfg.beta1 * state.get("M", 0) + (1 - cfg.beta1) * g
    V = state["V"] = cfg.beta2 * state.get("V", 0) + (1 - cfg.beta2) * g**2
    m, v = M / (1 - cfg.beta1**t), V / (1 - cfg.beta2**t)
    return theta * (1 - cfg.lr * cfg.weight_decay) - cfg.lr * m / (np.sqrt(v) + cfg.eps)


@pytest.mark.parametrize(
    ("rule", "cfg"),
    [
        (adadelta, AdadeltaConfig()),
        (adadelta, AdadeltaConfig(lr=0.3, rho=0.8, eps=1e-4)),  # torch's defaults are others
        (adam, AdamConfig(lr=0.01, beta1=0.9, beta2=0.98, eps=1e-8, weight_decay=0.1)),
    ],
    ids=["paper", "adadelta", "adam with decoupled decay"],
)
def test_an_optimizer_is_the_formula(rule, cfg):
    """Four updates in float64; with g^2 near eps the place of eps shows."""
    torch.manual_seed(1)
    model = nn.ParameterDict({"a": torch.randn(3, 2), "b": torch.randn(4)}).double()
    theta = {name: p.detach().numpy().copy() for name, p in model.items()}
    optimizer, states = build_optimizer(model, cfg), {name: {} for name in model}
    for t in range(1, 5):
        for name, parameter in model.items():
            parameter.grad = 1e-3 * torch.randn_like(parameter)
            theta[name] = rule(cfg, theta[name], parameter.grad.numpy(), states[name], t)
        optimizer.step()
        for name, parameter in model.items():
            np.testing.assert_allclose(parameter.detach(), theta[name], rtol=0, atol=1e-12)


def test_every_optimizer_is_built_and_takes_its_weight_decay():
    for option in groups()["optimizer"].values():
        cfg = option(lr=0.25, weight_decay=0.02)
        [group] = build_optimizer(nn.Linear(2, 2), cfg).param_groups
        assert (group["lr"], group["weight_decay"]) == (0.25, 0.02)


# Schedules ------------------------------------------------------------------------------------


CONSTANT = ConstantConfig()
PLATEAU = PlateauConfig(factor=0.5, patience=2, min_factor=0.2)
LINEAR = LinearConfig(warmup=4, final_factor=0.1)
COSINE = CosineConfig(warmup=4, final_factor=0.1)
INVERSE = InverseSqrtConfig(warmup=4, final_factor=0.1)
NO_WARMUP = LinearConfig(warmup=0, final_factor=0.0)
SUDDEN = InverseSqrtConfig(warmup=0, final_factor=0.0)

# schedule, update (the first is 1; the last 14), reductions, share of the rate
POINTS = [
    (CONSTANT, 99, 5, 1.0),
    (PLATEAU, 99, 1, 0.5),
    (PLATEAU, 99, 2, 0.25),
    (PLATEAU, 99, 3, 0.2),  # 0.125, but never below min_factor
    (LINEAR, 1, 0, 0.25),
    (LINEAR, 4, 0, 1.0),
    (LINEAR, 9, 0, 0.55),  # half way from 1 to 0.1
    (LINEAR, 14, 0, 0.1),
    (LINEAR, 15, 0, 0.1),  # a resumed run may go on
    (COSINE, 2, 0, 0.5),
    (COSINE, 9, 0, 0.55),
    (COSINE, 14, 0, 0.1),
    (COSINE, 24, 0, 0.1),  # does not swing back
    (INVERSE, 4, 0, 1.0),
    (INVERSE, 9, 0, 2 / 3),  # sqrt(4 / 9)
    (INVERSE, 16, 0, 0.5),  # knows no end
    (INVERSE, 10_000, 0, 0.1),
    (NO_WARMUP, 14, 0, 0.0),
    (SUDDEN, 4, 0, 0.5),
]


@pytest.mark.parametrize(("cfg", "update", "reductions", "expected"), POINTS)
def test_rate_at_points_worked_out_by_hand(cfg, update, reductions, expected):
    factor = rate_factor(cfg, update=update, max_updates=14, reductions=reductions)
    assert factor == pytest.approx(expected, abs=1e-12)


def test_every_schedule_is_among_the_points():
    assert {cfg.name for cfg, *_ in POINTS} == set(groups()["scheduler"])


def test_a_warmup_longer_than_the_run_does_not_divide_by_zero():
    for schedule in (LINEAR, COSINE, INVERSE):
        cfg = replace(schedule, warmup=14)
        assert rate_factor(cfg, update=14, max_updates=14, reductions=0) == 1.0
        assert rate_factor(cfg, update=15, max_updates=14, reductions=0) > 0


# Clipping -------------------------------------------------------------------------------------


def with_gradients(*values: list[float]) -> nn.ParameterList:
    """One tensor a list; the last tensor has no gradient, as an unused one."""
    model = nn.ParameterList([nn.Parameter(torch.zeros(len(v))) for v in values])
    for parameter, value in zip(model, values, strict=True):
        parameter.grad = torch.tensor(value)
    model.append(nn.Parameter(torch.zeros(2)))
    return model


def test_clipping_scales_all_tensors_together_and_returns_the_norm_before():
    model = with_gradients([3.0, 0.0], [0.0, 4.0, 12.0])  # 3, 4, 12: norm 13
    assert clip_gradients(model, 1.0) == pytest.approx(13.0)
    clipped = torch.cat([p.grad for p in model if p.grad is not None])
    torch.testing.assert_close(clipped, torch.tensor([3, 0, 0, 4, 12]) / 13)
    assert model[-1].grad is None
    model = with_gradients([0.3, 0.4], [0.0])
    assert clip_gradients(model, 1.0) == pytest.approx(0.5)
    assert torch.equal(model[0].grad, torch.tensor([0.3, 0.4]))  # small: left alone


@pytest.mark.parametrize("huge", [1e19, 1e20, 1e30, 3e38])
def test_N2_a_norm_whose_square_overflows_is_the_true_one(huge):
    """Every gradient is a number, the sum of their squares in float32 is none."""
    model = with_gradients([0.6 * huge, 0.0], [0.0, 0.8 * huge, 1.0])
    assert clip_gradients(model, 0.5) == pytest.approx(huge, rel=1e-6)
    torch.testing.assert_close(model[0].grad, torch.tensor([0.3, 0.0]))
    torch.testing.assert_close(model[1].grad[:2], torch.tensor([0.0, 0.4]))
    assert abs(model[1].grad[2].item()) < 1e-18
    model = with_gradients([3e25, 4e25])  # a limit above it leaves it alone
    assert clip_gradients(model, 1e30) == pytest.approx(5e25, rel=1e-6)
    torch.testing.assert_close(model[0].grad, torch.tensor([3e25, 4e25]))


# Averaged weights -----------------------------------------------------------------------------


def snapshot(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def walk(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).double())


def test_average_is_the_hand_loop():
    model, rate = tiny_model(1), 0.7
    average, expected = WeightAverage(model, rate), snapshot(model)
    early = 0
    for update in range(1, 40):
        walk(model, update)
        average.update(model, update)
        d = min(rate, (1 + update) / (10 + update))
        early += d < rate
        for name, weight in snapshot(model).items():
            expected[name] = d * expected[name] + (1 - d) * weight
    assert 0 < early < 39  # both branches of the minimum
    assert list(average.weights) == [name for name, _ in model.named_parameters()]
    for name, weight in average.weights.items():
        np.testing.assert_allclose(weight, expected[name], rtol=0, atol=1e-12)


def test_stochastic_averaging_is_the_equal_mean_since_its_start():
    model = tiny_model(2)
    average, seen = WeightAverage(model, 0.9, start=3), []
    for update in range(1, 9):
        walk(model, update)
        average.update(model, update)
        seen.append(snapshot(model))
        for name, weight in average.weights.items():
            expected = np.mean([one[name] for one in seen[3:] or seen[-1:]], axis=0)
            np.testing.assert_allclose(weight, expected, rtol=0, atol=1e-12)


def test_applied_lends_the_average_and_gives_the_weights_back():
    model = tiny_model(3)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    average = WeightAverage(model, 0.9)
    walk(model, 1)
    own, averaged = snapshot(model), {k: w.numpy().copy() for k, w in average.weights.items()}
    with average.applied(model):
        for name, weight in snapshot(model).items():
            np.testing.assert_array_equal(weight, averaged[name])
            assert (weight != own[name]).any(), name
    for name, weight in snapshot(model).items():
        np.testing.assert_array_equal(weight, own[name])
    # The optimizer still moves the model, and the model alone.
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, weight in snapshot(model).items():
        np.testing.assert_array_equal(weight, own[name] - 1)
        np.testing.assert_array_equal(average.weights[name], averaged[name])
