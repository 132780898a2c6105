"""What a system may lack, Windows and macOS above all: it costs a convenience, never a run."""

import errno
import os
import re
from pathlib import Path

import filelock
import pytest
import torch
from forks import call_here
from runs import ROOT, call, composed, run_new

from seq2seq.decoding import pretrained
from seq2seq.kernels.native import build
from seq2seq.kernels.native.compiler import BuildError
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import PlatformError, one_line

FEW = ["trainer.max_updates=4", "trainer.validate_every=2", "threads=1", "evaluate.heatmaps=[1]"]
FEW += ["data.grammar.validation_pairs=4", "data.grammar.test_pairs=4", "decode.max_ratio=1"]
SENTENCES = "The cat sleeps.\n\nThe small dog sees the bear.\n"


@pytest.mark.e2e
def test_a_run_where_only_windows_names_are_left(tmp_path):
    done = call(ROOT / "tests/elsewhere.py", "run", *FEW, cwd=tmp_path, stdin=SENTENCES.encode())
    said = done.stderr.decode()
    codes = re.findall(r"^(\S+\.py): (\d+)$", said, re.MULTILINE)
    wanted = [("train.py", "0"), ("train.py", "4"), ("scripts/decode.py", "0")]
    assert codes == [*wanted, ("scripts/evaluate.py", "0")], said
    assert re.search(r"^error: run: in use by pid \d+ on \S+ since [\d-]+ ", said, re.MULTILINE)
    # It is the run that it would have been here, to the byte.
    here = run_new(tmp_path / "here", composed("debug", FEW)).root
    weights = [path.relative_to(here) for path in here.rglob("model.safetensors")]
    assert len(weights) > 2
    for name in (*weights, "decode/test.txt", "decode/test.jsonl", "scores.json"):
        assert (tmp_path / "run" / name).read_bytes() == (here / name).read_bytes(), name
    plain = call_here(ROOT / "scripts/decode.py", "here", cwd=tmp_path, stdin=SENTENCES.encode())
    assert plain.stdout in done.stdout
    assert_fit_for_windows(tmp_path / "run")


def assert_fit_for_windows(root: Path) -> None:
    """Names without its special characters and devices, and none that differ in case alone."""
    names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
    assert len(names) > 20
    assert len({name.lower() for name in names}) == len(names)
    parts = {part for name in names for part in name.split("/")}
    devices = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
    odd = re.compile(r'[<>:"\\|?*\x00-\x1f]|[. ]$')
    assert [part for part in parts if odd.search(part) or devices.match(part)] == []


# The lock of a run


def test_where_nothing_can_be_locked_a_warning_says_so(tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(filelock, "lock_descriptor", refuse)
    run = RunDir(tmp_path)
    run.lock()
    run.unlock()
    wanted = f"{tmp_path / 'run.lock'} cannot be locked (Function not implemented): "
    assert caplog.messages[0].startswith(wanted)


# Flags and signals


# Compilers and devices


def test_what_a_compiler_without_openmp_says_is_passed_on(tmp_path, monkeypatch):
    said = "clang: error: unsupported option '-fopenmp'"
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\necho "{said}" >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BuildError, match=f"^{re.escape(f'{compiler} fails: {said}')}$"):
        build.load()


def test_an_apple_gpu_is_taken_where_torch_has_it_and_named_where_not(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pretrained.pick_device("mps") == torch.device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(PlatformError) as caught:
        pretrained.pick_device("mps")
    wanted = "error: device: torch finds no Apple GPU (MPS). Use device=cpu or device=auto."
    assert one_line(caught.value) == wanted
