"""One run, one directory: who has it, where it may lie, and what else may be full."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import ROOT, copy_of
from storms import Micro, Zygote, difference, leftovers

import seq2seq
from seq2seq.run import lock
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError

pytestmark = pytest.mark.e2e

# Whose it is ------------------------------------------------------------------------------------

OWNED = (
    r"error: (.+): in use by pid (\d+) on (\S+) since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\. Wait for it"
)


def race(micro: Micro, zygote: Zygote, base: Path, number: int) -> str | None:
    """Start two at once on one directory, in one of several ways; say what went wrong."""
    rng, root = random.Random(number), base / f"race{number}" / "run"
    home = root.parent
    home.mkdir(parents=True)
    (home / "link").symlink_to("run")
    names = [rng.choice(["run", "./run", "../" + home.name + "/run", str(root)]) for _ in range(2)]
    resuming = number % 2 == 1
    if resuming:
        child = micro.start_in(zygote, root, marks=True)
        assert child.until("+update", rng.randrange(5, 30))
        child.send(signal.SIGKILL)
        child.wait()
        names[1] = rng.choice(["link", names[1]])
    how = ["resume="] if resuming else [*micro.overrides, "run_dir="]
    began = time.time()
    both = [zygote.start(*how[:-1], how[-1] + name, cwd=home) for name in names]
    codes = [child.wait() for child in both]
    took = {code: child for code, child in zip(codes, both, strict=True)}
    if sorted(codes) != [0, 4]:
        return f"{names}: {codes} {[child.err[-300:] for child in both]}"
    loser, winner = took[4], took[0]
    found = re.match(OWNED, loser.error)
    if found is None or int(found.group(2)) != winner.pid:
        return f"{names}: {loser.error}"
    if loser.ended - began > 2 + SLOW:
        return f"the loser took {loser.ended - began:.1f} s"
    if leftovers(root):
        return f"left {leftovers(root)}"
    return difference(root, micro.whole.root)


SLOW = 8.0
"""Seconds that Hydra may take to compose a config twice on a machine that does other things."""


@pytest.mark.parametrize("count", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_S10_of_two_runs_on_one_directory_one_wins(micro, tmp_path, tally, count):
    found = micro.many(count, lambda zygote, number: race(micro, zygote, tmp_path, number))
    tally("S10", "two starts on one directory: one winner, unharmed", found.count(None), count)
    assert found == [None] * count


def test_S10_the_owner_is_named_even_if_it_has_just_come(tmp_path, monkeypatch):
    """Between taking the lock and writing down who has it there is a moment."""
    first, second = RunDir(tmp_path), RunDir(tmp_path)
    first.lock()
    written = (tmp_path / "run.lock").read_bytes()
    (tmp_path / "run.lock").write_bytes(b"")
    monkeypatch.setattr(lock.time, "sleep", lambda _: (tmp_path / "run.lock").write_bytes(written))
    with pytest.raises(RunDirError, match=f"in use by pid {os.getpid()} on .* since "):
        second.lock()
    first.unlock()


HOLDER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from seq2seq.run.directory import RunDir
run = RunDir(Path(sys.argv[1]))
run.lock()
child = os.fork()  # a data loader, say, that outlives its parent
if child == 0:
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("count", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_K11_the_lock_of_a_dead_process_is_free_although_its_child_lives(tmp_path, tally, count):
    code, held = HOLDER.format(root=str(ROOT)), 0
    for _ in range(count):
        (tmp_path / ".tmp-1-scores.json").touch()
        with subprocess.Popen(
            [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True
        ) as holder:
            child = int(holder.stdout.readline())
            with pytest.raises(RunDirError, match=f"in use by pid {holder.pid} on ") as caught:
                RunDir(tmp_path).lock()
            assert caught.value.exit_code == 4
            holder.kill()
            holder.wait()
            began = time.monotonic()
            os.kill(child, 0)  # it lives, and holds the file open
            run = RunDir(tmp_path)
            run.lock()
            run.unlock()
            held += time.monotonic() - began <= 1
            os.kill(child, signal.SIGKILL)
        assert not leftovers(tmp_path)
    tally("K11", "lock of a killed process with a living child: free at once", held, count)
    assert held == count


# Where it lies ----------------------------------------------------------------------------------

NAMES = ["with spaces", 'it\'s "quoted"', "d'été 漢字", "a=b,c [d] $HOME", "two\nlines"]


@pytest.mark.parametrize(
    "name", ["-".join(NAMES), *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES)]
)
def test_S13_a_run_may_be_moved_anywhere(micro, tmp_path, name):
    """Killed, moved, renamed, and gone on with; nothing in it says where it was."""
    home, root = tmp_path / "first home", tmp_path / "first home/run"
    with micro.zygote() as zygote:
        child = micro.start_in(zygote, root, marks=True)
        assert child.until("+update", 31)
        child.send(signal.SIGKILL)
        child.wait()
        moved = Path(shutil.move(root, tmp_path / name))
        quoted = "'" + str(moved).replace("\\", "\\\\").replace("'", "\\'") + "'"
        child = zygote.start(f"resume={quoted}", cwd=tmp_path)
        assert child.wait() == 0, child.err
    assert difference(moved, micro.whole.root) is None
    for path in moved.rglob("*"):
        if path.is_file() and path.name not in ("run.lock", "train.log"):
            assert str(home).encode() not in path.read_bytes(), path
    copied = copy_of(moved, tmp_path / f"{name} again")
    text = (micro.folder / "corpus/test.en").read_text().splitlines()
    found = [t.text for t in seq2seq.load(copied).translate(text)]
    assert found == (micro.whole.root / "decode/test.txt").read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    "kind", ["full", *(pytest.param(k, marks=pytest.mark.slow) for k in ("missing", "elsewhere"))]
)
def test_S5_temporary_files_of_the_system_are_not_used(micro, tmp_path, kind):
    """/proc stands for the full one: nobody can make a file there. `tempfile` is out of order."""
    places = {"missing": tmp_path / "nothing", "full": "/proc", "elsewhere": "/dev/shm"}
    place, root = str(places[kind]), tmp_path / "run"
    with micro.zygote() as zygote:
        micro.finish(zygote, root, environment={"TMPDIR": place}, hooks=[["no_tempfile"]])
    assert difference(root, micro.whole.root) is None
