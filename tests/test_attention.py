"""The attention against a loop, and its softmax at the edges."""

import numpy as np
import pytest
import torch
from conftest import FAMILY, follow, random_batch, tiny_model
from torch import nn

from seq2seq.config.schema import Backend
from seq2seq.model.attention import AdditiveAttention, masked_softmax
from seq2seq.model.protocols import Memory, Source

LENGTHS = (4, 1, 6, 3)
NUM_QUERY, NUM_ANNOTATION, NUM_ALIGN = 3, 8, 5


def mask_of(lengths) -> torch.Tensor:
    return torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def attention_and_source(
    seed: int, dtype=torch.float64
) -> tuple[AdditiveAttention, torch.Tensor, Source]:
    """Every weight N(0, 1); annotations are alive on the padding too."""
    torch.manual_seed(seed)
    attention = AdditiveAttention(NUM_QUERY, NUM_ANNOTATION, NUM_ALIGN).to(dtype)
    for weight in attention.parameters():
        nn.init.normal_(weight)
    mask = mask_of(LENGTHS)
    h = torch.randn(*mask.shape, NUM_ANNOTATION, dtype=dtype)
    source = attention.prepare(Memory(states=h, summary=h[:, 0], mask=mask))
    return attention, torch.randn(len(mask), NUM_QUERY, dtype=dtype), source


def test_additive_is_the_loop():
    for seed in range(5):
        attention, query, source = attention_and_source(seed)
        with torch.no_grad():
            attended = attention(query=query, source=source)
        W_a, U_a, v_a = (
            getattr(attention, name).weight.detach().numpy() for name in ("W_a", "U_a", "v_a")
        )
        for b, length in enumerate(LENGTHS):
            energy = []
            for j in range(length):
                hidden = W_a @ query[b].numpy() + U_a @ source.values[b, j].numpy()
                energy.append(sum(v_a[0, k] * np.tanh(hidden[k]) for k in range(NUM_ALIGN)))
            alpha = [np.exp(e) / sum(np.exp(energy)) for e in energy]
            c = sum(alpha[j] * source.values[b, j].numpy() for j in range(length))
            note = f"seed {seed}, sentence {b}"
            np.testing.assert_allclose(attended.alpha[b, :length], alpha, atol=1e-14, err_msg=note)
            np.testing.assert_allclose(attended.c[b], c, atol=1e-13, err_msg=note)
            assert (attended.alpha[b, length:] == 0).all(), note


def test_attention_has_three_matrices_and_no_bias():
    attention = AdditiveAttention(NUM_QUERY, NUM_ANNOTATION, NUM_ALIGN)
    assert {name: tuple(p.shape) for name, p in attention.named_parameters()} == {
        "W_a.weight": (NUM_ALIGN, NUM_QUERY),
        "U_a.weight": (NUM_ALIGN, NUM_ANNOTATION),
        "v_a.weight": (1, NUM_ALIGN),
    }


@pytest.mark.parametrize("garbage", [-torch.inf, torch.inf, torch.nan, 1e30])
def test_what_lies_on_the_padding_does_not_matter(garbage):
    mask = mask_of(LENGTHS)
    torch.manual_seed(1)
    energy = torch.randn(mask.shape, dtype=torch.float64)
    dirty = energy.masked_fill(~mask, garbage).requires_grad_()
    alpha = masked_softmax(dirty, mask)
    for b, length in enumerate(LENGTHS):
        assert torch.equal(alpha[b, length:], torch.zeros(max(LENGTHS) - length).double())
        torch.testing.assert_close(alpha[b, :length], energy[b, :length].softmax(0))
    (alpha * torch.randn_like(alpha)).sum().backward()
    assert dirty.grad.isfinite().all()
    assert (dirty.grad[~mask] == 0).all()
    assert (dirty.grad[mask] != 0).sum() == sum(LENGTHS) - 1  # a lone word has weight 1 always


def test_padding_stays_below_the_lowest_energy():
    """A large negative number in place of minus infinity would win here."""
    alpha = masked_softmax(torch.tensor([[-3e38, 0.0]]), torch.tensor([[True, False]]))
    assert alpha.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        (torch.bfloat16, torch.float32),  # Precision.bf16 keeps the softmax in float32
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_number_format_of_weights_and_context(given, weights):
    attention, query, source = attention_and_source(3, dtype=given)
    attended = attention(query=query, source=source)
    assert attended.alpha.dtype == weights
    assert attended.c.dtype == given
    # Not merely cast at the end: rows of bf16 weights would miss 1 by about 1e-3.
    error = (attended.alpha.sum(dim=-1) - 1).abs().max().item()
    assert error < 1e-6


@pytest.mark.parametrize("backend", [Backend.reference, Backend.fused], ids=lambda b: b.name)
@pytest.mark.parametrize("kind", FAMILY)
def test_O4_ten_thousand_rows_are_distributions(kind, backend):
    """In float32, over all kinds together at least 10,000: sums, and zeros on padding."""
    if backend is Backend.fused and kind not in ("additive", "fixed", "uniform"):
        backend = Backend.auto
    model = tiny_model(5, attention=FAMILY[kind], align_size=4, backend=backend, scale=2.0).float()
    rows = 0
    for seed in range(4):
        sizes = np.random.default_rng(seed).integers(1, 30, (32, 2)).tolist()
        batch = random_batch(seed, sizes)
        with torch.no_grad():
            alpha = follow(model, batch).alpha
        padding = ~batch.src_mask[:, None].expand_as(alpha)
        assert (alpha[padding] == 0).all()
        assert (alpha >= 0).all()
        sums = alpha[batch.tgt_mask].double().sum(dim=-1)
        if kind == "local":  # its Gaussian is not normalised again
            assert (sums <= 1 + 1e-5).all()
        else:
            torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
        rows += len(sums)
    assert rows * 2 * len(FAMILY) >= 10_000
