"""Runs small enough for a test: a template corpus, composed presets, one trained run to share.

Paths are absolute and every run is made with one thread. `tiny_run()` is trained once for the
whole session; a test that changes it works on `copy_of(...)`.
"""

import functools
import hashlib
import importlib.util
import io
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from recorded import checksums

import seq2seq.config.compose
from seq2seq.cli.console import run_script
from seq2seq.cli.stages import recorded, run_stages
from seq2seq.config.compose import RESUME_KEYS, load_run_config, to_config, to_yaml
from seq2seq.config.registry import groups
from seq2seq.config.schema import Config, Stage
from seq2seq.run.directory import RunDir
from seq2seq.run.provenance import provenance, record
from seq2seq.run.signals import StopRequest
from seq2seq.training.warm_start import keep, read_origin

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))  # packages of developer tools

NOUNS = {
    "cat": "chat", "dog": "chien", "teacher": "professeur", "boy": "garçon", "baker": "boulanger",
    "sailor": "marin", "neighbour": "voisin", "wolf": "loup", "bear": "ours", "pupil": "élève",
}  # fmt: skip
VERBS = {
    "sees": "voit", "hears": "entend", "follows": "suit", "likes": "aime", "helps": "aide",
    "waits for": "attend", "looks for": "cherche", "carries": "porte",
}  # fmt: skip
WHEN = {"today": "aujourd'hui", "often": "souvent", "again": "à nouveau", "": ""}


def template_pairs(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Distinct sentence pairs that translate word by word, shuffled."""
    choices = list(product(NOUNS, VERBS, NOUNS, WHEN))
    random.Random(seed).shuffle(choices)
    return [
        (
            " ".join(f"the {a} {v} the {b} {w}".split()) + " .",
            " ".join(f"ce {NOUNS[a]} {VERBS[v]} ce {NOUNS[b]} {WHEN[w]}".split()) + " .",
        )
        for a, v, b, w in choices[:count]
    ]


def write_corpus(folder: Path, pairs: Sequence[tuple[str, str]], held_out: int = 20) -> list[str]:
    """Write train, val and test as text files; return the overrides that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    test, val, train = pairs[:held_out], pairs[held_out : 2 * held_out], pairs[2 * held_out :]
    for name, part in (("train", train), ("val", val), ("test", test)):
        for side, language in enumerate(("en", "fr")):
            text = "".join(f"{pair[side]}\n" for pair in part)
            (folder / f"{name}.{language}").write_text(text, "utf-8")
    splits = (("train", "train"), ("validation", "val"), ("test", "test"))
    return [f"data.root={folder}", *(f"data.{s}=[{f}.en,{f}.fr]" for s, f in splits)]


def composed(preset: str, overrides: Iterable[str] = ()) -> Config:
    """The checked config of a preset, as `train.py` makes it, with one thread.

    Hydra composes what chooses files or is named in them, once; plain values come after it. Runs of
    `debug` write nothing for TensorBoard unless asked: its figures take longer than their updates.
    """
    values = re.compile(r"(?!\w+\.\w+_language)(\w+\.[\w.]+|name|seed|stages|threads)=").match
    parts: dict[bool, list[str]] = {False: [], True: []}
    ours = ("threads=1", *(["logging.tensorboard=false"] if preset == "debug" else []))
    for override in (*ours, *overrides):
        parts[bool(values(override))].append(override)
    return to_config(hydra_values(f"+experiment={preset}", *parts[False]), parts[True])


def hydra_values(*overrides: str) -> dict[str, Any]:
    """What Hydra composes, which takes it a fifth of a second; not to be changed."""
    return _hydra_values(overrides, tuple((group, *names) for group, names in groups().items()))


composed_by_workers: list[Path] = []
"""The directory, if there is one, in which the workers of these tests share what Hydra composes."""


@functools.cache
def _hydra_values(overrides: tuple[str, ...], options: tuple[tuple[str, ...], ...]) -> Any:
    name = hashlib.sha256(repr((overrides, options)).encode()).hexdigest()
    for path in (folder / name for folder in composed_by_workers):
        if path.exists():
            return pickle.loads(path.read_bytes())
    values = seq2seq.config.compose.composed(overrides)
    for folder in composed_by_workers:
        folder.mkdir(exist_ok=True)
        made = folder / f"{name}.{os.getpid()}"
        made.write_bytes(pickle.dumps(values))
        made.replace(folder / name)
    return values


@contextmanager
def locked(run: RunDir) -> Iterator[RunDir]:
    """Give the run back at the end, as the end of a process would."""
    try:
        yield run
    finally:
        run.unlock()


def begin(root: Path, cfg: Config) -> RunDir:
    """A new run folder with its config, as `train.begin` makes it."""
    origin = read_origin(cfg)
    run = RunDir.create(root)
    record(run, provenance(cfg, ["test"]) | keep(run, origin))
    run.write("config.yaml", to_yaml(cfg))
    run.record("config.yaml")
    return run


def run_new(root: Path, cfg: Config, stop: StopRequest | None = None) -> RunDir:
    with locked(begin(root, cfg)) as run:
        run_stages(cfg, run, stop or StopRequest())
    return run


def tokenized_run(folder: Path, *changes: str, pairs: int, held_out: int) -> Path:
    """A run of `debug` whose data is prepared and that has not been trained."""
    names = write_corpus(folder / "corpus", template_pairs(pairs), held_out)
    cfg = composed("debug", [*names, "tokenizer.vocab_size=100", *changes])
    cfg.stages = [Stage.tokenize]
    return run_new(folder / "run", cfg).root


@functools.cache
def _resumed(_text: bytes, path: Path, changes: tuple[str, ...]) -> Config:
    """Reading a config takes longer than a short training."""
    return load_run_config(path, ["stages=[train]", *changes], RESUME_KEYS)


def go(root: Path, *changes: str, stop: StopRequest | None = None) -> RunDir:
    """Train, or go on training, as `train.py resume=RUN` does."""
    run, path = RunDir.open(root), root / "config.yaml"
    cfg = _resumed(path.read_bytes(), path, changes)
    with locked(run):
        run.lock()
        run_stages(cfg, run, stop or StopRequest())
    return run


def goes_on_to_the_bit(base: Path, changes: Sequence[str]) -> RunDir:
    """Assert that two updates of `debug` and two more are four in one go; return their run."""
    four = "trainer.max_updates=4"
    whole = run_new(base / "whole", composed("debug", [*changes, four]))
    parts = run_new(base / "parts", composed("debug", [*changes, "trainer.max_updates=2"]))
    go(parts.root, four)
    ours, theirs = (checksums(x.path("checkpoints/update-00000004")) for x in (parts, whole))
    assert ours == theirs
    return whole


def metrics_of(root: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text("utf-8").splitlines()]


def run_job(cfg: Config, run: RunDir) -> None:
    with recorded(run):
        run_stages(cfg, run, StopRequest())


def copy_of(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to))


def config_of(root: Path) -> Config:
    return load_run_config(root / "config.yaml")


@functools.cache
def tiny_run(base: Path) -> Path:
    """The shared run: `debug` on the template corpus, trained until it says something.

    Args:
        base: `tmp_path_factory.getbasetemp()`, so that pytest cleans up.
    """
    pairs = template_pairs(340)
    # Some test references are out of reach, so that the scores are not all 100.
    pairs[:4] = [(source, target.replace("ce", "un")) for source, target in pairs[:4]]
    names = write_corpus(base / "tiny_corpus", pairs)
    changes = ["name=tiny", "tokenizer.vocab_size=120", "tokenizer.sampling=0"]
    changes += ["trainer.batch_tokens=400", "trainer.max_updates=160", "trainer.validate_every=80"]
    changes += ["trainer.checkpoint_every=60", "trainer.ema_decay=0.9"]
    changes += ["optimizer.lr=0.02", "scheduler.patience=3", "logging.tensorboard=true"]
    return run_new(base / "tiny_run", composed("debug", [*names, *changes])).root


@functools.cache
def layers_run(base: Path) -> Path:
    """A run of a Transformer with two layers and heads on the embedded corpus, hardly trained."""
    sizes = ["model.embedding_size=16", "model.hidden_size=16", "attention.heads=2"]
    sizes += [f"{s}.{k}" for s in ("encoder", "decoder") for k in ("layers=2", "inner_size=16")]
    changes = ["encoder=self_attention", "decoder=transformer", "attention=layers", *sizes]
    changes += ["encoder.heads=2", "name=layers", "data.grammar.test_pairs=6", "logging.samples=0"]
    changes += ["trainer.max_updates=2", "trainer.validate_every=2", "stages=[tokenize,train]"]
    return run_new(base / "layers_run", composed("debug", changes)).root


@functools.cache
def characters_run(base: Path) -> Path:
    """A run on the characters of the template corpus, hardly trained."""
    names = write_corpus(base / "characters_corpus", template_pairs(60), held_out=5)
    changes = [*names, "tokenizer=characters", "name=characters", "logging.samples=0"]
    changes += ["trainer.max_updates=20", "trainer.validate_every=20", "optimizer.lr=0.02"]
    changes += ["trainer.batch_tokens=800", "stages=[tokenize,train]"]
    return run_new(base / "characters_run", composed("debug", changes)).root


def environment(**changes: str) -> dict[str, str]:
    """For child processes: one thread, the caller's python path, no debugging."""
    ours = ("SEQ2SEQ_DEBUG", "PYTHONUTF8", "PYTHONUNBUFFERED")
    kept = {k: v for k, v in os.environ.items() if k not in ours}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | changes


def call(
    *command: str | Path, cwd: Path, stdin: bytes = b"", timeout: float = 120, **changes: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, *map(str, command)], input=stdin, capture_output=True, cwd=cwd,
        env=environment(**changes), timeout=timeout, check=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Result:
    code: int
    out: bytes
    err: str


def run_here(
    monkeypatch: pytest.MonkeyPatch, name: str, *args: str | Path, stdin: bytes = b""
) -> Result:
    """Run a script as `python scripts/NAME.py ARGS < stdin` would, without starting python."""
    out, err = io.BytesIO(), io.StringIO()
    caught = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers, path = {number: signal.getsignal(number) for number in caught}, list(sys.path)
    try:
        with monkeypatch.context() as patch, tempfile.TemporaryFile() as file:
            file.write(stdin)
            file.seek(0)
            patch.delenv("SEQ2SEQ_DEBUG", raising=False)
            patch.setattr(sys, "argv", [f"scripts/{name}.py", *map(str, args)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(file))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out))
            patch.setattr(sys, "stderr", err)
            try:
                run_script(module_of(name).main)
                code = 0
            except SystemExit as exit_:
                code = exit_.code
            sys.stdout.flush()
            return Result(code, out.getvalue(), err.getvalue())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.path[:] = path


def module_of(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_fails(result: Result, code: int, *parts: str) -> None:
    """The exit code, nothing on stdout, and one line that holds these parts."""
    assert result.code == code, result
    assert result.out == b""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    for part in parts:
        assert part in result.err
