"""Fused recurrences against the loops of `model/`: the same values, the same gradients."""

import itertools
import logging
from collections.abc import Callable

import pytest
import torch
from conftest import FAMILY, VOCAB, batch_loss, follow, random_batch, tiny_model
from torch import Tensor
from torch.nn import functional

from seq2seq.config.schema import Backend, GatedConfig, LSTMConfig, Normalize, Reset, StateWord
from seq2seq.data.batching import Batch
from seq2seq.kernels import matmul
from seq2seq.kernels.backend import Fused
from seq2seq.kernels.matmul import PackedWeight
from seq2seq.kernels.native import onednn
from seq2seq.kernels.packing import Packing
from seq2seq.kernels.search import FusedSearch
from seq2seq.kernels.unroll import AttentiveScan
from seq2seq.model import EncoderDecoder, recurrence
from seq2seq.model import backend as backends
from seq2seq.model.output import smoothed_loss
from seq2seq.run.errors import ConfigError

TOLERANCE = 1e-12  # float64
READINGS = [(state_word, reset) for state_word in StateWord for reset in Reset]
BATCHES = {
    "ragged": ((4, 3), (1, 5), (5, 1), (2, 2)),
    "one sentence": ((3, 4),),
    "one token each": ((1, 1), (1, 1)),
    "equal": ((3, 3), (3, 3)),
    "one source token": ((1, 6), (1, 2)),
}


def close(actual: Tensor, expected: Tensor, note: str) -> None:
    torch.testing.assert_close(
        actual, expected, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text: f"{note}: {text}"
    )


def pair(seed: int, **changes) -> tuple[EncoderDecoder, EncoderDecoder]:
    """The same weights on both backends."""
    fused = tiny_model(seed, backend=Backend.fused, **changes)
    reference = tiny_model(seed, backend=Backend.reference, **changes)
    assert isinstance(fused.decoder.backend, Fused)
    assert type(reference.decoder.backend) is backends.Backend
    for name, parameter in reference.named_parameters():
        assert torch.equal(parameter, fused.get_parameter(name))
    return fused, reference


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def costly(
    model: EncoderDecoder, batch: Batch, seed: int, draws: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, alpha, and a loss that leans on both, so that gradients come through both."""
    followed = follow(model, batch, draws)
    logits, targets = model.logits(followed.t), batch.tgt[batch.tgt_mask]
    _, loss = smoothed_loss(logits, targets, 0.0)
    alpha = followed.alpha * batch.tgt_mask[..., None]  # kernels leave padding out
    return logits, alpha, loss + (random(*alpha.shape, seed=seed) * alpha).sum()


def compare(
    model: EncoderDecoder, other: EncoderDecoder, batch: Batch, seed: int, note: str
) -> None:
    results = [costly(m, batch, seed) for m in (model, other)]
    for what, actual, expected in zip(("logits", "alpha", "loss"), *results, strict=True):
        close(actual, expected, f"{note}, {what}")
    names = [name for name, _ in other.named_parameters()]
    gradients = [
        torch.autograd.grad(result[-1], list(m.parameters()), materialize_grads=True)
        for m, result in zip((model, other), results, strict=True)
    ]
    for name, actual, expected in zip(names, *gradients, strict=True):
        close(actual, expected, f"{note}, gradient of {name}")
        assert expected.abs().max() > 1e-9 or len(batch.src[0]) == 1, f"{note}: {name} is not tried"


@pytest.mark.parametrize("sizes", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize(("state_word", "reset"), READINGS)
@pytest.mark.parametrize("kind", ["additive", "fixed", "uniform"])
def test_fused_equals_the_loops(kind, state_word, reset, sizes):
    fused, reference = pair(1, attention=FAMILY[kind], state_word=state_word, reset=reset)
    compare(fused, reference, random_batch(1, sizes), 1, kind)


@pytest.mark.parametrize("reset", Reset)
def test_fused_equals_the_loops_with_dropout(reset):
    """Both draw the same masks from the same keys."""
    dropouts = {f"{name}_dropout": 0.4 for name in ("embedding", "annotation", "readout")}
    fused, reference = pair(3, reset=reset, **dropouts)
    batch = random_batch(3)
    found = []
    for model in (fused, reference):
        logits, alpha, loss = costly(model.train(), batch, 3)
        found.append((logits, alpha, *torch.autograd.grad(loss, list(model.parameters()))))
    for i, (actual, expected) in enumerate(zip(*found, strict=True)):
        close(actual, expected, f"result {i}")
    assert not torch.equal(costly(fused, batch, 3, 6)[0], found[0][0]), "no dropout was drawn"


@pytest.mark.parametrize("kind", sorted(set(FAMILY) - {"additive", "fixed", "uniform"}))
def test_other_kinds_keep_the_loop_of_the_decoder_alone(kind):
    model = tiny_model(1, attention=FAMILY[kind], align_size=6, backend=Backend.auto)
    name, batch = type(model.decoder.attention).__name__, random_batch(1)
    assert model.backend.obstacle(model.encoder, model.decoder) == f"{name} has no fused kernel"
    reference = tiny_model(1, attention=FAMILY[kind], align_size=6)
    if "hard" not in kind:  # whose baseline has no gradient here
        compare(model, reference, batch, 1, kind)
    fix = r"Use model\.backend=auto\.$"
    with pytest.raises(ConfigError, match=rf"model.backend=fused: {name} has no .*kernel\. {fix}"):
        tiny_model(1, attention=FAMILY[kind], align_size=6, backend=Backend.fused)


def test_no_bias_and_plain_output():
    fused, reference = pair(4, bias=False, embedding_bias=False, output_rank=None)
    compare(fused, reference, random_batch(4), 4, "no bias")


# The output layer -------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_bytes", [1, 8 * VOCAB * 40, 1 << 23])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("changes", [{}, {"output_rank": None}, {"bias": False}], ids=str)
def test_costs_are_equal_in_chunks(monkeypatch, changes, smoothing, chunk_bytes):
    monkeypatch.setattr("seq2seq.kernels.output_layer._CHUNK_BYTES", chunk_bytes)
    fused, reference = pair(11, **changes)
    batch = random_batch(11, [(2, 9), (3, 30), (5, 22)])
    losses = [batch_loss(model, batch, smoothing) for model in (fused, reference)]
    close(losses[0].total, losses[1].total, "loss")
    gradients = [
        torch.autograd.grad(3 * loss.smoothed, list(model.parameters()), materialize_grads=True)
        for model, loss in zip((fused, reference), losses, strict=True)
    ]
    for (name, _), actual, expected in zip(fused.named_parameters(), *gradients, strict=True):
        close(actual, expected, f"gradient of {name}")
    with torch.no_grad():
        close(batch_loss(fused, batch, smoothing).smoothed, losses[1].smoothed, "without gradients")


# Parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    "cell",
    [GatedConfig(), GatedConfig(reset=Reset.after), LSTMConfig()],
    ids=["before", "after", "lstm"],
)
def test_encoders_are_equal_on_real_positions(cell, started, monkeypatch):
    monkeypatch.setattr(recurrence, "read", None)  # kernels have no need of it
    fused, reference = (
        tiny_model(5, backend=backend, cell=cell) for backend in (Backend.auto, Backend.reference)
    )
    batch = random_batch(5)
    Ex = random(*batch.src.shape, 3, seed=5).requires_grad_()
    start = random(len(batch.src), 4, seed=7).requires_grad_() if started else None
    inputs = [x for x in (Ex, start) if x is not None]
    weight = random(*batch.src.shape, 8, seed=6) * batch.src_mask[..., None]
    found = []
    for model in (fused, reference):
        encoder = model.encoder
        units = [encoder.forward_unit, encoder.backward_unit]
        h_fwd, h_bwd = encoder.backend.read(units, Ex, batch.src_mask, start)
        h = torch.cat([h_fwd, h_bwd], dim=-1)
        gradients = torch.autograd.grad((weight * h).sum(), inputs)
        found.append((h[batch.src_mask], h_bwd[:, 0], *gradients))
    names = ("h", "h_bwd", "gradient of Ex", "gradient of the start")
    for what, actual, expected in zip(names, *found, strict=False):
        close(actual, expected, what)
    padding = found[0][2][~batch.src_mask]
    assert padding.numel()
    assert not padding.any(), "a gradient reaches padding"


# Gradients against finite differences, and nothing else -----------------------------------------


def checked(scan: Callable[..., object], *tensors: Tensor) -> bool:
    for tensor in tensors:
        tensor.requires_grad_()
    return torch.autograd.gradcheck(scan, tensors, eps=1e-6, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("large", [1, 50])
@pytest.mark.parametrize("reset_before", [True, False])
def test_gradcheck_of_the_decoder(reset_before, large):
    """Also where keys are too large for exponentials."""
    packing = Packing.of(torch.arange(3) < torch.tensor([3, 1])[:, None])
    Tx, B, n, n_align = 3, 2, 2, 3
    shapes = [(4, 3 * n), (B, Tx, n_align), (B, Tx, 3 * n), (B, n)]
    shapes += [(n_align + 2 * n, n), (n, n), (n_align,)]
    projected, keys, values, *rest = (random(*shape, seed=i) for i, shape in enumerate(shapes))
    keys[0, 0, 0] *= large
    mask = torch.tensor([[True, True, True], [True, False, False]])

    def scan(projected, keys, values, s_0, *rest):
        options = packing, reset_before, torch.float64
        return AttentiveScan.apply(projected, keys, values, s_0, mask, *rest, options)

    assert checked(scan, projected, keys, values, *rest)
    # No alpha on padding, so no gradient to what stands there.
    outputs = scan(projected, keys, values, *rest)
    assert not packing.unpack(outputs[1], packing.ranked).mT[~mask].any()
    for gradient in torch.autograd.grad(sum(o.sum() for o in outputs), [keys, values]):
        assert not gradient[~mask].any()
        assert gradient[mask].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("without", [False, True])
@pytest.mark.parametrize("directions", [(), (2,)], ids=["one", "two directions"])
def test_factors_multiply_by_the_transposed_weight(monkeypatch, directions, without, dtype):
    if without:
        monkeypatch.setattr(onednn, "multiplies", lambda dtype: False)
    x, weight = random(*directions, 5, 7, seed=1), random(*directions, 3, 7, seed=2).to(dtype)
    expected = x.to(dtype).double() @ weight.double().mT
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
    for given, often in itertools.product((weight, weight.mT.contiguous().mT), (True, False)):
        factor = PackedWeight(given, dtype, often=often)
        found = factor(x)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
        base = random(*directions, 5, 3, seed=3).to(torch.promote_types(dtype, torch.float32))
        more = factor.plus(base.clone(), x)
        assert more.dtype == base.dtype
        torch.testing.assert_close(more.double(), base + expected, rtol=0, atol=tolerance)


def test_onednn_is_used_where_torch_brings_it():
    """Its operations are not public: with a torch that has others, this says so."""
    assert onednn.multiplies(torch.float32) == torch.backends.mkldnn.is_available()
    assert not onednn.multiplies(torch.float64)
    packed = PackedWeight(random(3, 7, seed=1), torch.float32)._packed is not None
    assert packed == torch.backends.mkldnn.is_available()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (8, 7), (0, 7)], ids=str)
def test_linear_is_torchs(shape, bias, dtype):
    x, weight, b = (random(*s, seed=i) for i, s in enumerate([shape, (3, 7), (3,)]))
    found = []
    for by in (matmul.linear, functional.linear):
        given = [y.detach().float().requires_grad_() for y in (x, weight, b)][: 2 + bias]
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            y = by(*given)
        found.append([y, *torch.autograd.grad((y * torch.cos(y)).float().sum(), given)])
    tolerance = 1e-5 if dtype is torch.float32 else 3e-2  # of sums of up to 80 products near 1
    for actual, expected in zip(*found, strict=True):
        assert actual.dtype is expected.dtype
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    frozen = torch.randn(3, 7)
    assert matmul.linear(given[0], frozen).grad_fn is not None  # what needs none is left out
    torch.autograd.grad(matmul.linear(given[0], frozen).sum(), given[0])


# Compute dtypes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("state_word", "reset"), READINGS)
def test_bf16_products_around_float32_recurrences(state_word, reset):
    fused, reference = (model.float() for model in pair(7, state_word=state_word, reset=reset))
    batch = random_batch(7)
    with torch.autocast("cpu", torch.bfloat16):
        followed = follow(fused, batch)
        logits = fused.logits(followed.t)
        loss = batch_loss(fused, batch).objective(Normalize.words)
    assert followed.alpha.dtype == torch.float32
    assert logits.dtype == torch.bfloat16  # autocast was on
    loss.backward()
    exact = follow(reference, batch)
    # bfloat16 keeps 8 bits: 0.4 % a product, over a few layers.
    real = batch.tgt_mask
    torch.testing.assert_close(followed.alpha[real], exact.alpha[real], rtol=0, atol=0.05)
    torch.testing.assert_close(logits.float(), reference.logits(exact.t), rtol=0.05, atol=0.1)
    batch_loss(reference, batch).objective(Normalize.words).backward()
    for name, parameter in fused.named_parameters():
        expected = reference.get_parameter(name).grad
        assert parameter.grad.dtype == torch.float32
        bound = 0.1 * expected.abs().max().item() + 0.01
        assert (parameter.grad - expected).abs().max().item() < bound, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("state_word", "reset"), READINGS)
def test_fused_equals_the_loops_on_cuda(state_word, reset):
    fused, reference = (m.cuda() for m in pair(9, state_word=state_word, reset=reset))
    batch = random_batch(9).to(torch.device("cuda"))
    results = []
    for model in (fused, reference):
        followed = follow(model, batch)
        loss = batch_loss(model, batch).objective(Normalize.none) + followed.alpha.square().sum()
        results.append([followed.t, *torch.autograd.grad(loss, list(model.parameters()))])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


# Which backend runs -----------------------------------------------------------------------------


def test_what_runs_on_the_reference_is_said_in_one_line(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)  # a run turns it off
    with caplog.at_level(logging.INFO, "seq2seq"):
        tiny_model(1, backend=Backend.auto)
        tiny_model(1, backend=Backend.reference, attention=FAMILY["dot"])
        tiny_model(1, backend=Backend.auto, attention=FAMILY["dot"])
    assert caplog.messages == [
        "runs on the reference code in part: DotAttention has no fused kernel"
    ]


def test_a_subclass_changes_the_rules_and_runs_on_the_reference():
    class Other(type(tiny_model(1).decoder.unit)):
        pass

    model, reference = (tiny_model(1, backend=Backend[name]) for name in ("auto", "reference"))
    for each in (model, reference):
        each.decoder.unit.__class__ = each.encoder.forward_unit.__class__ = Other
    assert model.backend.obstacle(model.encoder, model.decoder) == "Other has no fused kernel"
    assert not isinstance(model.for_search(), FusedSearch)
    compare(model, reference, random_batch(1), 1, "a subclass")
