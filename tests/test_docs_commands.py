"""Every command of README.md, docs/*.md and docs/results/ is right.

An indented or fenced block of a page is a list of shell commands, unless it parses as Python. bash
reads all blocks of a page in order, in a directory with the files and runs that pages assume.

- `make test` composes: bash expands loops, variables and quotes, and each command is then checked
  by its own parser and, for settings, by the config. What the shell reads must exist.
- `make test-all` runs the commands, with trainings shrunk to seconds, and the Python.

An invisible comment in front of a block, such as `<!-- test: hours -->`, says why it is only
composed: one of `MARKS`.
"""

import argparse
import ast
import contextlib
import functools
import io
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from runs import (
    ROOT,
    composed,
    copy_of,
    environment,
    hydra_values,
    module_of,
    run_new,
    template_pairs,
)
from torch.distributed.run import get_args_parser as run_args_parser

from seq2seq.cli import COMMANDS
from seq2seq.config import registry
from seq2seq.config.compose import (
    LATER_KEYS,
    RESUME_KEYS,
    is_within,
    load_run_config,
    to_config,
    to_yaml,
)
from seq2seq.config.extensions import load_extensions
from seq2seq.run.errors import UserError

MARKS = {
    "network": "downloads something",
    "gpu": "needs a GPU",
    "hours": "trains or measures for long, or needs the corpora and runs of a results page",
    "person": "needs what only a person can provide",
    "output": "has no commands: what is printed, or part of a file",
}

PAGES = [
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
]

# What pages assume ------------------------------------------------------------------------------

STEMS = "all train dev val test test_2016_flickr mono talk text news bible mine a b v t"
SIZES = {"all": 1100, "train": 120, "mono": 40, "bible": 40}
"""Lines of the files that are more than tried on."""
LANGUAGES = ("en", "fr", "de", "cs", "gd", "yor", "swa", "ipa")
CORPORA = "PATH DIRECTORY GENERAL MINE MULTI30K SWA YOR path/to/corpus data/multi30k"
"""Directories that hold these files."""

SMALL = [
    "device=cpu",
    "threads=1",
    "tokenizer.vocab_size=null",
    "data.grammar.train_pairs=200",
    "data.grammar.validation_pairs=12",
    "data.grammar.test_pairs=12",
    "model.embedding_size=16",
    "model.hidden_size=16",
    "model.align_size=16",
    "model.readout_size=8",
    "trainer.max_updates=60",
    "trainer.validate_every=60",
    "trainer.checkpoint_every=10",
    "trainer.keep_checkpoints=6",
    "trainer.validation_sentences=8",
    "evaluate.heatmaps=[1]",
]
"""Added to every training command that is run."""
LONGER = ["device=cpu", "threads=1", "trainer.max_updates=70"]
"""The same where a run of `RUNS` is resumed."""

BACK = ["data.source_language=fr", "data.target_language=en"]
RUNS = {
    "RUN": [],
    "RUN_A": [],
    "RUN_B": ["seed=2"],
    "EN_FR": [],
    "FR_EN": BACK,
    "BACK": BACK,
    "R2L": ["data.target_order=right_to_left"],
    "LM": ["tokenizer.joint=true"],
    "SINGLE": ["data.target_language=de"],
    "TAGGED": [
        "tokenizer.joint=true",
        "data.corpora=["
        + ",".join(
            f"{{target_language:{x},train:[train.en,train.{x}],validation:[dev.en,dev.{x}],"
            f"test:[test.en,test.{x}]}}"
            for x in ("de", "fr")
        )
        + "]",
    ],
    "TRANSFORMER": ["encoder=self_attention", "decoder=transformer", "attention=layers"],
}
"""Names of runs in the pages -> how they differ from `own_corpus`."""


def write_files(work: Path) -> None:
    """Write parallel text under every name that pages use, and link what a checkout has."""
    pairs = template_pairs(1100)
    for stem in STEMS.split():
        size = SIZES.get(stem, 12)
        for language in LANGUAGES:
            lines = [pair[language != "en"] for pair in pairs[:size]]
            (work / f"{stem}.{language}").write_text("\n".join([*lines, ""]), "utf-8")
    (work / "talk.links").write_text("0-0 1-1\n" * 12)
    for parent in ("path/to", "data"):
        (work / parent).mkdir(parents=True)
    for name in CORPORA.split():
        (work / name).symlink_to(work)
    for name in ("train.py", "scripts", "docs", "Makefile", "constraints.txt", "pyproject.toml"):
        (work / name).symlink_to(ROOT / name)
    (work / "family_extension.py").symlink_to(ROOT / "tests/family_extension.py")


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    return tmp_path


# Pages ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        line: Of its page, from 1.
        mark: A key of `MARKS`, or "".
    """

    line: int
    mark: str
    text: str

    @property
    def is_python(self) -> bool:
        try:
            ast.parse(self.text)
        except SyntaxError:
            return False
        return True


FENCE = re.compile(r"^```(\w*)$\n(.*?)^```$", re.M | re.S)
INDENTED = re.compile(r"^\n((?: {4}.*\n|\n(?= {4}))+)", re.M)
MARK = re.compile(r"<!-- test: (\w+) -->\s*$")


def blocks(text: str) -> list[Block]:
    """The blocks of code of a page, in order. Those fenced as Python have a test of their own."""
    found = []
    text = f"{text}\n"
    for match in sorted(
        [*FENCE.finditer(text), *INDENTED.finditer(FENCE.sub(lambda m: blanked(m[0]), text))],
        key=re.Match.start,
    ):
        if match.re is FENCE and match[1] == "python":
            continue
        start, code = match.start(match.lastindex), match[match.lastindex]
        mark = MARK.search(text[: match.start()])
        code = re.sub(r"^ {4}", "", code, flags=re.M) if match.re is INDENTED else code
        found.append(Block(text.count("\n", 0, start) + 1, mark[1] if mark else "", code))
    return found


def blanked(text: str) -> str:
    return re.sub(r".", "-", text)


# The shell --------------------------------------------------------------------------------------

PRELUDE = r"""
record() { printf '%s\0' "$BLOCK" "$#" "$@" >> "$RECORD"; }
runs() { [ "$LEVEL" = run ]; }
trained() { # arguments of a training, and what makes it small
  case " $* " in
    *" --help "* | *" --cfg "*) "$@" ;;
    *" resume="*) "$@" $LONGER ;;
    *) "$@" $SMALL ;;
  esac
}
seq2seq() {
  record seq2seq "$@"
  runs || return 0
  if [ "$1" = train ]; then trained "$PYTHON" -m seq2seq "$@"; else "$PYTHON" -m seq2seq "$@"; fi
}
python() {
  record python "$@"
  runs || return 0
  if [ "$1" = train.py ]; then trained "$PYTHON" "$@"; else "$PYTHON" "$@"; fi
}
torchrun() {
  record torchrun "$@"
  runs || return 0
  trained "$PYTHON" -m torch.distributed.run "$@"
}
python3() { record python "$@"; }
for tool in cd . git pip make sh tensorboard; do eval "$tool() { record $tool \"\$@\"; }"; done
command_not_found_handle() { record "$@"; }
"""
COMPOSING = 'cat() { command cat "$@" 2> /dev/null; }\n'  # of files that no command has made


def script(page: Sequence[Block], *, run: bool) -> str:
    """What bash is to read: every block of a page, at its level."""
    parts = [
        PRELUDE,
        "set -eEo pipefail; trap 'echo at block $BLOCK >&2' ERR" if run else COMPOSING,
    ]
    for block in page:
        level = "run" if run and not block.mark else "compose"
        if block.mark == "output" or (block.is_python and level == "compose"):
            continue
        text = re.sub(r"\[(\w+) \.\.\.\]", r"\1_B", block.text)  # [RUN ...]: one more
        if block.is_python:
            begin = "import seq2seq\nmodel = seq2seq.load('RUN')\n" if "model." in text else ""
            text = f"\"$PYTHON\" - <<'END'\n{begin}{text}END\n"
        parts.append(f"BLOCK={block.line} LEVEL={level}\n{text}")
    return "\n".join(parts)


def shell(work: Path, text: str) -> tuple[list[tuple[int, list[str]]], str, int]:
    """Let bash read a script; return commands with the lines of their blocks, stderr, exit code."""
    record = work / ".record"
    record.touch()
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=work, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True,
        env=environment(
            RECORD=str(record), PYTHON=sys.executable, SMALL=" ".join(SMALL),
            LONGER=" ".join(LONGER), PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        ),
    )  # fmt: skip
    words = iter(record.read_text("utf-8").split("\0")[:-1])
    commands = [(int(line), [next(words) for _ in range(int(next(words)))]) for line in words]
    return commands, done.stderr, done.returncode


# Checking a command without running it ----------------------------------------------------------


class WrongError(Exception):
    """A command that cannot be right."""


def check(words: Sequence[str]) -> None:
    """Raise what a command would fail with before it does any work."""
    program, *arguments = (re.sub(r"hf:NAME(@[\w.]+)?", "RUN", word) for word in words)
    if program == "seq2seq" and arguments[:1] and arguments[0] in COMMANDS:
        check_command(arguments[0], arguments[1:])
    elif program == "python" and arguments[0] == "train.py":
        check_command("train", arguments[1:])
    elif program == "python" and arguments[0] == "-m":
        import_module(arguments[1])
    elif program in ("python", "sh"):
        check_script(Path(arguments[0]), arguments[1:])
    elif program == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
        require(targets.issuperset(arguments), f"no such target among {sorted(targets)}")
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extra in re.findall(r"\[(.+?)\]", " ".join(arguments)):
            require(extra in extras["optional-dependencies"], f"no extra {extra}")
    elif program == "torchrun":
        asked = run_args_parser().parse_args(arguments)
        require(asked.module or Path(asked.training_script).name == "train.py", "not a training")
        command = asked.training_script_args
        check_command("train", command[1:] if asked.module else command)
    elif program == "tensorboard":
        require(arguments[0] == "--logdir", "no --logdir")
    else:
        require(program in ("git", "cd", "."), "no such command")


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WrongError(otherwise)


def check_script(path: Path, arguments: Sequence[str]) -> None:
    """Check a script of the checkout; `PEERS/` is another toolkit's, `ONNX/` an export."""
    if path.parts[0] in ("PEERS", "ONNX"):
        return
    require((ROOT / path).is_file(), f"{path} does not exist")
    if path.parent.name == "scripts" and path.suffix == ".py":
        name = {"compare_runs": "compare"}.get(path.stem, path.stem)
        if name in COMMANDS:
            check_command(name, arguments)
        else:
            parse(module_of(path.stem), arguments)


def check_command(name: str, arguments: Sequence[str]) -> None:
    if "--extension" in arguments:
        with extended(arguments) as others:
            check_command(name, others)
        return
    if name == "train":
        check_training(arguments)
        return
    parsed = vars(parse(import_module(COMMANDS[name][0]), arguments))
    overrides = parsed.get("overrides") or []
    to_config({}, overrides)
    for override in overrides:
        require(is_within(override.partition("=")[0], LATER_KEYS), f"{override} is of the run")


def parse(module, arguments: Sequence[str]) -> argparse.Namespace:
    """What a command's parser makes of arguments."""
    if hasattr(module, "parse"):
        return module.parse(arguments)

    parsed = []

    def stop(parser, *args):
        parsed.append(real(parser, *args))
        raise StopIteration

    real = argparse.ArgumentParser.parse_args
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(StopIteration):
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        module.main(arguments)
    [result] = parsed
    return result


def check_training(arguments: Sequence[str]) -> None:
    """Compose the config of a training; of a sweep, with each value of it once."""
    parser = OverridesParser.create()
    asked = get_args_parser().parse_args(list(arguments))
    overrides = parser.parse_overrides(asked.overrides)
    sweeps = [
        (o.key_or_group, [*o.sweep_string_iterator()]) for o in overrides if o.is_sweep_override()
    ]
    require(asked.multirun or not sweeps, "several values need -m")
    fixed = [o.input_line for o in overrides if not o.is_sweep_override()]
    for number in range(max((len(values) for _, values in sweeps), default=1)):
        check_config([*fixed, *(f"{key}={some[number % len(some)]}" for key, some in sweeps)])


def check_config(words: Sequence[str]) -> None:
    """Compose a config. Composing takes long, so values are set afterwards where they can be."""
    if any(word.startswith("resume=") for word in words):
        saved = Path("saved.yaml")
        saved.write_text(to_yaml(to_config(hydra_values("+experiment=own_corpus"))), "utf-8")
        changes = [word for word in words if not word.startswith("resume=")]
        load_run_config(saved, changes, RESUME_KEYS)
        return
    words = [word for word in words if not word.startswith(("run_dir=", "hydra."))]
    later = re.compile(r"(\w+\.[\w.]+|name|seed|threads)=")
    if not any(word.startswith("+data") for word in words):
        values = [word for word in words if later.match(word)]
        words = [word for word in words if word not in values]
    else:
        values = []
    to_config(hydra_values(*words), values)


@contextlib.contextmanager
def extended(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Load extensions for a while; gives the other arguments."""
    options = {group: dict(known) for group, known in registry.groups().items()}
    state, path = Singleton.get_state(), list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_options", options)
        yield load_extensions(arguments)
    sys.modules.pop(arguments[arguments.index("--extension") + 1])
    Singleton.set_state(state)
    sys.path[:] = path


def problems(page: Sequence[Block], work: Path) -> Iterator[str]:
    """What is wrong with the commands of a page, without running them."""
    for block in page:
        if block.mark and block.mark not in MARKS:
            yield f"{block.line}: unknown mark {block.mark}; one of {', '.join(MARKS)}"
    commands, stderr, _ = shell(work, script(page, run=False))
    if stderr:
        yield stderr
    shown = {line for line, _ in commands}
    for block in page:
        defines = re.match(r"\w+\(\)", block.text)
        if not (block.is_python or block.mark == "output" or defines or block.line in shown):
            yield f"{block.line}: no command in this block"
    for line, words in commands:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                check(words)
        except (
            WrongError,
            UserError,
            HydraException,
            OmegaConfBaseException,
            ImportError,
        ) as error:
            yield f"{line}: {' '.join(words)}: {error}"
        except SystemExit:
            yield f"{line}: {' '.join(words)}: {said.getvalue()}"


@pytest.mark.e2e
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_are_right(page, work):
    assert list(problems(blocks((ROOT / page).read_text("utf-8")), work)) == []


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("seq2seq train +experiment=own_corpus trainer.max_update=3", "unknown key"),
        ("seq2seq train +experiment=own_corpus trainer.max_updates=0", "out of range"),
        ("seq2seq train +experiment=own_corpora", "own_corpora"),
        ("seq2seq train +experiment=own_corpus seed=1,2", "several values need -m"),
        ("seq2seq train -m +experiment=own_corpus seed=1,x", "seed"),
        ("seq2seq train +experiment=debug --cfig job", "--cfig"),
        ("seq2seq train resume=RUN model.hidden_size=3", "may change"),
        ("seq2seq decode RUN --formt jsonl", "--formt"),
        ("seq2seq decode RUN decode.beam=3", "unknown key"),
        ("seq2seq decode RUN model.hidden_size=3", "is of the run"),
        ("seq2seq decode RUN < absent.en", "No such file"),
        ("for x in 1 2; do seq2seq verify RUN --quit; done", "--quit"),
        ("seq2seq fetch a b c d", "unrecognized"),
        ("seq2seq trian RUN", "no such command"),
        ("seq2sq train", "no such command"),
        ("seq2seq decode 'RUN", "unexpected EOF"),
        ("python scripts/absent.py", "does not exist"),
        ("python scripts/benchmark.py trian", "invalid choice"),
        ("python scripts/compare_runs.py RUN", "required"),
        ("make dmo", "no such target"),
        ('pip install -e ".[exprt]"', "no extra"),
        ("<!-- test: later -->\n\n    make demo", "unknown mark"),
        ("```sh\nmake dmo\n```", "no such target"),
    ],
)
def test_a_wrong_command_is_found(command, what, work):
    text = command if command[0] in "<`" else f"    {command}"
    found = "\n".join(problems(blocks(f"A page.\n\n{text}\n"), work))
    assert what in found


# Running them -----------------------------------------------------------------------------------


@functools.cache
def trained(base: Path, *changes: str) -> Path:
    """A run of `own_corpus` on the files of `write_files`, made once."""
    work = base / "docs_corpus"
    if not work.exists():
        work.mkdir()
        write_files(work)
    cfg = composed("own_corpus", [*SMALL, f"data.root={work}", *changes])
    return run_new(base / "docs_runs" / str(trained.cache_info().misses), cfg).root


def put_runs(text: str, work: Path, base: Path) -> None:
    """Copy the runs that a page names into a directory, and one for `latest`."""
    for name, changes in RUNS.items():
        if re.search(rf"\b{name}\b", text):
            copy_of(trained(base, *changes), work / name)
    if "latest" in text:
        copy_of(trained(base), work / "outputs/mine/2026-01-01")


def runnable(page: str) -> bool:
    return any(not block.mark for block in blocks((ROOT / page).read_text("utf-8")))


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)])
def test_commands_of_a_page_run(page, work, tmp_path_factory):
    text = (ROOT / page).read_text("utf-8")
    put_runs(re.sub(r"\[(\w+) \.\.\.\]", r"\1_B", text), work, tmp_path_factory.getbasetemp())
    commands, stderr, code = shell(work, script(blocks(text), run=True))
    assert code == 0, stderr[-4000:]
    assert commands
