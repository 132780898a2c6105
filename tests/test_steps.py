"""Compiled steps of the recurrences against torch's, value by value, and whole scans on each.

C, which knows whole scans alone, runs where there is a compiler. Triton runs on a GPU (`-m gpu`),
elsewhere in its interpreter, which has to be chosen before Triton is imported:
`TRITON_INTERPRET=1 pytest tests/test_steps.py`, as the first test does.
"""

import importlib.util
import itertools
import logging
import math
import os
import random
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seq2seq.kernels import choice, gpu, native, scan, unroll
from seq2seq.kernels.choice import loops_for, steps_for
from seq2seq.kernels.energies import Energies
from seq2seq.kernels.logits import torch_loss
from seq2seq.kernels.loops import StepLoops
from seq2seq.kernels.matmul import PackedWeight
from seq2seq.kernels.native import build
from seq2seq.kernels.native.loops import NativeInputs, NativeLoops
from seq2seq.kernels.native.output import NativeLoss
from seq2seq.kernels.native.search import NativeSearch
from seq2seq.kernels.packing import Packing
from seq2seq.kernels.steps import TORCH, AttentionInputs, SavedActivations, Steps
from seq2seq.kernels.torch_search import SearchWeights, Shared
from seq2seq.model.output import best_logits, max_of_pairs

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
WITHOUT = "Triton is not installed (Linux on x86-64 only)"
on_device = [] if INTERPRETED else [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]  # fmt: skip
on_device.append(pytest.mark.skipif(not HAS_TRITON, reason=WITHOUT))


def on_triton(test):
    """Marks a test that launches Triton's library."""
    for mark in on_device:
        test = mark(test)
    return test


def native_library():
    """The compiled library; this machine may have no compiler."""
    found = native.library()
    if found is None:
        pytest.skip("no C compiler")
    return found


def native_loops() -> Callable[..., StepLoops | NativeLoops]:
    """Makes loops in C of a format and a place of the reset gate."""
    library = native_library()
    if not library.multiplies(torch.bfloat16):
        pytest.skip("no products of bfloat16 on this processor")
    return partial(NativeLoops, library)


def triton_steps() -> Steps:
    from seq2seq.kernels.gpu.steps import TRITON

    return TRITON


@pytest.fixture(params=[pytest.param("triton", marks=on_device)])
def compiled() -> Steps:
    """Steps that are tried."""
    return triton_steps()


@pytest.fixture(params=["native", pytest.param("triton", marks=on_device)])
def loops(request) -> Callable[..., StepLoops | NativeLoops]:
    """What makes loops that are tried."""
    if request.param == "triton":
        return partial(StepLoops, triton_steps())
    if DEVICE.type != "cpu":
        pytest.skip("C is for a CPU")
    return native_loops()


DEVICE = torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")
B, D = 4, 2
# (Tx, n', n): less than a block of positions (16) or units (64), a little more, one.
SIZES = [(5, 7, 6), (19, 70, 66), (16, 64, 64), (1, 1, 1)]
FORMATS = [torch.float32, torch.bfloat16]


@pytest.mark.e2e
@pytest.mark.skipif(not HAS_TRITON, reason=WITHOUT)
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_kernels_are_right_in_the_interpreter():
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


def saved_for(*shape: int, reset_before: bool) -> SavedActivations:
    saved = SavedActivations.empty(filled_with_nan(*shape), reset_before=reset_before)
    return SavedActivations(*(getattr(saved, f.name).fill_(torch.nan) for f in fields(saved)))


def masks(Tx: int) -> Tensor:
    """Real positions (B, Tx): all, one, with a hole, fewer."""
    lengths = torch.tensor([Tx, 1, max(1, Tx - 1), max(1, Tx // 2)])
    mask = torch.arange(Tx) < lengths[:, None]
    if Tx > 2:
        mask[2, 0] = False
    return mask.to(DEVICE)


def torchs(*given: Tensor) -> tuple[Steps, Tensor, Tensor]:
    return TORCH, *(x.float() for x in given)


# Step by step -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_attention_forward(compiled, sizes, dtype):
    """The queries are a part of wider rows."""
    Tx, n_align, n = sizes
    draw, step = Draws(1), slice(2, 5)
    keys, Ch = draw(B, Tx, n_align, dtype=dtype), draw(B, Tx, 3 * n, dtype=dtype)
    v_a, mask = draw(n_align), masks(Tx)
    query, base = draw(3, n_align + 5, dtype=dtype)[:, :n_align], draw(3, 3 * n)
    found = []
    for steps, keys_, Ch_ in ((compiled, keys, Ch), torchs(keys, Ch)):
        noted = filled_with_nan(7, n_align), filled_with_nan(7, Tx)
        drive = steps.attend(AttentionInputs(keys_, Ch_, mask, v_a, *noted))(query, base, step)
        found.append([drive, *(x[step] for x in noted)])
        for x in noted:
            assert torch.cat([x[:2], x[5:]]).isnan().all(), "rows of other steps are written"
    for what, actual, expected in zip(("drive", "queries", "alphas"), *found, strict=True):
        close(actual, expected, what)
    assert not found[0][2][~mask[:3]].any()


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_attention_backward(compiled, sizes, dtype):
    """Two steps: gradients of keys and v_a are summed over them."""
    Tx, n_align, n = sizes
    draw, mask = Draws(2), masks(Tx)
    keys, Ch = draw(B, Tx, n_align, dtype=dtype), draw(B, Tx, 3 * n, dtype=dtype)
    v_a, queries, d_drive = draw(n_align), draw(7, n_align), draw(7, 3 * n)
    packed = mask[[0, 1, 2, 3, 0, 1, 2]]
    alphas = torch.softmax(draw(7, Tx).masked_fill(~packed, -torch.inf), dim=-1)
    d_alphas = draw(7, Tx)
    found = []
    for steps, keys_, Ch_ in ((compiled, keys, Ch), torchs(keys, Ch)):
        d_state = filled_with_nan(7, n_align + 3)
        inputs = AttentionInputs(keys_, Ch_, mask, v_a, queries, alphas)
        attend = steps.attend_backward(inputs, d_drive, d_alphas, d_state[:, :n_align])
        attend(slice(4, 7))
        assert d_state[:4].isnan().all(), "rows of other steps are written"
        attend(slice(0, 4))
        assert d_state[:, n_align:].isnan().all(), "other columns are written"
        found.append([d_state[:, :n_align], *attend.sums()])
    for what, actual, expected in zip(("d_queries", "d_keys", "d_v"), *found, strict=True):
        close(actual, expected, what)
    assert not found[0][1][~mask].any()
    if Tx > 1:
        assert all(x.abs().max() > 1e-3 for x in found[1])


@pytest.mark.parametrize("directions", [(), (D,)], ids=["one", "two directions"])
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("reset_before", [True, False])
@pytest.mark.parametrize("n", [1, 6, 64, 66])
def test_units_forward(compiled, n, reset_before, dtype, directions):
    """The state is of more rows than the step, and of the new one fewer are wanted."""
    draw, step = Draws(3), slice(2, 5)
    U, U_gates = draw(*directions, n, n) / n**0.5, draw(*directions, 2 * n, n) / n**0.5
    packed = PackedWeight(U, dtype), PackedWeight(U_gates, dtype)
    drive, s = draw(*directions, 9, 3 * n)[..., step, :], draw(*directions, 4, n)[..., :3, :]
    from_s = draw(*directions, 3, 2 * n + 5)[..., 5:]
    if not directions:
        drive = drive.contiguous()
    found = []
    for given in (from_s, None):
        for steps in (compiled, TORCH):
            saved = saved_for(*directions, 7, n, reset_before=reset_before)
            states = filled_with_nan(*directions, 9, n)
            unit = steps.unit(saved, *packed, reset_before=reset_before)
            new = unit(drive, s, given, step, states[..., 5:7, :])[..., :2, :].clone()
            out = states[..., 5:7, :].clone()
            states[..., 5:7, :] = torch.nan
            assert states.isnan().all(), "rows that are not wanted are written"
            noted = [saved.gates, saved.candidates, saved.Us][: 3 - reset_before]
            found.append([new, out, *(x[..., step, :] for x in noted)])
    tolerance = 1e-4 if dtype is torch.float32 else 0.05
    for actual, expected in (found[:2], found[2:]):
        names = ("new", "out", "gates", "candidates", "Us")
        for what, x, y in zip(names, actual, expected, strict=False):
            close(x, y, what, tolerance)


@pytest.mark.parametrize("directions", [(), (D,)], ids=["one", "two directions"])
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("reset_before", [True, False])
@pytest.mark.parametrize("n", [1, 6, 64, 66])
def test_units_backward(compiled, n, reset_before, dtype, directions):
    draw, step = Draws(4), slice(2, 5)
    saved = SavedActivations(
        torch.empty(0),
        draw(*directions, 7, 2 * n).sigmoid(),
        draw(*directions, 7, n).tanh(),
        draw(*directions, 7, n),
    )
    s_prev = draw(*directions, 7, n)
    U_T = PackedWeight(draw(*directions, n, n) / n**0.5, dtype)
    d_s, more = draw(*directions, 5, n)[..., :3, :], draw(*directions, 7, n)[..., step, :]
    tolerance = 1e-4 if dtype is torch.float32 else 0.05
    for at_new, at_old in ((more, None), (None, more), (None, None)):
        found = []
        for steps in (compiled, TORCH):
            d_drive = filled_with_nan(*directions, 7, 3 * n)
            before = d_s.clone()
            unit = steps.unit_backward(saved, s_prev, U_T, d_drive, reset_before=reset_before)
            d_old = unit(d_s, step, at_new, at_old)
            assert torch.equal(d_s, before)
            assert d_drive[..., [0, 1, 5, 6], :].isnan().all(), "rows of other steps are written"
            found.append((d_old, d_drive[..., step, :]))
        close(found[0][0], found[1][0], "d_old", tolerance)
        close(found[0][1], found[1][1], "d_drive", tolerance)


# Whole scans ------------------------------------------------------------------------------------


@pytest.fixture
def backends(monkeypatch, loops) -> Iterator[None]:
    """Sets what both scans run on, one after the other."""
    return each_way(monkeypatch, loops)


def each_way(monkeypatch, loops: Callable[..., StepLoops | NativeLoops]) -> Iterator[None]:
    for made in (loops, partial(StepLoops, TORCH)):
        for module in (scan, unroll):
            monkeypatch.setattr(
                module,
                "loops_for",
                lambda _, dtype, *, reset_before, made=made: made(dtype, reset_before),
            )
        yield


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
        loss = sum(
            (x * torch.cos(torch.arange(x.numel()).view(x.shape)).to(x)).sum() for x in results
        )
        found.append([*results, *torch.autograd.grad(loss, leaves)])
    names = [*(f"result {i}" for i in range(len(found[0]) - len(names))), *names]
    for name, actual, expected in zip(names, *found, strict=True):
        close(actual, expected, name, tolerance)
        assert expected.abs().max() > 1e-6, f"{name} is not tried"


# In bfloat16 roundings add up, and the interpreter cuts off where a GPU rounds.
TOLERANCES = [(torch.float32, 1e-4), (torch.bfloat16, 0.1)]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("reset_before", [True, False])
@pytest.mark.parametrize("n", [1, 10, 65])
def test_scans_of_units_are_equal(backends, n, reset_before, dtype, tolerance):
    packing, draw = packing_and_draw()
    N, scale = len(packing.places), n**-0.5
    given = [draw(D, N, 3 * n), draw(D, 4, n), draw(D, n, n) * scale, draw(D, 2 * n, n) * scale]
    options = packing.sizes, reset_before, dtype
    names = ["projected", "start", "U", "U_gates"]
    compare(backends, lambda *x: scan.GatedScan.apply(*x, *options), given, names, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("reset_before", [True, False])
@pytest.mark.parametrize(("Tx", "n_align", "n"), [(19, 70, 10), (3, 5, 33), (2, 64, 64)])
def test_scans_with_attention_are_equal(backends, Tx, n_align, n, reset_before, dtype, tolerance):
    packing, draw = packing_and_draw()
    N, mask = len(packing.places), masks(Tx)
    given = [draw(N, 3 * n), draw(4, Tx, n_align), draw(4, Tx, 3 * n), draw(4, n)]
    given += [draw(n_align + 2 * n, n) * n**-0.5, draw(n, n) * n**-0.5, draw(n_align)]

    def apply(projected, keys, Ch, s_0, *weights):
        options = packing, reset_before, dtype
        return unroll.AttentiveScan.apply(projected, keys, Ch, s_0, mask, *weights, *options)

    names = ["projected", "keys", "Ch", "s_0", "from_state", "U", "v_a"]
    compare(backends, apply, given, names, tolerance)


def test_gradients_repeat_themselves(compiled):
    """Nothing is added in an order that changes."""
    draw, mask = Draws(6), masks(19)
    inputs = AttentionInputs(
        draw(B, 19, 70), draw(B, 19, 18), mask, draw(70), draw(4, 70), draw(4, 19)
    )
    found = []
    for _ in range(2):
        d_queries = filled_with_nan(4, 70)
        attend = compiled.attend_backward(
            inputs, draw(4, 18).fill_(0.3), draw(4, 19) * 0, d_queries
        )
        attend(slice(0, 4))
        found.append([d_queries, *attend.sums()])
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("skewed", [False, True])
def test_scans_in_c_are_the_same_with_any_number_of_threads(skewed, dtype, monkeypatch):
    """Sentences are shared out otherwise, and each is computed as before; weights by torch."""
    loops, draw, n, Tx, rows = native_loops(), Draws(12), 20, 6, 45
    next(each_way(monkeypatch, loops))
    lengths = torch.randint(1, 9, (rows,), generator=draw.generator)
    if skewed:  # a sentence has more words than a share: some have none
        lengths = torch.ones(rows, dtype=torch.long)
        lengths[7] = 90
    packing = Packing.of(torch.arange(int(lengths.max())) < lengths[:, None])
    N, mask = len(packing.places), torch.ones(rows, Tx, dtype=torch.bool)
    of_units = [draw(D, N, 3 * n), draw(D, rows, n), draw(D, n, n) / 4, draw(D, 2 * n, n) / 4]
    attending = [draw(N, 3 * n), draw(rows, Tx, 7), draw(rows, Tx, 3 * n), draw(rows, n), mask]
    attending += [draw(7 + 2 * n, n) / 4, draw(n, n) / 4, draw(7)]
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results = []
            for apply, given, inputs, options in (
                (scan.GatedScan.apply, of_units, (0, 1), (packing.sizes, True, dtype)),
                (unroll.AttentiveScan.apply, attending, (0, 1, 2, 3, 7), (packing, True, dtype)),
            ):
                leaves = [x if x is mask else x.clone().requires_grad_() for x in given]
                made = apply(*leaves, *options)
                states = made[0] if isinstance(made, tuple) else made
                wanted = [leaves[i] for i in inputs]
                results += [states, *torch.autograd.grad(states.square().sum(), wanted)]
            found.append(results)
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for i, (first, second) in enumerate(zip(found[0], other, strict=True)):
            assert torch.equal(first, second), i


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
    stand_in.TRITON, stand_in.try_out = TORCH, failing
    monkeypatch.setitem(sys.modules, "seq2seq.kernels.gpu.steps", stand_in)
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    with caplog.at_level(logging.INFO, "seq2seq"):
        found = [gpu.steps_on.__wrapped__(DEVICE)]
    assert found == [None]
    assert [record.getMessage() for record in caplog.records] == [
        f"steps of recurrences run as torch's operations, not Triton's: {failure}"
    ]


def test_a_processor_takes_c_where_it_can(monkeypatch):
    native_loops()
    states = torch.empty(1)

    def taken(states: Tensor, dtype: torch.dtype) -> type:
        return type(loops_for(states, dtype, reset_before=True))

    for dtype in FORMATS:
        assert taken(states, dtype) is NativeLoops
    assert taken(states, torch.float16) is StepLoops
    assert taken(states.double(), torch.float64) is StepLoops
    with monkeypatch.context() as patch:  # a torch that has no such products
        patch.setattr(native.library(), "kernels", None)
        assert taken(states, torch.float32) is StepLoops
    with monkeypatch.context() as patch:  # oneDNN may not use what the processor has
        patch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
        assert taken(states, torch.bfloat16) is StepLoops
    monkeypatch.setattr(native, "library", lambda: None)
    assert taken(states, torch.float32) is StepLoops
    assert choice.loss_for(states, torch.float32) is torch_loss


@on_triton
@pytest.mark.skipif(INTERPRETED, reason="needs CUDA")
def test_a_gpu_takes_triton_where_it_can():
    states = torch.empty(1, device=DEVICE)
    assert steps_for(states, torch.float32) is triton_steps()
    assert steps_for(states.double(), torch.float64) is TORCH


# C: the loss of the output layer, large and odd numbers ----------------------------------------


@pytest.mark.parametrize("differentiated", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (20, 1000)], ids=str)
def test_cost_in_c(shape, dtype, smoothing, bias, differentiated):
    by_c, draw = NativeLoss(native_library()), Draws(7)
    logits, b = (draw(*shape) * 5).to(dtype), draw(shape[1]) if bias else None
    targets = torch.randint(shape[1], (shape[0],), generator=draw.generator)
    found = []
    for loss in (by_c, torch_loss):
        d_b = torch.ones(shape[1]) if differentiated else None
        *costs, d_logits = loss(logits.clone(), b, targets, smoothing, d_b)
        found.append([*costs, d_b, d_logits] if differentiated else costs)
        assert not differentiated or d_logits.dtype == dtype
    for what, actual, expected in zip(("nll", "smoothed", "d_b", "d_logits"), *found, strict=False):
        tolerance = 0.01 if what == "d_logits" and dtype is torch.bfloat16 else 1e-4
        close(actual.float(), expected.float(), what, tolerance)


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4, 1e30])
def test_cost_of_large_logits(shift):
    logits = torch.tensor([[3.0, -200.0, 90.0]]) + shift
    for target in range(3):
        [nll, _, _] = NativeLoss(native_library())(
            logits.clone(), None, torch.tensor([target]), 0.0, None
        )
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor([target]))
        torch.testing.assert_close(nll, expected, rtol=1e-5, atol=1e-5)


def test_what_is_not_a_number_stays_so():
    """Divergence must show, in the row where it is and in no other."""
    library, nan = native_library(), float("nan")
    logits = torch.zeros(2, 4)
    logits[1, 2] = nan
    nll, _, d_logits = NativeLoss(library)(logits, None, torch.tensor([0, 0]), 0.1, torch.zeros(4))
    assert nll.isnan()
    assert d_logits[0].isfinite().all()
    assert d_logits[1].isnan().all()


def one_step(given: list[Tensor], dtype: torch.dtype, monkeypatch) -> list[list[Tensor]]:
    """A first step with attention in C and by torch: what it notes, and the queries."""
    found = []
    for _ in each_way(monkeypatch, native_loops()):
        s_0 = given[3]
        packing = Packing.of(torch.ones(len(s_0), 2, dtype=torch.bool))
        [words, keys, Ch, s_0, v_a] = given
        mask, n = torch.ones(keys.shape[:2], dtype=torch.bool), s_0.shape[1]
        weights = torch.cat([torch.eye(n), torch.zeros(2 * n, n)]), torch.zeros(n, n)
        found.append(
            unroll.AttentiveScan.apply(
                words, keys, Ch, s_0, mask, *weights, v_a, packing, True, dtype
            )
        )
    return found


def test_scans_keep_what_is_not_a_number(monkeypatch):
    """Of the sentence where it is, and of no other."""
    nan, n = float("nan"), 3
    for at, large in itertools.product(range(4), (nan, torch.inf)):
        given = [torch.zeros(4, 3 * n), torch.zeros(2, 4, n), torch.zeros(2, 4, 3 * n)]
        given.append(torch.zeros(2, n))  # words, keys, Ch, s_0
        given[at][1] = large
        by_c, by_torch = one_step([*given, torch.ones(n)], torch.float32, monkeypatch)
        for actual, expected in zip(by_c, by_torch, strict=True):
            torch.testing.assert_close(actual, expected, equal_nan=True)
            assert actual[::2].isfinite().all()


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_energies_of_large_keys_and_queries(scale, monkeypatch):
    """Exponentials of 2 q and 2 k that cannot be multiplied are not."""
    draw, n = Draws(8), 7
    query, keys = draw(3, n) * scale, draw(3, 5, n) * scale
    query[0], keys[0] = scale, -scale  # tanh(0), by way of infinity times zero
    given = [draw(6, 3 * n), keys, draw(3, 5, 3 * n), query, draw(n)]
    found = one_step(given, torch.float32, monkeypatch)
    for what, actual, expected in zip(("states", "alphas"), *found, strict=True):
        close(actual, expected, what)


# C: search --------------------------------------------------------------------------------------


def native_search(dtype: torch.dtype, num_words: int, *, bias: bool, **options: bool):
    """A search over random weights: n' = 5, n = 6, w = 8."""
    native_loops()
    draw, options = Draws(9), {"reset_before": True, "maxout": True, **options}
    units = 4 if options["maxout"] else 8
    last = torch.nn.Linear(units, num_words, bias=bias).requires_grad_(False)
    last.weight[:] = draw(num_words, units)
    from_state, U = draw(5 + 12 + 8, 6), draw(6, 6)
    search = choice.search_for(SearchWeights(dtype, from_state, U, last, n_align=5, **options))
    assert isinstance(search, NativeSearch)
    return search, (from_state, U), draw


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("num_words", "count"), [(4, 9), (63, 5), (64, 1), (1000, 10)])
def test_best_words_in_c(num_words, count, bias, dtype):
    """As search finds them without."""
    by_c, _, draw = native_search(dtype, num_words, bias=bias)
    t = draw(40, 4)
    rules = {"forbidden": torch.tensor([0, 2]), "eos": 1, "too_early": torch.arange(40) % 3 == 0}
    found = by_c.best(t, count, **rules)
    logits = (t.to(dtype).double() @ by_c.last.weight.to(dtype).double().T).float()
    logits = logits + by_c.last.bias if bias else logits
    values, words, log_sum = best_logits(logits.clone(), count, **rules)
    torch.testing.assert_close(found[2], log_sum, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0], values, rtol=1e-5, atol=1e-5)
    same = found[1] == words
    ties = (logits.gather(1, found[1]) - logits.gather(1, words)).abs() < 1e-5
    assert (same | ties | (values == -torch.inf)).all()


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("maxout", [True, False])
@pytest.mark.parametrize("times", [1, 9])
def test_predictions_in_c(times, maxout, dtype):
    """Several hypotheses a sentence, of some sentences only; more rows than a thread takes."""
    by_c, (from_state, _), draw = native_search(dtype, 3, bias=False, maxout=maxout)
    keys, adds, v_a, mask = draw(B, 5, 5), draw(B, 5, 26), draw(5), masks(5)
    shared, by_torch = (
        NativeInputs.of(keys, adds, mask, v_a),
        Shared(Energies(keys, v_a), adds, ~mask),
    )
    for some in ([0, 1, 2, 3], [1, 3], [1]):
        chosen, rows = torch.tensor(some), len(some) * times
        s, word = draw(rows, 6), draw(rows, 8)
        from_s = s.to(dtype).float() @ from_state.to(dtype).float().T
        more, alpha = by_torch.select(chosen).attend(from_s[:, :5], times)
        drive, t_tilde = more[:, :18].clone(), more[:, 18:] + from_s[:, 17:] + word
        drive[:, 6:] += from_s[:, 5:17]
        t = max_of_pairs(t_tilde) if maxout else t_tilde.tanh()
        found = by_c.predict(s, word, shared.select(chosen), times)
        names, wanted = ("t", "drive", "alpha"), (t, drive, alpha)
        for what, actual, expected in zip(names, found, wanted, strict=True):
            close(actual, expected, f"{what} {some}")


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("reset_before", [True, False])
def test_moves_in_c(reset_before, dtype):
    by_c, (_, U), draw = native_search(dtype, 3, bias=False, reset_before=reset_before)
    s, drive, word = draw(40, 6), draw(40, 18), draw(40, 18)
    z, r = (drive + word)[:, 6:].sigmoid().chunk(2, dim=-1)
    rounded = U.to(dtype).float()
    if reset_before:
        from_s = (r * s).to(dtype).float() @ rounded.T
    else:
        from_s = r * (s.to(dtype).float() @ rounded.T)
    s_tilde = ((drive + word)[:, :6] + from_s).tanh()
    tolerance = 1e-4 if dtype is torch.float32 else 0.02  # r s is rounded near a tie
    close(by_c.advance(s, drive, word), torch.lerp(s, s_tilde, z), "state", tolerance)


def test_logits_of_some_words_in_c():
    for bias in (True, False):
        by_c, _, draw = native_search(torch.float32, 20, bias=bias)
        words = torch.randint(20, (6, 4), generator=draw.generator)
        t = draw(6, 8)[:, ::2]
        torch.testing.assert_close(by_c.logits_of(t, words), by_c.last(t).gather(1, words))


# C: how it is compiled --------------------------------------------------------------------------


def test_it_is_compiled_once(tmp_path, monkeypatch):
    native_library()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = build.load().path
    made = first.stat().st_mtime_ns
    assert {*(tmp_path / "cache" / "seq2seq").iterdir()} == {first, first.with_suffix(".sha256")}
    assert build.load().path == first
    assert first.stat().st_mtime_ns == made
    monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-DOTHER"])
    assert build.load().path != first


@pytest.mark.parametrize("missing", ["/proc/nowhere", "file"])
def test_without_a_home_it_is_compiled_for_this_process(tmp_path, monkeypatch, missing):
    native_library()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / missing))
    logits = torch.zeros(1, 4)
    [nll, *_] = NativeLoss(build.load())(logits, None, torch.tensor([0]), 0.0, None)
    assert nll.item() == pytest.approx(math.log(4))
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no-such-compiler", "no C compiler (no-such-compiler)"),
        ("false", "false fails: "),
        ("'", "No closing quotation"),
    ],
)
def test_without_a_compiler_torchs_operations_run(value, reason, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", value)
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    with caplog.at_level(logging.INFO, "seq2seq"):
        assert native.library.__wrapped__() is None
    [line] = [record.getMessage() for record in caplog.records]
    start = "steps of recurrences run as torch's operations, not compiled: "
    assert line.startswith(start + reason)
    assert "\n" not in line


def test_a_compiler_that_says_no(tmp_path, monkeypatch):
    native_library()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "FLAGS", ["-no-such-flag"])
    with pytest.raises(build.BuildError, match=r"fails: .*no-such-flag"):
        build.load()
    assert not [*tmp_path.iterdir()]


def test_a_library_of_somebody_else_is_not_loaded(tmp_path, monkeypatch):
    native_library()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.load()
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(build.BuildError, match="belongs to somebody else"):
        build.load()


def damaged_cache(tmp_path, monkeypatch, library) -> Path:
    """A cache with a good library, and a compiler whose work is a copy of it."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(build, "_compile", lambda _compiler, made: made.write_bytes(library))
    monkeypatch.setattr(build, "_try", lambda _made: None)
    path = build.load().path
    assert path.read_bytes() == library
    return path


def test_a_library_that_is_damaged_is_compiled_again(tmp_path, monkeypatch, caplog):
    """50 flipped bits and 20 cuts, of the library and of its checksum: never loaded, one line."""
    good = native_library().path.read_bytes()
    path = damaged_cache(tmp_path, monkeypatch, good)
    beside, draw = path.with_suffix(".sha256"), random.Random(1)
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    checksum = beside.read_bytes()
    for number in range(70):
        target = beside if number % 10 == 9 else path
        data = target.read_bytes()
        if number < 50:
            flip = draw.randrange(8 * len(data))
            bad = bytearray(data)
            bad[flip // 8] ^= 1 << flip % 8
        else:
            bad = data[: len(data) * (number - 50) // 20]  # the first to nothing
        target.unlink()  # what is mapped into this process stays whole
        target.write_bytes(bad)
        caplog.clear()
        assert build.load().path == path
        assert (path.read_bytes(), beside.read_bytes()) == (good, checksum), number
        [line] = caplog.messages
        assert line.endswith(".so is compiled again: it differs from its checksum")
    caplog.clear()
    build.load()
    assert not caplog.messages


@pytest.mark.parametrize("place", ["library", "directory"])
def test_a_library_that_others_could_have_changed_is_compiled_again(
    place, tmp_path, monkeypatch, caplog
):
    path = damaged_cache(tmp_path, monkeypatch, native_library().path.read_bytes())
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    target = path if place == "library" else path.parent
    target.chmod(0o777)
    assert build.load().path == path
    [line] = caplog.messages
    assert "compiled again: it could be changed by others (mode 777 of " in line
    assert target.stat().st_mode & 0o022 == 0


def test_a_library_that_crashes_is_left_out(tmp_path, monkeypatch):
    """It is tried in a process of its own, and not kept."""
    native_library()
    crash = tmp_path / "crash.c"
    crash.write_text("static void __attribute__((constructor)) crash(void) { __builtin_trap(); }\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "SOURCES", [crash])
    with pytest.raises(build.BuildError, match=r"made by the compiler ends a process .*\(-4\)"):
        build.load()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_CC_is_no_compiler(value, monkeypatch):
    monkeypatch.setenv("CC", value)
    with pytest.raises(build.BuildError, match=r"no C compiler \(CC is empty\)"):
        build.load()
