"""Faults that were found by attacking: each is answered in one way, by every command."""

import copy
import inspect
import io
import json
import logging
import multiprocessing
import os
import pickle
import signal
import stat
import sys
import time

import pytest
import torch
import yaml
from runs import assert_fails, begin, composed, copy_of, locked, run_here, run_job
from strangers import forge, write_config
from toys import toy

import seq2seq
from seq2seq.cli import train
from seq2seq.cli.console import Printable, output_stream, show
from seq2seq.decoding.search import Hypothesis
from seq2seq.decoding.translate import _candidate
from seq2seq.model.attention import LocalAttention
from seq2seq.model.protocols import Memory
from seq2seq.run import checksums, errors, writing
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError, UserError
from seq2seq.run.signals import Interrupted, StopRequest
from seq2seq.training import monitor
from seq2seq.training.curves import read_metrics

# Errors travel ------------------------------------------------------------------------------------

KINDS = [
    kind
    for module in (errors, checksums)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, UserError)
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("code", [None, 9])
def test_an_error_survives_being_copied(kind, code):
    error = kind("a.txt:3", "is odd.", "Mend it.", code)
    error.add_note("after update 3")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == "a.txt:3: is odd. Mend it."
        assert vars(again) == vars(error)
        assert again.exit_code == (kind.exit_code if code is None else code)


@pytest.mark.e2e
def test_an_error_comes_back_from_a_process():
    with (
        multiprocessing.get_context("spawn").Pool(1) as pool,
        pytest.raises(RunDirError, match="nonexistent: holds no run") as caught,
    ):
        pool.map_async(seq2seq.load, ["/nonexistent"]).get(timeout=100)
    assert caught.value.exit_code == 4


# Files and signals --------------------------------------------------------------------------------


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)  # no pipe of the interpreter's own
        return real(descriptor, bytes(data)[:3] if is_file else data)

    monkeypatch.setattr(os, "write", short)
    assert RunDir(tmp_path).append_line("metrics.jsonl", {"update": 7}) == 14
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"update": 7}
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    writing.rewrite(descriptor, b"process 7")
    os.close(descriptor)
    assert (tmp_path / "lock").read_bytes() == b"process 7"


class Slow:
    def __del__(self):
        end = time.monotonic() + 10
        while time.monotonic() < end and not self.done():
            pass

    def done(self) -> bool:
        return time.monotonic() - START > 0.5


START = 0.0


def test_a_stop_that_comes_in_a_destructor_is_not_lost_and_not_shown(monkeypatch, capfd):
    global START
    monkeypatch.setattr("seq2seq.run.signals.GRACE", 0.1)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    START, stop = time.monotonic(), StopRequest()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        Slow()
        time.sleep(5)

    with stop.installed(), pytest.raises(Interrupted), stop.interruptible():
        work()
    assert time.monotonic() - START < 4
    assert capfd.readouterr().err == ""
    assert stop.exit_code == 143


@pytest.mark.parametrize(
    "line", ['{"update": ' + "[" * 100_000, '{"update": 1, "a": [1]}', '{"a": 1}', "no", "[1]"]
)
def test_a_line_of_metrics_that_cannot_be_drawn_is_refused_at_once(tmp_path, line):
    run = RunDir(tmp_path)
    run.write("metrics.jsonl", f'{{"update": 1, "train/loss": "nan"}}\n{line}\n')
    with pytest.raises(RunDirError, match=r"metrics\.jsonl:2: ") as caught:
        read_metrics(run)
    assert caught.value.exit_code == 4


@pytest.mark.e2e
def test_it_is_refused_before_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "Probe", lambda _model: None)
    made = toy(tmp_path / "run")
    made.save(1)
    made.run.write("metrics.jsonl", "{" * 9 + "\n")
    made.state.progress.metrics_bytes = 10
    with pytest.raises(RunDirError, match=r"metrics\.jsonl:1: "):
        monitor.Monitor(made.run, composed("debug"), made.state.progress, None)


# Text of strangers --------------------------------------------------------------------------------

ODD = "a\x1b[31m\x08\x9b2J\u202eb"


def test_nothing_of_a_run_reaches_a_terminal_unescaped(monkeypatch):
    stream = io.BytesIO()
    stdout = io.TextIOWrapper(stream)
    monkeypatch.setattr(sys, "stdout", stdout)
    show(f"{ODD}\tb\nc")
    assert stream.getvalue() == rb"a\x1b[31m\x08\x9b2J\u202eb" + b"\tb\nc\n"
    record = logging.makeLogRecord({"msg": f"{ODD}\nfaked line"})
    assert Printable().format(record) == r"a\x1b[31m\x08\x9b2J\u202eb\nfaked line"
    for terminal in (True, False):
        stream.truncate(0)
        stream.seek(0)
        monkeypatch.setattr(stdout, "isatty", lambda terminal=terminal: terminal, raising=False)
        with output_stream(None) as output:
            output.write("x\u202ey\n".encode())
        assert stream.getvalue() == (rb"x\u202ey" + b"\n" if terminal else "x\u202ey\n".encode())


@pytest.mark.e2e
def test_a_key_of_a_strangers_config_is_escaped(run, tmp_path, monkeypatch):
    root = copy_of(run, tmp_path / "run")
    config = yaml.safe_load((root / "config.yaml").read_text("utf-8"))
    write_config(root, {**config, ODD: 1})
    forge(root)
    found = run_here(monkeypatch, "verify", root)
    assert found.code == 4
    for text in (found.out.decode(), found.err):
        assert not {*"\x1b\x08\x9b\u202e"} & {*text}
    assert r"a\x1b[31m\x08\x9b2J\u202eb" in found.out.decode()


def test_control_characters_of_a_piece_are_spaces_in_a_translation():
    class Tokens:
        def pieces(self, ids):
            return ["a\x1b[31m", "b\x9b\x08c", "d\u200de"]

        def write(self, pieces):
            return " ".join(pieces), ()

    found = Hypothesis(
        (2, 3, 4), -1.0, -1.0, (-1.0,) * 3, torch.zeros(3, 2).numpy(), finished=False
    )
    assert _candidate(Tokens(), found, None).text == "a [31m b  c d\u200de"


# One behaviour ------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2])
def test_local_attention_in_bfloat16_looks_into_the_sentence(window):
    """However far the place is rounded: with no position in the window nothing can be found."""
    attention = LocalAttention(4, 4, window)
    for parameter in attention.parameters():
        torch.nn.init.constant_(parameter, 50.0)
    states, mask = torch.ones(1, 702, 4), torch.ones(1, 702, dtype=torch.bool)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        source = attention.prepare(Memory(states, states[:, 0], mask))
        found = attention(torch.ones(1, 4), source)
    assert found.alpha.isfinite().all()
    assert found.alpha.sum() > 0.1
    assert found.c.isfinite().all()


@pytest.mark.e2e
def test_a_narrower_beam_holds_fewer_hypotheses(run, tmp_path):
    root = copy_of(run, tmp_path / "run")
    config = yaml.safe_load((root / "config.yaml").read_text("utf-8"))
    config["decode"] |= {"beam_size": 5, "n_best": 2}
    write_config(root, config)
    forge(root)
    assert seq2seq.load(root, ["decode.beam_size=1"]).config.decode.n_best == 1
    assert seq2seq.load(root, ["decode.beam_size=9"]).config.decode.n_best == 2
    with pytest.raises(UserError, match=r"n_best=4 is above decode\.beam_size=3"):
        seq2seq.load(root, ["decode.beam_size=3", "decode.n_best=4"])


@pytest.mark.e2e
def test_compare_runs_names_a_bad_best_json(run, tmp_path, monkeypatch):
    root = copy_of(run, tmp_path / "run")
    (root / "checkpoints/best.json").write_text("{}")
    assert_fails(run_here(monkeypatch, "compare_runs", run, root), 4, "checkpoints/best.json: ")


@pytest.mark.e2e
def test_compare_runs_names_an_output_that_is_full(run, monkeypatch):
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            raise OSError(28, "No space left on device")

        def fileno(self) -> int:
            return os.open(os.devnull, os.O_WRONLY)

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Full(), 1)))
    with pytest.raises(errors.PlatformError, match="stdout: No space left"):
        show("equal")


@pytest.mark.e2e
@pytest.mark.parametrize("use", ["resume", "decode"])
def test_a_pickle_as_weights_is_refused_alike(run, tmp_path, use):
    root = copy_of(run, tmp_path / "run")
    for path in root.glob("checkpoints/*/*.safetensors"):
        path.write_bytes(pickle.dumps({"a": 1}))

    def resume() -> None:
        cfg, opened = train.reopen(root, [])
        with locked(opened):
            run_job(cfg, opened)

    with pytest.raises(errors.UntrustedError, match="a pickle"):
        seq2seq.load(root) if use == "decode" else resume()


# While nothing is prepared ------------------------------------------------------------------------


@pytest.mark.e2e
def test_any_key_may_change_while_nothing_is_prepared(tmp_path):
    cfg = composed(
        "debug", ["trainer.max_updates=4", "tokenizer.vocab_size=9", "stages=[tokenize]"]
    )
    with locked(begin(tmp_path / "run", cfg)) as run, pytest.raises(UserError, match="vocab_size"):
        run_job(cfg, run)
    changes = ["tokenizer.vocab_size=200", "model.hidden_size=8", "decode.beam_size=2"]
    corrected, again = train.reopen(run.root, changes)
    with locked(again):
        assert (corrected.model.hidden_size, corrected.decode.beam_size) == (8, 2)
        run_job(corrected, again)
    kept, last = train.reopen(run.root, [])
    last.unlock()
    assert (kept.tokenizer.vocab_size, kept.model.hidden_size) == (200, 8)
    assert kept.decode.beam_size == cfg.decode.beam_size  # may change at every start
    with pytest.raises(RunDirError, match=r"model\.hidden_size is 8 in this run"):
        train.reopen(run.root, ["model.hidden_size=16"])
    with pytest.raises(RunDirError, match="already holds a run"):
        RunDir.create(run.root)


def test_a_run_that_ended_before_its_data_was_there_is_taken_over(tmp_path):
    with locked(begin(tmp_path / "run", composed("debug"))):
        pass
    with locked(RunDir.create(tmp_path / "run")) as run:
        assert not run.has_data()
