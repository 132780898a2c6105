"""Run directories of strangers: nothing runs, nothing is touched outside, nothing hangs."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import strangers
from conftest import draws_of
from forks import heed_modes
from hydra import compose, initialize_config_dir
from runs import ROOT, assert_fails, composed, config_of, copy_of, environment, run_here, tiny_run
from safetensors.torch import load_file, save

from seq2seq.cli import train
from seq2seq.cli.stages import summary
from seq2seq.config.compose import load_run_config, to_config, to_yaml
from seq2seq.data.prepare import load_tokenizers
from seq2seq.decoding.pretrained import outline
from seq2seq.run.checksums import verify_directory, with_checksum
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import (
    ConfigError,
    PlatformError,
    RunDirError,
    UntrustedError,
    UserError,
    one_line,
)
from seq2seq.run.jsonable import to_json
from seq2seq.run.reading import read_json
from seq2seq.training.checkpoint import best_weights, load_weights

pytestmark = pytest.mark.e2e

ALL = ("decode", "evaluate", "resume")
REFUSED = (1, 4, 5, 7, 8)
"""Damaged, not trusted; a folder in a file's place (5), a tokenizer to fetch (1), no memory (8)."""


@pytest.fixture(scope="session")
def stranger(tmp_path_factory) -> Path:
    """A run to build others from, with three test sentences."""
    base = tmp_path_factory.getbasetemp()
    run = copy_of(tiny_run(base), base / "stranger")
    strangers.small(run)
    return run


class Child:
    """A process that opens runs and tells what that did."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def open(self, run: Path, *actions: str) -> dict[str, Any]:
        task = json.dumps({"run": str(run), "do": actions or ALL})
        print(task, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"it ended with {self.process.wait()} at {run}"
        return json.loads(answer)


@contextmanager
def child(cwd: Path) -> Iterator[Child]:
    cwd.mkdir()
    process = subprocess.Popen(
        [sys.executable, ROOT / "tests/stranger_child.py"], text=True, encoding="utf-8", cwd=cwd,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=environment(HOME=str(cwd), MPLCONFIGDIR=str(cwd), CC="none"),
    )  # fmt: skip
    with process:
        try:
            yield Child(process)
        finally:
            process.stdin.close()


def outside_of(folder: Path) -> Path:
    """A folder with all that traps point at; nothing in it may change."""
    outside = folder / "outside"
    (outside / "folder").mkdir(parents=True)
    for name in ("file", "secret", "folder/kept"):
        (outside / name).write_text("secret\n" * 50, encoding="utf-8")
    return outside


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(answer: tuple[int, str, float]) -> bool:
    """One line, and a code that says damaged or not trusted."""
    code, err, _ = answer
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    return code in REFUSED and len(lines) == 1 and "Traceback" not in err


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_U1_U2_U3_U4_no_directory_runs_code_or_writes_outside(stranger, tmp_path, tally, every):
    held, faults, traps = 0, [], list(strangers.DIRECTORIES.items())[::every]
    with child(tmp_path / "cwd") as opener:
        answer = opener.open(copy_of(stranger, tmp_path / "good"))
        assert [answer[name][0] for name in ALL] == [0, 0, 0], answer
        for name, trap in traps:
            place = tmp_path / "case"
            outside, run = outside_of(place), copy_of(stranger, place / "run")
            trap(run, outside)
            before = snapshot(outside)
            asked = strangers.ASKED.get(name, ALL)
            answer = opener.open(run, *asked)
            fault = answer["events"] or answer["imported"] or snapshot(outside) != before
            codes = [answer[action][0] for action in asked]
            if name in strangers.IGNORED:
                wrong = codes != [0, 0, 0]
            else:
                wrong = not any(refused(answer[action]) for action in asked)
                wrong |= any(code not in (0, *REFUSED) for code in codes)
            if fault or wrong:
                faults.append((name, codes, answer))
            held += not (fault or wrong)
            shutil.rmtree(place)
    total = len(traps)
    tally("U1-U8", "malicious run directories", held, total, "decode, evaluate, resume on each")
    assert not faults, "\n".join(map(str, faults))
    assert total * every >= 60


# U2, U8: configs ---------------------------------------------------------------------------------

CALLS = ["os.system", "logging.os.system", "torch.load", "torch.hub.load", "numpy.load", "open"]
CALLS += ["pathlib.Path.touch", "builtins.eval", "hydra.utils.instantiate", "subprocess.run"]
PLACES = ["{c}\n", "x: {c}\n", "x: [{c}]\n", "hydra: {{callbacks: {{a: {c}}}}}\n"]
PLACES += ["hydra: {{job_logging: {{handlers: {{a: {c}}}}}}}\n", "x: {{y: [{{z: {c}}}]}}\n"]
TAGGED = ["!!python/object/apply:os.system [x]", "!!python/object/new:os.system [x]"]
TAGGED += ["!!python/name:os.system", "!!python/module:os", "!!python/tuple [x]", "!x 1"]
TAGGED += ["!!binary aGk=", "!!set {x}", "!<tag:yaml.org,2002:python/name:os.system> x", "! x"]
ALIASED = ["[&a x, *a]", "&a [*a]", "&a x"]
INTERPOLATED = ["${oc.env:SECRET}", "${oc.env:SECRET,x}", "${oc.decode:'{a: 1}'}", "${seed}"]
INTERPOLATED += ["${now:%Y}", "${hydra:runtime.cwd}", "${oc.create:x}", "${x:y}", "\\x24{seed}"]
INTERPOLATED += ["${oc.dict.keys:data}", "${oc.deprecated:seed}", "a${seed}b", "${${seed}}"]


def flow(call: str) -> str:
    return f"{{_target_: {call}, _args_: [x]}}"


CONFIGS = [f"x: {value}\n" for value in (*TAGGED, *ALIASED)]
CONFIGS += [f'x: "{value}"\n' for value in INTERPOLATED]
CONFIGS += [f'"{value}": x\n' for value in INTERPOLATED]
UNKNOWN = [place.format(c=flow(call)) for place in PLACES[1:] for call in CALLS]
UNKNOWN += [f"_target_: {call}\n" for call in CALLS]
UNKNOWN += [f"{word}: x\n" for word in ("_recursive_", "_convert_", "_partial_", "_args_")]
UNKNOWN += ["hydra: {searchpath: [file:///tmp]}\n", "defaults: [x]\n"]
UNKNOWN += ["resume: x\n", "run_dir: /tmp/x\n", "x: 1\n", "x: {<<: {x: 1}}\n"]
"""Keys that no config has; nobody calls what they name."""


@pytest.fixture(scope="module")
def plain_config() -> str:
    return to_yaml(composed("debug"))


def refusal(path: Path) -> UserError:
    with pytest.raises((RunDirError, UntrustedError)) as caught:
        load_run_config(path)
    return caught.value


def test_U2_no_config_is_resolved_or_called(plain_config, tmp_path, tally):
    path, modules = tmp_path / "config.yaml", set(sys.modules)
    held = 0
    for text in [*CONFIGS, *UNKNOWN]:
        path.write_text(plain_config + text, encoding="utf-8")
        held += refusal(path).exit_code == (7 if text in CONFIGS else 4)
    total = len(CONFIGS) + len(UNKNOWN)
    tally("U2", "configs that call, tag or resolve", held, total, "0 executions")
    assert held == total >= 100
    assert set(sys.modules) == modules


def test_U8_nothing_is_resolved_or_shown(plain_config, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "swordfish")
    path = tmp_path / "config.yaml"
    for value in INTERPOLATED:
        path.write_text(re.sub(r"  root: .*", lambda _, v=value: f'  root: "{v}"', plain_config))
        error = refusal(path)
        assert error.exit_code == 7, value
        for word in ("swordfish", "$", "oc.", "\\x24"):
            assert word not in one_line(error).replace(str(tmp_path), "")


# U3: names ---------------------------------------------------------------------------------------

BAD_NAMES = [
    *("../../x", "..", ".", "", "/", "/etc/x", "~", "~root/x", "a/b", "a\\b", "./x", "x/", "-x"),
    *("a\0b", "a\nb", "a\rb", "a\tb", "$(id)", "`id`", "${HOME}x", "a b", " a", "a ", "a;b", "a|b"),
    *("\x1b[2J", "a\x1b]0;x\x07", "\x9b31m", "a\u202eb", "a\u2028b", "ä", "\U0001f600", "*", "a?"),
    *("CON", "con.txt", "NUL", "com1", "LPT9.log", "x" * 101, "x" * 10_240, "%2e%2e", "a:b", "<x>"),
    *("#x", ".hidden", "_x", "=x", "a=b", "@x", "\udcff"),
]  # fmt: skip
GOOD_NAMES = ["a", "A1", "rnnsearch-50", "x.y_z", "0", "x" * 100, "console", "com10x"]


def test_U3_names_on_the_command_line():
    values = to_json(composed("debug"))
    assert len(BAD_NAMES) >= 40
    for name in BAD_NAMES:
        with pytest.raises(ConfigError) as caught:
            to_config({**values, "name": name.replace("${", "$ {")})
        line = one_line(caught.value)
        assert line.startswith("error: config: name="), name
        assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u2028\u202e\udcff]{1,2100}", line), name
    for name in GOOD_NAMES:
        assert to_config({**values, "name": name}).name == name


def test_U3_names_in_a_directory(plain_config, tmp_path):
    path = tmp_path / "config.yaml"
    for name in BAD_NAMES:
        text = plain_config.replace("name: debug", f"name: {json.dumps(name)}")
        path.write_text(text, encoding="utf-8")
        error = refusal(path)
        assert error.exit_code == 7, name
        assert one_line(error).count("\n") == 0
        if len(name) > 64 or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
            files = {"format": 2, "files": {name: {"size": 1, "sha256": ""}}}
            (tmp_path / "manifest.json").write_text(json.dumps(with_checksum(files)))
            with pytest.raises(UntrustedError, match="names a file") as caught:
                verify_directory(tmp_path)
            line = one_line(caught.value)
            assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u2028\u202e]{1,2100}", line), name


def test_U3_text_of_a_run_cannot_move_the_cursor(stranger, tmp_path, monkeypatch):
    run = copy_of(stranger, tmp_path / "run")
    (run / "corpus/test.source").write_text("a\x1b[2J\x9bb\u202e\n" * 3, encoding="utf-8")
    strangers.forge(run)
    shown = summary(RunDir(run))
    assert "a\\x1b[2J\\x9bb\\u202e" in shown
    assert not re.search("[\x1b\x9b\u202e]", shown)


# U4: files that are none -------------------------------------------------------------------------


def test_U4_what_is_no_file_is_refused_at_once(stranger, tmp_path):
    kinds = [name for name in strangers.DIRECTORIES if "pipe" in name or "device" in name]
    kinds += ["text is a socket", "a link to /", "a loop", "a dangling link", "a stale .tmp link"]
    kinds += ["config is a hard link", "tensorboard is a link", "run.lock is a link"]
    assert len(kinds) >= 10
    for number, name in enumerate(kinds):
        outside = outside_of(tmp_path / str(number))
        run = copy_of(stranger, tmp_path / str(number) / "run")
        strangers.DIRECTORIES[name](run, outside)
        before, started = snapshot(outside), time.monotonic()
        for opened in (RunDir.open, RunDir.create):
            with pytest.raises(UntrustedError, match="not allowed in a run directory"):
                opened(run)
        assert time.monotonic() - started < 2
        assert snapshot(outside) == before


@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, strangers.make_device, strangers.make_socket]
)
def test_U4_no_reader_waits_or_follows(tmp_path, make):
    """The readers themselves, where somebody swaps a file after the run was looked through."""
    path = tmp_path / "x.json"
    make(path)
    with pytest.raises(UntrustedError):
        read_json(path)
    link = tmp_path / "link.json"
    link.symlink_to(ROOT / "pyproject.toml")
    with pytest.raises(UntrustedError, match="a link"):
        read_json(link)


# U5, U6: fuzz ------------------------------------------------------------------------------------


def in_fork(work: Callable[[], list[str]]) -> tuple[list[str], int, int]:
    """What a function returns in a process of its own, how that ended, MB that it grew by."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(read)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
            before = peak()
            found = work()
            with os.fdopen(write, "w") as file:
                json.dump([found, (peak() - before) // 1024], file)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    _, status = os.waitpid(pid, 0)
    found, grown = json.loads(text) if text else ([], 0)
    return found, status, grown


def peak() -> int:
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Flipped, cut, repeated or strange bytes, the more of them near the beginning."""
    new = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        reach = rng.choice([16, 256, 4096, len(new)])
        at = rng.randrange(min(reach, len(new)) or 1)
        match rng.randrange(6):
            case 0:
                new[at : at + 1] = bytes([new[at] ^ 1 << rng.randrange(8)] if new else [0])
            case 1:
                new[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                del new[at : at + rng.choice([1, 4, 100])]
            case 3:
                new[at:at] = rng.randbytes(rng.choice([1, 4, 100]))
            case 4:
                new[at:at] = new[at : at + rng.choice([1, 10, 1000])]
            case _:
                new[at : at + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"\x80" * 7 + b"\1"])
        if not new:
            break
    return bytes(new)


def crafted(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header says something wrong."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    name = rng.choice(sorted(header))
    entry = header[name]
    match rng.randrange(9):
        case 0:
            entry["shape"] = rng.choice([[1 << 60], [1 << 31, 1 << 31, 4], [-1], [0], [1] * 10**4])
        case 1:
            entry["shape"] = [rng.choice([1 << 62, 1.5, "x", None, []])]
        case 2:
            entry["data_offsets"] = rng.choice([[0, 1 << 60], [8, 0], [-4, 0], [0], "x", [0.5, 4]])
        case 3:
            entry["dtype"] = rng.choice(["F16", "I64", "F8_E4M3", "C64", "X", 1, None, []])
        case 4:
            header |= {f"more{i}": entry for i in range(rng.choice([1, 1000]))}
        case 5:
            text = json.dumps(header)
            text = text[:-1] + "," + json.dumps({name: entry})[1:]
            return len(text).to_bytes(8, "little") + text.encode() + body
        case 6:
            value = rng.choice([b"\0\0\xc0\x7f", b"\0\0\x80\xff", b"\0\0\x80\x7f"])
            start, end = entry["data_offsets"]
            at = rng.randrange(start, end, 4)
            body = body[:at] + value + body[at + 4 :]
        case 7:
            header["__metadata__"] = rng.choice([{"a": "b" * 10**5}, {"a": 1}, [], "x"])
        case _:
            text = json.dumps(header).encode() + b" " * rng.choice([8, 10**6, 3 * 10**6])
            return len(text).to_bytes(8, "little") + text + body
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.e2e
@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_U5_M4_mutated_weights_are_named(stranger, tmp_path, tally, count):
    root = copy_of(stranger, tmp_path / "run")
    run, cfg = RunDir(root), config_of(root)
    model = outline(cfg, load_tokenizers(run, cfg))
    path, good = best_weights(run)
    folder, name = path.parent, path.name

    def work() -> list[str]:
        found = []
        for seed in range(count):
            rng = random.Random(seed)
            (folder / name).write_bytes((crafted if seed % 2 else mutated)(good, rng))
            strangers.reseal(folder)
            started = time.monotonic()
            try:
                load_weights(run, model.to("meta"))
                found.append("loaded")
            except (RunDirError, UntrustedError) as error:
                found.append(
                    "refused" if name in str(error) or "tensor" in str(error) else str(error)
                )
            if time.monotonic() - started > 2:
                found[-1] = "slow"
        return found

    found, status, grown = in_fork(work)
    assert status == 0, f"it ended with {status}"
    assert set(found) == {"loaded", "refused"}, set(found)
    assert grown <= 100
    tally("U5", "mutated weights, manifest rewritten", len(found), count, f"+{grown} MB at most")


def test_M4_a_weight_that_is_no_number_is_named(stranger, tmp_path, monkeypatch):
    run = copy_of(stranger, tmp_path / "run")
    for folder in strangers.steps(run):
        tensors = load_file(folder / "average.safetensors")
        tensors["decoder.unit.U.weight"][0, 1] = float("-inf")
        (folder / "average.safetensors").write_bytes(save(tensors))
    strangers.forge(run)
    result = run_here(monkeypatch, "decode", run, stdin=b"the cat\n")
    assert_fails(result, 4, "average.safetensors: tensor decoder.unit.U.weight is not finite")


LINES = ["the cat sees the dog .", "", "\u2581", "x" * 300, "<s> </s>"]
LINES += ["\u0430\u0301 \ufb01 \U0001f600"]


@pytest.mark.e2e
@pytest.mark.parametrize("count", [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_U6_mutated_tokenizers_are_named_or_load(stranger, tmp_path, tally, count):
    root = copy_of(stranger, tmp_path / "run")
    run, cfg = RunDir(root), config_of(root)
    folder = root / "tokenizers"
    good, manifest = (folder / "source.model").read_bytes(), (folder / "manifest.json").read_bytes()

    def work() -> list[str]:
        found = []
        for seed in range(count):
            data = mutated(good, random.Random(seed))
            if seed % 50 == 0:
                data = good + long_piece(500_000)
            (folder / "source.model").write_bytes(data)
            (folder / "manifest.json").write_bytes(manifest)
            if data != good:
                found.append(f"kept: {outcome()}")
            strangers.reseal(folder)
            found.append(outcome())
        return found

    def outcome() -> str:
        try:
            source, _ = load_tokenizers(run, cfg)
        except (RunDirError, UntrustedError):
            return "refused"
        rows = [*source.encode(LINES), *source.sample(LINES, 0.1, draws_of(LINES, 1))]
        assert all(0 <= i < len(source) for row in rows for i in row)
        try:
            texts = [source.write(source.pieces(row))[0] for row in rows]
            tokens = source.tokens(LINES)
        except RunDirError as error:
            return "refused" if "is not valid UTF-8" in error.what else error.what
        assert len(texts) == 2 * len(LINES) == 2 * len(tokens)
        return "loaded"

    found, status, _ = in_fork(work)
    assert status == 0, f"it ended with {status}"
    assert set(found) == {"kept: refused", "refused", "loaded"}, set(found)
    tally("U6", "mutated tokenizers, manifest rewritten", count, count, "no signal")


def long_piece(size: int) -> bytes:
    """One more piece of a model: field 1, a message with its text in field 1."""
    inner = b"\x0a" + varint(size) + b"x" * size
    return b"\x0a" + varint(len(inner)) + inner


def varint(number: int) -> bytes:
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def test_U6_a_tokenizer_that_does_not_fit_the_weights_is_named(stranger, tmp_path, monkeypatch):
    run = copy_of(stranger, tmp_path / "run")
    model = run / "tokenizers/source.model"
    model.write_bytes(model.read_bytes() + long_piece(5) + long_piece(6))
    strangers.forge(run)
    result = run_here(monkeypatch, "decode", run, stdin=b"the cat\n")
    assert_fails(result, 4, "tensor encoder.embedding.E.weight is (120, 16), expected (122, 16)")


# U7: bombs ---------------------------------------------------------------------------------------

BOMBS = {
    "depth": (b'{"a": ' * 10**5 + b"1" + b"}" * 10**5, "recursion|deeper|nest|overflow"),
    "lists": (b'{"a": ' + b"[" * 400 + b"]" * 400 + b"}", "deeper than 32"),
    "a key twice": (b'{"a": 1, "a": 2}', "duplicate key"),
    "a huge number": (b'{"a": ' + b"9" * 10**5 + b"}", "Exceeds the limit"),
    "a number beyond floats": (b'{"a": 1e999}', "1e999 is not a finite number"),
    "no number": (b'{"a": NaN}', "NaN is not a finite number"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_U7_a_json_bomb_is_refused_in_a_second(tmp_path, bomb):
    content, message = BOMBS[bomb]
    path = tmp_path / "x.json"
    path.write_bytes(content)
    started = time.monotonic()
    with pytest.raises(RunDirError, match=f"unreadable .*({message})"):
        read_json(path)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("name", ["x.json", "config.yaml"])
def test_U7_a_gigabyte_is_refused_unread(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(1 << 30)
    started = time.monotonic()
    with pytest.raises(RunDirError, match="is 1073741824 bytes, more than"):
        read_json(path) if name == "x.json" else load_run_config(path)
    assert time.monotonic() - started < 1


def test_U7_aliases_are_refused_unexpanded(plain_config, tmp_path):
    path = tmp_path / "config.yaml"
    names = "abcdefghi"
    lines = ["a: &a [x, x, x]"]
    lines += [f"{n}: &{n} [{', '.join([f'*{o}'] * 9)}]" for o, n in pairwise(names)]
    path.write_text("\n".join([plain_config, *lines]), encoding="utf-8")
    started = time.monotonic()
    assert refusal(path).exit_code == 7
    assert time.monotonic() - started < 1


# S4: where a run cannot be made ------------------------------------------------------------------


def begin(root: Path | str) -> UserError:
    """How `train.py run_dir=ROOT` ends, on a corpus that is not there: it must not get so far."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        raw = compose("config", ["+experiment=debug", "data.train=[none.tsv]"])
    raw.run_dir = str(root)
    started = time.monotonic()
    with pytest.raises(PlatformError) as caught:
        train.begin(raw, [], None)
    assert time.monotonic() - started < 3
    assert one_line(caught.value).count("\n") == 0
    return caught.value


def test_S4_a_folder_that_may_not_be_written(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o555)

    def work() -> list[str]:
        heed_modes()
        return [str(begin(home / "run"))]

    [found], _, _ = in_fork(work)
    assert "Permission denied. Choose a directory that you may write to." in found


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("/proc/none/run", "Put it back and start again"),  # a parent that cannot be made
        ("file", "Not a directory. A part of the path is a file"),
        ("file/run", "Not a directory. A part of the path is a file"),
        ("x" * 300, "File name too long. Choose a shorter name."),
    ],
    ids=["no parent", "a file", "below a file", "a long name"],
)
def test_S4_a_place_that_cannot_be(tmp_path, root, message):
    if root.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc")
    (tmp_path / "file").write_bytes(b"")
    assert message in str(begin(tmp_path / root))
