"""Hard attention learns from draws: the exact gradient, by listing every draw there can be."""

import itertools
from dataclasses import replace

import pytest
import torch
from conftest import HARD, random_batch, random_pairs, tiny_model
from torch import Tensor

from seq2seq.config.schema import Normalize
from seq2seq.data.batching import collate
from seq2seq.model import RNNSearch
from seq2seq.training.loss import nll
from seq2seq.training.reinforce import draws_cost, rewards_to_go

SOFT = -1
SHARE = 0.3


def script(model: RNNSearch, outcome: tuple[int, ...], monkeypatch) -> None:
    """Let the draws of one sentence come out as listed: a position, or SOFT."""
    steps = iter(outcome)

    def draw(alpha: Tensor) -> tuple[Tensor, Tensor]:
        choice = torch.tensor([next(steps)])
        return choice.clamp_min(0), choice == SOFT

    monkeypatch.setattr(model.decoder.attention, "draw", draw)


def gradients(model: RNNSearch, cost: Tensor) -> dict[str, Tensor]:
    """By name; the baseline, which the expected cost does not know, left out."""
    named = {n: p for n, p in model.named_parameters() if "baseline" not in n}
    parameters = list(named.values())
    found = torch.autograd.grad(cost, parameters, materialize_grads=True, retain_graph=True)
    return dict(zip(named, found, strict=True))


@pytest.mark.parametrize("share", [SHARE, 0.0, 1.0])
def test_the_mean_over_all_draws_is_the_gradient_of_the_expected_cost(share, monkeypatch):
    """REINFORCE is unbiased: 3^3 (or 2^3, or 1) outcomes of three looks at two words."""
    cfg = replace(HARD, soft_share=share, entropy_weight=0.0)
    model = tiny_model(3, attention=cfg).train()
    [(src, tgt)] = random_pairs(3, ((2, 3),))
    batch = collate([(src, tgt)], 0)
    expected_cost = torch.zeros((), dtype=torch.float64)
    mean: dict[str, Tensor] = {}
    for outcome in itertools.product((SOFT, 0, 1), repeat=len(tgt)):
        script(model, outcome, monkeypatch)
        output = model(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
        loss = nll(output, batch)
        chances = [
            share if choice == SOFT else (1 - share) * alpha[choice]
            for choice, alpha in zip(outcome, output.alpha[0], strict=True)
        ]
        chance = torch.stack([torch.as_tensor(c, dtype=torch.float64) for c in chances]).prod()
        expected_cost = expected_cost + chance * loss.nll.detach()  # the path's chance moves
        expected_cost = expected_cost + chance.detach() * (loss.smoothed - loss.nll.detach())
        with_draws = replace(loss, draws=draws_cost(output, batch, cfg))
        for name, grad in gradients(model, with_draws.objective(Normalize.none)).items():
            mean[name] = mean.get(name, 0.0) + chance.detach() * grad
    exact = gradients(model, expected_cost)
    for name, grad in exact.items():
        scale = grad.abs().max().clamp_min(1e-6)
        assert ((mean[name] - grad).abs().max() / scale).item() < 1e-10, name
    behind = [exact[f"decoder.attention.{layer}.weight"] for layer in ("W_a", "U_a", "v_a")]
    assert all(grad.abs().max() > 1e-6 for grad in behind)


def drawn(seed: int, **changes):
    cfg = replace(HARD, **changes)
    model, batch = tiny_model(seed, attention=cfg).train(), random_batch(seed)
    torch.manual_seed(seed)
    output = model(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
    return cfg, model, batch, output


@pytest.mark.parametrize("discount", [1.0, 0.5, 0.0])
def test_rewards_are_summed_from_a_word_to_the_end_of_its_own_sentence(discount):
    _, _, batch, output = drawn(4)
    reward, left = rewards_to_go(output.logits.detach(), batch, discount)
    log_p = output.logits.detach().log_softmax(-1)
    log_p = log_p.gather(1, batch.tgt[batch.tgt_mask][:, None]).squeeze(1)
    row = 0
    for length in batch.tgt_mask.sum(dim=1).tolist():
        for i in range(length):
            expected = sum(discount ** (k - i) * log_p[row + k] for k in range(i, length))
            assert reward[row + i].item() == pytest.approx(expected.item(), abs=1e-12)
            assert left[row + i] == sum(discount ** (k - i) for k in range(i, length))
        row += length


def test_the_baseline_learns_the_mean_reward_and_nothing_else_learns_from_it():
    cfg, model, batch, output = drawn(5, reinforce_weight=0.0, entropy_weight=0.0)
    cost = draws_cost(output, batch, cfg)
    reward, left = rewards_to_go(output.logits.detach(), batch, cfg.discount)
    error = output.draw.baseline[batch.tgt_mask] - reward / left
    grads = dict(
        zip(
            (n for n, _ in model.named_parameters()),
            torch.autograd.grad(cost, list(model.parameters()), materialize_grads=True),
            strict=True,
        )
    )
    bias = grads.pop("decoder.attention.baseline.bias")
    assert bias.item() == pytest.approx(error.sum().item(), rel=1e-10)
    assert grads.pop("decoder.attention.baseline.weight").abs().max() > 1e-6
    assert not any(grad.any() for grad in grads.values())


def test_the_entropy_bonus_makes_weights_more_equal():
    cfg, model, batch, output = drawn(6, reinforce_weight=0.0, entropy_weight=1.0, soft_share=0.5)
    before = output.draw.entropy[batch.tgt_mask].sum()
    v_a = model.decoder.attention.v_a.weight
    [grad] = torch.autograd.grad(draws_cost(output, batch, cfg), v_a)
    with torch.no_grad():
        v_a -= 1e-4 * grad
    torch.manual_seed(6)
    again = model(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
    assert again.draw.entropy[batch.tgt_mask].sum() > before


def test_draws_follow_alpha_and_never_fall_on_padding():
    model = tiny_model(7, attention=replace(HARD, soft_share=0.25))
    alpha = torch.tensor([[0.1, 0.6, 0.3, 0.0]]).double().expand(20_000, -1)
    torch.manual_seed(7)
    position, soft = model.decoder.attention.draw(alpha)
    shares = position.bincount(minlength=4) / len(position)
    # five standard errors of a share
    torch.testing.assert_close(shares, alpha[0].float(), rtol=0, atol=5 * 0.5 / 20_000**0.5)
    assert shares[3] == 0
    assert soft.float().mean().item() == pytest.approx(0.25, abs=5 * 0.5 / 20_000**0.5)


def test_only_training_draws():
    _, model, batch, output = drawn(8)
    assert output.draw is not None
    model.eval()
    assert model(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask).draw is None
