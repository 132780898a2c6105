"""Dropout by what it promises: its share, its scale, independent numbers, one seed one mask."""

import pytest
import torch

from seq2seq.model.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_share_and_scale(p):
    torch.manual_seed(1)
    found = Dropout(p)(torch.ones(1000, 1001))  # no multiple of four
    share = (found == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * (p * (1 - p) / found.numel()) ** 0.5 + 1e-5)
    assert found.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-3)
    assert found.mean().item() == pytest.approx(1, abs=0.02)


def test_numbers_are_dropped_one_by_one():
    """Neighbours come from one draw of 64 bits, but are dropped as if each had its own."""
    torch.manual_seed(1)
    dropped = (Dropout(0.3)(torch.ones(400_000)) == 0).double().view(-1, 8)
    shares = dropped.mean(dim=0)
    torch.testing.assert_close(shares, torch.full((8,), 0.3).double(), rtol=0, atol=0.01)
    together = dropped.T @ dropped / len(dropped)
    together.fill_diagonal_(0.09)
    torch.testing.assert_close(together, torch.full((8, 8), 0.09).double(), rtol=0, atol=0.01)


def test_a_seed_is_a_mask_and_draws_go_on():
    x, dropout = torch.randn(7, 3), Dropout(0.5)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_the_gradient_has_the_mask_of_the_output(dtype):
    x = torch.randn(5, 4, 3, dtype=dtype).requires_grad_()
    found = Dropout(0.5)(x)
    [grad] = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(x.detach() * grad, found.detach())
    assert found.dtype is dtype


@pytest.mark.parametrize("p", [0.0, 0.4])
def test_nothing_is_dropped_where_nothing_should_be(p):
    x = torch.randn(4, 5)
    assert Dropout(p).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert Dropout(1e-7)(x) is x
    assert Dropout(0.999999)(x).isfinite().all()
    assert Dropout(p)(x[:0]).shape == (0, 5)
