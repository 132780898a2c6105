"""Every file of a run, damaged in ten ways, under every command that may read it.

Whatever comes of it: the same output as before; or exit code 4 or 7 with the name of the file; or
an older checkpoint, which is said. Logs are excepted.
"""

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import strangers
from runs import copy_of, run_here, run_job

from seq2seq.cli import train
from seq2seq.run.errors import UserError, one_line

pytestmark = pytest.mark.e2e

LOGS = ("train.log", "metrics.jsonl", "run.lock", "tensorboard/")
GREEDY = ("threads=1", "decode.beam_size=1")

# Ten kinds of damage ------------------------------------------------------------------------------


def flipped(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]


def swapped(data: bytes) -> bytes:
    """Two lines that differ change places; in one line, its halves."""
    lines = data.splitlines(keepends=True)
    for i in range(len(lines) // 2, len(lines) - 1):
        if lines[i] != lines[i + 1]:
            lines[i : i + 2] = lines[i + 1], lines[i]
            return b"".join(lines)
    return data[len(data) // 2 :] + data[: len(data) // 2]


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flipped,
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "swapped": swapped,
    "appended": lambda data: data + data[-20:],
    "first gone": lambda data: data[1:],
    "zeros": lambda data: bytes(len(data)),
}


def removed(path: Path) -> None:
    path.unlink()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link(path: Path) -> None:
    other = path.with_name(f"{path.name}.moved")
    path.rename(other)
    path.symlink_to(other.name)


PLACES = {"removed": removed, "a directory": directory, "a link": link}
assert len(CONTENTS) + len(PLACES) == 10

# Commands -----------------------------------------------------------------------------------------

Answer = tuple[int, bytes, str]
"""Exit code, all that it gives, and what it says on stderr."""


class Commands:
    """Every command on a run, in this process; what each of them opens of it."""

    def __init__(self, monkeypatch, caplog, folder: Path, whole: Path) -> None:
        self.monkeypatch, self.caplog = monkeypatch, caplog
        self.folder, self.whole = folder, whole
        self.opened: set[str] | None = None
        for language in ("en", "fr"):
            text = "the cat sees the dog .\n" if language == "en" else "ce chat voit ce chien .\n"
            (folder / f"text.{language}").write_text(text)
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[object, ...]) -> None:
        if self.opened is not None and event == "open" and isinstance(args[0], str):
            self.opened.add(args[0])

    def script(self, name: str, *args: str | Path, stdin: bytes = b"") -> Answer:
        self.caplog.clear()
        found = run_here(self.monkeypatch, name, *args, stdin=stdin)
        return found.code, found.out, found.err + self.caplog.text

    def decode(self, run: Path) -> Answer:
        return self.script("decode", run, *GREEDY, stdin=b"the cat sees the dog .\n")

    def evaluate(self, run: Path) -> Answer:
        return self.script("evaluate", run, *GREEDY)

    def compare(self, run: Path) -> Answer:
        return self.script("evaluate", run, self.whole)

    def by_length(self, run: Path) -> Answer:
        return self.script("evaluate", run, "--by-length", self.folder / "lengths.png")

    def attention(self, run: Path) -> Answer:
        return self.script("evaluate", run, "--attention")

    def score(self, run: Path) -> Answer:
        texts = ("--source", self.folder / "text.en", "--target", self.folder / "text.fr")
        return self.script("score", run, *texts, "threads=1")

    def report(self, run: Path) -> Answer:
        path = self.folder / "report.html"
        path.unlink(missing_ok=True)
        one = ("--sentences", "1", "--hypotheses", "1", "--output", path)
        code, out, err = self.script("report", run, *one, *GREEDY)
        return code, out + (path.read_bytes() if path.exists() else b""), err

    def verify(self, run: Path) -> Answer:
        code, out, err = self.script("verify", run)
        return code, out, err + out.decode()

    def compare_runs(self, run: Path) -> Answer:
        return self.script("compare_runs", run, self.whole)

    def resume(self, run: Path) -> Answer:
        """Go on with a training that has come to its end."""
        own = copy_of(run, self.folder / "resumed")
        try:
            cfg, opened = train.reopen(own, ["threads=1"])
            try:
                run_job(cfg, opened)
            finally:
                opened.unlock()
            names = ("scores.json", "length_bleu.json", "decode/test.txt", "decode/test.jsonl")
            names += tuple(str(p.relative_to(own)) for p in sorted(own.glob("model/*/*/*")))
            return 0, b"".join((own / name).read_bytes() for name in names), self.log(own)
        except UserError as error:
            return error.exit_code, b"", one_line(error)
        finally:
            shutil.rmtree(own)

    def log(self, run: Path) -> str:
        return (run / "train.log").read_text("utf-8")


COMMANDS = ("decode", "evaluate", "compare", "by_length", "attention", "score", "report")
COMMANDS += ("verify", "compare_runs", "resume")


FIRST = [
    ("corpus/test.target", "swapped", "evaluate"),
    ("corpus/test.source", "flipped", "evaluate"),
    ("decode/test.txt", "swapped", "compare"),
    ("decode/test.txt", "flipped", "compare_runs"),
    ("config.yaml", "swapped", "by_length"),
]
"""What nothing but a checksum shows, and one of the first reports was about."""


def wrong(path: Path, answer: Answer, good: Answer) -> bool:
    code, given, said = answer
    if (code, given) == good[:2]:
        return False
    if code in (4, 7):
        return path.name not in said
    if code == 1:  # `compare_runs` names what differs
        return path.name.encode() not in given
    # The documented fallback; what does not count on it is as it was.
    fallback = path.parent if path.parent.name.startswith("update-") else path
    lines = [line for line in said.splitlines() if fallback.name in line]
    return code != 0 or not any("using" in line or "damaged" in line for line in lines)


@pytest.mark.parametrize("tried", [30, pytest.param(10**6, marks=pytest.mark.slow)])
def test_S7_no_damage_to_a_file_changes_a_result_in_silence(
    tmp_path, run, monkeypatch, caplog, tally, tried
):
    whole = copy_of(run, tmp_path / "whole")
    strangers.small(whole)
    place = tmp_path / "place"
    place.mkdir()
    commands, root = Commands(monkeypatch, caplog, place, whole), copy_of(whole, tmp_path / "run")
    good, reads = {}, {}
    for name in COMMANDS:
        commands.opened = set()
        good[name] = getattr(commands, name)(root)
        assert good[name][0] == 0, good[name]
        reads[name], commands.opened = commands.opened, None
    names = [
        path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()
    ]
    names = [name for name in names if not name.startswith(LOGS)]
    cases = [
        (name, kind, command)
        for name in names
        for kind in (*CONTENTS, *PLACES)
        for command in COMMANDS
        # What a command does not open it does not read: its absence alone can matter.
        if kind in PLACES or any(path.endswith(f"/{name}") for path in reads[command])
    ]
    random.Random(1).shuffle(cases)
    faults = []
    cases = [*FIRST, *cases][:tried]
    for name, kind, command in cases:
        path = root / name
        data = path.read_bytes()
        if kind in CONTENTS:
            path.write_bytes(CONTENTS[kind](data))
        else:
            PLACES[kind](path)
        answer = getattr(commands, command)(root)
        if wrong(path, answer, good[command]):
            faults.append((name, kind, command, answer[0], answer[2][-300:]))
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.moved").unlink(missing_ok=True)
        path.write_bytes(data)
    tally("S7", "files of a run, damaged, under commands", len(cases) - len(faults), len(cases))
    assert not faults
