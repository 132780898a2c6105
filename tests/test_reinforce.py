"""Hard attention learns from draws: the exact gradient, by listing every draw there can be."""

import itertools
from dataclasses import replace

import pytest
import torch
from conftest import HARD, STACKED, batch_loss, follow, random_batch, random_pairs, tiny_model
from torch import Tensor

from seq2seq.config.schema import Normalize
from seq2seq.data.batching import collate
from seq2seq.model import EncoderDecoder
from seq2seq.model.draws import entry_keys, keyed
from seq2seq.model.hard_attention import rewards_to_go

SOFT = -1
SHARE = 0.3


def script(model: EncoderDecoder, outcome: tuple[int, ...], monkeypatch) -> None:
    """Let the draws of one sentence come out as listed: a position, or SOFT."""
    steps = iter(outcome)

    def draw(alpha: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        choice = torch.tensor([next(steps)])
        return choice.clamp_min(0), choice == SOFT

    monkeypatch.setattr(model.decoder.attention, "draw", draw)


def gradients(model: EncoderDecoder, loss: Tensor) -> dict[str, Tensor]:
    named = {n: p for n, p in model.named_parameters() if "baseline" not in n}
    parameters = list(named.values())
    found = torch.autograd.grad(loss, parameters, materialize_grads=True, retain_graph=True)
    return dict(zip(named, found, strict=True))


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("share", "changes"),
    [*((share, {}) for share in (SHARE, 0.0, 1.0))]
    + [(SHARE, {"decoder": STACKED[kind]}) for kind in ("bottom, one layer", "top")],
)
def test_the_mean_over_all_draws_is_the_gradient_of_the_expected_loss(share, changes, monkeypatch):
    """REINFORCE is unbiased: 3^3 (or 2^3, or 1) outcomes of three steps with two words."""
    cfg = replace(HARD, soft_share=share, entropy_weight=0.0)
    model = tiny_model(3, attention=cfg, **changes).train()
    [(src, tgt)] = random_pairs(3, ((2, 3),))
    batch = collate([(src, tgt)], 0)
    expected_loss = torch.zeros((), dtype=torch.float64)
    mean: dict[str, Tensor] = {}
    for outcome in itertools.product((SOFT, 0, 1), repeat=len(tgt)):
        script(model, outcome, monkeypatch)
        alphas = follow(model, batch).alpha[0]
        script(model, outcome, monkeypatch)
        loss = batch_loss(model, batch)
        chances = [
            share if choice == SOFT else (1 - share) * alpha[choice]
            for choice, alpha in zip(outcome, alphas, strict=True)
        ]
        chance = torch.stack([torch.as_tensor(c, dtype=torch.float64) for c in chances]).prod()
        expected_loss = expected_loss + chance * loss.total  # the path's chance moves
        expected_loss = expected_loss + chance.detach() * (loss.smoothed - loss.total)
        for name, grad in gradients(model, loss.objective(Normalize.none)).items():
            mean[name] = mean.get(name, 0.0) + chance.detach() * grad
    exact = gradients(model, expected_loss)
    for name, grad in exact.items():
        scale = grad.abs().max().clamp_min(1e-6)
        assert ((mean[name] - grad).abs().max() / scale).item() < 1e-10, name
    behind = [exact[f"decoder.attention.{layer}.weight"] for layer in ("W_a", "U_a", "v_a")]
    assert all(grad.abs().max() > 1e-6 for grad in behind)


def drawn(seed: int, **changes) -> tuple[EncoderDecoder, Tensor, tuple[Tensor, ...]]:
    """A model, the loss of its draws, and what was drawn: log_prob, entropy, baseline (N,)."""
    model, batch = tiny_model(seed, attention=replace(HARD, **changes)).train(), random_batch(seed)
    followed = follow(model, batch, seed)
    log_p = model.logits(followed.t).detach().log_softmax(-1)
    log_p = log_p.gather(1, batch.tgt[batch.tgt_mask][:, None]).squeeze(1)
    term = followed.losses["reinforce"]
    reward, left = rewards_to_go(log_p, batch.tgt_mask, HARD.discount)
    return model, term(log_p), (*term.args[1:], reward / left)


@pytest.mark.parametrize("discount", [1.0, 0.5, 0.0])
def test_rewards_are_summed_from_a_word_to_the_end_of_its_own_sentence(discount):
    mask, row = random_batch(4).tgt_mask, 0
    log_p = -torch.rand(int(mask.sum()), dtype=torch.float64)
    reward, left = rewards_to_go(log_p, mask, discount)
    for length in mask.sum(dim=1).tolist():
        for i in range(length):
            expected = sum(discount ** (k - i) * log_p[row + k] for k in range(i, length))
            assert reward[row + i].item() == pytest.approx(expected.item(), abs=1e-12)
            assert left[row + i] == sum(discount ** (k - i) for k in range(i, length))
        row += length


def test_the_baseline_learns_the_mean_reward_and_nothing_else_learns_from_it():
    model, loss, (*_, baseline, mean) = drawn(5, reinforce_weight=0.0, entropy_weight=0.0)
    names = [name for name, _ in model.named_parameters()]
    grads = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    grads = dict(zip(names, grads, strict=True))
    bias = grads.pop("decoder.attention.baseline.bias")
    assert bias.item() == pytest.approx((baseline - mean).sum().item(), rel=1e-10)
    assert grads.pop("decoder.attention.baseline.weight").abs().max() > 1e-6
    assert not any(grad.any() for grad in grads.values())


def test_the_entropy_bonus_makes_weights_more_equal():
    weights = {"reinforce_weight": 0.0, "entropy_weight": 1.0}
    model, loss, (_, entropy, *_) = drawn(6, **weights)
    v_a = model.decoder.attention.v_a.weight
    [grad] = torch.autograd.grad(loss, v_a)
    with torch.no_grad():
        v_a -= 1e-4 * grad
    again = follow(model, random_batch(6), 6).losses["reinforce"].args[2]
    assert again.sum() > entropy.sum()


def test_draws_follow_alpha_and_never_fall_on_padding():
    model = tiny_model(7, attention=replace(HARD, soft_share=0.25))
    alpha = torch.tensor([[0.1, 0.6, 0.3, 0.0]]).double().expand(20_000, -1)
    with keyed(entry_keys(7, 1, len(alpha))):
        position, soft = model.decoder.attention.draw(alpha, torch.zeros(len(alpha), 1).long())
    shares = position.bincount(minlength=4) / len(position)
    # five standard errors of a share
    torch.testing.assert_close(shares, alpha[0].float(), rtol=0, atol=5 * 0.5 / 20_000**0.5)
    assert shares[3] == 0
    assert soft.float().mean().item() == pytest.approx(0.25, abs=5 * 0.5 / 20_000**0.5)
