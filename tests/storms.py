"""Whole runs of `train.py`, many and soon: one process imports everything, its children run.

`Zygote` starts this file as a program that imports torch once, starts no thread, and then forks a
child for every run asked for. A child runs `train.py` as `python train.py ARGUMENTS` would; only
the seconds of importing are saved. It says on a pipe what it enters and leaves, so that a test can
send it a signal at the right moment.
"""

import contextlib
import functools
import gc
import importlib
import importlib.util
import itertools
import json
import os
import queue
import random
import resource
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UPDATES = 36

# A run of seconds ---------------------------------------------------------------------------------

ANIMALS = {"cat": "chat", "dog": "chien", "wolf": "loup", "bear": "ours", "boy": "ami"}
ANIMALS |= {"hen": "coq"}
ACTS = {"sees": "voit", "hears": "entend", "likes": "aime", "leads": "guide", "bites": "mord"}
WHEN = {"today": "hui", "often": "souvent", "again": "encore"}


def micro_corpus(folder: Path) -> list[str]:
    """Write 200 training, 20 validation and 50 test pairs; return what makes a run of them.

    Everything that draws, adapts or looks back is on: dropout, subword sampling, the plateau rule,
    early stopping, averaged weights, TensorBoard.
    """
    words = list(itertools.product(ANIMALS, ACTS, ANIMALS, WHEN))
    random.Random(1).shuffle(words)
    folder.mkdir(parents=True)
    for name, rows in (("test", words[:50]), ("val", words[50:70]), ("train", words[70:270])):
        english = "".join(f"the {a} {v} the {b} {w} .\n" for a, v, b, w in rows)
        french = "".join(
            f"le {ANIMALS[a]} {ACTS[v]} le {ANIMALS[b]} {WHEN[w]} .\n" for a, v, b, w in rows
        )
        (folder / f"{name}.en").write_text(english, "utf-8")
        (folder / f"{name}.fr").write_text(french, "utf-8")
    changes = ["+experiment=debug", "data=multi30k", f"data.root={folder}", "threads=1"]
    changes += ["data.train=[train.en,train.fr]", "data.validation=[val.en,val.fr]"]
    changes += ["data.test=[test.en,test.fr]", "tokenizer.vocab_size=60", "model.hidden_size=16"]
    changes += ["trainer.batch_tokens=120", f"trainer.max_updates={UPDATES}", "trainer.patience=9"]
    changes += ["trainer.checkpoint_every=3", "trainer.validate_every=6"]
    changes += ["trainer.validation_sentences=4", "scheduler.patience=0", "optimizer.lr=0.02"]
    changes += [
        "logging.every=4"
    ]  # at other updates than checkpoints: what is summed must be saved
    changes += ["logging.samples=1", "logging.heatmaps=0", "decode.beam_size=2"]
    return [*changes, "stages=[tokenize,train,decode]"]


# The test's side --------------------------------------------------------------------------------


class Child:
    def __init__(self, zygote: "Zygote", pid: int, folder: Path, pipe: int | None) -> None:
        self.zygote, self.pid, self.folder, self.pipe = zygote, pid, folder, pipe
        self.marks: list[str] = []
        self.times: list[float] = []
        self._rest = b""

    def send(self, number: int) -> None:
        os.kill(self.pid, number)  # the zygote has not reaped it: the pid is still its own

    def next_mark(self, timeout: float = 60) -> str | None:
        """The next thing it says; None at its end."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.pipe], [], [], timeout)
            assert ready, f"silent for {timeout} s after {self.marks[-3:]}: {self.err}"
            data = os.read(self.pipe, 1 << 16)
            if not data:
                return None
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        seconds, mark = line.decode().split(" ", 1)
        self.times.append(float(seconds))
        self.marks.append(mark)
        return mark

    def until(self, mark: str, count: int = 1) -> bool:
        """Wait until it says this so many times; False if it ends before."""
        while count:
            found = self.next_mark()
            if found is None:
                return False
            count -= found == mark
        return True

    def wait(self, timeout: float = 120) -> int:
        """Its exit code, minus the signal if one killed it; reads what it still said."""
        code = self.zygote.ask({"wait": self.pid, "timeout": timeout})
        assert code is not None, f"still running after {timeout} s: {self.err}"
        self.ended = max((self.folder / name).stat().st_mtime for name in ("out", "err"))
        if self.pipe is not None:
            while self.next_mark() is not None:
                pass
            os.close(self.pipe)
            self.pipe = None
        return int(code)

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text("utf-8")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text("utf-8")

    @property
    def error(self) -> str:
        lines = self.err.splitlines()
        assert "Traceback" not in self.err, self.err
        [line] = [line for line in lines if line.startswith(("error: ", "stopped: "))]
        return line


class Zygote:
    """The process whose children run train.py; use it as a context."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.count, self.environment = folder, 0, environment

    def __enter__(self) -> "Zygote":
        environment = {k: v for k, v in os.environ.items() if k != "SEQ2SEQ_DEBUG"}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | self.environment
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, __file__], env=environment, **pipes)
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def ask(self, request: Mapping[str, Any]) -> Any:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(
        self,
        *arguments: str,
        cwd: Path,
        marks: bool = False,
        hooks: Sequence[Sequence[Any]] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Run `python train.py ARGUMENTS` in a folder, in an environment different from ours.

        With `marks` it says what it enters and leaves; `hooks` are functions of `HOOKS` with their
        arguments, called before it begins.
        """
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir(parents=True)
        pipe = None
        if marks:
            os.mkfifo(folder / "marks")
            pipe = os.open(folder / "marks", os.O_RDONLY | os.O_NONBLOCK)
        asked = {"argv": arguments, "cwd": str(cwd), "folder": str(folder)}
        asked |= {"hooks": [*(["marks"] for _ in range(marks)), *hooks]}
        pid = self.ask(asked | {"environment": environment or {}})
        return Child(self, pid, folder, pipe)

    def run(self, *arguments: str, cwd: Path, **options: Any) -> Child:
        child = self.start(*arguments, cwd=cwd, **options)
        code = child.wait()
        assert code == 0, f"{arguments}: {code}\n{child.err}"
        return child


class Micro:
    """The micro run: what makes it, one that was left alone, and two zygotes for more of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.overrides = micro_corpus(folder / "corpus")
        self.zygotes: queue.SimpleQueue[Zygote] = queue.SimpleQueue()

    @contextlib.contextmanager
    def zygote(self) -> Iterator[Zygote]:
        free = self.zygotes.get()
        try:
            yield free
        finally:
            self.zygotes.put(free)

    def start(self, root: Path, *changes: str, **options: Any) -> Child:
        """Begin a run in a folder of this name, or go on with the one that is there."""
        with self.zygote() as zygote:
            return self.start_in(zygote, root, *changes, **options)

    def start_in(self, zygote: Zygote, root: Path, *changes: str, **options: Any) -> Child:
        root.parent.mkdir(parents=True, exist_ok=True)
        begun = (root / "config.yaml").exists()
        what = [f"resume={root.name}"] if begun else [*self.overrides, f"run_dir={root.name}"]
        return zygote.start(*what, *changes, cwd=root.parent, **options)

    def finish(self, zygote: Zygote, root: Path, *changes: str, **options: Any) -> Child:
        child = self.start_in(zygote, root, *changes, **options)
        code = child.wait()
        assert code == 0, f"{root.name}: {code}\n{child.err}"
        assert not leftovers(root)
        return child

    @functools.cached_property
    def whole(self) -> "Whole":
        root = self.folder / "whole/run"
        with self.zygote() as zygote:
            child = self.finish(zygote, root, marks=True)
        return Whole(root, child.marks, child.times)

    def many(self, count: int, trial: Callable[[Zygote, int], Any]) -> list[Any]:
        """Try something so many times, two at once; return what came out."""

        def one(number: int) -> Any:
            with self.zygote() as zygote:
                return trial(zygote, number)

        _ = self.whole  # now, as the threads take all zygotes
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, range(count)))


@dataclass(frozen=True)
class Whole:
    """A run from start to end, and what it said meanwhile."""

    root: Path
    marks: list[str]
    times: list[float]


def leftovers(root: Path) -> list[Path]:
    """What nobody but a process that is at work should leave behind."""
    return [path for path in root.rglob(".*") if path.name.startswith((".tmp", ".trash", ".old"))]


def difference(root: Path, other: Path) -> str | None:
    """What `seq2seq compare` says of two runs; None if they are equal."""
    from seq2seq.cli.compare_runs import compare  # the zygote imports it when it is needed
    from seq2seq.run.directory import RunDir

    return compare(RunDir.open(root), RunDir.open(other))


def inside(marks: Sequence[str]) -> list[str]:
    """What was entered and not left."""
    entered, left = (Counter(m[1:] for m in marks if m[0] == sign) for sign in "+-")
    return list((entered - left).elements())


# The zygote's side ------------------------------------------------------------------------------


def serve() -> None:
    sys.path.insert(0, str(ROOT))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # as train.py sets it, before Hydra is imported
    for name in (  # all that train.py imports now or later
        "hydra._internal.hydra",
        "matplotlib.backends.backend_agg",
        "sacrebleu.metrics",
        "sentencepiece.sentencepiece_model_pb2",
        "torch._dynamo",
        "torch.utils.tensorboard.writer",
        "seq2seq.cli.stages",
    ):
        importlib.import_module(name)
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, "a thread would not live on in a child"
    gc.freeze()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "wait" in request:
            answer = _status(request["wait"], request["timeout"])
        elif not (answer := os.fork()):
            _run(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _status(pid: int, timeout: float) -> int | None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _run(request: dict[str, Any]) -> None:
    code: object = 70
    try:
        folder = Path(request["folder"])
        for number, name, flags in (
            (0, "/dev/null", os.O_RDONLY),
            (1, folder / "out", os.O_WRONLY | os.O_CREAT),
            (2, folder / "err", os.O_WRONLY | os.O_CREAT),
        ):
            os.dup2(os.open(name, flags), number)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            for number, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        os.environ.update(request["environment"])
        time.tzset()
        os.chdir(request["cwd"])
        sys.argv = [str(ROOT / "train.py"), *request["argv"]]
        for name, *arguments in request["hooks"]:
            hook = HOOKS.get(name) or getattr(importlib.import_module("ranks"), name)
            hook(folder, *arguments)
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


# What a child does differently from train.py ----------------------------------------------------


def say_what_happens(folder: Path) -> None:
    """Write `+name` on a pipe when a function begins and `-name` when it ends."""
    from sentencepiece import SentencePieceTrainer

    from seq2seq.cli import stages
    from seq2seq.data import prepare
    from seq2seq.evaluation import figures as pictures
    from seq2seq.evaluation import test_set
    from seq2seq.run.directory import RunDir
    from seq2seq.training import checkpoint, monitor, trainer

    pipe = os.open(folder / "marks", os.O_WRONLY)

    def say(mark: str) -> None:
        os.write(pipe, f"{time.monotonic()} {mark}\n".encode())

    def marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: Any, **options: Any) -> Any:
            say(f"+{name}")
            result = function(*arguments, **options)
            say(f"-{name}")  # not after an exception
            return result

        return wrapper

    for place, attribute, name in (
        (prepare, "_write_text", "corpus"),
        (SentencePieceTrainer, "train", "vocabularies"),
        (trainer, "plan_epoch", "batching"),
        (trainer, "accumulated_gradient", "gradient"),
        (trainer.Trainer, "_update", "update"),
        (trainer, "validate", "validation"),
        (monitor.Monitor, "_heatmap", "heatmap"),
        (checkpoint, "save", "save"),
        (checkpoint, "mark_best", "best"),
        (checkpoint, "prune", "retention"),
        (stages, "export", "export"),
        (pictures, "heatmap_png", "picture"),
        (test_set, "score_all", "scores"),
    ):
        setattr(place, attribute, marked(name, getattr(place, attribute)))

    stream = RunDir.stream

    @contextlib.contextmanager
    def told(self: RunDir, name: str) -> Iterator[Any]:
        say(f"+file {name}")
        with stream(self, name) as handle:
            yield handle
        say(f"-file {name}")

    RunDir.stream = told
    say("+start")


def slow_attention(_: Path, seconds: float, after: int) -> None:
    """Let attention take so long for each target word, once so many updates are done."""
    from seq2seq.kernels.search import FusedSearch
    from seq2seq.model.attention import AdditiveAttention
    from seq2seq.training.trainer import Trainer

    update, done = Trainer._update, 0

    def slow(look: Callable[..., Any]) -> Callable[..., Any]:
        def slowed(*arguments: Any, **options: Any) -> Any:
            if done >= after:
                time.sleep(seconds)
            return look(*arguments, **options)

        return slowed

    def counted(self: Trainer, *arguments: Any) -> None:
        nonlocal done
        update(self, *arguments)
        done = self.progress.update

    Trainer._update = counted
    AdditiveAttention.forward = slow(AdditiveAttention.forward)
    FusedSearch.step = slow(FusedSearch.step)


def slow_search(_: Path, seconds: float) -> None:
    from seq2seq.cli import stages
    from seq2seq.decoding import translate

    decode, search = stages.decode, translate.search_batch

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return search(*arguments, **options)

    def decode_slowly(*arguments: Any, **options: Any) -> None:
        translate.search_batch = slow
        decode(*arguments, **options)

    stages.decode = decode_slowly


def slow_saves(_: Path, seconds: float) -> None:
    from seq2seq.run.directory import RunDir

    commit = RunDir.commit_directory

    def slow(self: RunDir, name: str, *arguments: Any, **options: Any) -> Path:
        if name.startswith("checkpoints/"):
            time.sleep(seconds)
        return commit(self, name, *arguments, **options)

    RunDir.commit_directory = slow


def no_tempfile(_: Path) -> None:
    """Let nobody make a temporary file where the system has them."""
    tempfile.tempdir = None

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a file in TMPDIR")

    tempfile.mkstemp = tempfile.mkdtemp = tempfile.TemporaryFile = refused
    tempfile.NamedTemporaryFile = refused


def clock(_: Path, shift: float) -> None:
    """Let the clock on the wall be so many seconds off."""
    real = time.time
    time.time = lambda: real() + shift


def measure(folder: Path, every: int) -> None:
    """Write down, every so many updates, what the process holds and how long updates take."""
    from seq2seq.training.trainer import Trainer

    update, process = Trainer._update, Path("/proc/self")
    before, seconds = time.monotonic(), 0.0

    def measured(self: Trainer, *arguments: Any) -> None:
        nonlocal before, seconds
        update(self, *arguments)
        number = self.progress.update
        if number % every == 0:
            row = {
                "update": number,
                "resident": int((process / "statm").read_text().split()[1])
                * resource.getpagesize(),
                "descriptors": len(list((process / "fd").iterdir())),
                "threads": len(list((process / "task").iterdir())),
                "files": sum(1 for _ in self.run.root.rglob("*")),
                "bytes": sum(f.stat().st_size for f in self.run.root.rglob("*") if f.is_file()),
                "seconds": (self.progress.seconds - seconds) / every,
                "wall": (time.monotonic() - before) / every,
            }
            before, seconds = time.monotonic(), self.progress.seconds
            with (folder / "measured").open("a") as file:
                file.write(json.dumps(row) + "\n")

    Trainer._update = measured


def limit_memory(_: Path, size: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


HOOKS = {"marks": say_what_happens, "clock": clock, "measure": measure}
HOOKS |= {f.__name__: f for f in (slow_attention, slow_search, slow_saves)}
HOOKS |= {f.__name__: f for f in (no_tempfile, limit_memory)}


if __name__ == "__main__":
    serve()
