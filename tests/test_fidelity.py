"""The report of deviations forgets no setting, and the map of the paper is true."""

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from runs import ROOT, config_of, copy_of, tiny_run

from seq2seq.cli import stages
from seq2seq.config.compose import composed, flatten, to_config
from seq2seq.config.registry import groups
from seq2seq.config.schema import Config
from seq2seq.fidelity import IRRELEVANT, POINTS, Outcome, Point, compare
from seq2seq.fidelity.point import fixed, says
from seq2seq.fidelity.report import Report, Row
from seq2seq.run.directory import RunDir
from seq2seq.run.signals import StopRequest


@cache
def config(*overrides: str) -> Config:
    """The base config, changed; only choices of groups (`optimizer=adam`) need Hydra."""
    choices = [o for o in overrides if o[0] == "+" or o.partition("=")[0] in groups()]
    values = hydra_values(tuple(choices))
    return to_config(values, [o for o in overrides if o not in choices])


@cache
def hydra_values(overrides: tuple[str, ...]) -> dict[str, Any]:
    return composed(overrides)


def from_paper(*overrides: str) -> set[str]:
    return {row.point.name for row in compare(config(*overrides)).from_paper()}


def from_authors(*overrides: str) -> set[str]:
    return {row.point.name for row in compare(config(*overrides)).from_authors()}


# What is compared -------------------------------------------------------------------------------


def every_key() -> list[str]:
    """Leaves of all options of all tagged groups."""
    keys = dict.fromkeys(flatten(config()))
    for group, options in groups().items():
        for name in options:
            keys |= dict.fromkeys(flatten(config(f"{group}={name}")))
    return list(keys)


def owner(key: str) -> set[str]:
    return {point.name for point in POINTS if point.owns(key)}


def ignored(key: str) -> bool:
    return any(Point(**BLANK | {"keys": (pattern,)}).owns(key) for pattern in IRRELEVANT)


BLANK = {
    "name": "x",
    "keys": (),
    "here": fixed("a"),
    "paper": says("a"),
    "authors": says("a"),
    "source": "A.1",
}


@pytest.mark.parametrize("key", every_key())
def test_no_setting_is_forgotten(key):
    """A new setting needs a point in `seq2seq/fidelity/of_*.py`, or a line in `IRRELEVANT`."""
    assert bool(owner(key)) != ignored(key)


def test_no_point_and_no_line_is_left_over():
    keys = every_key()
    for pattern in [*IRRELEVANT, *(key for point in POINTS for key in point.keys)]:
        assert any(Point(**BLANK | {"keys": (pattern,)}).owns(key) for key in keys), pattern


def test_points_have_names_of_their_own_and_say_where_they_are_from():
    assert len({point.name for point in POINTS}) == len(POINTS) > 50
    for point in POINTS:
        assert re.search(r"\d|\.py|floatX", point.source), point.name


def test_what_a_setting_decides_is_read_from_it():
    """A point that no value of its settings changes would be a point fixed in the code."""
    values = flatten(config("data.max_ratio=9"))
    for point in POINTS:
        same = point.here(values) == point.here(Changed(values))
        assert same == point.fixed, point.name


class Changed(dict):
    """Every value another one."""

    def __getitem__(self, key):
        value = super().__getitem__(key)
        match value:
            case bool():
                return not value
            case int() | float():
                return 2 * value + 3
            case list():
                return [*value, "more"]
            case None:
                return 7
        return f"not {value}"

    def items(self):
        return [(key, self[key]) for key in self]


def test_a_row_differs_if_it_differs_from_either_source():
    point, words = Point(**BLANK), list(Outcome)
    for paper in words:
        for authors in words:
            row = Row(point, "a", paper, authors)
            assert row.differs == (Outcome.differs in (paper, authors))


# What is reported -------------------------------------------------------------------------------

FIXED = {
    "softmax",
    "gradient that is not finite",
    "state kept for a restart",
    "where no hypothesis finished",
}
"""What no setting removes."""

AUTHORS = ["model.embedding_bias=true", "decoder.output_rank=620"]
"""What makes the base config the authors' code."""


def test_the_base_config_is_the_paper_but_for_these():
    assert from_paper() == {
        "word that moves the state",
        "training corpus",
    }
    assert "word that moves the state" not in from_paper("decoder.state_word=previous")


def test_the_authors_code_is_reached_but_for_these():
    left = FIXED | {"longer sources are cut, in tokens"}
    assert from_authors(*AUTHORS) == left
    removed = {"bias of embedded words", "output matrix"}
    assert from_authors() == left | removed


@pytest.mark.parametrize("words", [50, 30])
@pytest.mark.parametrize("model", ["rnnsearch", "rnnencdec"])
def test_the_rows_of_table_1(model, words):
    """The presets take the authors' model, so the paper's output matrix is not in them."""
    row = f"+experiment={model}{words}"
    assert from_paper(row) == from_paper() | {"output matrix"}
    left = FIXED | {"longer sources are cut, in tokens"}
    pool = {"pool that is sorted by length"} if model == "rnnencdec" else set()
    assert from_authors(row) == left | pool


def test_the_longest_trained_row_of_table_1_stops_early_as_the_papers_did():
    row = "+experiment=rnnsearch50_star"
    assert from_paper(row) == from_paper("+experiment=rnnsearch50")
    assert from_authors(row) - from_authors("+experiment=rnnsearch50") == {"early stopping"}


def test_fixed_deviations_are_marked():
    fixed_ones = {
        row.point.name for row in compare(config()).rows if row.point.fixed and row.differs
    }
    assert fixed_ones == FIXED


SWITCHES = {
    # Change of the base config: (points that appear in the paper's list, in the authors' list)
    "model.embedding_size=100": ({"word embedding, m"}, {"word embedding, m"}),
    "model.hidden_size=100": ({"hidden units, n"}, {"hidden units, n"}),
    "model.align_size=100": ({"alignment units, n'"}, {"alignment units, n'"}),
    "model.readout_size=100": ({"readout units, l"}, {"readout units, l"}),
    "decoder.readout=tanh": ({"readout"}, {"readout"}),
    "decoder.state_word=previous": (set(), {"word that moves the state"}),
    "cell.reset=after": ({"reset gate"}, {"reset gate"}),
    "model.bias=false": ({"biases"}, {"biases"}),
    "decoder.output_rank=620": ({"output matrix"}, set()),
    "model.init=glorot": ({"initial weights"}, {"initial weights"}),
    "model.embedding_dropout=0.1": (set(), {"dropout"}),
    "encoder.annotation_dropout=0.1": (set(), {"dropout"}),
    "decoder.readout_dropout=0.1": (set(), {"dropout"}),
    "attention=dot": ({"context"}, {"context"}),
    "attention=hard": ({"context"}, {"context"}),
    # The RNNencdec: 600,000 updates make it the paper's, pools of 10 the authors'.
    "attention=fixed": ({"number of updates"}, {"pool that is sorted by length"}),
    "trainer.precision=bf16": (set(), {"precision"}),
    "data.source_language=de": ({"languages"}, set()),
    "data.target_language=de": ({"languages"}, set()),
    "data.test=mine.tsv": ({"test set"}, set()),
    "data.max_ratio=9": (set(), {"pairs dropped for their length ratio"}),
    "data.limit=1000": ({"training pairs used"}, {"training pairs used"}),
    "tokenizer.vocab_size=8000": 2 * [{"vocabulary size"}],
    "tokenizer=sentencepiece": (
        {"vocabulary", "words that the cap counts"},
        {"vocabulary", "words that the cap counts", "vocabulary size"},
    ),
    "data.validation=mine.tsv": ({"validation set"}, set()),
    "data.max_words=40": ({"length cap", "number of updates"}, {"length cap"}),
    "data.max_words=30": ({"number of updates"}, set()),
    "data.drop_duplicates=true": (set(), {"duplicate pairs dropped"}),
    "trainer.batch_sentences=64": ({"batch"}, {"batch"}),
    "trainer.pool_batches=10": 2 * [{"pool that is sorted by length"}],
    "trainer.batch_order=shuffled": (set(), {"order of the batches of a pool"}),
    "trainer.reshuffle=true": ({"shuffling of the corpus"}, {"shuffling of the corpus"}),
    "trainer.normalize=words": (set(), {"cost before clipping"}),
    "trainer.normalize=sentences": (set(), {"cost before clipping"}),
    "trainer.label_smoothing=0.1": (set(), {"label smoothing"}),
    "trainer.clip_norm=5": ({"largest gradient norm"}, {"largest gradient norm"}),
    "optimizer=adam": ({"update rule"}, {"update rule", "learning rate"}),
    "optimizer.rho=0.9": ({"update rule"}, {"update rule"}),
    "optimizer.eps=1e-8": ({"update rule"}, {"update rule"}),
    "optimizer.lr=0.5": (set(), {"learning rate"}),
    "optimizer.weight_decay=0.01": (set(), {"weight decay"}),
    "scheduler=plateau": (set(), {"schedule of the learning rate"}),
    "trainer.ema_decay=0.99": (set(), {"averaged weights"}),
    "trainer.max_updates=1000": ({"number of updates"}, set()),
    "trainer.max_updates=667000": (set(), set()),
    "trainer.patience=5": (set(), {"early stopping"}),
    "decode.beam_size=12": (set(), {"beam"}),
    "decode.min_ratio=0": (set(), {"shortest translation"}),
    "decode.max_ratio=2": (set(), {"longest translation"}),
    "decode.extra_steps=10": (set(), {"steps beyond the longest translation"}),
    "decode.length_penalty=1": (set(), {"score divided by length to the power of"}),
    "decode.replace_unknown=true": (set(), {"unknown words replaced"}),
    "decode.precision=bf16": (set(), {"precision of decoding"}),
    "decode.forbid_unknown=true": 2 * [{"unknown word in translations"}],
}


@pytest.mark.parametrize("change", SWITCHES)
def test_a_switch_makes_its_points_appear_and_no_other(change):
    paper, authors = SWITCHES[change]
    back = {"decoder.state_word=previous": {"word that moves the state"}}.get(change, set())
    assert from_paper(change) - from_paper() == paper
    assert from_paper() - from_paper(change) == back
    assert from_authors(change) - from_authors() == authors


def test_every_setting_with_a_point_was_switched():
    """Those of the corpus and of the embedded grammar only show what they are."""
    switched = {change.partition("=")[0] for change in SWITCHES}
    own_text = {"data.train", "model.embedding_bias"}
    silent = {"trainer.max_epochs", "trainer.select_by", "trainer.validate_every"}
    silent |= {"trainer.validation_sentences", "trainer.validation_beam"}
    own_text |= {"trainer.batch_tokens", "decode.max_source_tokens", "evaluate.bleu_tokenizer"}
    for key in flatten(config()):
        group = key.partition(".")[0]
        if owner(key) and group not in groups() and not key.startswith("data.grammar."):
            assert key in switched | own_text | silent, key


def test_irrelevant_settings_change_nothing():
    changes = ["name=mine", "seed=5", "device=cpu", "threads=2", "data.root=there"]
    changes += ["logging.every=7", "decode.n_best=2", "model.backend=reference"]
    assert compare(config(*changes)).rows == compare(config()).rows


def test_quickstart_is_another_recipe_and_the_same_model():
    both = {
        *("word embedding, m", "hidden units, n", "alignment units, n'", "readout units, l"),
        *("initial weights", "vocabulary", "vocabulary size", "length cap", "update rule"),
        *("words that the cap counts", "shuffling of the corpus", "early stopping"),
        "unknown word in translations",
    }
    paper = {"word that moves the state", "training corpus", "validation set", "test set"}
    assert from_paper("+experiment=quickstart") == both | paper | {"number of updates"}
    authors = {
        *("bias of embedded words", "output matrix", "pairs dropped for their length ratio"),
        *("duplicate pairs dropped", "order of the batches of a pool", "cost before clipping"),
        *("learning rate", "schedule of the learning rate", "averaged weights", "beam"),
        *("shortest translation", "longest translation", "longer sources are cut, in tokens"),
        *("steps beyond the longest translation", "score divided by length to the power of"),
    }
    assert from_authors("+experiment=quickstart") == both | authors | FIXED
    report = compare(config("+experiment=quickstart"))
    [corpus] = [row.here for row in report.rows if row.point.name == "training corpus"]
    assert corpus.startswith("embedded (seed 1, train_pairs 60,000, ")


def test_token_batches_and_epochs_are_told():
    cfg = config("trainer.batch_sentences=null", "trainer.batch_tokens=4000", "data.limit=1000")
    here = {row.point.name: row.here for row in compare(cfg).rows}
    assert (here["batch"], here["training pairs used"]) == ("4,000 tokens", "the first 1,000")


# How it is shown --------------------------------------------------------------------------------


def test_the_log_is_a_count_and_a_line_for_each_deviation():
    report = compare(config("model.hidden_size=512"))
    head, *lines = report.lines()
    paper, authors = len(report.from_paper()), len(report.from_authors())
    assert head == (
        f"deviations: {paper} from the paper, {authors} from the authors' code "
        "(all points: fidelity.md)"
    )
    assert "  hidden units, n: 512 (paper and authors' code: 1,000)" in lines
    assert "  word that moves the state: y_i (paper: y_{i-1})" in lines
    assert "  output matrix: l x K_y (authors' code: l x 620 x K_y)" in lines
    names = [line.strip().partition(": ")[0] for line in lines]
    assert set(names) == {r.point.name for r in report.from_paper() + report.from_authors()}
    assert len(names) == len(set(names))


def table(text: str, title: str) -> list[list[str]]:
    """The rows of the table under a heading."""
    body = text.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in body.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_markdown_has_the_deviations_and_all_points():
    report = compare(config())
    text = report.as_markdown()
    for title, rows in (
        ("From the paper", report.from_paper()),
        ("From the authors' code", report.from_authors()),
        ("All points", list(report.rows)),
    ):
        shown = [row[0].removesuffix(" (*fixed*)") for row in table(text, title)]
        assert shown == [row.point.name for row in rows]
    same = text.partition("says something\n\n")[2].partition("\n")[0].rstrip(".").split("; ")
    assert {"reset gate", "gated unit", "update rule"} <= set(same)
    assert not set(same) & (from_paper() | from_authors())
    assert ["softmax (*fixed*)", "shifted by the largest energy", "not shifted"] in [
        row[:3] for row in table(text, "From the authors' code")
    ]


def test_a_bar_in_a_text_does_not_break_the_table_and_no_deviation_says_so():
    point = Point(**BLANK | {"name": "a|b"})
    text = Report("x", (Row(point, "a", Outcome.same, Outcome.same),)).as_markdown()
    assert r"| a\|b (*fixed*) | a |" in text
    assert text.count("\nNothing.\n") == 3


@pytest.mark.e2e
def test_a_run_tells_it_on_the_log_and_keeps_it(tmp_path_factory, tmp_path, caplog):
    run = RunDir.open(copy_of(tiny_run(tmp_path_factory.getbasetemp()), tmp_path / "run"))
    cfg = config_of(run.root)
    assert run.path("fidelity.md").read_text("utf-8") == compare(cfg).as_markdown()
    before = json.loads(run.path("fidelity.json").read_bytes())
    found = {point["point"]: point["here"] for point in before["points"]}
    assert found["hidden units, n"] == "24"
    cfg.decode.beam_size, cfg.stages = 3, []
    with caplog.at_level("INFO", "seq2seq"):
        stages.run_stages(cfg, run, StopRequest())  # as a resumed run with decode.beam_size=3
        assert not caplog.records  # told when training begins
    after = json.loads(run.path("fidelity.json").read_bytes())
    changed = [a["point"] for a, b in zip(after["points"], before["points"], strict=True) if a != b]
    assert changed == ["beam"]
    assert "| beam | 3 |" in run.path("fidelity.md").read_text("utf-8")


# The map of the paper ---------------------------------------------------------------------------

MAP = ROOT / "docs" / "fidelity.md"
REFERENCE = re.compile(r"`((?:seq2seq|tests|configs|scripts|docs)/[\w/.]+)(?:::([\w.]+))?`")


def references() -> list[tuple[str, str]]:
    return REFERENCE.findall(MAP.read_text("utf-8"))


@cache
def names_in(path: Path) -> set[str]:
    """Functions, classes, methods and constants that a module defines."""
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("file", "name"), references(), ids=str)
def test_what_the_map_names_exists(file, name):
    path = ROOT / file
    assert path.exists(), file
    if name:
        assert name in names_in(path), f"{file} has no {name}"


def test_the_map_covers_the_paper_and_a_test_stands_in_each_row():
    text = MAP.read_text("utf-8")
    rows = table(text, "From the paper to the code")
    sections = " ".join(row[0] for row in rows)
    for section in ("3.1", "3.2", "A.1.1", "A.1.2", "A.2.1", "A.2.2", "A.2.3", "B.1", "B.2"):
        assert section in sections
    for section in ("4.", "Table 1", "Fig. 2", "Fig. 3", "sample.py"):
        assert section in sections
    for row in rows:
        assert REFERENCE.search(row[1]), row
        assert "`tests/" in row[2], row
    assert len(references()) > 60


def test_every_deviation_stands_in_the_map():
    """Both lists, word for word: a new point needs its line in `docs/fidelity.md`."""
    text = MAP.read_text("utf-8")
    spoken = [point for point in POINTS if point.paper or point.authors]
    base = {row.point.name: row for row in compare(config()).rows}
    assert table(text, "That no setting removes") == [
        [p.name, base[p.name].here, *sources(p)] for p in spoken if p.fixed and base[p.name].differs
    ]
    assert table(text, "Behind a setting") == [
        [p.name, ", ".join(f"`{key}`" for key in p.keys), *sources(p)]
        for p in spoken
        if not p.fixed
    ]


def sources(point: Point) -> list[str]:
    return [source.text if source else "silent" for source in (point.paper, point.authors)]
