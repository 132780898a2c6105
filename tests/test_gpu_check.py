"""The check of the Triton kernels at the first use on a device, and what is kept of it.

In the interpreter these tests run with those of `test_steps.py`, which starts it.
"""

import importlib.util
import json
import logging
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from runs import ROOT, environment
from test_steps import DEVICE, HAS_TRITON, INTERPRETED, WITHOUT, on_triton, triton_steps

from seq2seq.kernels import gpu

with_triton = pytest.mark.skipif(not HAS_TRITON, reason=WITHOUT)
interpreted = pytest.mark.skipif(not INTERPRETED, reason="what is broken is broken in Python")

# One wrong sign, place or mask in each; the first of a kernel is tried by `make test`.
MISTAKES = {
    "gates": [
        ("+ r * product)", "- r * product)"),
        ("r * old", "-r * old"),
        ("mask=real & (row < num_out)", "mask=real"),
        ("load(from_s + n, real)", "load(from_s, real)"),
    ],
    "move": [
        ("mask=real & (row < num_out)", "mask=real"),
        ("old + z * (s_tilde - old)", "old - z * (s_tilde - old)"),
    ],
    "gates_backward": [
        ("d_new * (1 - z)", "d_new * (1 + z)"),
        ("d_new += load(at_new", "d_new -= load(at_new"),
        ("d_before += load(at_old", "d_before -= load(at_old"),
        ("d_candidate * slope", "-d_candidate * slope"),
        ("d_candidate, mask=real)\n    else", "-d_candidate, mask=real)\n    else"),
    ],
    "reset_backward": [
        ("+ d_product * r", "- d_product * r"),
        ("d_product * slope", "-d_product * slope"),
    ],
    "energies": [
        ("tanh(q + key)", "tanh(q - key)"),
        ("total += load(v_a", "total -= load(v_a"),
        ("queries + (first + row)", "queries + row"),
    ],
    "context": [
        ("mask=real, other", "mask=j < Tx, other"),
        ("+ tl.sum(total", "- tl.sum(total"),
        ("alphas + (first + row)", "alphas + row"),
    ],
    "context_backward": [
        ("+ load(d_alphas", "- load(d_alphas"),
        ("total += load(d_drive + (first + row)", "total += load(d_drive + row"),
    ],
    "energies_backward": [
        ("load(d_keys + place, both) + d_key", "d_key"),
        ("- mean", "+ mean"),
        ("v * tl.sum(d_q", "-v * tl.sum(d_q"),
        ("(2 * half - 1)", "(1 - 2 * half)"),
    ],
}


def broken(monkeypatch, tmp_path: Path, kernel: str, right: str, wrong: str) -> None:
    """Run another source of the kernels."""
    from seq2seq.kernels.gpu import steps

    text = Path(steps.triton_kernels.__file__).read_text("utf-8")
    before, name, rest = text.partition(f"\ndef {kernel}(")
    body, mark, after = rest.partition("\n@triton.jit")
    assert body.count(right) == 1
    path = tmp_path / "triton_kernels.py"
    path.write_text("".join([before, name, body.replace(right, wrong), mark, after]), "utf-8")
    spec = importlib.util.spec_from_file_location("broken_kernels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(steps, "triton_kernels", module)


def found(monkeypatch, kernel: str) -> str | None:
    """What the comparisons find that a kernel takes part in."""
    from seq2seq.kernels.gpu import check

    monkeypatch.setattr(check, "PARTS", [x for x in check.PARTS if kernel in x[0].split(", ")])
    return check.problem(DEVICE)


@on_triton
@interpreted
@pytest.mark.parametrize(
    ("kernel", "right", "wrong"),
    [
        pytest.param(kernel, *each, marks=[pytest.mark.slow] if number else [])
        for kernel, mistakes in MISTAKES.items()
        for number, each in enumerate(mistakes)
    ],
)
def test_a_kernel_that_is_wrong_is_named(kernel, right, wrong, tmp_path, monkeypatch):
    broken(monkeypatch, tmp_path, kernel, right, wrong)
    problem = found(monkeypatch, kernel)
    assert problem is not None
    assert problem.startswith(f"{kernel}: ")
    assert problem.endswith(("(float32)", "(bfloat16)"))
    assert " differs by " in problem


@on_triton
@interpreted
def test_a_kernel_that_fails_is_named(tmp_path, monkeypatch):
    broken(monkeypatch, tmp_path, "move", "product = load(U_rs", "product = absent(U_rs")
    problem = found(monkeypatch, "move")
    assert problem.startswith("gates, move: ")
    assert "absent" in problem
    assert "\n" not in problem


@on_triton
def test_a_full_device_is_no_fault_of_a_kernel(monkeypatch):
    from seq2seq.kernels.gpu import steps

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(steps.TritonUnit, "__call__", full)
    with pytest.raises(torch.OutOfMemoryError):
        found(monkeypatch, "gates")


@on_triton
def test_the_kernels_are_checked_once(tmp_path, monkeypatch):
    from seq2seq.kernels.gpu import verdict

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert gpu.steps_on.__wrapped__(DEVICE) is triton_steps()
    [kept] = (tmp_path / "seq2seq").iterdir()
    assert json.loads(kept.read_bytes())["problem"] is None
    monkeypatch.delattr(verdict, "run_apart")
    assert gpu.steps_on.__wrapped__(DEVICE) is triton_steps()


# What is kept -----------------------------------------------------------------------------------


@pytest.fixture
def checks(tmp_path, monkeypatch) -> list[str]:
    """An empty cache; a process that checks takes its result from here."""
    from seq2seq.kernels.gpu import verdict

    results: list[str] = []

    def run_apart(_: str) -> subprocess.CompletedProcess[str]:
        text = results.pop()
        if text == "hangs":
            raise TimeoutError("a process takes more than 120 seconds")
        code = int(text) if text.lstrip("-").isdigit() else 0
        return subprocess.CompletedProcess([], code, "" if code else f"note\n{text}\n", "a\nwhy")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(verdict, "run_apart", run_apart)
    return results


@with_triton
@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ("null", None),
        ('"move: the new state differs by 0.5 (float32)"', "move: the new state differs by 0.5"),
        ("-11", "check: ended by SIGSEGV"),
        ("hangs", "check: a process takes more than 120 seconds"),
    ],
)
def test_a_result_is_kept_until_something_changes(result, problem, checks, tmp_path, monkeypatch):
    from seq2seq.kernels.gpu import verdict

    def asked(*results: str) -> None:
        checks[:] = results
        answer = verdict.problem(torch.device("cpu"))
        assert checks == []
        if problem is None:
            assert answer is None
        else:
            assert answer.startswith(problem)
            assert answer.split()[-1] in map(str, (tmp_path / "seq2seq").iterdir())

    asked(result)
    asked()
    [kept] = (tmp_path / "seq2seq").iterdir()
    kept.write_bytes(kept.read_bytes()[:-30])
    asked(result)
    asked()
    for owner, name, value in (
        (verdict.triton, "__version__", "9.9"),
        (torch, "__version__", "9.9"),
        (verdict, "_driver", lambda: "9.9"),
        (verdict.shutil, "which", lambda name: f"/elsewhere/{name}"),
    ):
        monkeypatch.setattr(owner, name, value)
        asked(result)
        asked()
    assert len([*(tmp_path / "seq2seq").iterdir()]) == 5


@with_triton
@pytest.mark.parametrize(("result", "reason"), [("1", "why"), ("-2", "ended by SIGINT")])
def test_a_check_that_cannot_run_is_not_kept(result, reason, checks, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    for _ in range(2):
        caplog.clear()
        checks.append(result)
        assert gpu.steps_on.__wrapped__(torch.device("cpu")) is None
        assert checks == []
        assert caplog.messages == [
            "torch operations run on cpu instead of the Triton kernels: the check could not run: "
            + reason
        ]
    assert not (tmp_path / "seq2seq").exists()


@pytest.mark.parametrize("problem", ["gates: z and r differs by 1 (float32)", None])
def test_a_problem_is_one_line_and_torch_operations(problem, monkeypatch, caplog):
    steps, verdict = types.ModuleType("steps"), types.ModuleType("verdict")
    steps.TRITON, verdict.CheckError = "the kernels", ValueError
    verdict.problem = lambda _device: problem
    for name, module in (("steps", steps), ("verdict", verdict)):
        monkeypatch.setitem(sys.modules, f"seq2seq.kernels.gpu.{name}", module)
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    taken = gpu.steps_on.__wrapped__(torch.device("cuda", 1))
    if problem is None:
        assert (taken, caplog.messages) == ("the kernels", [])
    else:
        start = "torch operations run on cuda:1 instead of the Triton kernels: "
        assert (taken, caplog.messages) == (None, [start + problem])


# The script -------------------------------------------------------------------------------------

SCRIPT = ROOT / "scripts" / "gpu_check.sh"


def run_script(*words: str | Path) -> subprocess.CompletedProcess[str]:
    with_python = environment(PYTHON=sys.executable)
    return subprocess.run(
        ["sh", SCRIPT, *words], env=with_python, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_script_runs_dry(tmp_path):
    for language in ("en", "fr"):
        lines = (f"{side} {number * 7919}\n" for number in range(300) for side in ("left", "right"))
        (tmp_path / f"train.{language}").write_text("".join(lines), "utf-8")
    peer = tmp_path / "joeynmt_side.py"
    peer.write_text("print('{\"train_target_tokens_per_s\": 100}')\n", "utf-8")
    done = run_script("--dry-run", peer, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    ways = [
        f"{backend} {dtype}" for backend in ("fused", "reference") for dtype in ("fp32", "bf16")
    ]
    assert [(row[1].strip(), row[3].strip()) for row in rows] == [
        ("size", "way"),
        *((size, way) for size in ("small", "medium", "paper") for way in (*ways, peer.stem)),
    ]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (
            ["--dry-run", "peer.py"],
            2,
            "a peer needs its data. Use scripts/gpu_check.sh [--dry-run]",
        ),
        (["absent.py", "."], 2, "absent.py is not a file. Give the script of the peer."),
        ([__file__, "/proc"], 3, "/proc has no train.en. Give a directory with the peer's text."),
    ],
)
def test_mistakes_in_the_script_are_one_line(words, code, line):
    done = run_script(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"error: gpu_check.sh: {line}")
    assert done.stderr.count("\n") == 1
