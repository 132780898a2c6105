"""Death, failing disks, power cuts at every operation of a save: nothing acknowledged is lost."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from disks import Disk
from faults import Operations, fail_at, in_child, kill_at, killed
from runs import ROOT, composed, copy_of, locked, template_pairs, tiny_run, write_corpus
from toys import Toy, folder, toy, weights_of

from seq2seq.config.compose import load_run_config
from seq2seq.data.prepare import REPORT, check_data, prepare
from seq2seq.run.checksums import read_directory, verify_directory
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import PlatformError
from seq2seq.training import checkpoint
from seq2seq.training.export import export

pytestmark = pytest.mark.e2e

STEPS = (1, 2, 3, 4)


def cycle(made: Toy, say) -> None:
    """Four saves with their marks and deletions; says what was acknowledged."""
    for step in STEPS:
        say(f"begin {step}")
        made.save(step)
        say(f"saved {step}")
        if step != 3:
            checkpoint.mark_best(made.run, made.state.progress.best_update, "bleu", 1.0)
            say(f"marked {step}")
        checkpoint.prune(made.run, keep=2)


def last(said: list[str], word: str) -> int:
    return max((int(line.split()[1]) for line in said if line.startswith(word)), default=0)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[int, list[list[float]]]:
    made, found = toy(tmp_path_factory.mktemp("toy") / "run"), {}
    for step in range(1, max(STEPS) + 2):
        made.update()
        found[step] = made.tensors()
    return found


def assert_recovers(root: Path, said: list[str], expected, case: str) -> None:
    """What was acknowledged is there, whole, and the next save works."""
    survivor = toy(root)
    with locked(survivor.run), Operations():  # which syncs nothing: that takes long
        survivor.run.lock()
        left = [p.name for p in root.rglob("*") if ".tmp-" in p.name or ".trash-" in p.name]
        assert not left, f"{case}: {left}"
        path = checkpoint.newest(survivor.run)
        saved, begun, marked = (last(said, word) for word in ("saved", "begin", "marked"))
        assert path is not None or saved == 0, f"{case}: update {saved} is gone"
        if path is not None:
            checkpoint.load(survivor.run, path, survivor.state)
            step = survivor.state.progress.update
            assert saved <= step <= begun, f"{case}: {step} found, {saved} acknowledged"
            assert survivor.tensors() == expected[step], case
            assert marked <= (checkpoint.best_update(survivor.run) or 0) <= begun, case
            assert weights_of(survivor)[0] >= marked, case
            good = [
                s for s in checkpoint.updates(survivor.run) if not verify_directory(folder(root, s))
            ]
            assert len(good) >= min(2, saved), f"{case}: only {good} are good"
        survivor.save(survivor.state.progress.update + 1)
        again = checkpoint.newest(survivor.run)
        assert again == folder(root, survivor.state.progress.update), case


def operations_of(work) -> list[str]:
    def counted(say) -> None:
        def act(_count, name, _args, proceed):
            say(f"operation {name}")
            return proceed()

        with Operations(act):
            work(lambda _: None)

    status, said = in_child(counted)
    assert status == 0, said
    return [line.split()[1] for line in said]


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_K2_S12_death_at_every_file_operation_of_saving_and_deleting(
    tmp_path, expected, tally, every
):
    """Before it, which is after the one before; and with half of it done where it writes."""
    counted = toy(tmp_path / "count")
    names = operations_of(lambda say: cycle(counted, say))
    assert len(names) > 150, "there should be that many operations to die at"
    points = [(n, half) for n, name in enumerate(names, 1) for half in {False, name == "write"}]
    points = points[::every]
    acknowledged, survived = Counter(), 0
    for number, half in points:
        root = tmp_path / f"run{number}{half}"
        made = toy(root)

        def work(say, made=made, number=number, half=half) -> None:
            with Operations(kill_at(number, half=half)):
                cycle(made, say)

        status, said = in_child(work)
        assert killed(status), said
        assert_recovers(root, said, expected, f"death at operation {number}, half {half}")
        acknowledged[last(said, "saved")] += 1
        survived += 1
        shutil.rmtree(root)
    assert set(acknowledged) == {0, *STEPS}
    tally("K2", "death at every file operation of save and retention", survived, len(points))


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_K2_death_at_every_file_operation_of_an_export(tmp_path, tmp_path_factory, tally, every):
    source = tiny_run(tmp_path_factory.getbasetemp())
    cfg = load_run_config(source / "config.yaml")
    files = read_directory(source / "tokenizers")

    counted = copy_of(source, tmp_path / "count")
    shutil.rmtree(counted / "model/checkpoints")  # damaged, so that it is made anew
    total = len(operations_of(lambda _: export(RunDir(counted), cfg)))
    assert total > 40
    tried = range(1, total + 1, every)
    for number in tried:
        root = copy_of(source, tmp_path / f"run{number}")
        shutil.rmtree(root / "model/checkpoints")

        def work(_, root=root, number=number) -> None:
            with Operations(kill_at(number, half=True)):
                export(RunDir(root), cfg)

        status, said = in_child(work)
        assert killed(status), said
        run = RunDir.open(root)
        with locked(run):
            run.lock()
            assert not list(root.glob(".t*-*"))
            export(run, cfg)
        assert read_directory(root / "model/tokenizers") == files
        assert verify_directory(next((root / "model/checkpoints").iterdir())) is None
        shutil.rmtree(root)
    tally("K2", "death at every file operation of an export", len(tried), len(tried))


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_K2_K6_death_at_every_file_operation_of_preparing_data(tmp_path, tally, every):
    """Corpus, vocabularies and ids are made anew until the report, written last, is there."""
    names = write_corpus(tmp_path / "corpus", template_pairs(40), held_out=4)
    cfg = composed("debug", [*names, "tokenizer.vocab_size=60"])

    def work(root: Path) -> None:
        prepare(RunDir(root), cfg)

    (tmp_path / "whole").mkdir()
    total = len(operations_of(lambda _: work(tmp_path / "whole")))
    whole = {p: (tmp_path / "whole" / p).read_bytes() for p in files_of(tmp_path / "whole")}
    assert total > 100
    tried = range(1, total + 1, every)
    for number in tried:
        root = tmp_path / f"run{number}"
        root.mkdir()

        def dying(_, root=root, number=number) -> None:
            with Operations(kill_at(number, half=True)):
                work(root)

        status, said = in_child(dying)
        assert killed(status), said
        run = RunDir(root)
        with locked(run):
            run.lock()
            assert not [p for p in files_of(root) if ".tmp-" in p]
            if (root / REPORT).exists():
                check_data(run)
            if number % 10 == 0 or number > total - 10:  # making it takes time
                prepare(run, cfg)
                found = {p: (root / p).read_bytes() for p in files_of(root) if p != "run.lock"}
                assert found == whole
        shutil.rmtree(root)
    tally("K2", "death at every file operation of preparing data", len(tried), len(tried))


def files_of(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


@pytest.mark.parametrize("states", [100, pytest.param(5000, marks=pytest.mark.slow)])
def test_K4_power_cuts_lose_nothing_acknowledged(tmp_path, expected, tally, states):
    root = tmp_path / "run"
    draw = random.Random(7)
    counted = toy(tmp_path / "count")
    total = len(operations_of(lambda say: cycle(counted, say)))
    done, kept = 0, Counter()
    for number in range(1, total + 1):
        shutil.rmtree(root, ignore_errors=True)
        made = toy(root)
        said: list[str] = []
        disk = recorded_until(number, root, made, said)
        for _ in range(states // total + (number <= states % total)):
            state = tmp_path / f"state{done}"
            disk.after_a_cut(state, draw)
            (state / "config.yaml").write_bytes((root / "config.yaml").read_bytes())
            assert_recovers(state, said, expected, f"power cut at operation {number}")
            kept[len(checkpoint.updates(RunDir(state)))] += 1
            shutil.rmtree(state)
            done += 1
    assert done == states
    assert len(kept) > 2, "the states should differ"
    tally("K4", "power cuts: unsynced bytes and names lost in part", done, states)


class CutError(BaseException):
    """Not an Exception: no handler of ours may go on after it."""


def recorded_until(number: int, root: Path, made: Toy, said: list[str]) -> Disk:
    disk = Disk(root)

    def act(count, name, args, proceed):
        if count >= number:
            raise CutError
        return disk(count, name, args, proceed)

    with pytest.raises(CutError), Operations(act):
        cycle(made, said.append)
    return disk


# Errors of the disk: unlike death, they are handled.

SYSTEM_CALLS = ("open", "write", "fsync", "close", "replace", "mkdir")


@pytest.mark.parametrize(
    "code",
    [
        errno.ENOSPC,
        errno.EIO,
        *(
            pytest.param(code, marks=pytest.mark.slow)
            for code in (errno.EDQUOT, errno.EMFILE, errno.EROFS, errno.ENOENT, errno.ESTALE)
        ),
    ],
    ids=errno.errorcode.get,
)
def test_S1_S2_S3_an_error_at_any_operation_of_a_save_leaves_the_last_one(tmp_path, tally, code):
    tried = sum(failing_at_each(toy(tmp_path / name), name, code) for name in SYSTEM_CALLS)
    tally("S1 S2 S3", f"{errno.errorcode[code]} at each operation of a save", tried, tried)


def failing_at_each(made: Toy, name: str, code: int) -> int:
    """Let the first operation of a name fail, then the second, ...: return how many there are."""
    made.save(1)
    good = read_directory(folder(made.run.root, 1))
    made.update()
    number = 0
    while error := failed_save(made, name, code, number + 1):
        number += 1
        assert error.exit_code == 5
        assert os.strerror(code) in error.what
        assert "while saving update 2 (needs about " in error.what
        assert "; last good: update 1" in error.what
        assert not list(made.run.root.rglob(".t*-*")), "nothing half done may stay"
        assert read_directory(folder(made.run.root, 1)) == good
        if folder(made.run.root, 2).exists():  # only its very last sync failed
            assert verify_directory(folder(made.run.root, 2)) is None
            shutil.rmtree(folder(made.run.root, 2))
    assert number >= (1 if name in ("replace", "mkdir") else 6)
    assert checkpoint.newest(made.run) == folder(made.run.root, 2), "the next save works"
    return number


def failed_save(made: Toy, name: str, code: int, number: int) -> PlatformError | None:
    """Save while the n-th operation of a name fails; None if there are fewer."""
    synced: list[int] = []
    fail = fail_at(number, code, names=(name,))

    def act(count, each, args, proceed):
        if each == "fsync":
            synced.append(args[0])
        return fail(count, each, args, proceed)

    try:
        with Operations(act):
            checkpoint.save(made.run, made.state)
    except PlatformError as error:
        if name == "fsync":
            assert len(synced) == number, "nothing is synced again after a failure"
        return error
    return None


@pytest.mark.parametrize("name", ["replace", "rmdir", "unlink"])
@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES], ids=errno.errorcode.get)
def test_S12_a_deletion_that_fails_is_a_warning(tmp_path, caplog, name, code):
    made = toy(tmp_path / "run")
    for step in (1, 2, 3):
        made.save(step)
    with Operations(fail_at(1, code, names=(name,))):
        checkpoint.prune(made.run, keep=2)
    assert f"could not be deleted ({os.strerror(code)}); going on" in caplog.text
    good = [
        s for s in checkpoint.updates(made.run) if not verify_directory(folder(made.run.root, s))
    ]
    assert good[-2:] == [2, 3]
    made.save(4)
    checkpoint.prune(made.run, keep=2)
    assert checkpoint.updates(made.run) == [3, 4]


def test_S12_nothing_is_deleted_while_a_newer_one_cannot_be_read(tmp_path, caplog):
    made = toy(tmp_path / "run")
    for step in (1, 2, 3, 4):
        made.save(step)
    os.truncate(folder(made.run.root, 4) / "model.safetensors", 10)
    checkpoint.prune(made.run, keep=2)
    assert "update-00000004 is damaged; older checkpoints are kept" in caplog.text
    assert checkpoint.updates(made.run) == [1, 2, 3, 4]


# The same at the system calls of a real process.

SAVER = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from seq2seq.run.directory import RunDir
run = RunDir(Path(sys.argv[1]))
for step in (1, 2, 3):
    files = {"model.safetensors": bytes([step]) * 5000, "state.json": b'{"update": %d}' % step}
    run.commit_directory(f"checkpoints/update-{step:08d}", files)
    os.write(1, b"saved %d\\n" % step)
    run.write("checkpoints/best.json", b'{"update": %d}' % step)
    if step > 2:
        run.remove_directory(f"checkpoints/update-{step - 2:08d}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("call", ["openat", "write", "fsync", "rename", "unlinkat", "mkdir"])
def test_K3_SIGKILL_at_every_system_call_of_a_save_cycle(tmp_path, tally, call):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    python = [sys.executable, "-S", "-B", "-c", SAVER]
    log = tmp_path / "log"
    root = tmp_path / "count"
    root.mkdir()
    counting = ["strace", "-o", str(log), "-e", f"trace={call}", *python, str(root), str(ROOT)]
    done = subprocess.run(counting, capture_output=True, text=True, check=False)
    if done.returncode or done.stdout != "saved 1\nsaved 2\nsaved 3\n":
        pytest.skip(f"strace does not work here: {done.stderr[-200:]}")
    lines = [line for line in log.read_text().splitlines() if line.startswith(f"{call}(")]
    named = call in ("openat", "rename", "mkdir")  # others are given descriptors
    places = [i for i, line in enumerate(lines, 1) if str(root) in line or not named]
    held = 0
    for number in places:
        root = tmp_path / f"run{number}"
        root.mkdir()
        # A path of the same length, so that the process does the same up to there.
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
        done = subprocess.run(
            ["strace", "-o", str(log), *inject, *python, str(root), str(ROOT)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (137, -signal.SIGKILL), done
        saved = last(done.stdout.splitlines(), "saved")
        run = RunDir(root)
        with locked(run):
            run.lock()
            assert not [p for p in files_of(root) if ".tmp-" in p or ".trash-" in p]
            good = [s for s in checkpoint.updates(run) if verify_directory(folder(root, s)) is None]
            assert (good or [0])[-1] >= saved, f"{call} {number}"
            assert good == checkpoint.updates(run), f"{call} {number}: one is not whole"
        held += 1
    assert held == len(places) > 2
    tally("K3", f"SIGKILL at every {call} of a real process", held, len(places))
