"""scripts/decode.py where something goes wrong, or is slow: streams, signals, disks, odd text."""

import functools
import io
import json
import os
import pty
import random
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from forks import Child, fork_script, heed_modes, limit_files
from runs import assert_fails, template_pairs

import seq2seq
from seq2seq.cli.console import LiveInput
from seq2seq.data import text as text_module
from seq2seq.data.tokenizer import EOS
from seq2seq.decoding import formats as output
from seq2seq.decoding.pretrained import Pretrained

pytestmark = pytest.mark.e2e

LINES = [source for source, _ in template_pairs(300)]


@pytest.fixture(scope="module")
def model(run) -> Pretrained:
    return seq2seq.load(run)


@pytest.fixture
def loaded_once(monkeypatch):
    """A model is loaded once, however many scripts run."""
    cached = functools.cache(seq2seq.load)
    monkeypatch.setattr(seq2seq, "load", lambda run, overrides: cached(run, *overrides))


def as_bytes(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.fixture(scope="module")
def expected(model) -> bytes:
    return as_bytes([t.text for t in model.translate(LINES)])


PIPE = -1


@pytest.fixture
def start(run, tmp_path):
    """Start decode.py in a fork: `start(*args, stdin=bytes, descriptor or PIPE, **more)`.

    The test's ends of pipes are `child.input` and `child.output`.
    """
    children, opened = [], []

    def begin(*args: str | Path, stdin: bytes | int = b"", stdout: int = 2, **more) -> Child:
        number, source, ours, theirs = len(children), stdin, {}, []
        if isinstance(stdin, bytes):
            (tmp_path / f"stdin-{number}").write_bytes(stdin)
            source = os.open(tmp_path / f"stdin-{number}", os.O_RDONLY)
            theirs.append(source)
        elif stdin == PIPE:
            source, ours["input"] = os.pipe()
            theirs.append(source)
        if stdout == PIPE:
            ours["output"], stdout = os.pipe()
            theirs.append(stdout)
        opened.extend(ours.values())
        errors = tmp_path / f"stderr-{number}"
        child = fork_script(
            "decode", run, *args, stdin=source, stdout=stdout, errors=errors, **more
        )
        for descriptor in theirs:
            os.close(descriptor)
        children.append(child)
        vars(child).update(ours)
        return child

    yield begin
    for descriptor in opened:
        with suppress(OSError):  # closed by the test
            os.close(descriptor)
    for child in children:
        with suppress(ChildProcessError, ProcessLookupError):  # what a failed test leaves
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


@contextmanager
def closing(*descriptors: int) -> Iterator[None]:
    try:
        yield
    finally:
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)


def read_line(descriptor: int, timeout: float = 20) -> bytes:
    line, end = b"", time.monotonic() + timeout
    while not line.endswith(b"\n") and (left := end - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            byte = os.read(descriptor, 1)
            if not byte:
                break
            line += byte
    return line


def read_all(descriptor: int) -> bytes:
    return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))


# D1, D3, D4: odd text -----------------------------------------------------------------------------


def random_text(rng: random.Random, longest: int = 40) -> str:
    """Characters of all planes, often blanks and letters; no line end, no NUL, no surrogate."""
    ranges = [(0x20, 0x7F), (0x20, 0x7F), (1, 0x2FF), (0x590, 0xD7FF), (0xE000, 0x10FFFF)]
    marks = " \t\r\u00a0\u200b\u2028\u0085\u202e\u0301\ufeff\u2581\x1b\x1c\x0b"
    found = (
        rng.choice(marks) if rng.random() < 0.2 else chr(rng.randint(*rng.choice(ranges)))
        for _ in range(rng.randrange(longest))
    )
    return "".join(found).replace("\n", " ")


def random_bytes(rng: random.Random) -> bytes:
    """A whole input: bytes, text, or text with bytes in it."""
    text = "\n".join(random_text(rng) for _ in range(rng.randrange(6)))
    text += rng.choice(["", "\n", "\r\n", "\n\n"])
    data = bytearray(text.encode(rng.choice(["utf-8"] * 12 + ["utf-16", "utf-8-sig"])))
    if rng.random() < 0.15:
        data = bytearray(rng.randbytes(rng.randrange(200)))
    for _ in range(rng.choice([0, 0, 0, 0, 1, 3]) if data else 0):
        data[rng.randrange(len(data))] = rng.choice([0, 10, 13, 0x80, 0xC0, 0xED, 0xFF])
    return bytes(data)


def num_lines(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n") and data != b"")


@pytest.mark.usefixtures("loaded_once")
@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_D1_D3_D4_D5_any_input_gives_its_lines_or_one_error(run, script, tally, count):
    rng = random.Random(count)
    refused = 0
    for number in range(count):
        data = random_bytes(rng)
        form = rng.choice(["text", "text", "jsonl"])
        strict = script("decode", run, "--format", form, stdin=data)
        lenient = script("decode", run, "--format", form, "--on-bad-line", "empty", stdin=data)
        note = f"input {number}: {data!r}"
        if b"\r" in data and lenient.code:  # not a line, but the whole
            assert_fails(lenient, 3, "error: stdin: its lines end in CR alone"), note
            continue
        assert lenient.code == 0, note
        assert lenient.out.count(b"\n") == num_lines(data), note
        lenient.out.decode("utf-8")
        if strict.code:
            refused += 1
            assert_fails_after_lines(strict, lenient.out), note
        else:
            assert (strict.out, strict.err) == (lenient.out, ""), note
    assert count // 10 < refused < count * 0.9
    note = f"{refused:,} refused with their line"
    tally("D1 D3 D4", "fuzzed decode inputs", count, count, note)


def assert_fails_after_lines(result, lenient: bytes) -> None:
    """One line that names the bad one; lines before it may have been translated."""
    assert result.code == 3
    assert result.err.startswith("error: stdin:")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    assert lenient.startswith(result.out)


# D2: long lines -----------------------------------------------------------------------------------


def memory(pid: int, key: str) -> int:
    """Bytes of a process, by what `/proc` calls them."""
    [line] = [x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if key in x]
    return int(line.split()[1]) * 1024


LONG = {
    "10,000 tokens": "the cat sees the dog again " * 1700,
    "10 MB of words": "the cat sees " * 800_000,
}


@pytest.mark.parametrize("kind", LONG)
def test_D2_a_long_line_is_cut_and_its_neighbours_are_as_ever(run, script, caplog, kind):
    rules = ["decode.max_ratio=0.2", "decode.extra_steps=20"]
    alone = script("decode", run, *rules, stdin=as_bytes(LINES[:2])).out.splitlines()
    data = as_bytes([LINES[0], LONG[kind], LINES[1]])
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak is counted anew
    before, start = memory(os.getpid(), "VmRSS:"), time.monotonic()
    result = script("decode", run, *rules, stdin=data)
    assert time.monotonic() - start < 60
    assert memory(os.getpid(), "VmHWM:") - before < 300e6
    assert result.code == 0
    assert [result.out.split(b"\n")[i] for i in (0, 2)] == alone
    assert result.out.count(b"\n") == 3
    [record] = caplog.records
    assert record.getMessage().startswith("line 2: cut from ")
    assert record.getMessage().endswith(" to 500 tokens")


def test_D2_a_line_above_the_limit_is_refused(run, script, monkeypatch):
    """It may have no end: an archive of zeros."""
    monkeypatch.setattr(text_module, "MAX_LINE_BYTES", 100)
    data = as_bytes([LINES[0], "the cat " * 100, LINES[1]])
    for choice in ("error", "empty"):
        result = script("decode", run, "--on-bad-line", choice, stdin=data)
        assert result.code == 3
        assert result.err.startswith("error: stdin:2: line above 100 bytes. ")
        assert result.err.count("\n") == 1


# D4: bytes that are no text -----------------------------------------------------------------------


BINARY = {
    "invalid UTF-8": "the cat .\ncaf\u00e9 .\nthe dog .\n".encode("latin-1"),
    "random": random.Random(3).randbytes(1_000_000),
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "elf": Path(sys.executable).resolve().read_bytes()[:100_000],
    "utf-16": "the cat .\nthe dog .\n".encode("utf-16"),
}


@pytest.mark.parametrize("kind", BINARY)
def test_D4_binary_is_refused_by_line_or_gives_empty_lines(run, script, tmp_path, caplog, kind):
    data, file = BINARY[kind], tmp_path / "in.txt"
    file.write_bytes(data)
    refused = script("decode", run, "--input", file, "--output", tmp_path / "out.txt")
    assert_fails(refused, 3, f"{file}:")
    assert [p.name for p in tmp_path.iterdir()] == ["in.txt"]
    result = script("decode", run, "--input", file, "--on-bad-line", "empty")
    assert (result.code, result.err) == (0, "")
    assert result.out.count(b"\n") == num_lines(data)
    raw = data.split(b"\n")
    bad = [i for i in range(num_lines(data)) if not is_text(raw[i])]
    written = result.out.split(b"\n")
    assert all(written[i] == b"" for i in bad)
    [message] = caplog.messages
    assert message.startswith(f"{len(bad)} bad lines gave empty ones; the first is {file}:")
    assert f"{file}:{bad[0] + 1}: " in message


def is_text(raw: bytes) -> bool:
    try:
        return "\0" not in raw.decode("utf-8")
    except UnicodeDecodeError:
        return False


# D6: readers that go away -------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_D6_a_reader_that_goes_away_ends_it_quietly(start, tally, count):
    rng = random.Random(count)
    for _ in range(count):
        args = ("--format", rng.choice(["text", "jsonl", "nbest"]), "decode.batch_sentences=4")
        child = start(*args, stdin=as_bytes(LINES * 50), stdout=PIPE)
        os.read(child.output, rng.choice([1, 100, 10_000]))
        time.sleep(rng.random() * 0.05)
        os.close(child.output)
        assert child.wait() == -signal.SIGPIPE, child.stderr
        assert child.stderr == ""
    tally("D6", "readers that go away while decoding", count, count, "ended by SIGPIPE, quiet")


# D7: output that is lost --------------------------------------------------------------------------


def assert_one_line(child: Child, code: int, *parts: str) -> None:
    assert child.wait() == code, child.stderr
    assert child.stderr.startswith("error: ")
    assert child.stderr.count("\n") == 1, child.stderr
    for part in parts:
        assert part in child.stderr


def test_D7_a_folder_that_may_not_be_written(start, tmp_path):
    place = tmp_path / "place"
    place.mkdir(mode=0o500)
    child = start("--output", place / "out.txt", stdin=b"the cat .\n", before=heed_modes)
    assert_one_line(child, 5, f"{place}/out.txt: Permission denied")
    assert list(place.iterdir()) == []


def test_D7_a_disk_that_fills_up_leaves_the_old_file_whole(start, tmp_path):
    """The 31st kilobyte cannot be written."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "out.txt").write_bytes(b"old")
    limit = functools.partial(limit_files, 30_000)
    child = start(
        "--output", place / "out.txt", "--format", "jsonl", stdin=as_bytes(LINES), before=limit
    )
    assert_one_line(child, 5, f"{place}/out.txt: File too large")
    assert [p.read_bytes() for p in place.iterdir()] == [b"old"]


# D8, D14: input that takes its time ---------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--processes", "2"]])
def test_D8_D14_a_terminal_is_waited_for_and_each_line_answered(start, expected, words):
    """Nobody types for a while, then one line after another, each when the last was answered."""
    user, terminal = pty.openpty()
    with closing(user, terminal):
        child = start(*words, stdin=terminal, stdout=PIPE)
        assert not select.select([child.output], [], [], 0.7)[0]
        assert os.waitpid(child.pid, os.WNOHANG) == (0, 0), "it waits"
        delays = []
        for line, answer in zip(LINES[:6], expected.splitlines(), strict=False):
            os.write(user, line.encode() + b"\n")
            begin = time.monotonic()
            assert read_line(child.output) == answer + b"\n"
            delays.append(time.monotonic() - begin)
        assert sorted(delays[1:])[2] < 1, delays
        os.write(user, b"the end\x04\x04")  # the first Ctrl-D sends the line, the second ends
        assert read_line(child.output).endswith(b"\n")
        assert (child.wait(), child.stderr) == (0, "")


@pytest.mark.parametrize("seed", range(20))
def test_D14_live_input_reads_as_a_file_does(seed, tmp_path):
    """Whatever blocks it comes in: the same lines, and `ready` only where a line is whole."""
    rng = random.Random(seed)
    data = b"".join(rng.choice([b"\n", b"a", b"bc", b"\r", b"d" * 90]) for _ in range(300))
    source, send = os.pipe()
    with closing(source, send), open(source, "rb", closefd=False) as file:
        live, found, sent = LiveInput(file), [], 0
        while sent < len(data):
            size = rng.randrange(1, 40)
            sent += os.write(send, data[sent : sent + size])
            while live.ready():
                assert b"\n" in data[sum(map(len, found)) : sent]
                found.append(live.readline(50))
        os.close(send)
        assert live.ready()
        while line := live.readline(50):
            found.append(line)
    expected = io.BytesIO(data)
    assert found == list(iter(functools.partial(expected.readline, 50), b""))


# D11: a model that never ends ---------------------------------------------------------------------


def rigged(run: Path, overrides: list[str]) -> Pretrained:
    """A model to which the end symbol is less likely than any word."""
    model = seq2seq.load(run, overrides)
    *_, output = model.model.decoder.W_o.modules()
    with torch.no_grad():
        output.bias[EOS] = -1e4
    return model


def test_D11_a_model_that_never_ends_stops_at_the_limit_and_is_marked(run, script, monkeypatch):
    model = rigged(run, ["decode.max_ratio=1.5", "decode.extra_steps=3"])
    monkeypatch.setattr(seq2seq, "load", lambda *_: model)
    result = script("decode", run, "--format", "jsonl", stdin=as_bytes(LINES[:5]))
    found = [json.loads(line) for line in result.out.splitlines()]
    assert len(found) == 5
    for line in found:
        limit = int(1.5 * len(line["source_tokens"])) + 3
        assert line["hypotheses"]
        for hypothesis in line["hypotheses"]:
            assert hypothesis["finished"] is False
            assert len(hypothesis["tokens"]) == limit
            assert hypothesis["tokens"][-1] != "</s>"


# D12: signals -------------------------------------------------------------------------------------


def stopped_by(number: signal.Signals) -> int:
    return 130 if number is signal.SIGINT else 143


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_D12_a_signal_while_decoding_leaves_whole_lines(start, run, tally, monkeypatch, count):
    """At any instant: in the search, or while a line is written into a pipe that is full."""
    model = seq2seq.load(run, ["decode.batch_sentences=2"])
    found = model.translate(LINES)
    whole = {
        form: as_bytes(
            [output.line(t, n, form, "pieces", model.flags) for n, t in enumerate(found, start=1)]
        )
        for form in ("text", "jsonl")
    }
    monkeypatch.setattr(seq2seq, "load", lambda *_: model)
    rng = random.Random(count)
    slowest, lines = 0.0, as_bytes(LINES)
    for _ in range(count):
        number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        form = rng.choice(["text", "jsonl"])
        child = start("--format", form, stdin=lines, stdout=PIPE)
        got = os.read(child.output, 100)
        time.sleep(rng.random() * 0.1)
        os.kill(child.pid, number)
        begin = time.monotonic()
        got += read_all(child.output)
        code = child.wait(10)
        slowest = max(slowest, time.monotonic() - begin)
        assert code == stopped_by(number), child.stderr
        assert child.stderr == ""
        assert got.endswith(b"\n")
        assert whole[form].startswith(got)
    assert slowest < 5
    note = f"whole lines, 130 or 143; slowest {slowest:.1f} s"
    tally("D12", "signals while decoding", count, count, note)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_D12_a_signal_inside_a_long_batch(start, run, tmp_path, monkeypatch, number):
    """Searching on for an hour."""
    model = rigged(run, ["decode.max_ratio=100", "decode.extra_steps=10000"])
    monkeypatch.setattr(seq2seq, "load", lambda *_: model)
    place = tmp_path / "place"
    child = start("--output", place / "out.txt", stdin=as_bytes(LINES[:20]))
    while not (place.exists() and list(place.iterdir())):
        time.sleep(0.01)
    time.sleep(0.2)
    begin = time.monotonic()
    os.kill(child.pid, number)
    assert child.wait(10) == stopped_by(number)
    assert time.monotonic() - begin < 5
    assert child.stderr == ""
    assert list(place.iterdir()) == []


def test_D12_a_signal_while_nobody_types(start):
    child = start(stdin=PIPE)
    time.sleep(0.3)
    os.kill(child.pid, signal.SIGTERM)
    assert (child.wait(5), child.stderr) == (143, "")


def test_D12_a_reader_that_has_stalled_is_not_waited_for(start):
    """Its pipe is full; the line in it can never be finished."""
    for again in (False, True):
        out, write = os.pipe()
        with closing(out, write):
            child = start("--format", "jsonl", stdin=as_bytes(LINES * 3), stdout=write)
            while select.select([], [write], [], 0)[1]:
                time.sleep(0.01)
            time.sleep(0.1)
            begin = time.monotonic()
            os.kill(child.pid, signal.SIGINT)
            if again:
                time.sleep(0.1)
                os.kill(child.pid, signal.SIGINT)
            assert child.wait(10) == 130
            assert time.monotonic() - begin < (1 if again else 5)
            assert child.stderr == ""


def test_D12_signals_that_were_put_aside_stay_so(start, expected):
    """By `nohup`, or by a shell that starts it in the background."""

    def put_aside() -> None:
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    child = start(stdin=PIPE, stdout=PIPE, before=put_aside)
    for line, answer in zip(LINES[:2], expected.splitlines(keepends=True), strict=False):
        os.write(child.input, as_bytes([line]))
        assert read_line(child.output) == answer
        os.kill(child.pid, signal.SIGHUP)
        os.kill(child.pid, signal.SIGINT)
    os.close(child.input)
    assert child.wait() == 0


# D13: one run, several decoders -------------------------------------------------------------------


def listing(folder: Path) -> list[tuple[str, int, int, int]]:
    found = ((p, p.lstat()) for p in [folder, *sorted(folder.rglob("*"))])
    return [(str(p), s.st_mode, s.st_size, s.st_mtime_ns) for p, s in found]


def test_D13_two_decoders_and_a_run_that_may_not_be_written(run, start, expected, tmp_path):
    before = listing(run)
    folders = [p for p in [run, *run.rglob("*")] if p.is_dir()]
    modes = {folder: folder.stat().st_mode for folder in folders}
    try:
        for folder in folders:
            folder.chmod(0o500)
        outs = [(tmp_path / f"out-{i}").open("wb") for i in range(2)]
        data = as_bytes(LINES)
        children = [start(stdin=data, stdout=o.fileno(), before=heed_modes) for o in outs]
        for child in children:
            assert (child.wait(), child.stderr) == (0, "")
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)
    for out in outs:
        out.close()
        assert Path(out.name).read_bytes() == expected
    assert listing(run) == before


# L8: a long one -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_L8_a_million_lines_in_the_same_memory(run, start, tmp_path, tally):
    """Watched from outside: its resident memory and its speed."""
    total, lines = 1_000_000, as_bytes(LINES[:250])
    with (tmp_path / "in.txt").open("wb") as file:
        for _ in range(total // 250):
            file.write(lines)
    seen, mark, sizes, times = 0, 0, [], []
    rules = ("decode.beam_size=1", "decode.n_best=1")
    child = start("--input", tmp_path / "in.txt", *rules, stdout=PIPE)
    while block := os.read(child.output, 1 << 16):
        seen += block.count(b"\n")
        if mark <= seen < total:
            mark += total // 20
            sizes.append(memory(child.pid, "VmRSS:") / 1e6)
            times.append(time.monotonic())
    assert child.wait() == 0
    assert seen == total
    grown = max(sizes[2:]) - sizes[1]
    steps = [b - a for a, b in pairwise(times[1:])]
    drift = sum(steps[-5:]) / sum(steps[:5]) - 1
    rate = total / (times[-1] - times[0])
    note = f"memory {grown:+.1f} MB, time per line {drift:+.0%}, {rate:,.0f} lines/s"
    tally("L8", "lines decoded in one go", seen, total, note)
    assert grown <= 5, sizes
    assert drift < 0.3, steps
