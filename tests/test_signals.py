"""Being asked to stop: within seconds, whatever is going on, and nothing is lost by it."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import FAMILY, random_batch, run, tiny_model
from runs import ROOT, call
from storms import Child, Micro, Zygote, difference, leftovers

from seq2seq.model import recurrence
from seq2seq.run import signals
from seq2seq.run.signals import EXIT_CODES, Interrupted, StopRequest

LIMIT = 5.0
"""Seconds from the signal to the end of the process."""


# The request itself -----------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(signals, "GRACE", 0.02)


def spin(seconds: float = 5.0) -> None:
    """Python at work, which looks for signals all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGUSR1, 75)],
)
def test_K7_K8_a_signal_becomes_its_exit_code(number, code):
    before = {each: signal.getsignal(each) for each in EXIT_CODES}
    stop = StopRequest()
    with stop.installed():
        assert stop.exit_code is None
        os.kill(os.getpid(), number)
        assert stop.exit_code == code
    assert {each: signal.getsignal(each) for each in EXIT_CODES} == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0), "nothing rings any more"


def test_what_is_ignored_stays_ignored(monkeypatch):
    """`nohup python train.py`, and the terminal goes away."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest().installed():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hasty")
def test_what_may_not_be_cut_off_is_finished_first():
    stop, done = StopRequest(), False
    with stop.installed():
        os.kill(os.getpid(), signal.SIGTERM)
        spin(0.2)
        done = True  # a file was written, say
        with pytest.raises(Interrupted), stop.interruptible():
            spin()
    assert done


@pytest.mark.usefixtures("hasty")
def test_a_backward_pass_is_cut_off():
    """To Python it is one call; it comes back to Python for every step of the decoder."""

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            spin(0.1)
            return gradient

    x = torch.zeros(1, requires_grad=True)
    y = x
    for _ in range(20):
        y = Slow.apply(y)
    stop = StopRequest()
    with stop.installed():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted), stop.interruptible():
            y.backward()


@pytest.mark.parametrize("attention", FAMILY)
def test_every_step_of_a_backward_pass_looks_up(attention):
    model = tiny_model(1, attention=FAMILY[attention], align_size=4).train()
    batch = random_batch(1)
    looks = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recurrence, "_pass_by", looks.append)
        run(model, batch)[1].backward()
    assert len(looks) >= batch.src.shape[1] + batch.tgt.shape[1] - 1


TWICE = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from seq2seq.run.signals import StopRequest
with StopRequest().installed():
    os.kill(os.getpid(), signal.SIGINT)
    print("once", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("twice", flush=True)
"""


def test_K7_a_second_interrupt_leaves_at_once():
    code = TWICE.format(root=str(ROOT))
    done = call("-c", code, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"once\n", b"")


# Whole runs -------------------------------------------------------------------------------------

PHASES = {
    # Where, how often that has begun before the signal, and what ends the process.
    "start": ("+start", 1, "signal"),
    "corpus check": ("+corpus", 2, "signal"),
    "vocabulary": ("+vocabularies", 1, "signal"),
    "batching": ("+batching", 2, "saved"),
    "mid-step": ("+gradient", 20, "saved"),
    "mid-save": ("+save", 5, "saved"),
    "validation": ("+validation", 4, "saved"),
    "heatmap": ("+heatmap", 2, "saved"),
    "decoding": ("+file decode/test.txt", 1, "stopped"),
}
SEEN = ["logging.heatmaps=1"]


def signalled(
    micro: Micro, zygote: Zygote, root: Path, phase: str, number: int, delay: float
) -> tuple[Child, float]:
    """A run that gets a signal in a phase; it, and how long it took to end, seconds."""
    mark, count, ends = PHASES[phase]
    child = micro.start_in(zygote, root, *SEEN, marks=True)
    assert child.until(mark, count), child.err
    time.sleep(delay)
    sent = time.monotonic()
    child.send(number)
    code = child.wait()
    took = time.monotonic() - sent
    code_of_signal = EXIT_CODES[signal.Signals(number)]
    if ends == "signal" or code == -number:
        # Nothing to save yet: as if there were no handler. A shell shows 128 + the signal.
        assert code == -number, (phase, code, child.err)
    else:
        assert code == code_of_signal, (phase, code, child.err)
        assert signal.Signals(number).name in child.error
        assert f"Continue with: python {ROOT}/train.py resume={root.name}" in child.error
        saved = child.error.startswith(f"stopped: {root.name}: saved at update ")
        assert saved or ends == "stopped", child.error
    return child, took


def all_phases(micro: Micro, base: Path, count: int, number: int) -> list[float]:
    """Stop runs in every phase, let them go on, compare; return how long each took to stop."""

    def one(zygote: Zygote, trial: int) -> tuple[str, float, str | None]:
        phase = list(PHASES)[2 * trial % len(PHASES)]  # a few are spread over the run
        root = base / f"{trial}" / "run"
        delay = random.Random(trial).uniform(0, 0.01) if trial >= len(PHASES) else 0
        _, took = signalled(micro, zygote, root, phase, number, delay)
        if PHASES[phase][2] != "signal":
            assert not leftovers(root), phase
        micro.finish(zygote, root)
        return phase, took, difference(root, micro.whole.root)

    found = micro.many(count, one)
    for phase, _, different in found:
        assert different is None, f"{phase}: {different}"
    return [took for _, took, _ in found]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("number", "count"),
    [
        (signal.SIGTERM, 5),
        pytest.param(signal.SIGTERM, 90, marks=pytest.mark.slow),
        *(pytest.param(n, 18, marks=pytest.mark.slow) for n in (signal.SIGHUP, signal.SIGUSR1)),
    ],
)
def test_K6_K8_T5_a_stop_in_every_phase(micro, tmp_path, tally, number, count):
    """Within 5 s, with its own exit code; and resumed it ends as if it had never stopped."""
    took = sorted(all_phases(micro, tmp_path, count, number))
    held, p99 = sum(t <= LIMIT for t in took), took[int(0.99 * (len(took) - 1))]
    row, name = "K6 T5" if number is signal.SIGTERM else "K8 T5", signal.Signals(number).name
    tally(
        row,
        f"{name} in {min(count, len(PHASES))} phases: exit within 5 s, resumed",
        held,
        len(took),
        f"p99 {p99:.2f} s",
    )
    assert held == len(took), took


@pytest.mark.e2e
@pytest.mark.parametrize("count", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_K7_interrupted_once_and_twice(micro, tmp_path, tally, count):
    """Half of them once, in a step and in a save; half of them twice."""

    def one(zygote: Zygote, trial: int) -> str | None:
        root = tmp_path / f"{trial}" / "run"
        phase = "mid-save" if trial % 2 else "mid-step"
        if trial % 4 < 2:
            _, took = signalled(micro, zygote, root, phase, signal.SIGINT, 0)
            assert took <= LIMIT
        else:
            child = micro.start_in(zygote, root, marks=True, hooks=[["slow_saves", 3.0]])
            assert child.until("+save" if trial % 2 else "+update", 3)
            child.send(signal.SIGINT)
            time.sleep(0.3)  # the same signal twice at once is one
            sent = time.monotonic()
            child.send(signal.SIGINT)
            assert child.wait() == 130
            assert time.monotonic() - sent <= 1
        micro.finish(zygote, root)
        return difference(root, micro.whole.root)

    found = micro.many(count, one)
    tally("K7", "SIGINT once, or twice", found.count(None), count)
    assert found == [None] * count


@pytest.mark.e2e
@pytest.mark.parametrize("phase", ["first update", "validation", "decoding"])
def test_K6_nothing_slow_holds_up_a_stop(micro, tmp_path, phase):
    root = tmp_path / "run"
    mark, updates = {
        "first update": ("+gradient", 0),
        "validation": ("+validation", 6),
        "decoding": ("+file decode/test.txt", 0),
    }[phase]
    with micro.zygote() as zygote:
        slow = [["slow_attention", 0.5, updates]] if phase != "decoding" else [["slow_search", 60]]
        changes = ["model.backend=reference"] if phase == "first update" else []
        child = micro.start_in(zygote, root, *changes, marks=True, hooks=slow)
        assert child.until(mark)
        time.sleep(0.3)
        sent = time.monotonic()
        child.send(signal.SIGUSR1)
        assert child.wait() == 75
        assert signals.GRACE <= time.monotonic() - sent <= LIMIT
        said = {
            "first update": "stopped before its first update was done",
            "validation": "saved at update 6",
            "decoding": "interrupted in stage decode",
        }[phase]
        assert child.error.startswith(f"stopped: run: {said} (SIGUSR1). Continue with: ")
        assert not leftovers(root)
        micro.finish(zygote, root)
    if phase != "first update":
        assert difference(root, micro.whole.root) is None


# Time and sleep ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stopped for 60 s", "clock -1 h", "clock +1 day"])
def test_K10_neither_sleep_nor_clock_changes_anything(micro, tmp_path, tally, fault):
    """The clock is another one after each restart; durations come from a clock that never jumps."""
    root = tmp_path / "run"
    with micro.zygote() as zygote:
        if fault.startswith("clock"):
            shift = -3600.0 if "-1" in fault else 86400.0
            for number in range(4):  # back and forth
                child = micro.start_in(
                    zygote, root, marks=True, hooks=[["clock", shift * (number % 2)]]
                )
                if child.until("+update", 14):
                    child.send(signal.SIGKILL)
                child.wait()
        else:
            child = micro.start_in(zygote, root, marks=True)
            assert child.until("+update", 20)
            child.send(signal.SIGSTOP)
            time.sleep(60)
            child.send(signal.SIGCONT)
            child.wait()
        micro.finish(zygote, root)
    rows = (root / "metrics.jsonl").read_text().splitlines()
    seconds = [float(row.split('"seconds": ')[1].split(",")[0]) for row in rows]
    assert seconds == sorted(seconds)
    assert all(s >= 0 for s in seconds)
    found = difference(root, micro.whole.root)
    tally("K10", fault, found is None, 1)
    assert found is None
