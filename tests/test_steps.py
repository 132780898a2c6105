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
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import ROOT, call
from torch import Tensor

from seq2seq.kernels import choice, gpu, native, scan, unroll
from seq2seq.kernels.choice import loops_for, steps_for
from seq2seq.kernels.logits import torch_loss
from seq2seq.kernels.loops import StepLoops
from seq2seq.kernels.native import build, compiler
from seq2seq.kernels.native.loops import NativeLoops
from seq2seq.kernels.native.output import NativeLoss
from seq2seq.kernels.packing import Packing
from seq2seq.kernels.steps import TORCH, Attending, Steps

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HAS_TRITON = importlib.util.find_spec("triton") is not None
WITHOUT = "Triton is not installed (Linux on x86-64 only)"
on_device = [] if INTERPRETED else [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]  # fmt: skip
on_device.append(pytest.mark.skipif(not HAS_TRITON, reason=WITHOUT))


def on_triton(test):
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
    library = native_library()
    if not library.multiplies(torch.bfloat16):
        pytest.skip("no products of bfloat16 on this processor")
    return partial(NativeLoops, library)


def triton_steps() -> Steps:
    from seq2seq.kernels.gpu.steps import TRITON

    return TRITON


@pytest.fixture(params=["native", pytest.param("triton", marks=on_device)])
def loops(request) -> Callable[..., StepLoops | NativeLoops]:
    if request.param == "triton":
        return partial(StepLoops, triton_steps())
    if DEVICE.type != "cpu":
        pytest.skip("C is for a CPU")
    return native_loops()


DEVICE = torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")
B, D = 4, 2
# (Tx, n', n): less than a block of positions (16) or units (64), a little more, one.
SIZES = [(5, 7, 33), (19, 70, 10), (16, 64, 64), (2, 1, 1)]
FORMATS = [torch.float32, torch.bfloat16]


@pytest.mark.e2e
@pytest.mark.skipif(not HAS_TRITON, reason=WITHOUT)
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_kernels_are_right_in_the_interpreter():
    options = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
    files = [__file__, ROOT / "tests" / "test_gpu_check.py"]
    done = call(*options, *files, cwd=ROOT, timeout=1200, TRITON_INTERPRET="1")
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    assert b" passed" in done.stdout


class Draws:
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


def masks(Tx: int) -> Tensor:
    """Real positions (B, Tx): all, one, with a hole, fewer."""
    lengths = torch.tensor([Tx, 1, max(1, Tx - 1), max(1, Tx // 2)])
    mask = torch.arange(Tx) < lengths[:, None]
    if Tx > 2:
        mask[2, 0] = False
    return mask.to(DEVICE)


# Whole scans ------------------------------------------------------------------------------------


@pytest.fixture
def backends(monkeypatch, loops) -> Iterator[None]:
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
    compare(backends, lambda *x: scan.GatedScan.apply(*x, options), given, names, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("reset_before", [True, False])
@pytest.mark.parametrize(("Tx", "n_align", "n"), SIZES)
def test_scans_with_attention_are_equal(backends, Tx, n_align, n, reset_before, dtype, tolerance):
    packing, draw = packing_and_draw()
    N, mask = len(packing.places), masks(Tx)
    given = [draw(N, 3 * n), draw(4, Tx, n_align), draw(4, Tx, 3 * n), draw(4, n)]
    given += [draw(n_align + 2 * n, n) * n**-0.5, draw(n, n) * n**-0.5, draw(n_align)]

    def apply(projected, keys, Ch, s_0, *weights):
        options = packing, reset_before, dtype
        return unroll.AttentiveScan.apply(projected, keys, Ch, s_0, mask, *weights, options)

    names = ["projected", "keys", "Ch", "s_0", "from_state", "U", "v_a"]
    compare(backends, apply, given, names, tolerance)


@on_triton
def test_gradients_repeat_themselves():
    """Nothing is added in an order that changes."""
    draw, mask = Draws(6), masks(19)
    inputs = Attending(draw(B, 19, 70), draw(B, 19, 18), mask, draw(70), draw(4, 70), draw(4, 19))
    found = []
    for _ in range(2):
        d_queries = filled_with_nan(4, 70)
        given = draw(4, 18).fill_(0.3), draw(4, 19) * 0, d_queries
        attend = triton_steps().attend_backward(inputs, *given)
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
                made = apply(*leaves, options)
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


def test_without_triton_torchs_operations_run(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "seq2seq.kernels.gpu.steps", None)
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    with caplog.at_level(logging.INFO, "seq2seq"):
        assert gpu.steps_on.__wrapped__(DEVICE) is None
    [line] = caplog.messages
    assert line.startswith("steps of recurrences run as torch's operations, not Triton's: ")


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
                words, keys, Ch, s_0, mask, *weights, v_a, (packing, True, dtype)
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


# C: how it is compiled --------------------------------------------------------------------------


@pytest.fixture
def compiling(tmp_path, monkeypatch) -> Path:
    """Where compiled libraries go; without optimising, which takes ten times as long."""
    native_library()
    monkeypatch.setattr(compiler, "FLAGS", ["-std=gnu11", "-O0", "-fopenmp", "-fPIC"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "seq2seq"


@pytest.mark.e2e
def test_it_is_compiled_once_and_not_loaded_from_somebody_else(compiling, monkeypatch):
    """The compiler's part, of seconds, is a copy here; the next test has all of it."""
    given = native_library().path
    monkeypatch.setattr(build, "compile_library", lambda _, made: shutil.copyfile(given, made))
    first = build.load().path
    made = first.stat().st_mtime_ns
    assert {*compiling.iterdir()} == {first, first.with_suffix(".sha256")}
    assert build.load().path == first
    assert first.stat().st_mtime_ns == made
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 54321)
        with pytest.raises(compiler.BuildError, match="belongs to somebody else"):
            build.load()
    monkeypatch.setattr(compiler, "FLAGS", [*compiler.FLAGS, "-DOTHER"])
    monkeypatch.setattr(build, "_try", lambda _: None)  # the same library once more
    assert build.load().path != first


@pytest.mark.e2e
@pytest.mark.usefixtures("compiling")
def test_without_a_home_it_is_compiled_for_this_process(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    logits = torch.zeros(1, 4)
    [nll, *_] = NativeLoss(build.load())(logits, None, torch.tensor([0]), 0.0, None)
    assert nll.item() == pytest.approx(math.log(4))


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


def damaged_cache(tmp_path, monkeypatch, library) -> Path:
    """A cache with a good library, and a compiler whose work is a copy of it."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(build, "compile_library", lambda _compiler, made: made.write_bytes(library))
    monkeypatch.setattr(build, "_try", lambda _made: None)
    path = build.load().path
    assert path.read_bytes() == library
    return path


@pytest.mark.e2e
def test_a_library_that_is_damaged_is_made_again(tmp_path, monkeypatch, caplog):
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
        assert line.endswith(".so is made again: it differs from its checksum")
    caplog.clear()
    build.load()
    assert not caplog.messages


@pytest.mark.parametrize("place", ["library", "directory"])
def test_a_library_that_others_could_have_changed_is_made_again(
    place, tmp_path, monkeypatch, caplog
):
    path = damaged_cache(tmp_path, monkeypatch, native_library().path.read_bytes())
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    target = path if place == "library" else path.parent
    target.chmod(0o777)
    assert build.load().path == path
    [line] = caplog.messages
    assert "made again: it could be changed by others (mode 777 of " in line
    assert target.stat().st_mode & 0o022 == 0


@pytest.mark.e2e
def test_a_library_that_crashes_is_left_out(tmp_path, monkeypatch):
    """It is tried in a process of its own, and not kept."""
    native_library()
    crash = tmp_path / "crash.c"
    crash.write_text("static void __attribute__((constructor)) crash(void) { __builtin_trap(); }\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "SOURCES", [crash])
    with pytest.raises(compiler.BuildError, match=r"made by the compiler ends a process .*\(-4\)"):
        build.load()
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def wheel(compiling, monkeypatch) -> Path:
    """The library of a wheel for this processor, and no compiler."""
    level = compiler.LEVELS.get(torch.backends.cpu.get_cpu_capability())
    if level is None:
        pytest.skip("wheels have no library for this processor")
    monkeypatch.setattr(compiler, "PREBUILT", compiling.parent)
    path = compiler.prebuilt(level)
    path.write_bytes(native_library().path.read_bytes())
    compiler.checksum_file(path).write_bytes(compiler.checksum(path.read_bytes()))
    monkeypatch.setenv("CC", "no-such-compiler")
    return path


@pytest.mark.e2e
def test_the_library_of_a_wheel_needs_no_compiler(wheel, compiling):
    library = build.load()
    assert (library.path.parent, library.path.read_bytes()) == (compiling, wheel.read_bytes())
    assert build.load().path == library.path
    logits = torch.zeros(1, 4)
    [nll, *_] = NativeLoss(library)(logits, None, torch.tensor([0]), 0.0, None)
    assert nll.item() == pytest.approx(math.log(4))


@pytest.mark.e2e
def test_a_damaged_library_of_a_wheel_is_not_used(wheel, monkeypatch, caplog):
    wheel.write_bytes(wheel.read_bytes()[:-1])
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    with pytest.raises(compiler.BuildError, match="no C compiler"):
        build.load()
    [line] = caplog.messages
    assert (
        line == f"{wheel.name} differs from its checksum and is not used: install the wheel again"
    )


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_CC_is_no_compiler(value, monkeypatch):
    monkeypatch.setenv("CC", value)
    with pytest.raises(compiler.BuildError, match=r"no C compiler \(CC is empty\)"):
        build.load()
