"""Prepared data that runs share: made once, copied into each, known by what it is made of."""

import logging
import shutil
import threading
import time
from dataclasses import replace

import pytest
from runs import composed, locked, run_new, template_pairs, write_corpus

from seq2seq.config.schema import Stage
from seq2seq.data import prepare as preparing
from seq2seq.data import shared
from seq2seq.data.prepare import check_data, prepare
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError

OWN = ("config.yaml", "run.json", "run.lock", "checksums.json", "train.log")


def files_of(root) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name not in OWN)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(name="cfg")
def config(tmp_path):
    names = write_corpus(tmp_path / "corpus", template_pairs(80))
    cfg = composed("debug", [*names, "tokenizer.vocab_size=60"])
    cfg.stages, cfg.data.prepared = [Stage.tokenize], str(tmp_path / "prepared")
    return cfg


def test_the_second_run_has_the_files_of_the_first_and_of_one_alone(tmp_path, cfg, monkeypatch):
    first = run_new(tmp_path / "first", cfg)
    monkeypatch.setattr(preparing, "_learn_vocabularies", None)  # nothing is made again
    moved = str(shutil.move(tmp_path / "corpus", tmp_path / "elsewhere"))
    second = run_new(tmp_path / "second", replace(cfg, seed=2, data=replace(cfg.data, root=moved)))
    monkeypatch.undo()
    alone = replace(cfg, data=replace(cfg.data, root=moved, prepared=None))
    third = run_new(tmp_path / "third", alone)
    assert "tokens/train.source.ids" in files_of(first.root)
    assert files_of(first.root) == files_of(second.root) == files_of(third.root)


CHANGES = {
    "data.max_words": lambda data: replace(data, max_words=7),
    "tokenizer": None,
    "a file": lambda data: data,
    "data.test": lambda data: replace(data, test=data.validation),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_makes_other_data(cfg, tmp_path, change):
    before = shared.shared_directory(cfg).root
    same = replace(cfg, seed=3, data=replace(cfg.data, workers=3))
    assert shared.shared_directory(same).root == before
    if change == "tokenizer":
        cfg.tokenizer.vocab_size = 61
    else:
        cfg.data = CHANGES[change](cfg.data)
    if change == "a file":
        with (tmp_path / "corpus" / "val.fr").open("a") as file:
            file.write("\n")
    assert shared.shared_directory(cfg).root != before


def test_a_directory_in_the_layout_of_the_hub_is_known_by_its_files(tmp_path, cfg):
    """Its name alone is the same below another `data.root`, and whatever is written to it."""
    data = replace(cfg.data, train=["hub:./set"], validation=["hub:set"], test=["hub:./set::test"])

    def identity(root: str) -> str:
        found = replace(cfg, data=replace(data, root=str(tmp_path / root)))
        return shared.shared_directory(found).root.name

    for root in ("a", "b", "c"):
        (tmp_path / root / "set" / "en").mkdir(parents=True)
        (tmp_path / root / "set" / "en" / "train.jsonl").write_text('{"en": "x", "fr": "y"}\n')
    assert identity("a") == identity("b") == identity("c")
    (tmp_path / "b" / "set" / "en" / "train.jsonl").write_text('{"en": "x", "fr": "z"}\n')
    (tmp_path / "c" / "set" / "en" / "train.jsonl").rename(tmp_path / "c" / "set" / "test.jsonl")
    assert len({identity(root) for root in "abc"}) == 3


def test_weights_of_another_run_bring_their_own_vocabulary(cfg):
    assert shared.shared_directory(replace(cfg, init=replace(cfg.init, run="other"))) is None
    assert shared.shared_directory(replace(cfg, data=replace(cfg.data, prepared=None))) is None


def test_missing_files_come_back_or_are_named(tmp_path, cfg):
    run = run_new(tmp_path / "run", cfg)
    before = files_of(run.root)
    lost = ("tokens/train.source.ids", "corpus/train.target")

    def resumed(cfg) -> RunDir:
        """Of a run that has lost files."""
        for name in lost:
            run.path(name).unlink()
        with locked(RunDir(run.root)) as again:
            again.lock()
            prepare(again, cfg)
            check_data(again)
        return again

    assert files_of(resumed(cfg).root) == before
    shutil.rmtree(tmp_path / "prepared")  # made again
    assert files_of(resumed(cfg).root) == before
    alone = replace(cfg, data=replace(cfg.data, prepared=None))
    with pytest.raises(RunDirError, match=r"corpus/train\.target: missing\. Restore it"):
        resumed(alone)
    prepare(run, cfg)
    with (tmp_path / "corpus" / "train.en").open("a") as file:
        file.write("one more .\n")
    with (tmp_path / "corpus" / "train.fr").open("a") as file:
        file.write("encore un .\n")
    with pytest.raises(RunDirError, match=r"run: lacks corpus/train\.target, and .* other data"):
        resumed(cfg)


def test_who_comes_later_waits(tmp_path, cfg, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    caplog.set_level("INFO", "seq2seq")
    run_new(tmp_path / "first", cfg)
    holder = shared.shared_directory(cfg)
    holder.lock()

    def waits() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        return [message for message in found if message.startswith("waiting for ")]

    def leave_once_awaited() -> None:
        while not waits():
            time.sleep(0.01)
        holder.unlock()

    threading.Thread(target=leave_once_awaited, daemon=True).start()
    second = run_new(tmp_path / "second", cfg)
    assert second.path("data_report.json").exists()
    [message] = waits()
    assert "in use by pid" in message
