"""Damage is seen, named, and survived if an older checkpoint is whole; nothing starts afresh."""

import json
import logging
import os
import random
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from runs import assert_fails, config_of, copy_of, locked, run_here
from safetensors.torch import load_file, save
from toys import FILES, Toy, cut, flip, folder, loaded, toy, weights_of

import seq2seq
from seq2seq.cli.inspection import inspect
from seq2seq.config.compose import load_run_config
from seq2seq.data.prepare import REPORT, check_data
from seq2seq.run.checksums import (
    CHECKSUMS,
    entries_of,
    entry_of_file,
    read_checksummed,
    read_directory,
    verify_directory,
    with_checksum,
)
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError, UntrustedError, UserError
from seq2seq.run.provenance import note_restart, provenance, record
from seq2seq.training import checkpoint

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "flipped", "longer", "of another step"])
def test_S6_S9_a_damaged_checkpoint_is_named_and_the_older_one_used(tmp_path, caplog, name, damage):
    made = toy(tmp_path / "run")
    made.save(1)
    expected = made.tensors()
    made.save(2)
    path = folder(made.run.root, 2) / name
    size = path.stat().st_size
    match damage:
        case "cut":
            cut(path, size - 1)
        case "empty":
            cut(path, 0)
        case "gone":
            path.unlink()
        case "flipped":
            flip(path, 4 * size + 1)
        case "longer":
            path.write_bytes(path.read_bytes() + b"\0")
        case _:
            shutil.copy(folder(made.run.root, 1) / name, path)
            if name == "config.yaml":
                assert loaded(made.run.root).state.progress.update == 2, "it is the same"
                return
    with caplog.at_level(logging.WARNING):
        again = loaded(made.run.root)
    assert again.state.progress.update == 1
    assert again.tensors() == expected
    [record] = caplog.records
    assert f"{folder(made.run.root, 2)} is damaged" in record.getMessage()
    if damage == "cut" and name != "manifest.json":
        assert f"is {size - 1} bytes, expected {size}" in record.getMessage()


def test_S9_checkpoints_that_changed_places_are_refused(tmp_path):
    """Both are whole; what they say of themselves does not fit their names."""
    made = toy(tmp_path / "run")
    made.save(1)
    made.save(2)
    first, second = (folder(made.run.root, step) for step in (1, 2))
    first.rename(tmp_path / "first")
    second.rename(first)
    (tmp_path / "first").rename(second)
    with pytest.raises(
        RunDirError, match=r"update-00000002: is the checkpoint of update 1\. Restore"
    ):
        loaded(made.run.root)


def damaging_a_run(source: Path, tmp_path: Path) -> tuple[Path, list[Path]]:
    """A run to damage, and the files of it that something is computed from."""
    root = copy_of(source, tmp_path / "damaged")
    names = [f.path for f in inspect(RunDir(root)) if f.path.is_file()]
    assert not [f for f in inspect(RunDir(root)) if f.problem]
    return root, names


def use(root: Path) -> int:
    """Do what resuming and decoding do with the files of a run; return the update decoded with."""
    run = RunDir.open(root)
    cfg = load_run_config(run.path("config.yaml"))
    check_data(run)
    for name in entries_of(root / CHECKSUMS):
        run.checked(name)
    note_restart(run, cfg)
    checkpoint.newest(run)
    model = seq2seq.load(root)
    model.translate(["the cat sees the dog ."])
    return model.update


def refused(root: Path) -> UserError | None:
    try:
        use(root)
    except UserError as error:
        return error
    return None


@pytest.mark.e2e
@pytest.mark.parametrize("flips", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_S7_a_flipped_bit_in_any_file_is_seen(run, tmp_path, caplog, tally, flips):
    """By `verify.py`, and by whoever uses the run: an error, or a warning and another file."""
    root, names = damaging_a_run(run, tmp_path)
    draw, seen, survived = random.Random(flips), 0, 0
    used = {checkpoint.updates(RunDir(root))[-1], checkpoint.best_update(RunDir(root))}
    spares = {folder(root, step).name for step in {*checkpoint.updates(RunDir(root))} - used}
    for number in range(flips):
        path = names[number % len(names)]
        data = path.read_bytes()
        flip(path, draw.randrange(8 * len(data)))
        caplog.clear()
        assert [f for f in inspect(RunDir(root)) if f.problem], f"{path} was not seen"
        if number < flips / 4 and "model" not in path.relative_to(root).parts:
            error = refused(root)
            survived += error is None
            warned = "damaged" in caplog.text or "cannot be read" in caplog.text
            spare = path.parent.name in spares  # neither resumed from nor decoded with
            assert (warned or spare) if error is None else error.exit_code in (4, 7), path
        path.write_bytes(data)
        seen += 1
    assert survived, "damage to one checkpoint should be survived"
    assert not [f for f in inspect(RunDir(root)) if f.problem]
    note = f"{len(names)} files, each in turn"
    tally("S7", "flipped bits in all files of a run", seen, flips, note)


@pytest.mark.e2e
@pytest.mark.parametrize("lengths", [4, pytest.param(64, marks=pytest.mark.slow)])
def test_S6_every_file_cut_at_64_lengths_is_seen(run, tmp_path, tally, lengths):
    root, names = damaging_a_run(run, tmp_path)
    report = read_checksummed(root / REPORT)["files"]
    seen = tried = 0
    for path in names:
        data = path.read_bytes()
        for size in sorted({len(data) * i // lengths for i in range(lengths)}):
            os.truncate(path, size)
            tried += 1
            if (path.parent / "manifest.json").exists():  # the rest of the run is as it was
                seen += verify_directory(path.parent) is not None
            elif path.parent.name in ("corpus", "tokens"):
                seen += report[str(path.relative_to(root))] != entry_of_file(path)
            else:
                seen += any(f.problem for f in inspect(RunDir(root)))
            path.write_bytes(data)
    assert seen == tried > lengths / 2 * len(names)
    tally("S6", "files of a run cut at up to 64 lengths", seen, tried, f"{len(names)} files")


@pytest.mark.e2e
def test_S7_verify_names_what_is_damaged(run, tmp_path, monkeypatch):
    root = copy_of(run, tmp_path / "run")
    whole = run_here(monkeypatch, "verify", root)
    assert whole.code == 0
    lines = whole.out.decode().splitlines()
    assert len(lines) > 30
    assert all(line.endswith("  ok") for line in lines)
    assert run_here(monkeypatch, "verify", root, "--quiet").out == b""
    flip(root / "tokens/train.source.ids", 77)
    cut(root / "tokenizers/target.model", 99)
    (root / "checkpoints/best.json").write_text('{"update": 80, "sha256": "0"}')
    found = run_here(monkeypatch, "verify", root, "--quiet")
    assert found.code == 4
    text = found.out.decode()
    assert "tokens/train.source.ids  DAMAGED  SHA-256 differs from the recorded one\n" in text
    assert "tokenizers/target.model  DAMAGED  is 99 bytes, expected " in text
    assert "checkpoints/best.json  DAMAGED  SHA-256 differs from the one inside\n" in text
    assert f"error: {root}: " in found.err
    assert " files are damaged. Restore them from a copy." in found.err


def test_S8_all_damaged_never_starts_afresh(tmp_path):
    made = toy(tmp_path / "run")
    for step in (1, 2, 3):
        made.save(step)
        cut(folder(made.run.root, step) / "model.safetensors", 10)
    with pytest.raises(RunDirError) as caught:
        checkpoint.newest(made.run)
    assert caught.value.exit_code == 4
    assert caught.value.what == "all 3 checkpoints are damaged"
    command = f"rm -r {made.run.root}/checkpoints"
    assert caught.value.fix == f"Restore one from a copy. To train again from the start: {command}"
    shutil.rmtree(command.removeprefix("rm -r "))
    assert checkpoint.newest(made.run) is None


def test_S11_a_step_that_is_there_is_kept_if_it_is_whole(tmp_path):
    made = toy(tmp_path / "run")
    made.save(1)
    kept = folder(made.run.root, 1)
    before = {p.name: (p.stat().st_ino, p.read_bytes()) for p in kept.iterdir()}
    checkpoint.save(made.run, made.state)
    assert {p.name: (p.stat().st_ino, p.read_bytes()) for p in kept.iterdir()} == before
    flip(kept / "model.safetensors", 100)
    checkpoint.save(made.run, made.state)
    assert verify_directory(kept) is None
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == {
        n: b for n, (_, b) in before.items()
    }


def test_S15_what_the_dead_left_is_cleared_away(tmp_path):
    made = toy(tmp_path / "run")
    made.save(1)
    for number in range(25):
        for place in (made.run.root, made.run.path("checkpoints")):
            (place / f".tmp-{number}-update-00000009").mkdir()
            (place / f".tmp-{number}-update-00000009/model.safetensors").touch()
            (place / f".trash-{number}-scores.json").touch()
    assert checkpoint.updates(made.run) == [1]
    with locked(made.run):
        made.run.lock()
        assert not list(made.run.root.rglob(".t*-*"))
    assert checkpoint.updates(made.run) == [1]


# Whose checkpoint it is.


def test_M1_another_vocabulary_of_the_same_size_is_refused(run, tmp_path):
    root = copy_of(run, tmp_path / "run")
    folder_ = root / "tokenizers"
    files = read_directory(folder_)
    swapped = {"source.model": files["target.model"], "target.model": files["source.model"]}
    shutil.rmtree(folder_)
    RunDir(root).commit_directory("tokenizers", swapped)
    with pytest.raises(RunDirError) as caught:
        seq2seq.load(root)
    assert caught.value.exit_code == 4
    assert str(caught.value).startswith(
        f"{root}/tokenizers/source.model: SHA-256 differs from the one this model was trained with"
    )


def test_M2_a_config_changed_by_hand_is_refused(run, tmp_path):
    root = copy_of(run, tmp_path / "run")
    (root / "config.yaml").write_text(f"{(root / 'config.yaml').read_text('utf-8')}# a remark\n")
    with pytest.raises(RunDirError) as caught:
        seq2seq.load(root)
    assert caught.value.exit_code == 4
    size = (run / "config.yaml").stat().st_size
    what = f"is {size + len('# a remark') + 1} bytes, expected {size}"
    assert str(caught.value).startswith(f"{root}/config.yaml: {what}. Copy that of a checkpoint")


@pytest.mark.parametrize("name", ["corpus/train.source", "tokens/train.target.ids"])
@pytest.mark.parametrize("change", ["a byte", "the order", "more"])
def test_M3_the_data_of_a_run_are_its_own_and_may_not_change(run, tmp_path, name, change):
    """The files that the user named were copied: changing those changes nothing."""
    assert not [p for p in config_of(run).data.train if Path(p).is_absolute()]
    root = copy_of(run, tmp_path / "run")
    data = (root / name).read_bytes()
    half = len(data) // 8 * 4
    match change:
        case "a byte":
            data = bytes([data[0] ^ 1]) + data[1:]
        case "the order":
            data = data[half:] + data[:half]
        case _:
            data += data[:half]
    (root / name).write_bytes(data)
    with pytest.raises(RunDirError, match=name) as caught:
        check_data(RunDir(root))
    assert caught.value.exit_code == 4
    assert ("bytes, expected" in caught.value.what) == (change == "more")


@pytest.mark.e2e
def test_M3_the_corpus_outside_may_be_gone(run, tmp_path):
    moved = copy_of(run, tmp_path / "run")
    corpus = Path(config_of(moved).data.root)
    hidden = corpus.with_name("hidden")
    corpus.rename(hidden)
    try:
        assert use(moved) == use(run)
    finally:
        hidden.rename(corpus)


def rewrite(made: Toy, **changes: bytes | None) -> None:
    """The first checkpoint, whole, sums and all, with other files in it."""
    files = read_directory(folder(made.run.root, 1)) | changes
    made.run.remove_directory("checkpoints/update-00000001")
    kept = {name: data for name, data in files.items() if data is not None}
    made.run.commit_directory("checkpoints/update-00000001", kept)


MISFITS = [
    ("model", lambda t: t.pop("bias"), "tensor bias is missing"),
    ("average", lambda t: t.update(extra=torch.zeros(1)), "tensor extra is unknown"),
    (
        "model",
        lambda t: t.update(weight=torch.zeros(4, 2)),
        r"weight is \(4, 2\), expected \(2, 4\)",
    ),
    ("optimizer", lambda t: t.pop("bias/exp_avg"), "bias/exp_avg is missing"),
    ("optimizer", lambda t: t.update({"bias/more": torch.zeros(2)}), "weight/more is missing"),
    ("optimizer", lambda t: t.update({"x/exp_avg": torch.zeros(2)}), "x/exp_avg is unknown"),
    ("optimizer", lambda t: t.update({"bias/exp_avg": torch.zeros(3)}), r"bias/exp_avg is \(3,\)"),
]


@pytest.mark.parametrize(("name", "change", "message"), MISFITS, ids=[m for _, _, m in MISFITS])
def test_M4_a_tensor_that_does_not_fit_is_named(tmp_path, name, change, message):
    made = toy(tmp_path / "run")
    made.save(1)
    tensors = load_file(folder(made.run.root, 1) / f"{name}.safetensors")
    change(tensors)
    rewrite(made, **{f"{name}.safetensors": save(tensors)})
    with pytest.raises(RunDirError, match=message):
        loaded(made.run.root)


@pytest.mark.parametrize("name", ["model", "optimizer", "average"])
def test_M4_a_whole_checkpoint_without_a_file_is_refused(tmp_path, name):
    made = toy(tmp_path / "run")
    made.save(1)
    rewrite(made, **{f"{name}.safetensors": None})
    with pytest.raises(RunDirError, match=rf"{name}\.safetensors: missing"):
        loaded(made.run.root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"update": "three"}, "update is 'three'"),
        ({"epoch": 0.5}, r"epoch is 0\.5"),
        ({"words": True}, "words is True"),
        ({"update": None}, "update is None"),
    ],
    ids=str,
)
def test_M4_a_progress_that_is_none_is_refused(tmp_path, change, message):
    made = toy(tmp_path / "run")
    made.save(1)
    state = json.loads((folder(made.run.root, 1) / "state.json").read_bytes()) | change
    rewrite(made, **{"state.json": json.dumps(state).encode()})
    with pytest.raises(RunDirError, match=rf"state\.json: {message}"):
        loaded(made.run.root)


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [("threads", 7, 1), ("device", "cuda", "cpu"), ("torch", "1.0", version("torch"))],
)
def test_M5_a_restart_elsewhere_goes_on_and_is_recorded(run, tmp_path, part, old, new):
    root = copy_of(run, tmp_path / "run")
    here, cfg = RunDir(root), config_of(root)
    assert note_restart(here, cfg) == []
    before = provenance(cfg)
    if part == "torch":
        before["packages"]["torch"] = old
    else:
        before[part] = old
    record(here, before)
    line = f"{part} {old} -> {new}"
    assert note_restart(here, cfg) == [line]
    assert [r["differences"] for r in read_checksummed(root / "run.json")["restarts"]] == [[line]]
    assert note_restart(here, cfg) == [], "the last restart counts"
    assert use(root)


def test_M6_checkpoints_are_found_under_the_names_of_0_1_0(tmp_path):
    made = toy(tmp_path / "run")
    for update in (1, 2, 3):
        made.save(update, best=update == 1)
        folder(made.run.root, update).rename(tmp_path / f"run/checkpoints/step-{update:08d}")
    made.run.write_json(checkpoint.BEST, with_checksum({"step": 1, "metric": "bleu", "value": 1.0}))
    assert checkpoint.updates(made.run) == [1, 2, 3]
    assert loaded(made.run.root).tensors() == made.tensors()
    assert weights_of(made)[0] == 1
    made.save(4)
    checkpoint.prune(made.run, keep=2)
    names = sorted(path.name for path in made.run.path("checkpoints").iterdir())
    assert names == ["best.json", "step-00000001", "step-00000003", "update-00000004"]


def test_M6_a_newer_format_is_refused_and_not_passed_over(tmp_path):
    made = toy(tmp_path / "run")
    made.save(1)
    made.save(2)
    path = folder(made.run.root, 2) / "manifest.json"
    path.write_text(json.dumps(with_checksum({"format": 3, "files": {}})))
    for action in (loaded, lambda root: weights_of(toy(root))):
        with pytest.raises(RunDirError) as caught:
            action(made.run.root)
        assert caught.value.exit_code == 4
        assert caught.value.what == "of a newer version (format 3)"


@pytest.mark.e2e
def test_M7_the_exported_model_needs_nothing_else(run, tmp_path, monkeypatch):
    alone = copy_of(run / "model", tmp_path / "mine")
    assert sorted(p.name for p in alone.iterdir()) == ["checkpoints", "config.yaml", "tokenizers"]
    assert str(config_of(run).data.root) not in (alone / "config.yaml").read_text("utf-8")
    expected = (run / "decode/test.txt").read_bytes()
    source = run / "corpus/test.source"
    found = run_here(monkeypatch, "decode", alone, stdin=source.read_bytes())
    assert (found.code, found.out) == (0, expected)
    parallel = ["--source", source, "--reference", run / "corpus/test.target"]
    scored = run_here(monkeypatch, "evaluate", alone, *parallel)
    assert scored.code == 0
    own = run_here(monkeypatch, "evaluate", run).out.decode().splitlines()
    assert scored.out.decode().splitlines()[0] == own[0]
    without = run_here(monkeypatch, "evaluate", alone)
    assert_fails(without, 4, "corpus/test.source: missing. Name a whole run, or give --source")
    assert run_here(monkeypatch, "verify", alone).code == 0


# Which checkpoints stay, and which one is used.


def test_the_newest_and_the_best_stay(tmp_path):
    made = toy(tmp_path / "run")
    for step in range(1, 8):
        made.save(step, best=step == 3)
        checkpoint.prune(made.run, keep=2)
    assert checkpoint.updates(made.run) == [3, 6, 7]
    made.save(8, best=True)
    checkpoint.prune(made.run, keep=2)
    assert checkpoint.updates(made.run) == [7, 8]


def test_the_averaged_weights_of_the_best_are_used(tmp_path):
    made = toy(tmp_path / "run")
    made.save(1)
    made.save(2, best=True)
    expected = made.state.average.weights["weight"].flatten().tolist()
    made.save(3)
    assert weights_of(made) == (2, expected)
    assert expected != load_file(folder(made.run.root, 2) / "model.safetensors")["weight"].tolist()


def test_decoding_does_not_read_the_optimizer_but_refuses_one_that_can_carry_code(tmp_path):
    made = toy(tmp_path / "run")
    made.save(1, best=True)
    optimizer = folder(made.run.root, 1) / "optimizer.safetensors"
    flip(optimizer, 800)
    assert weights_of(made)[0] == 1
    optimizer.write_bytes(b"\x80\x04pickle")
    with pytest.raises(UntrustedError, match="a pickle"):
        weights_of(made)


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_S14_a_best_that_cannot_be_read_gives_way_to_the_newest(tmp_path, caplog, fault):
    made = toy(tmp_path / "run")
    made.save(1, best=True)
    made.save(2)
    made.save(3)
    if fault == "missing":
        shutil.rmtree(folder(made.run.root, 1))
    else:
        flip(folder(made.run.root, 1) / "average.safetensors", 800)
    with caplog.at_level(logging.WARNING):
        step, _ = weights_of(made)
    assert step == 3
    [record] = caplog.records
    name = (
        "manifest.json: missing" if fault == "missing" else "average.safetensors: SHA-256 differs"
    )
    assert f"update-00000001 cannot be read ({name}" in record.getMessage()
    assert record.getMessage().endswith("update-00000003")


def test_S14_a_damaged_mark_gives_way_to_the_newest(tmp_path, caplog):
    made = toy(tmp_path / "run")
    made.save(1, best=True)
    made.save(2)
    path = made.run.path(checkpoint.BEST)
    path.write_text(path.read_text().replace('"update": 1', '"update": 2'))
    assert weights_of(made)[0] == 2
    assert "best.json is damaged (SHA-256 differs from the one inside)" in caplog.text


def test_no_mark_means_the_newest(tmp_path):
    made = toy(tmp_path / "run")
    with pytest.raises(RunDirError, match=r"holds no checkpoint\. Train it first"):
        weights_of(made)
    made.save(1)
    made.save(2)
    assert weights_of(made)[0] == 2


# Where a run lies.
