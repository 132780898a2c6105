"""`--processes N`: lines in order, the bytes of one process, and errors in one line."""

import multiprocessing
import os
import signal

import pytest
from runs import assert_fails, template_pairs

import seq2seq
from seq2seq.decoding import processes

pytestmark = pytest.mark.e2e

SMALL = ["decode.batch_sentences=2", "decode.beam_size=3", "decode.n_best=2"]
LINES = [source for source, _ in template_pairs(75)]
LINES[7] = LINES[40] = ""
TEXT = "".join(f"{line}\n" for line in LINES).encode()


@pytest.mark.parametrize("words", [["text"], ["jsonl"], ["npz"], ["nbest", "decode.sample=true"]])
def test_any_number_of_processes_gives_the_bytes_of_one(run, script, words):
    """75 lines are three chunks of 32 lines, the last one with 11."""
    args = ["decode", run, *SMALL, "--format", *words]
    one = script(*args, stdin=TEXT)
    assert one.code == 0, one
    for count in (1, 2, 5):
        assert script(*args, "--processes", count, stdin=TEXT) == one


@pytest.mark.slow
def test_1013_lines_by_three(run, script):
    text = "".join(f"{source}\n" for source, _ in template_pairs(1013)).encode()
    one = script("decode", run, "--format", "jsonl", stdin=text)
    assert one.out.count(b"\n") == 1013
    assert script("decode", run, "--format", "jsonl", "--processes", "3", stdin=text) == one


def test_the_test_set_is_scored_alike(run, script):
    one = script("evaluate", run)
    assert one.code == 0
    assert script("evaluate", run, "--processes", "2", "decode.batch_sentences=1").out == one.out


@pytest.mark.parametrize("wrong", ["0", "-1", "1025", "two", ""])
def test_what_is_not_a_number_of_processes(run, script, wrong):
    assert_fails(script("decode", run, f"--processes={wrong}", stdin=TEXT), 2, "processes", "Use 1")


def test_an_unreadable_line_comes_after_the_lines_before_it(run, script):
    lines = TEXT.splitlines(keepends=True)
    text = b"".join([*lines[:70], b"\xff\n", *lines[70:]])
    args = ["decode", run, *SMALL]
    one = script(*args, stdin=text)
    assert (one.code, one.out.count(b"\n")) == (3, 64)
    assert script(*args, "--processes", "2", stdin=text) == one


def test_an_error_of_a_process_is_that_of_one(run, script):
    """Words that are required and forbidden: line 40 of its chunk's 32 has what comes before it."""
    wrong = '{"source": "the cat .", "required": ["chat"], "forbidden": ["chat"]}\n'
    lines = [f'{{"source": "{line}"}}\n' for line in LINES]
    text = "".join([*lines[:39], wrong, *lines[39:]]).encode()
    args = ["decode", run, *SMALL, "--input-format", "jsonl"]
    one = script(*args, stdin=text)
    assert one.code == 3, one
    assert script(*args, "--processes", "2", stdin=text) == one


def test_a_killed_process_is_one_line(run, script, monkeypatch):
    def killed(*_args, **_options):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(processes, "translate", killed)
    result = script("decode", run, *SMALL, "--processes", "2", stdin=TEXT)
    assert_fails(result, 5, "processes: a process has died (exit code -9)", "fewer processes")


def test_no_process_outlives_its_reader(run):
    model = seq2seq.load(run, ["decode.batch_sentences=1"])
    found = model.stream(LINES, processes=2)
    assert next(found).source == LINES[0]
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    found.close()
    for worker in workers:
        worker.join(10)
        assert worker.exitcode == -signal.SIGKILL
