"""U10, U13: a run takes no code from where it runs, and tells nothing of the machine.

One training, one resume and one decoding, in a folder full of traps and with marked variables.
"""

import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pytest
from runs import ROOT, call, composed, template_pairs, write_corpus

from seq2seq.config.schema import InitConfig
from seq2seq.run.provenance import commit, without_directories, without_paths
from seq2seq.training.export import public_config

TRAPS = ["sitecustomize.py", "usercustomize.py", "torch.py", "numpy.py", "yaml.py", "json.py"]
TRAPS += ["seq2seq.py", "train.py", "hydra_plugins/__init__.py", "hydra_plugins/evil/__init__.py"]
TRAPS += ["omegaconf/__init__.py", "conf/config.yaml", "configs/config.yaml", ".hydra/config.yaml"]
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "LOGNAME")
SECRETS += ("USER", "SSH_AUTH_SOCK", "OLDPWD", "DATABASE_URL", "SACREBLEU")
MARK = "qzmarkerzq"
SMALL = ["trainer.max_updates=4", "trainer.validate_every=2", "trainer.checkpoint_every=2"]
SMALL += ["tokenizer.vocab_size=100", "evaluate.heatmaps=[1]", "threads=1", "decode.max_ratio=1"]


@dataclass(frozen=True)
class Trapped:
    home: Path
    run: Path
    canary: Path
    said: str


def set_traps(folder: Path, canary: Path) -> None:
    """Modules that write to the canary when anything imports them, and configs that break."""
    for name in TRAPS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        code = f"with open({str(canary)!r}, 'a') as file:\n    file.write({name!r} + chr(10))\n"
        path.write_text(code if name.endswith(".py") else "name: [trap\n", "utf-8")


@pytest.fixture(scope="module")
def trapped(tmp_path_factory) -> Trapped:
    home = tmp_path_factory.mktemp(MARK)
    corpus = write_corpus(home / "corpus", template_pairs(120), held_out=4)
    work, canary = home / "work", home / "canary"
    set_traps(work, canary)
    variables = {name: f"{MARK}-{name}" for name in SECRETS}
    variables |= {"SACREBLEU": str(home / "cache"), "MPLCONFIGDIR": matplotlib.get_cachedir()}
    variables |= {"CC": "none"}  # in a new home all would be compiled anew, which takes long
    said = []

    def python(*command: str | Path, cwd: Path = work, stdin: bytes = b"") -> None:
        done = call(*command, cwd=cwd, stdin=stdin, HOME=str(home), **variables)
        assert done.returncode == 0, done.stderr.decode()
        said.append((done.stdout + done.stderr).decode())

    train = ROOT / "train.py"
    python(train, "+experiment=debug", "run_dir=run", *SMALL, *corpus)
    set_traps(work / "run" / "traps", canary)
    traps = work / "run" / "traps"
    for path in [*traps.rglob("*")]:  # into the run itself, beside its own files
        if path.is_file():
            target = work / "run" / path.relative_to(traps)
            target.parent.mkdir(exist_ok=True, parents=True)
            path.rename(target)
    python(train, "resume=.", "trainer.max_updates=6", "stages=[train]", cwd=work / "run")
    python(ROOT / "scripts" / "decode.py", ".", cwd=work / "run", stdin=b"the cat sees the dog .\n")
    return Trapped(home, work / "run", canary, "".join(said))


@pytest.mark.e2e
def test_U10_nothing_is_imported_from_where_it_runs(trapped, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert not trapped.canary.exists(), trapped.canary.read_text("utf-8")
    import importlib.util

    for name in TRAPS[:2]:  # the traps do catch what imports them
        spec = importlib.util.spec_from_file_location("trap", trapped.run / name)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    caught = trapped.canary.read_text("utf-8").split()
    trapped.canary.unlink()
    assert caught == TRAPS[:2]


def holding(folder: Path, *words: str) -> dict[str, set[str]]:
    """Files of a run, traps apart, that hold one of these words in name or content."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in TRAPS:
            data = path.read_bytes() + name.encode()
            if hits := {word for word in words if word.encode() in data}:
                found[name] = hits
    return found


@pytest.mark.e2e
def test_U13_nothing_of_the_machine_gets_into_a_run(trapped):
    names = {str(path.relative_to(trapped.run)) for path in trapped.run.rglob("*")}
    wanted = {"config.yaml", "run.json", "train.log", "metrics.jsonl", "scores.json"}
    wanted |= {"tokenizers/source.model", "model/config.yaml", "checkpoints/update-00000006"}
    assert wanted <= names
    words = (MARK, str(ROOT), str(Path(sys.prefix)), str(Path.home()) + os.sep)
    found = holding(trapped.run, *words)
    # A checkpoint keeps a copy of the config; the model that is handed on has one without paths.
    assert {Path(name).name for name in found} == {"config.yaml"}
    assert not [name for name in found if name.startswith("model/")]
    assert set.union(*found.values()) == {MARK}
    config = (trapped.run / "config.yaml").read_text("utf-8")
    assert [line for line in config.splitlines() if MARK in line] == [
        f"  root: {trapped.home / 'corpus'}"
    ]


@pytest.mark.e2e
def test_U13_the_host_is_named_by_its_lock_and_event_files_alone(trapped):
    """The name may be two letters, so only text is searched, and for whole words."""
    word = re.compile(rf"(?<!\w){re.escape(socket.gethostname())}(?!\w)")
    files = [path for path in trapped.run.rglob("*") if path.is_file()]
    kinds = {".json", ".jsonl", ".log", ".yaml", ".md", ".txt", ".lock"}
    found = [p for p in files if p.suffix in kinds and word.search(p.read_text("utf-8"))]
    found += [path for path in files if word.search(path.name)]
    assert {path.name.split(".out")[0] for path in found} == {"run.lock", "events"}


@pytest.mark.e2e
def test_U13_secrets_are_not_printed(trapped):
    assert not [name for name in SECRETS if f"{MARK}-{name}" in trapped.said]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("data.root=/home/me/corpus", "data.root=.../corpus"),
        ("data.train=[/a/b/x.en,~/x.fr]", "data.train=[.../x.en,.../x.fr]"),
        ("data.train='/my data/x.tsv'", "data.train='.../x.tsv'"),
        ("hub:/home/me/set:fr-en", "hub:.../set:fr-en"),
        ("hub:~me/set", "hub:.../set"),
        ("run_dir=/tmp/run", "run_dir=.../run"),
        ("data.root=data/corpus", "data.root=data/corpus"),
        ("hub:wmt/wmt14:fr-en", "hub:wmt/wmt14:fr-en"),
        ("optimizer.lr=1/2", "optimizer.lr=1/2"),
        ("+experiment=debug", "+experiment=debug"),
    ],
)
def test_U13_only_the_last_part_of_a_path_is_shown(text, shown):
    assert without_directories(text) == shown


def test_U13_a_config_without_paths():
    changes = ["data.root=/home/me", "data.train=[/a/x.en,b/x.fr]", "data.test='hub:/a/b'"]
    changes += [f"init.{key}=/a/b" for key in ("run", "source_vectors", "target_vectors")]
    cfg = composed("debug", [*changes, "evaluate.heatmap_font=/fonts/a.ttf"])
    shown = without_paths(cfg)
    assert (shown.data.root, shown.data.train) == (".../me", [".../x.en", "b/x.fr"])
    assert shown.data.test == ["hub:.../b"]
    assert shown.evaluate.heatmap_font == ".../a.ttf"
    assert shown.init == InitConfig(run=".../b", source_vectors=".../b", target_vectors=".../b")
    assert without_paths(composed("debug")) == composed("debug")
    assert cfg.data.root == "/home/me"  # the config itself stays


def test_U13_a_published_config_has_no_corpus_and_no_path():
    one = "{train:[/q/a],validation:[/q/b],test:[/q/c]}"
    several = ["data.root=/q", "data.prepared=/q/p", f"data.corpora=[{one},{one}]"]
    single = ["data.train=/q/a.tsv", "data.links=/q/l", "init.run=/q/r"]
    for changes in (several, [*single, "evaluate.heatmap_font=/q/a.ttf"]):
        assert "/q" not in public_config(composed("debug", changes))


def test_the_commit_is_that_of_the_checkout_that_knows_the_module(tmp_path, monkeypatch):
    module = tmp_path / "module.py"
    module.write_text("a = 1\n")

    def git(*words: str) -> str:
        own = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run([*own, *words], check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    assert commit(module) is None, "Git does not know it"
    git("add", "module.py")
    git("commit", "-q", "-m", "one")
    head = git("rev-parse", "HEAD").strip()
    (tmp_path / "other").write_text("")
    assert commit(module) == head
    module.write_text("a = 2\n")
    assert commit(module) == f"{head}-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit(module) is None, "no Git"
