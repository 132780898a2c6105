"""SIGKILL at any moment: the run goes on to the result it would have had, bit for bit."""

import bisect
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from storms import Child, Micro, Zygote, difference, inside

pytestmark = pytest.mark.e2e

WRITING = ("save", "best", "retention", "export", "file decode/test.txt")
"""Checkpoint writing, retention and export; a decoded file is open while it is decoded."""
LAST = 60  # seconds that a run may be silent


@dataclass
class Trial:
    """What became of a run that was killed."""

    kills: Counter = field(default_factory=Counter)
    """Kills that landed inside, outside, and before the folder was a run."""
    difference: str | None = None


def kill_somewhere(micro: Micro, child: Child, rng: random.Random, *, writing: bool) -> None:
    """Wait for a random instant of the undisturbed run, or for one inside of some writing."""
    marks, times = micro.whole.marks, micro.whole.times
    if writing:
        at = rng.choice(
            [i for i, mark in enumerate(marks) if mark[1:] in WRITING and mark[0] == "+"]
        )
        length = times[marks.index(f"-{marks[at][1:]}", at)] - times[at]
    else:
        at = bisect.bisect(times, rng.uniform(times[0], times[-1])) - 1
        length = times[min(at + 1, len(times) - 1)] - times[at]
    name, count = marks[at], marks[: at + 1].count(marks[at])
    if child.until(name, count):
        time.sleep(rng.uniform(0, length))
    child.send(signal.SIGKILL)


def kill_soon(child: Child, rng: random.Random) -> None:
    """Wait for some random marks; a run in which this is done again and again still gets on."""
    for _ in range(rng.randrange(1, 120)):
        if child.next_mark() is None:
            return
    time.sleep(rng.uniform(0, 0.01))
    child.send(signal.SIGKILL)


def where(child: Child, root: Path) -> str:
    if not (root / "config.yaml").exists():
        return "before there was a run"
    return "inside" if set(inside(child.marks)) & set(WRITING) else "outside"


def told_that_there_is_no_run(zygote: Zygote, root: Path) -> None:
    """Killed so early that nothing can be resumed: one line says so, and a new start works."""
    child = zygote.start(f"resume={root.name}", cwd=root.parent)
    assert child.wait() == 4
    assert (
        child.error == f"error: {root.name}: holds no run (no config.yaml). Name a run directory."
    )


def storm(micro: Micro, zygote: Zygote, root: Path, rng: random.Random, kills: int) -> Trial:
    """Kill a run so many times, then let it end and compare it with the undisturbed one."""
    trial = Trial()
    while trial.kills.total() < kills:
        child = micro.start_in(zygote, root, marks=True)
        if kills == 1:
            kill_somewhere(micro, child, rng, writing=rng.random() < 0.75)
        else:
            kill_soon(child, rng)
        if child.wait(LAST) == 0:
            break  # it was faster
        trial.kills[where(child, root)] += 1
        if root.is_dir() and not (root / "config.yaml").exists():
            told_that_there_is_no_run(zygote, root)
    micro.finish(zygote, root)
    trial.difference = difference(root, micro.whole.root)
    return trial


def many(micro: Micro, base: Path, runs: int, kills: int) -> tuple[int, Counter]:
    """Return how many runs came out equal, and where the kills landed."""
    assert (micro.whole.root / "decode/test.txt").read_text().count("\n") == 50

    def one(zygote: Zygote, number: int) -> Trial:
        rng = random.Random(f"{kills} kills, run {number}")
        return storm(micro, zygote, base / f"run{number}", rng, kills)

    trials = micro.many(runs, one)
    for number, trial in enumerate(trials):
        assert trial.difference is None, f"run {number}, {dict(trial.kills)}: {trial.difference}"
    return sum(t.difference is None for t in trials), sum((t.kills for t in trials), Counter())


@pytest.mark.parametrize("count", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_K1_a_killed_run_ends_as_if_nothing_had_happened(micro, tmp_path, tally, count):
    held, kills = many(micro, tmp_path, count, kills=1)
    note = ", ".join(f"{n} {place}" for place, n in sorted(kills.items()))
    tally("K1", "SIGKILL once, then resumed: weights, metrics, 50 translations", held, count, note)
    assert held == count
    assert count < 100 or kills["inside"] >= 0.4 * kills.total(), kills


@pytest.mark.parametrize(
    ("runs", "kills"),
    [(2, 3), *(pytest.param(20, n, marks=pytest.mark.slow) for n in (5, 20))],
)
def test_O1_K5_killed_again_and_again(micro, tmp_path, tally, runs, kills):
    """The points in TensorBoard are part of what is compared; none is there twice."""
    held, landed = many(micro, tmp_path, runs, kills)
    note = f"{landed.total()} kills"
    tally(
        "O1 K5", f"SIGKILL {kills} times in one run: also what TensorBoard shows", held, runs, note
    )
    assert held == runs
    assert landed.total() >= 4


@pytest.mark.slow
def test_K9_asked_to_stop_and_killed_soon_after(micro, tmp_path, tally):
    """A shutdown: SIGTERM, and SIGKILL before there was time for all that it asks for."""

    def one(zygote: Zygote, number: int) -> str | None:
        rng, root = random.Random(f"K9 {number}"), tmp_path / f"run{number}"
        child = micro.start_in(zygote, root, marks=True)
        marks = micro.whole.marks
        assert child.until("+update", rng.randrange(1, marks.count("+update")))
        child.send(signal.SIGTERM)
        time.sleep(rng.uniform(0, 0.05))  # most runs are gone after 2 s: kill within the saving
        child.send(signal.SIGKILL)
        assert child.wait() in (143, -signal.SIGKILL)
        micro.finish(zygote, root)
        return difference(root, micro.whole.root)

    found = micro.many(50, one)
    tally("K9", "SIGTERM, then SIGKILL", found.count(None), 50)
    assert found == [None] * 50
