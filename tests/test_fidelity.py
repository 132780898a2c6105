"""The report of deviations forgets no setting, and the map of the paper is true."""

import ast
import dataclasses
import json
import re
from functools import cache
from pathlib import Path

import pytest
from runs import ROOT, composed, config_of, copy_of, hydra_values, tiny_run

from seq2seq.cli import stages
from seq2seq.config.compose import flatten, to_config
from seq2seq.config.registry import groups
from seq2seq.config.schema import Config, GatedConfig
from seq2seq.fidelity import AUTHORS, PAPER, Outcome, compare
from seq2seq.run.directory import RunDir
from seq2seq.run.signals import StopRequest


@cache
def config(*overrides: str) -> Config:
    """The base config, changed; only choices of groups (`optimizer=adam`) need Hydra."""
    choices = [o for o in overrides if o[0] == "+" or o.partition("=")[0] in groups()]
    return to_config(hydra_values(*choices), [o for o in overrides if o not in choices])


def deviations(cfg: Config) -> tuple[set[str], set[str]]:
    """Points in which a config differs from the paper, and from the authors' code."""
    rows = compare(cfg).rows
    paper = {row.point for row in rows if row.from_paper is Outcome.differs}
    return paper, {row.point for row in rows if row.from_authors is Outcome.differs}


# What is compared -------------------------------------------------------------------------------

KEYS = list(flatten(Config()))


SETTINGS = [key for key in KEYS if key in PAPER["settings"].keys() | AUTHORS["settings"].keys()]


def test_every_setting_is_in_a_reference_or_irrelevant_and_no_entry_is_left_over():
    """A new setting needs its entry in `seq2seq/fidelity/reference/`."""
    irrelevant = [key for key in KEYS for i in PAPER["irrelevant"] if f"{key}.".startswith(f"{i}.")]
    parts = [f"{part}.name" for part in PAPER["parts"]]
    assert sorted(KEYS) == sorted(SETTINGS + irrelevant + parts)
    assert {*SETTINGS} == PAPER["settings"].keys() | AUTHORS["settings"].keys()
    assert all(any(f"{key}.".startswith(f"{i}.") for key in KEYS) for i in PAPER["irrelevant"])


@pytest.mark.e2e
@pytest.mark.parametrize("source", [PAPER, AUTHORS], ids=["paper", "authors"])
def test_every_value_has_a_source_and_is_one_that_the_setting_can_take(source):
    for key, entry in source["settings"].items():
        assert re.search(r"\d|\.py|floatX", entry["source"]), key
        cases = entry["is"].values() if "by" in entry else [entry["is"]]
        for value in [v for case in cases for v in (case if isinstance(case, list) else [case])]:
            other = {"trainer.batch_sentences": "trainer.batch_tokens=null"}.get(key, "seed=1")
            if value != "any":
                config = to_config({}, [f"{key}={json.dumps(value)}", other])
                assert flatten(config)[key] == value


# What is reported -------------------------------------------------------------------------------

ALWAYS = set(AUTHORS["always"]) | {"decode.max_source_tokens"}
"""What no setting removes, or hardly."""


@pytest.mark.e2e
def test_the_presets_differ_from_the_sources_in_this_and_in_nothing_else():
    base = {"decoder.state_word", "data.train"}
    assert deviations(config()) == (base, ALWAYS | {"model.embedding_bias", "decoder.output_rank"})
    assert deviations(config("decoder.state_word=previous"))[0] == {"data.train"}
    for words in (30, 50):
        search = deviations(config(f"+experiment=rnnsearch{words}"))
        assert search == (base | {"decoder.output_rank"}, ALWAYS)
        encdec = deviations(config(f"+experiment=rnnencdec{words}"))
        assert encdec == (search[0], ALWAYS | {"trainer.pool_batches"})
    star = deviations(config("+experiment=rnnsearch50_star"))
    assert star == (search[0], ALWAYS | {"trainer.patience"})


@pytest.mark.parametrize("key", SETTINGS)
def test_another_value_is_a_deviation_from_whoever_speaks_of_it_and_from_nothing_else(
    key, monkeypatch
):
    before, values = compare(Config()).rows, flatten(Config())
    monkeypatch.setattr("seq2seq.fidelity.flatten", lambda cfg: {**values, key: "another"})
    after = {row.point: row for row in compare(Config()).rows}
    for source, outcome in ((PAPER, after[key].from_paper), (AUTHORS, after[key].from_authors)):
        spoken = key in source["settings"] and "any" not in str(source["settings"][key]["is"])
        assert (outcome is Outcome.differs) == spoken
    group = f"{key.partition('.')[0]}." if key.endswith(".name") else key
    for row in before:
        depends = "by" in PAPER["settings"].get(row.point, ()) and key == "data.max_words"
        assert after[row.point] == row or row.point.startswith(group) or depends


@pytest.mark.parametrize(
    ("change", "paper", "authors"),
    [
        ("attention=dot", {"attention"}, {"attention"}),
        ("attention=hard", {"attention"}, {"attention"}),
        ("attention=coverage", {"attention"}, {"attention"}),
        # The RNNencdec: 600,000 updates make it the paper's, pools of 10 the authors'.
        ("attention=fixed", {"trainer.max_updates"}, {"trainer.pool_batches"}),
        ("data.max_words=30", {"trainer.max_updates"}, set()),
        ("data.max_words=40", {"data.max_words"}, {"data.max_words"}),
        ("trainer.max_updates=667000", set(), set()),
        ("trainer.patience=5", set(), {"trainer.patience"}),
        ("optimizer=adam", {"optimizer.name"}, {"optimizer.name"}),
        ("tokenizer=sentencepiece", {"tokenizer.name"}, {"tokenizer.name"}),
        ("model.backend=reference", set(), set()),
    ],
)
def test_what_depends_on_the_rest_of_the_config(change, paper, authors):
    before, after = deviations(config()), deviations(config(change))
    assert (after[0] - before[0], after[1] - before[1]) == (paper, authors)
    assert (before[0] - after[0], before[1] - after[1]) == (set(), set())


@dataclasses.dataclass(kw_only=True)
class Wide(GatedConfig):
    """A cell of an extension; what it inherits says nothing of what it computes."""

    name: str = "wide"


def test_another_cell_claims_nothing_of_the_papers():
    cfg = dataclasses.replace(Config(), cell=Wide(reset=GatedConfig().reset))
    report = compare(cfg)
    rows = {row.point: row for row in report.rows}
    assert rows["cell.reset"].here == "no such setting"
    # It is in no table of the paper, and with no other part does it share a setting.
    for key in ("cell.reset", "trainer.max_updates"):
        assert {rows[key].from_paper, rows[key].from_authors} == {Outcome.silent}
    assert "Not the paper's model: cell wide, not the paper's gated unit" in report.as_markdown()
    assert "The parts of the model are the paper's." in compare(Config()).as_markdown()


@pytest.mark.e2e
def test_a_preset_of_another_model_says_which_paper_it_follows():
    said = {}
    for path in (ROOT / "configs/experiment").glob("*.yaml"):
        text = compare(composed(path.stem)).as_markdown()
        said[path.stem] = "The preset follows" in text
        assert said[path.stem] == ("Not the paper's model" in text), path.stem
    assert said["transformer_tiny"]
    assert not said["rnnencdec50"]
    assert " Luong et al. 2015 (arXiv:1508.04025)." in compare(composed("luong")).as_markdown()


# How it is shown --------------------------------------------------------------------------------


def test_the_log_has_a_count_in_one_line():
    cfg = config("model.hidden_size=512")
    paper, authors = deviations(cfg)
    assert compare(cfg).count() == (
        f"deviations: {len(paper)} from the paper, {len(authors)} from the authors' code "
        "(all points: fidelity.md)"
    )


def table(text: str, title: str) -> list[list[str]]:
    """The rows of the table under a heading."""
    body = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in body.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.e2e
def test_a_run_tells_it_on_the_log_and_keeps_it(tmp_path_factory, tmp_path, caplog):
    run = RunDir.open(copy_of(tiny_run(tmp_path_factory.getbasetemp()), tmp_path / "run"))
    cfg = config_of(run.root)
    assert run.path("fidelity.md").read_text("utf-8") == compare(cfg).as_markdown()
    before = json.loads(run.path("fidelity.json").read_bytes())
    found = {point["point"]: point["here"] for point in before["points"]}
    assert found["model.hidden_size"] == "24"
    cfg.decode.beam_size, cfg.stages = 3, []
    with caplog.at_level("INFO", "seq2seq"):
        stages.run_stages(cfg, run, StopRequest())  # as a resumed run with decode.beam_size=3
        assert not caplog.records  # told when training begins
    after = json.loads(run.path("fidelity.json").read_bytes())
    changed = [a["point"] for a, b in zip(after["points"], before["points"], strict=True) if a != b]
    assert changed == ["decode.beam_size"]
    assert "| decode.beam_size | 3 |" in run.path("fidelity.md").read_text("utf-8")


# The map of the paper ---------------------------------------------------------------------------

MAP = (ROOT / "docs" / "fidelity.md").read_text("utf-8")
REFERENCE = re.compile(r"`((?:seq2seq|tests|configs|scripts|docs)/[\w/.]+)(?:::([\w.]+))?`")


@cache
def names_in(path: Path) -> set[str]:
    """Functions, classes, methods and constants that a module defines."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


def test_what_the_map_names_exists():
    for file, name in REFERENCE.findall(MAP):
        assert (ROOT / file).exists(), file
        assert not name or name in names_in(ROOT / file), f"{file} has no {name}"


def test_the_map_covers_the_paper_and_a_test_stands_in_each_row():
    rows = table(MAP, "From the paper to the code")
    sections = " ".join(row[0] for row in rows)
    for section in ("3.1", "3.2", "A.1.1", "A.1.2", "A.2.1", "A.2.2", "A.2.3", "B.1", "B.2"):
        assert section in sections
    for section in ("4.", "Table 1", "Fig. 2", "Fig. 3", "sample.py"):
        assert section in sections
    for row in rows:
        assert REFERENCE.search(row[1]), row
        assert "`tests/" in row[2], row
    assert len(REFERENCE.findall(MAP)) > 60
