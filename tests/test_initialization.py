"""How weights start, line by line of B.1, and how many there are."""

import math

import pytest
import torch
from conftest import PAD, TINY, batch_loss, follow, random_batch, with_values

from seq2seq.config.schema import InitialWeights, Normalize
from seq2seq.model import EncoderDecoder, build_model

SIZES = {"embedding_size": 48, "hidden_size": 64, "align_size": 80, "readout_size": 40}
VOCAB = 300


def medium_model(seed: int, **changes) -> EncoderDecoder:
    torch.manual_seed(seed)
    cfg = with_values(TINY, **SIZES, output_rank=32, **changes)
    return build_model(cfg, num_source=VOCAB, num_target=VOCAB - 1, pad=PAD)


ZERO, ORTHOGONAL = "zero", "orthogonal"

# Every parameter, and its line of B.1: a number is the deviation of a Gaussian around 0.
PAPER = {
    "encoder.embedding.E.weight": 0.01,
    "encoder.embedding.bias": ZERO,
    **{
        f"encoder.{direction}_unit.{letter}": start
        for direction in ("forward", "backward")
        for letter, start in (
            ("W.weight", 0.01),
            ("W.bias", ZERO),
            ("W_z.weight", 0.01),
            ("W_r.weight", 0.01),
            ("U.weight", ORTHOGONAL),
            ("U_z.weight", ORTHOGONAL),
            ("U_r.weight", ORTHOGONAL),
        )
    },
    "decoder.embedding.E.weight": 0.01,
    "decoder.embedding.bias": ZERO,
    "decoder.attention.W_a.weight": 0.001,
    "decoder.attention.U_a.weight": 0.001,
    "decoder.attention.v_a.weight": ZERO,
    "decoder.unit.W.weight": 0.01,
    "decoder.unit.W.bias": ZERO,
    "decoder.unit.W_z.weight": 0.01,
    "decoder.unit.W_r.weight": 0.01,
    "decoder.unit.U.weight": ORTHOGONAL,
    "decoder.unit.U_z.weight": ORTHOGONAL,
    "decoder.unit.U_r.weight": ORTHOGONAL,
    "decoder.unit.C.weight": 0.01,
    "decoder.unit.C_z.weight": 0.01,
    "decoder.unit.C_r.weight": 0.01,
    "decoder.W_s.weight": 0.01,
    "decoder.W_s.bias": ZERO,
    "decoder.U_o.weight": 0.01,
    "decoder.U_o.bias": ZERO,
    "decoder.V_o.weight": 0.01,
    "decoder.C_o.weight": 0.01,
    "decoder.W_o.0.weight": 0.01,
    "decoder.W_o.1.weight": 0.01,
    "decoder.W_o.1.bias": ZERO,
}


def without_first_word(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Leave out the row of y_0, which is zero by decision."""
    return weight[PAD + 1 :] if name.endswith(".E.weight") else weight


def assert_gaussian(name: str, weight: torch.Tensor, std: float) -> None:
    """Mean, deviation and fourth moment, within five standard errors."""
    x = without_first_word(name, weight).double().flatten() / std
    size = x.numel()
    assert x.mean().item() == pytest.approx(0, abs=5 / math.sqrt(size)), name
    assert x.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * size)), name
    # 3 for a Gaussian, 1.8 for a uniform variable
    assert (x**4).mean().item() == pytest.approx(3, abs=5 * math.sqrt(96 / size)), name


def assert_orthogonal(name: str, weight: torch.Tensor) -> None:
    identity = torch.eye(len(weight))
    torch.testing.assert_close(weight @ weight.T, identity, rtol=0, atol=1e-5, msg=name)
    # Haar-random, no permutation: entries have mean square 1/n and none is near 1.
    assert weight.abs().max().item() < 0.9, name
    assert weight.mean().item() == pytest.approx(0, abs=5 / len(weight) ** 1.5), name


@torch.no_grad()
def test_b1_line_by_line():
    model = medium_model(1, init=InitialWeights.paper)
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(PAPER)
    assert len(PAPER) == 40  # as many tensors as the authors' model has
    for name, start in PAPER.items():
        match start:
            case "zero":
                assert (parameters[name] == 0).all(), name
            case "orthogonal":
                assert_orthogonal(name, parameters[name])
            case std:
                assert_gaussian(name, parameters[name], std)


@torch.no_grad()
def test_glorot_line_by_line():
    model = medium_model(2, init=InitialWeights.glorot)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert (weight == 0).all(), name
        elif PAPER[name] is ORTHOGONAL:
            assert_orthogonal(name, weight)
        elif name.endswith(".E.weight"):
            assert_gaussian(name, weight, SIZES["embedding_size"] ** -0.5)
        else:
            bound = math.sqrt(6 / sum(weight.shape))
            x = weight.double().flatten() / bound
            assert x.abs().max().item() <= 1 + 1e-6, name
            assert x.mean().item() == pytest.approx(0, abs=5 / math.sqrt(3 * x.numel())), name
            # 1/3, with variance 4/45
            tolerance = 5 * math.sqrt(4 / 45 / x.numel())
            assert (x**2).mean().item() == pytest.approx(1 / 3, abs=tolerance), name


@pytest.mark.parametrize("init", InitialWeights)
@torch.no_grad()
def test_row_of_y_0_is_zero_with_any_pad(init):
    for pad in (0, 3):
        cfg = with_values(TINY, init=init)
        model = build_model(cfg, num_source=9, num_target=9, pad=pad)
        for side in (model.encoder, model.decoder):
            alive = (side.embedding.E.weight != 0).any(dim=1)
            assert alive.tolist() == [row != pad for row in range(9)]


@pytest.mark.parametrize("init", InitialWeights)
def test_weights_follow_from_the_seed(init):
    first, again, other = (dict(medium_model(s, init=init).named_parameters()) for s in (5, 5, 6))
    for name, weight in first.items():
        assert torch.equal(weight, again[name]), name
        assert (weight == 0).all() or not torch.equal(weight, other[name]), name


def test_the_first_attention_is_exactly_uniform():
    model, batch = medium_model(8), random_batch(8, ((5, 4), (1, 2), (3, 6)))
    with torch.no_grad():
        alpha = follow(model, batch).alpha
    lengths = batch.src_mask.sum(dim=1)
    expected = batch.src_mask / lengths[:, None].float()
    assert torch.equal(alpha, expected[:, None].expand_as(alpha))


@pytest.mark.parametrize("init", InitialWeights)
def test_the_first_gradients_are_finite_and_wake_v_a(init):
    model, batch = medium_model(9, init=init), random_batch(9, ((5, 4), (1, 2), (3, 6)))
    batch_loss(model, batch).objective(Normalize.none).backward()
    asleep = set()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        if not parameter.grad.any():
            asleep.add(name)
    # With v_a = 0 nothing reaches the matrices behind it; v_a itself moves first.
    behind = {"decoder.attention.W_a.weight", "decoder.attention.U_a.weight"}
    assert asleep == (behind if init is InitialWeights.paper else set())


PAPER_SIZES = {"embedding_size": 620, "hidden_size": 1000, "align_size": 1000, "readout_size": 500}
PRINTED = {"bias": False, "embedding_bias": False, "output_rank": None}
AUTHORS = {"bias": True, "embedding_bias": True, "output_rank": 620}


# sizes, switches, K on both sides, parameters; section 4 of the reference has the sums
COUNTS = [
    (PAPER_SIZES, PRINTED, 30_000, 80_401_000),
    (PAPER_SIZES, AUTHORS, 30_001, 84_349_101),  # counted in the authors' running model
    (PAPER_SIZES, AUTHORS | {"output_rank": None}, 30_001, 80_438_981),
]


@pytest.mark.parametrize(("sizes", "switches", "vocab", "expected"), COUNTS)
def test_number_of_parameters(monkeypatch, sizes, switches, vocab, expected):
    monkeypatch.setattr(EncoderDecoder, "initialize", lambda model, scheme: None)  # shapes alone
    with torch.device("meta"):
        cfg = with_values(TINY, **sizes, **switches)
        model = build_model(cfg, num_source=vocab, num_target=vocab, pad=PAD)
    assert sum(p.numel() for p in model.parameters()) == expected
