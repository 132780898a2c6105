"""The command `seq2seq`: names of runs, printed commands, lists, help and completion."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from forks import call_here
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from runs import ROOT, call, composed

import seq2seq
from seq2seq.cli import COMMANDS, config, overview, runs
from seq2seq.config.compose import CONFIGS, load_run_config, offer_options, to_config, to_yaml
from seq2seq.config.describe import help_text
from seq2seq.config.registry import groups
from seq2seq.config.schema import Config
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError, RunDirError, UsageError
from seq2seq.run.models import run_paths
from seq2seq.run.naming import assignment, command, command_name, run_path

# Names ------------------------------------------------------------------------------------------


def make_run(path: Path, age: int = 0, text: str = "") -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(text)
    os.utime(path / "config.yaml", (10**9 - age, 10**9 - age))
    return path


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Three runs and a job of a sweep; the newest is not the last in the alphabet."""
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "outputs/mine/2026-01-01", age=30)
    make_run(tmp_path / "outputs/mine/2026-01-02", age=20)
    make_run(tmp_path / "outputs/figure2/sweep-1/fixed", age=10)
    make_run(tmp_path / "outputs/mine/2026-01-02/model")  # the export inside a run is none
    make_run(tmp_path / "elsewhere/own run, v=2", age=5)
    return tmp_path / "outputs"


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("latest", "outputs/figure2/sweep-1/fixed"),
        ("mine", "outputs/mine/2026-01-02"),
        ("mine/2026-01-01", "outputs/mine/2026-01-01"),
        ("2026-01-01", "outputs/mine/2026-01-01"),
        ("fixed", "outputs/figure2/sweep-1/fixed"),
        ("outputs/mine", "outputs/mine/2026-01-02"),
        ("outputs/mine/2026-01-01", "outputs/mine/2026-01-01"),
        ("elsewhere/own run, v=2", "elsewhere/own run, v=2"),
        ("elsewhere", "elsewhere/own run, v=2"),
        ("nothing", "nothing"),
        ("latest@best", "outputs/figure2/sweep-1/fixed@best"),
        ("mine@last5+fixed", "outputs/mine/2026-01-02@last5+outputs/figure2/sweep-1/fixed"),
    ],
)
def test_a_run_has_a_name(outputs, name, run):
    assert run_paths(name) == run


def test_a_path_that_is_a_run_comes_before_a_name(outputs, tmp_path):
    make_run(tmp_path / "latest")
    assert run_path("latest") == Path("latest")


def test_the_run_meant_by_a_name_is_said(outputs, caplog):
    run_path("outputs/mine/2026-01-01")
    assert not caplog.text
    run_path("mine")
    assert "mine: outputs/mine/2026-01-02" in caplog.text


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("mime", "Did you mean mine?"),
        ("something", "Name a run directory, latest, or one of: figure2, mine."),
    ],
)
def test_an_unknown_name_is_answered_with_known_ones(outputs, name, advice):
    with pytest.raises(RunDirError) as caught:
        RunDir.open(run_path(name))
    assert caught.value.fix == advice


def test_home_is_expanded_wherever_a_path_is_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_run(tmp_path / "r")
    assert run_path("~/r") == tmp_path / "r"
    assert run_path("~nobody-has-this-name/r") == Path("~nobody-has-this-name/r")
    line = ["run_dir=~/runs/x", "data.root=~", "name=a~b"]
    expected = [f"run_dir={tmp_path}/runs/x", f"data.root={tmp_path}", "name=a~b"]
    assert seq2seq.config.compose.command_line(line) == expected


# Printed commands -------------------------------------------------------------------------------

NAMES = ["plain", "my run, v=2", "it's", 'a"b', "${oc.env:HOME}", r"\${x}", "a+b", "end\\", "null"]
NAMES += ["~/x", "Gl\u00fcck", "#1", "(x)", "[a]", "{a: b}", "$HOME", "x  y", " x", "3", "true"]
NAMES += [r"a\"b", "a\nb", "k=v", "%s", "a;b", "`x`", "!x", "a:b", "@last", "--help"]


KEYS = ("resume", "run_dir", "name", "data.root", "data.source_language", "data.target_language")


@pytest.mark.e2e
def test_a_printed_command_can_be_pasted_back_whatever_the_name():
    """Each name as the value of some key: composing takes long, so several share a command."""
    offer_options()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for start in range(0, len(NAMES), len(KEYS)):
            given = dict(zip(KEYS, NAMES[start:], strict=False))
            words = shlex.split(command("train", *map(assignment, given, given.values())))
            found = compose("config", words[-len(given) :])
            assert {key: OmegaConf.select(found, key) for key in given} == given


@pytest.mark.parametrize(
    ("program", "words", "name"),
    [
        ("/env/bin/seq2seq", "seq2seq decode", "seq2seq decode"),
        ("/env/seq2seq/__main__.py", "python -m seq2seq decode", "seq2seq decode"),
        ("train.py", "python scripts/decode.py", "train.py"),
        ("/home/me/s/scripts/decode.py", "python /home/me/s/scripts/decode.py", "decode.py"),
        ("/some/program.py", "seq2seq decode", "program.py"),
    ],
)
def test_a_command_is_printed_the_way_this_one_was_called(monkeypatch, program, words, name):
    monkeypatch.setattr(sys, "argv", [program, "decode"])
    assert command("decode", "a b") == f"{words} 'a b'"
    assert command_name() == name


# Lists ------------------------------------------------------------------------------------------


def test_runs_are_listed_with_preset_state_and_score(outputs, tmp_path, capsys):
    text = to_yaml(composed("debug", ["stages=[tokenize]"]))
    for i, state in enumerate(("unprepared", "stopped", "finished", "diverged", "failed")):
        run = RunDir(make_run(tmp_path / "new" / state, 9 - i, text))
        files = {"run.json": {"command": ["seq2seq", "train", "+experiment=debug"]}}
        if i:
            files["checkpoints/best.json"] = {"metric": "bleu", "value": 12.345, "update": 20}
        if state == "finished":
            files["data_report.json"] = {}
        if i > 2:
            code = {"diverged": 6, "failed": 70}[state]
            files["crash/failures.json"] = {"failures": [{"update": 3, "exit_code": code}]}
        for name, values in files.items():
            run.write_json(name, values)
    runs.main([str(tmp_path / "new")])
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[0] == ["run", "preset", "state", "updates", "best", "started"]
    states = ["unprepared", "stopped", "finished", "diverged", "failed"]
    assert [row[1:3] for row in shown[1:]] == [["debug", state] for state in states]
    assert [row[4:6] == ["bleu", "12.35"] for row in shown[1:]] == [False, *[True] * 4]
    runs.main([str(tmp_path / "new"), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["state"] for row in rows] == states
    runs.main([])  # what lies in outputs is no config
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]].count("0") == 0


def test_a_running_run_is_seen(tmp_path, capsys):
    run = RunDir.create(tmp_path / "a" / "b")
    run.write("config.yaml", to_yaml(composed("debug")))
    for state in ("running", "unprepared"):
        runs.main([str(tmp_path), "--json"])
        assert json.loads(capsys.readouterr().out)["state"] == state
        run.unlock()


def test_no_runs_are_said(tmp_path, capsys):
    runs.main([str(tmp_path)])
    assert capsys.readouterr().out == f"no runs in {tmp_path}\n"


ONE = '{train:["été.tsv"],validation:[dev.tsv],test:[test.tsv],weight:0.5}'
LISTS = {
    "letters": 'data.train=["été a.en","漢字.fr"]',
    "patterns": r"""data.placeholders=[url,'n=\d+"\\,a]?','m=[$]?[{]b}']""",
    "dictionaries": f"data.corpora=[{ONE},{ONE}]",
}


@pytest.mark.parametrize("kind", [None, *LISTS])
def test_settings_of_a_run_are_shown_as_yaml_and_as_words(tmp_path, capsys, kind):
    words = ["cell=lstm", "tokenizer.vocab_size=77", "name=a.b", "optimizer=adam"]
    words += [LISTS[kind]] if kind else []
    cfg = composed("debug", words)
    run = make_run(tmp_path / "run", 0, to_yaml(cfg))
    config.main([str(run)])
    (tmp_path / "shown.yaml").write_text(capsys.readouterr().out, "utf-8")
    assert load_run_config(tmp_path / "shown.yaml") == cfg
    config.main([str(run), "--diff"])
    shown = shlex.split(capsys.readouterr().out)
    assert {"cell=lstm", "name=a.b"} <= set(shown)
    assert to_config(seq2seq.config.compose.composed(shown)) == cfg


# Help -------------------------------------------------------------------------------------------


def leaves(config: type, prefix: str) -> set[str]:
    """Keys of a config class; of a list of groups, N is the index."""
    found = set()
    for f in fields(config):
        inner = next((t for t in (f.type, *get_args(f.type)) if is_dataclass(t)), None)
        found |= set() if inner is f.type else {f"{prefix}{f.name}"}
        if inner is not None:
            found |= leaves(inner, f"{prefix}{f.name}." + ("" if inner is f.type else "N."))
    return found


def test_help_explains_every_setting():
    expected = {f"{group}.{f.name}" for group in groups() for f in fields(getattr(Config(), group))}
    for f in fields(Config):
        options = groups().get(f.name, {"": type(getattr(Config(), f.name))}).values()
        for option in options:
            nested = is_dataclass(option)
            expected |= leaves(option, f"{f.name}.") if nested else {f.name}
    lines = [*help_text().splitlines(), ""]
    shown = {line.partition("=")[0].strip() for line in lines}
    assert {key for key in expected if not key.endswith(".name")} - shown == set()
    unexplained = [
        line
        for line, below in pairwise(lines)
        if line.partition("=")[0].strip() in expected and not re.match(" {6}[^ ]", below)
    ]
    assert unexplained == []


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("beam_size", ["  decode.beam_size=10  (integer in [1, "]),
        (
            "cell",
            ["== cell", "cell=lstm ", "  cell.forget_bias=1.0  (number in [-10, 10]; of lstm)"],
        ),
        ("presets", ["+experiment=quickstart ", "+experiment=own "]),
    ],
)
def test_help_about_a_word(tmp_path, word, parts):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/own.yaml").write_text("# Mine.\n# @package _global_\nname: own\n")
    text = help_text([word, "--config-dir", str(tmp_path)])
    for part in parts:
        assert part in text
    assert "@package" not in text


def test_help_about_an_unknown_word_names_a_near_one():
    with pytest.raises(ConfigError, match=r"Did you mean decode\.beam_size"):
        help_text(["decode.beam_sise"])


def test_the_table_of_commands_is_in_the_help_and_each_has_a_script_or_needs_none(capsys):
    overview.main(["--help"])
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  ")][
        : len(COMMANDS)
    ] == list(COMMANDS)
    overview.main(["--version"])
    assert capsys.readouterr().out == f"{seq2seq.__version__}\n"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("CHANGELOG.md", r"^## (\d\S*) \(\d{4}-\d\d-\d\d\)$"),
        ("CITATION.cff", r"^version: (.+)$"),
    ],
)
def test_the_version_is_the_newest_of_the_changelog_and_the_one_to_cite(name, line):
    found = re.search(line, (ROOT / name).read_text("utf-8"), re.MULTILINE)
    assert found[1] == seq2seq.__version__


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["decod"], "unknown command 'decod'. Did you mean decode?"),
        (["xyz"], "See seq2seq --help."),
        (["--completion", "tcsh"], "needs a shell. Name one: bash, zsh, fish."),
        (["--completion"], "needs a shell"),
    ],
)
def test_mistakes_are_answered(words, message):
    with pytest.raises(UsageError) as caught:
        overview.main(words)
    assert message in seq2seq.run.errors.one_line(caught.value)


# Completion -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("seq2seq de", ["decode"]),
        ("seq2seq co", ["config", "compare"]),
        ("seq2seq decode ", ["latest", "figure2", "mine"]),
        ("seq2seq decode mi", ["mine"]),
        ("seq2seq train +exp", ["+experiment="]),
        ("seq2seq train +experiment=rnnsearch5", ["rnnsearch50", "rnnsearch50_star"]),
        ("seq2seq train resume=la", ["latest"]),
        ("seq2seq decode 'mi", []),
    ],
)
def test_completion(outputs, line, words):
    assert overview.completions(line) == words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_completes(outputs, shell, tmp_path):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    asks = {
        "bash": 'COMP_LINE="seq2seq dec" COMP_POINT=11; _seq2seq; echo "${COMPREPLY[@]}"',
        "zsh": "",
        "fish": 'complete -C "seq2seq dec"',
    }
    stub = tmp_path / "seq2seq"
    stub.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m seq2seq "$@"\n')
    stub.chmod(0o755)
    head = "autoload -U compinit; compinit -D\n" if shell == "zsh" else ""
    text = f"{head}{overview.SHELLS[shell]}\n{asks[shell]}\n"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [program, "-c", text], capture_output=True, env=os.environ | {"PATH": path}, check=True
    )
    if asks[shell]:
        assert done.stdout.decode().split()[0] == "decode"


# Whole processes --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["train", "--help", "seed"], ["decode", "--help"]])
def test_help_starts_without_what_takes_long(tmp_path, words):
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules))\n"
    code += "from seq2seq.cli.main import main; main()"
    done = call("-c", code, *words, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    text, _, modules = done.stdout.decode().rstrip("\n").rpartition("\n")
    assert "usage: " in text or "  seed=" in text
    slow = {"torch", "datasets", "matplotlib", "sentencepiece", "tensorboard", "sacrebleu"}
    slow |= {"hydra", "omegaconf", "yaml", "numpy"} if words[0] != "train" else set()
    assert not slow.intersection(modules.split())


@pytest.mark.e2e
def test_a_preset_of_ones_own_is_swept_and_a_failed_start_leaves_nothing(tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    preset = "# @package _global_\ndefaults: [debug]\nname: own\nstages: [tokenize]\n"
    preset += "data: {grammar: {train_pairs: 300}}\ntokenizer: {vocab_size: 100}\n"
    (tmp_path / "mine/experiment/own.yaml").write_text(preset)
    words = [ROOT / "train.py", "--config-dir", "mine", "+experiment=own"]
    done = call_here(*words, "-m", "seed=1,2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = sorted((tmp_path / "outputs").glob("own/*/*/config.yaml"))
    assert [load_run_config(path).seed for path in made] == [1, 2]
    shutil.rmtree(tmp_path / "outputs")
    done = call_here(*words, "tokenizer.vocab_size=9000", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert b"tokenizer.vocab_size=9000 is too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


# From Python ------------------------------------------------------------------------------------


def test_N1_a_text_is_one_sentence_and_a_list_is_several(monkeypatch):
    stream = staticmethod(lambda lines, **_: iter([line.upper() for line in lines]))
    monkeypatch.setattr(Pretrained, "stream", stream)
    model = Pretrained.__new__(Pretrained)
    assert model.translate("a cat") == "A CAT"
    assert model.translate(["a cat", "b"]) == ["A CAT", "B"]
