"""Options from outside the package: named by the user or installed, never named by a run."""

import sys
from pathlib import Path

import pytest
from forks import call_here
from runs import ROOT, call

from seq2seq.config import registry
from seq2seq.config.compose import composed, preset, to_config
from seq2seq.config.extensions import load_extensions
from seq2seq.run.errors import UsageError, one_line

COUPLED = """
from dataclasses import dataclass

from seq2seq.config.registry import option
from seq2seq.config.schema.ranges import number
from seq2seq.run.errors import ConfigError


@option("cell")
@dataclass(kw_only=True)
class CoupledConfig:
    name: str = "coupled"
    forget_bias: float = number(-9, 9, default=1.0)

    def check(self, config):
        if config.seed == 13:
            raise ConfigError("config", "seed=13 brings bad luck", "Take 14.")
"""


@pytest.fixture
def coupled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a module that registers a cell; forgotten after the test."""
    (tmp_path / "coupled_extension.py").write_text(COUPLED, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere", *sys.path])
    monkeypatch.delitem(sys.modules, "coupled_extension", raising=False)
    options = {group: dict(known) for group, known in registry.groups().items()}
    monkeypatch.setattr(registry, "_options", options)
    return tmp_path


@pytest.mark.parametrize(
    "words", [["--extension", "coupled_extension"], ["--extension=coupled_extension"]]
)
def test_an_option_from_outside_is_like_one_from_inside(coupled, words):
    assert load_extensions(["-m", *words, "cell=coupled"]) == ["-m", "cell=coupled"]
    values = composed(["cell=coupled", "cell.forget_bias=2"])
    assert values["cell"] == {"name": "coupled", "forget_bias": 2}
    assert to_config(values).cell.forget_bias == 2.0
    for overrides, message in [
        (["cell.forget_bias=10"], "cell.forget_bias=10.0 is out of range. Use [-9, 9]."),
        (["cell.reset=after"], "unknown key 'cell.reset'. Known here: name, forget_bias."),
        (["seed=13"], "seed=13 brings bad luck. Take 14."),
    ]:
        with pytest.raises(Exception, match="config: ") as caught:
            to_config(values, overrides)
        assert str(caught.value) == f"config: {message}"


@pytest.mark.parametrize("name", ["nowhere_to_be_found", "", ".coupled", "broken_extension"])
def test_a_module_that_cannot_be_imported_is_one_line(coupled, name):
    (coupled / "broken_extension.py").write_text("1 / 0\n", "utf-8")
    with pytest.raises(UsageError) as caught:
        load_extensions(["--extension", name])
    assert one_line(caught.value).startswith(f"error: --extension {name}: cannot be imported (")


@pytest.mark.parametrize("text", ["extension=coupled_extension", "cell.name=coupled_extension"])
def test_no_config_can_name_a_module(coupled, text):
    with pytest.raises(Exception, match="config: ") as caught:
        to_config({}, [text])
    assert "'extension'" in str(caught.value) or "cell.name" in str(caught.value)
    assert "coupled_extension" not in sys.modules


@pytest.mark.e2e
def test_a_run_records_the_extension_it_was_made_with_and_asks_for_it(coupled):
    train, verify = ROOT / "train.py", ROOT / "scripts" / "verify.py"
    few = ["+experiment=debug", "stages=[tokenize]", "data.grammar.train_pairs=60", "run_dir=run"]
    named = ["--extension", "coupled_extension"]
    assert call_here(train, *named, "cell=coupled", *few, cwd=coupled).returncode == 0
    assert '"--extension",\n    "coupled_extension",' in (coupled / "run/run.json").read_text(
        "utf-8"
    )
    assert call_here(verify, "run", *named, cwd=coupled).returncode == 0
    assert call_here(train, "resume=run", *named, cwd=coupled).returncode == 0
    done = call(train, "resume=run", cwd=coupled)
    assert done.returncode == 4
    assert done.stderr == (
        b"error: run/config.yaml: cell.name is 'coupled'. Use the version that wrote this run, "
        b"with its extensions.\n"
    )


@pytest.mark.e2e
def test_what_is_installed_needs_no_name(coupled):
    about = coupled / "coupled_extension-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: coupled_extension\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[seq2seq.extensions]\nany = coupled_extension\n")
    done = call(ROOT / "train.py", "--help", cwd=coupled, PYTHONPATH=str(coupled))
    assert b"cell=coupled " in done.stdout
    assert b"  --extension MODULE  " in done.stdout
    assert preset("debug").cell.name == "gated"
