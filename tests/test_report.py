"""The report of runs: what its page holds, and that it holds nothing else."""

import base64
import functools
import hashlib
import html
import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from runs import assert_fails, copy_of, run_here
from strangers import forge

import seq2seq
from seq2seq.alignment.measures import measure
from seq2seq.alignment.words import to_words
from seq2seq.decoding.translation import Candidate, Translation
from seq2seq.evaluation.error_rates import NAMES
from seq2seq.evaluation.test_set import read_results
from seq2seq.report.build import build
from seq2seq.report.page import page
from seq2seq.report.sentence import pack

pytestmark = pytest.mark.e2e

HARMFUL = ("</script><script>alert(1)</script>", '<img src="x" onerror="alert(1)">', "<!--<script>")


class Elements(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.texts[-1] += data

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        found = zip(self.tags, self.texts, strict=True)
        return [(attributes, text) for (name, attributes), text in found if name == tag]


def data_of(text: str) -> dict:
    [found] = [t for a, t in Elements(text).of("script") if a.get("type") == "application/json"]
    return json.loads(found)


def unpacked(text: str) -> list[float]:
    """Weights as the page reads them, by a loop."""
    levels, data = [], iter(base64.b64decode(text))
    for byte in data:
        levels += [byte] if byte else [0] * next(data)
    return [level / 255 for level in levels]


def translation(*texts: str) -> Translation:
    """A translation of a text, token by token, into others."""
    source = (*(f"\u2581{word}" for word in texts[0].split()), "</s>")
    candidates = []
    for text in texts[1:]:
        tokens = (*(f"\u2581{word}" for word in text.split()), "</s>")
        alpha = np.random.default_rng(1).dirichlet(np.full(len(source), 0.2), len(tokens))
        chances = tuple(-0.5 for _ in tokens)
        candidates.append(
            Candidate(text, tokens, chances, sum(chances), -0.5, alpha.astype(np.float32), True)
        )
    return Translation(texts[0], source, tuple(candidates))


@pytest.fixture(scope="module")
def text(run) -> str:
    return build([run], [], sentences=50, n_best=3)


@pytest.fixture(scope="module")
def data(text) -> dict:
    return data_of(text)


@pytest.fixture
def script(monkeypatch):
    return functools.partial(run_here, monkeypatch, "report")


# The page ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("harmful", HARMFUL)
def test_text_cannot_leave_the_data(harmful):
    found = Elements(page(harmful, {"text": harmful}, ("attention.js",)))
    assert [tag for tag, _ in found.tags] == [
        *("html", "head", "meta", "meta", "meta", "meta", "title", "link", "style"),
        *("body", "main", "noscript", "script", "script"),
    ]
    assert found.of("title")[0][1] == harmful
    assert data_of(page("", {"text": harmful}, ("attention.js",))) == {"text": harmful}


def test_the_policy_allows_its_own_script_and_style_alone(text):
    found = Elements(text)
    [policy] = [a["content"] for a, _ in found.of("meta") if "http-equiv" in a]
    rules = {name: value for name, *value in (rule.split() for rule in policy.split(";"))}
    assert rules["default-src"] == ["'none'"]
    assert not any("unsafe" in word or "http" in word for value in rules.values() for word in value)
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        [source] = [s for a, s in found.of(tag) if "type" not in a]
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert rules[rule] == [f"'sha256-{digest}'"]


def test_nothing_names_another_place(text):
    found = Elements(text)
    assert {a["href"] for a, _ in found.of("link")} == {"data:,"}
    assert not [a for _, a in found.tags if "src" in a]
    for kind in ("style", "script"):
        for attributes, source in found.of(kind):
            if "type" not in attributes:
                places = set(re.findall(r"\w+://[^\s\"']*|url\(|@import|import\(|fetch\(", source))
                assert places <= {"http://www.w3.org/2000/svg"}


def test_the_script_makes_no_html_of_text():
    for path in Path(seq2seq.__file__).parent.glob("report/*.js"):
        source = path.read_text("utf-8")
        ways = r"inner.?HTML|outerHTML|insertAdjacent|document\.write|\beval\(|Function\("
        assert not re.findall(ways, source)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (40, 41)])
def test_weights_survive_packing(shape):
    rng = np.random.default_rng(7)
    for alpha in (rng.dirichlet(np.full(shape[1], 0.1), shape[0]), np.zeros(shape), np.ones(shape)):
        np.testing.assert_allclose(unpacked(pack(alpha)), alpha.ravel(), atol=0.5 / 255 + 1e-9)


# What it says of a run ---------------------------------------------------------------------------


def test_every_hypothesis_is_that_of_the_library(run, data):
    beam = seq2seq.load(run).config.decode.beam_size
    model = seq2seq.load(run, [f"decode.beam_size={beam}", f"decode.n_best={min(3, beam)}"])
    greedy = seq2seq.load(run, ["decode.beam_size=1", "decode.n_best=1"])
    sources = (run / "corpus/test.source").read_text("utf-8").splitlines()
    references = (run / "corpus/test.target").read_text("utf-8").splitlines()
    assert [s["number"] for s in data["sentences"]] == list(range(1, len(sources) + 1))
    wanted = zip(
        *(m.translate(sources) for m in (model, greedy)),
        model.force(zip(sources, references, strict=True)),
        strict=True,
    )
    for sentence, (best, one, forced) in zip(data["sentences"], wanted, strict=True):
        assert sentence["source"] == best.source
        [shown] = sentence["runs"]
        pairs = [(best, i) for i in range(len(best.candidates))] + [(one, 0), (forced, 0)]
        labels = [*(f"Beam {i + 1}" for i in range(len(best.candidates))), "Greedy", "Reference"]
        assert [f["label"] for f in shown["found"]] == labels
        for found, (whole, number) in zip(shown["found"], pairs, strict=True):
            check_candidate(found, whole, number)


def check_candidate(found: dict, whole: Translation, number: int) -> None:
    candidate = whole.candidates[number]
    assert found["text"] == candidate.text
    assert found["score"] == pytest.approx(candidate.score, abs=1e-6)
    pieces, words = found["pieces"], found["words"]
    assert (pieces["source"], pieces["target"]) == (
        list(whole.source_tokens),
        list(candidate.tokens),
    )
    np.testing.assert_allclose(unpacked(pieces["weights"]), candidate.alignment.ravel(), atol=0.003)
    np.testing.assert_allclose(pieces["probability"], np.exp(candidate.token_log_probs), atol=1e-3)
    merged = to_words(whole.soft_alignment(number))
    assert words["source"] == list(merged.source_tokens)
    assert words["target"] == list(merged.target_tokens)
    np.testing.assert_allclose(unpacked(words["weights"]), merged.weights.ravel(), atol=0.003)
    # Every piece is in one word, so that the chances multiply to the same.
    chance = float(np.exp(candidate.log_prob))
    assert np.prod(words["probability"]) == pytest.approx(chance, abs=1e-3)
    measured = measure(merged.weights, ended=merged.ended)
    assert found["entropy"] == pytest.approx(measured.entropy, abs=1e-3)
    assert found["coverage"] == pytest.approx(1 - measured.uncovered, abs=1e-3)


def test_the_summary_is_that_of_the_run(run, data):
    [shown] = data["runs"]
    scores = json.loads((run / "scores.json").read_text("utf-8"))["scores"]
    assert {s["name"]: s["value"] for s in shown["scores"]} == {
        name: score["value"] for name, score in scores.items() if name not in NAMES.values()
    }
    points = json.loads((run / "fidelity.json").read_text("utf-8"))["points"]
    assert [(p["point"], p["here"], p["paper"], p["authors"]) for p in data["fidelity"]] == [
        (p["point"], [p["here"]], p["paper"], p["authors"]) for p in points
    ]
    differing = [p["differs"] for p in data["fidelity"]]
    assert differing == [["differs" in (p["from_paper"], p["from_authors"])] for p in points]
    bins = json.loads((run / "length_bleu.json").read_text("utf-8"))["bins"]
    assert [(b["bleu"], b["low"], b["high"]) for b in shown["lengths"]] == [
        (b["bleu"], b["low"], b["high"]) for b in bins
    ]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [[r["update"], round(r["train/loss"], 4)] for r in rows if "train/loss" in r]
    assert shown["curves"]["training"] == losses


def test_the_same_run_gives_the_same_bytes_and_no_folder_of_this_machine(
    run, text, script, tmp_path
):
    found = script(run, "--hypotheses", "3", "--output", tmp_path / "r.html")
    assert (found.code, found.out.decode()) == (0, f"report  {tmp_path / 'r.html'}\n")
    assert (tmp_path / "r.html").read_bytes() == text.encode()
    assert str(run.parent) not in text


def test_a_report_lands_in_its_run_and_no_other_overwrites_it(run, script, tmp_path):
    one, two = (copy_of(run, tmp_path / name) for name in ("one", "two"))
    few = ("--sentences", "1", "--hypotheses", "1")
    for runs, name in (
        ([one], "report"),
        ([one, two], "report-two"),
        ([f"{one}@last"], "report-last"),
    ):
        assert script(*runs, *few).out.decode() == f"report  {one / name}.html\n"
    assert len(list(tmp_path.rglob("*.html"))) == 3
    data = data_of((one / "report.html").read_text("utf-8"))
    files = data["runs"][0]["files"]
    assert {"config.yaml", "scores.json", "heatmaps", "curves.png"} <= set(files)
    assert all((one / name).exists() for name in files)
    assert data_of(build([one], [], 1, 1))["runs"][0]["files"] == [], (
        "from elsewhere there are none"
    )
    others = data_of((one / "report-two.html").read_text("utf-8"))["runs"]
    assert [bool(run["files"]) for run in others] == [True, False]


def test_the_command_and_the_commit_are_there(run, data):
    record, facts = json.loads((run / "run.json").read_text()), dict(data["runs"][0]["facts"])
    assert facts["Command"] == " ".join(record["command"])
    assert facts["Commit"] == (record["commit"] or "unknown")


def test_a_run_that_has_hardly_learnt_is_told_so_first(run, tmp_path):
    copy = copy_of(run, tmp_path / "run")
    results = json.loads((copy / "scores.json").read_text("utf-8")) | {"note": "hardly learnt"}
    (copy / "scores.json").write_text(json.dumps(results), "utf-8")
    forge(copy)
    [shown] = data_of(build([copy], [], sentences=1, n_best=1))["runs"]
    assert shown["warning"] == "hardly learnt"
    same = "so the scores are the same."
    assert shown["notes"] == [
        f"No UNK: no sentence has an unknown word, {same}",
        f"Unseen: no sentence is in the training data, {same}",
    ]
    assert str(read_results(copy / "scores.json")).splitlines()[-1] == "note       hardly learnt"


def test_scores_of_other_settings_are_marked(run, tmp_path):
    copy = copy_of(run, tmp_path / "run")
    results = json.loads((copy / "scores.json").read_text("utf-8"))
    results["flags"]["decode"]["beam_size"] = 31
    (copy / "scores.json").write_text(json.dumps(results), "utf-8")
    forge(copy)
    for overrides, marked in (([], True), (["decode.beam_size=31"], False)):
        [shown] = data_of(build([copy], overrides, sentences=1, n_best=1))["runs"]
        note = "The scores are of translations with decode.beam_size=31."
        assert (shown["notes"][0] == note) == marked
        assert any("translations with" in note for note in shown["notes"]) == marked


def test_sentences_are_spread_over_the_test_set(run, tmp_path):
    found = data_of(build([run], [], sentences=4, n_best=1))
    assert [s["number"] for s in found["sentences"]] == [1, 6, 11, 16]
    assert [f["label"] for f in found["sentences"][0]["runs"][0]["found"]] == [
        "Beam 1",
        "Greedy",
        "Reference",
    ]


# Layers and heads --------------------------------------------------------------------------------


def maps_of(level: dict, name: str) -> np.ndarray:
    """Of a level, (layers, heads, rows, columns)."""
    packed = level["maps"][name]
    return np.array(unpacked(packed["weights"])).reshape(packed["shape"])


def test_the_first_translation_has_all_layers_and_heads(layers_run):
    data = data_of(build([layers_run], [], sentences=3, n_best=2))
    [shown] = data["runs"]
    assert (shown["layers"], shown["shown"], data["withHeads"]) == (True, [None, None], None)
    model = seq2seq.load(layers_run, ["decode.n_best=2"])
    wanted = model.stream([sentence["source"] for sentence in data["sentences"]], maps=True)
    for sentence, translation in zip(data["sentences"], wanted, strict=True):
        first, *others = sentence["runs"][0]["found"]
        assert not any("maps" in found[unit] for found in others for unit in ("words", "pieces"))
        pieces = translation.soft_alignment()
        for unit, tokens in (("pieces", pieces), ("words", to_words(pieces))):
            assert list(first[unit]["maps"]) == ["encoder", "heads", "decoder"]
            for name, weights in tokens.maps.items():
                np.testing.assert_allclose(maps_of(first[unit], name), weights, atol=0.003)
            usual = maps_of(first[unit], "heads")[-1].mean(axis=0).ravel()
            np.testing.assert_allclose(usual, unpacked(first[unit]["weights"]), atol=0.003)


def test_a_model_without_layers_has_the_page_that_it_had(text, data):
    assert '"maps"' not in text
    assert [(r["layers"], r["rates"]) for r in data["runs"]] == [(False, [])]


def test_a_page_has_a_bound_on_layers_and_heads(layers_run, monkeypatch):
    def sizes() -> tuple[int | None, list[int]]:
        data = data_of(build([layers_run], ["decode.beam_size=1"], sentences=3, n_best=1))
        levels = [
            [s["runs"][0]["found"][0][unit] for unit in ("words", "pieces")]
            for s in data["sentences"]
        ]
        return data["withHeads"], [
            sum(len(m["weights"]) for level in both for m in level["maps"].values())
            for both in levels
        ]

    kept, whole = sizes()
    assert kept is None
    monkeypatch.setattr(seq2seq.report.build, "MAX_MAPS", sum(whole[:2]))
    assert sizes() == (2, [*whole[:2], 0])


RATES = [[0.4, 0.35, 0.3], [0.25, 0.2, 0.225]]


def with_rates(run: Path, to: Path) -> Path:
    """A copy of a run with scores: head 2 of layer 2 aligns best."""
    copy = copy_of(run, to)
    gold = {"error_rate": 0.225, "precision": 0.8, "recall": 0.8, "sentences": 6, "skipped": 0}
    gold |= {"later_error_rate": 0.9, "earlier_error_rate": 0.9}
    gold["heads"] = {"rates": RATES, "layer": 2, "head": None}
    scores = {"BLEU": {"value": 1.0, "signature": "s"}}
    results = {"sentences": 6, "scores": scores, "alignment": gold}
    (copy / "scores.json").write_text(json.dumps(results), "utf-8")
    forge(copy)
    return copy


def test_the_best_head_is_named(layers_run, tmp_path):
    [run] = data_of(build([with_rates(layers_run, tmp_path / "run")], [], sentences=1, n_best=1))[
        "runs"
    ]
    assert run["rates"] == RATES
    line = "best: layer 2, head 2, AER 20.0%; shown: layer 2, mean of heads, AER 22.5%"
    assert f"Of all layers and heads, {line}." in run["notes"]


# Several runs ------------------------------------------------------------------------------------


def test_runs_of_other_sources_are_refused(run, script, tmp_path):
    other = copy_of(run, tmp_path / "other")
    path = other / "corpus/test.source"
    path.write_text(path.read_text("utf-8").replace("cat", "dog"), "utf-8")
    forge(other)
    found = script(run, other, "--output", tmp_path / "r.html")
    assert_fails(found, 4, f"{other}: its test set has other source sentences than that of {run}")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["decode.beam_size=2"], 2, "report: nothing to report on"),
        (["RUN", "--sentences", "0"], 2, "--sentences: less than one"),
        (["RUN", "--hypotheses", "0"], 2, "--hypotheses: less than one"),
        (["none"], 4, "none: holds no run"),
        (["RUN", "decode.beam=2"], 1, "decode.beam"),
    ],
)
def test_mistakes(run, script, arguments, code, message):
    assert_fails(script(*(run if a == "RUN" else a for a in arguments)), code, message)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scores.json", '{"sentences": 1, "scores": {"BLEU": {"value": "x", "signature": "s"}}}'),
        ("metrics.jsonl", '{"update": 1, "seconds": "long"}\n'),
        ("metrics.jsonl", '{"update": NaN}\n'),
        ("metrics.jsonl", f'{{"update": 1, "seconds": 1, "train/loss": 1{"0" * 400}}}\n'),
        ("length_bleu.json", '{"bins": 3}'),
        ("corpus/test.target", "a\n"),
    ],
)
def test_damaged_files_of_a_run_are_named(run, script, tmp_path, name, content):
    copy = copy_of(run, tmp_path / "copy")
    (copy / name).write_text(content, "utf-8")
    found = script(copy, "--sentences", "2", "--output", tmp_path / "r.html")
    assert_fails(found, 4, name.split("/")[0])


# One translation ---------------------------------------------------------------------------------


def test_a_translation_shows_itself():
    one = translation("the cat", "le chat", "ce chat")
    [sentence] = data_of(one.to_html())["sentences"]
    assert [f["text"] for f in sentence["runs"][0]["found"]] == ["le chat", "ce chat"]
    frame = one._repr_html_()
    [(attributes, _)] = Elements(frame).of("iframe")
    assert attributes["sandbox"] == "allow-scripts"
    assert attributes["srcdoc"] == one.to_html()
    assert html.escape(one.to_html()) in frame


def test_a_blank_translation_shows_itself():
    assert data_of(Translation(" ", (), ()).to_html())["sentences"][0]["runs"] == [{"found": []}]
    assert "srcdoc" in Translation(" ", (), ())._repr_html_()
