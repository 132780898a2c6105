"""Triton's steps of the recurrences against torch's, value by value, and whole scans on both.

On a GPU as they are (`-m gpu`), elsewhere in Triton's interpreter, which has to be chosen before
Triton is imported: `TRITON_INTERPRET=1 pytest tests/test_triton.py`, as the first test does.
"""

import importlib.util
import logging
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seq2seq.kernels import gpu, scan, unroll
from seq2seq.kernels.packing import Packing
from seq2seq.kernels.steps import Kept, Looked, Steps, TorchSteps, steps_for

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
WITHOUT = "Triton is not installed (Linux on x86-64 only)"
on_device = [] if INTERPRETED else [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]  # fmt: skip
on_device.append(pytest.mark.skipif(not HAS_TRITON, reason=WITHOUT))


def on_triton(test):
    """Marks a test that launches programs."""
    for mark in on_device:
        test = mark(test)
    return test


DEVICE = torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")
B, D = 4, 2
# (Tx, n', n): less than a block of positions (16) or units (64), a little more, one.
SIZES = [(5, 7, 6), (19, 70, 66), (16, 64, 64), (1, 1, 1)]
FORMATS = [torch.float32, torch.bfloat16]


@pytest.mark.e2e
@pytest.mark.skipif(not HAS_TRITON, reason=WITHOUT)
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_programs_are_right_in_the_interpreter():
    here = Path(__file__)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", here],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=here.parents[1],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def triton_steps() -> Steps:
    from seq2seq.kernels.gpu.steps import TritonSteps

    return TritonSteps()


class Draws:
    """Random tensors, the same for a seed."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(DEVICE, dtype)


def close(actual: Tensor, expected: Tensor, note: str, tolerance: float = 1e-4) -> None:
    assert actual.isfinite().all(), note
    scale = expected.abs().amax().item() if expected.numel() else 0.0
    torch.testing.assert_close(
        actual.to(expected.dtype),
        expected,
        rtol=tolerance,
        atol=tolerance * max(scale, 1e-6) / 2,
        msg=lambda text: f"{note}: {text}",
    )


def filled_with_nan(*shape: int) -> Tensor:
    return torch.full(shape, torch.nan, device=DEVICE)


def kept_for(*shape: int, reset_before: bool) -> Kept:
    kept = Kept.empty(filled_with_nan(*shape), reset_before=reset_before)
    return Kept(*(getattr(kept, f.name).fill_(torch.nan) for f in fields(kept)))


def masks(Tx: int) -> Tensor:
    """Real positions (B, Tx): all, one, with a hole, fewer."""
    lengths = torch.tensor([Tx, 1, max(1, Tx - 1), max(1, Tx // 2)])
    mask = torch.arange(Tx) < lengths[:, None]
    if Tx > 2:
        mask[2, 0] = False
    return mask.to(DEVICE)


# Step by step -----------------------------------------------------------------------------------


@on_triton
@pytest.mark.parametrize("narrow", FORMATS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_attention_forth(sizes, narrow):
    """The queries are a part of wider rows; keys and values may be of either format."""
    Tx, n_align, n = sizes
    draw, step = Draws(1), slice(2, 5)
    keys, Ch = draw(B, Tx, n_align, dtype=narrow), draw(B, Tx, 3 * n, dtype=narrow)
    v_a, mask = draw(n_align), masks(Tx)
    query, base = draw(3, n_align + 5, dtype=narrow)[:, :n_align], draw(3, 3 * n)
    found = []
    for steps, keys_, Ch_ in ((triton_steps(), keys, Ch), (TorchSteps(), keys.float(), Ch.float())):
        noted = filled_with_nan(7, n_align), filled_with_nan(7, Tx)
        drive = steps.look(Looked(keys_, Ch_, mask, v_a, *noted))(query, base, step)
        found.append([drive, *(x[step] for x in noted)])
        for x in noted:
            assert torch.cat([x[:2], x[5:]]).isnan().all(), "rows of other steps are written"
    for what, actual, expected in zip(("drive", "queries", "alphas"), *found, strict=True):
        close(actual, expected, what)
    assert not found[0][2][~mask[:3]].any()


@on_triton
@pytest.mark.parametrize("narrow", FORMATS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_attention_back(sizes, narrow):
    """Two steps: gradients of keys and v_a are summed over them."""
    Tx, n_align, n = sizes
    draw, mask = Draws(2), masks(Tx)
    keys, Ch = draw(B, Tx, n_align, dtype=narrow), draw(B, Tx, 3 * n, dtype=narrow)
    v_a, queries, d_drive = draw(n_align), draw(7, n_align), draw(7, 3 * n)
    packed = mask[[0, 1, 2, 3, 0, 1, 2]]
    alphas = torch.softmax(draw(7, Tx).masked_fill(~packed, -torch.inf), dim=-1)
    d_alphas = draw(7, Tx)
    found = []
    for steps, keys_, Ch_ in ((triton_steps(), keys, Ch), (TorchSteps(), keys.float(), Ch.float())):
        d_state = filled_with_nan(7, n_align + 3)
        looked = Looked(keys_, Ch_, mask, v_a, queries, alphas)
        look = steps.look_back(looked, d_drive, d_alphas, d_state[:, :n_align])
        look(slice(4, 7))
        assert d_state[:4].isnan().all(), "rows of other steps are written"
        look(slice(0, 4))
        assert d_state[:, n_align:].isnan().all(), "other columns are written"
        found.append([d_state[:, :n_align], *look.sums()])
    for what, actual, expected in zip(("d_queries", "d_keys", "d_v"), *found, strict=True):
        close(actual, expected, what)
    assert not found[0][1][~mask].any()
    if Tx > 1:
        assert all(x.abs().max() > 1e-3 for x in found[1])


@on_triton
@pytest.mark.parametrize("directions", [(), (D,)], ids=["one", "two directions"])
@pytest.mark.parametrize("narrow", FORMATS, ids=str)
@pytest.mark.parametrize("reset_before", [True, False])
@pytest.mark.parametrize("n", [1, 6, 64, 66])
def test_units_forth(n, reset_before, narrow, directions):
    """The state is of more rows than the step, and of the new one fewer are wanted."""
    draw, step = Draws(3), slice(2, 5)
    U, U_gates = draw(*directions, n, n) / n**0.5, draw(*directions, n, 2 * n) / n**0.5
    U_gates = U_gates if directions else U_gates.T.contiguous()
    drive, s = draw(*directions, 9, 3 * n)[..., step, :], draw(*directions, 4, n)[..., :3, :]
    from_s = draw(*directions, 3, 2 * n + 5)[..., 5:]
    if not directions:
        drive = drive.contiguous()
    found = []
    for given in (from_s, None):
        for steps in (triton_steps(), TorchSteps()):
            kept = kept_for(*directions, 7, n, reset_before=reset_before)
            states = filled_with_nan(*directions, 9, n)
            unit = steps.unit(kept, U.to(narrow), U_gates.to(narrow), reset_before=reset_before)
            new = unit(drive, s, given, step, states[..., 5:7, :])
            out = states[..., 5:7, :].clone()
            states[..., 5:7, :] = torch.nan
            assert states.isnan().all(), "rows that are not wanted are written"
            noted = [getattr(kept, f.name) for f in fields(kept)][: 3 - reset_before]
            found.append([new, out, *(x[..., step, :] for x in noted)])
    tolerance = 1e-4 if narrow is torch.float32 else 0.05
    for actual, expected in (found[:2], found[2:]):
        names = ("new", "out", "gates", "candidates", "products")
        for what, x, y in zip(names, actual, expected, strict=False):
            close(x, y, what, tolerance)


@on_triton
@pytest.mark.parametrize("directions", [(), (D,)], ids=["one", "two directions"])
@pytest.mark.parametrize("narrow", FORMATS, ids=str)
@pytest.mark.parametrize("reset_before", [True, False])
@pytest.mark.parametrize("n", [1, 6, 64, 66])
def test_units_back(n, reset_before, narrow, directions):
    draw, step = Draws(4), slice(2, 5)
    kept = Kept(
        draw(*directions, 7, 2 * n).sigmoid(),
        draw(*directions, 7, n).tanh(),
        draw(*directions, 7, n),
    )
    s_prev, U_T = draw(*directions, 7, n), (draw(*directions, n, n) / n**0.5).to(narrow)
    d_s, more = draw(*directions, 5, n)[..., :3, :], draw(*directions, 7, n)[..., step, :]
    tolerance = 1e-4 if narrow is torch.float32 else 0.05
    for at_new, at_old in ((more, None), (None, more), (None, None)):
        found = []
        for steps in (triton_steps(), TorchSteps()):
            d_drive = filled_with_nan(*directions, 7, 3 * n)
            before = d_s.clone()
            unit = steps.unit_back(kept, s_prev, U_T, d_drive, reset_before=reset_before)
            d_old = unit(d_s, step, at_new, at_old)
            assert torch.equal(d_s, before)
            assert d_drive[..., [0, 1, 5, 6], :].isnan().all(), "rows of other steps are written"
            found.append((d_old, d_drive[..., step, :]))
        close(found[0][0], found[1][0], "d_old", tolerance)
        close(found[0][1], found[1][1], "d_drive", tolerance)


# Whole scans ------------------------------------------------------------------------------------


@pytest.fixture
def backends(monkeypatch) -> Iterator[Iterator[Steps]]:
    """Sets what both scans run on, one after the other."""

    def each() -> Iterator[Steps]:
        for steps in (triton_steps(), TorchSteps()):
            for module in (scan, unroll):
                monkeypatch.setattr(module, "steps_for", lambda *_, steps=steps: steps)
            yield steps

    return each()


def packing_and_draw() -> tuple[Packing, Draws]:
    mask = torch.arange(4) < torch.tensor([2, 4, 1, 4])[:, None]
    return Packing.of(mask.to(DEVICE)), Draws(5)


def compare(backends, apply, given: list[Tensor], names: list[str], tolerance: float) -> None:
    """The same values and gradients, with different weights on all that comes out."""
    found = []
    for _ in backends:
        leaves = [x.detach().clone().requires_grad_() for x in given]
        results = apply(*leaves)
        results = results if isinstance(results, tuple) else (results,)
        cost = sum(
            (x * torch.cos(torch.arange(x.numel()).view(x.shape)).to(x)).sum() for x in results
        )
        found.append([*results, *torch.autograd.grad(cost, leaves)])
    names = [*(f"result {i}" for i in range(len(found[0]) - len(names))), *names]
    for name, actual, expected in zip(names, *found, strict=True):
        close(actual, expected, name, tolerance)
        assert expected.abs().max() > 1e-6, f"{name} is not tried"


# In bfloat16 roundings add up, and the interpreter cuts off where a GPU rounds.
TOLERANCES = [(torch.float32, 1e-4), (torch.bfloat16, 0.1)]


@on_triton
@pytest.mark.parametrize(("narrow", "tolerance"), TOLERANCES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("reset_before", [True, False])
def test_scans_of_units_are_equal(backends, reset_before, narrow, tolerance):
    packing, draw = packing_and_draw()
    n, N = 10, len(packing.places)
    given = [draw(D, N, 3 * n), draw(D, 4, n), draw(D, n, n) / 3, draw(D, n, 2 * n) / 3]
    options = packing.sizes, reset_before, narrow
    names = ["projected", "start", "U", "U_gates"]
    compare(backends, lambda *x: scan.GatedScan.apply(*x, *options), given, names, tolerance)


@on_triton
@pytest.mark.parametrize(("narrow", "tolerance"), TOLERANCES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("reset_before", [True, False])
@pytest.mark.parametrize(("Tx", "n_align"), [(19, 70), (3, 5)])
def test_scans_with_attention_are_equal(backends, Tx, n_align, reset_before, narrow, tolerance):
    packing, draw = packing_and_draw()
    n, N, mask = 10, len(packing.places), masks(Tx)
    given = [draw(N, 3 * n), draw(4, Tx, n_align), draw(4, Tx, 3 * n), draw(4, n)]
    given += [draw(n_align + 2 * n, n) / 3, draw(n, n) / 3, draw(n_align)]

    def apply(projected, keys, Ch, s_0, *weights):
        options = packing, reset_before, narrow
        return unroll.AttentiveScan.apply(projected, keys, Ch, s_0, mask, *weights, *options)

    names = ["projected", "keys", "Ch", "s_0", "from_state", "U", "v_a"]
    compare(backends, apply, given, names, tolerance)


@on_triton
def test_gradients_repeat_themselves():
    """Nothing is added in an order that changes."""
    draw, mask = Draws(6), masks(19)
    looked = Looked(draw(B, 19, 70), draw(B, 19, 18), mask, draw(70), draw(4, 70), draw(4, 19))
    found = []
    for _ in range(2):
        d_queries = filled_with_nan(4, 70)
        look = triton_steps().look_back(looked, draw(4, 18).fill_(0.3), draw(4, 19) * 0, d_queries)
        look(slice(0, 4))
        found.append([d_queries, *look.sums()])
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


# Which steps run --------------------------------------------------------------------------------


@on_triton
def test_the_first_launch_is_tried():
    from seq2seq.kernels.gpu.steps import try_out

    try_out(DEVICE)


@on_triton
@pytest.mark.parametrize("by_compiler", [False, True])
def test_what_triton_refuses_is_an_error_that_is_caught(by_compiler, monkeypatch):
    from triton.errors import TritonError

    from seq2seq.kernels.gpu import steps

    def refusing(*_: object) -> None:
        if by_compiler:
            raise subprocess.CalledProcessError(1, ["gcc", "no ptxas"])
        raise TritonError("no ptxas")

    monkeypatch.setattr(steps.TritonUnit, "__call__", refusing)
    with pytest.raises(RuntimeError, match="no ptxas"):
        steps.try_out(DEVICE)


@pytest.mark.parametrize(
    "failure", [ImportError("No module named 'triton'"), RuntimeError("Failed to find C compiler.")]
)
def test_without_triton_or_a_compiler_torchs_operations_run(failure, monkeypatch, caplog):
    def failing(device: torch.device) -> None:
        raise failure

    stand_in = types.ModuleType("steps")
    stand_in.TritonSteps, stand_in.try_out = TorchSteps, failing
    monkeypatch.setitem(sys.modules, "seq2seq.kernels.gpu.steps", stand_in)
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    with caplog.at_level(logging.INFO, "seq2seq"):
        found = [gpu.steps_on.__wrapped__(DEVICE)]
    assert found == [None]
    assert [record.getMessage() for record in caplog.records] == [
        f"steps of recurrences run as torch's operations, not Triton's: {failure}"
    ]


def test_a_processor_takes_torchs_operations():
    for dtype in (torch.float32, torch.float64):
        assert isinstance(steps_for(torch.empty(1, dtype=dtype), dtype), TorchSteps)


@on_triton
@pytest.mark.skipif(INTERPRETED, reason="needs CUDA")
def test_a_gpu_takes_triton_where_it_can():
    states = torch.empty(1, device=DEVICE)
    assert type(steps_for(states, torch.float32)).__name__ == "TritonSteps"
    assert isinstance(steps_for(states.double(), torch.float64), TorchSteps)
