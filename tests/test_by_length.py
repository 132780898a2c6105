"""BLEU by source length: bins and intervals against another reckoning, the plot by its points."""

import json
import random

import numpy as np
import pytest
from matplotlib.colors import to_hex
from runs import composed

from seq2seq.alignment.heatmap import to_png
from seq2seq.config.compose import to_yaml
from seq2seq.data.lengths import Length
from seq2seq.evaluation import by_length, scoring
from seq2seq.evaluation.by_length import (
    LengthBin,
    LengthBleu,
    as_table,
    compare_lengths,
    plot_length_bleu,
    read_length_bleu,
    run_names,
    score_by_length,
)
from seq2seq.evaluation.scoring import bleu
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import DataError, RunDirError
from seq2seq.run.jsonable import to_json

pytestmark = pytest.mark.e2e

WORDS = "le la un chat chien maison rouge petit dans sur dort mange".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def cfg():
    return composed("debug")


@pytest.fixture
def few_samples(monkeypatch) -> int:
    monkeypatch.setattr(scoring, "SAMPLES", 40)
    return 40


def corpus(lengths: list[int], seed: int = 0) -> tuple[list[str], list[str], list[str]]:
    """Sources of so many words, references as long or longer, hypotheses with some errors."""
    rng = random.Random(seed)
    sources, hypotheses, references = [], [], []
    for n in lengths:
        words = rng.choices(WORDS, k=n + 4)
        sources.append(" ".join(["w"] * n))
        references.append(" ".join(words))
        hypotheses.append(" ".join(w if rng.random() < 0.8 else rng.choice(WORDS) for w in words))
    return sources, hypotheses, references


# The numbers --------------------------------------------------------------------------------


@pytest.mark.usefixtures("few_samples")
def test_bins_are_ten_words_wide_and_the_last_is_open(cfg):
    lengths = [0, 1, 10, 11, 20, 41, 60, 61, 70, 71, 300]
    texts = corpus(lengths)
    found = score_by_length(cfg, *texts)
    rows = {"1-10": [1, 2], "11-20": [3, 4], "41-50": [5], "51-60": [6], "61+": [7, 8, 9, 10]}
    assert [(b.label, b.sentences) for b in found.bins] == [(k, len(v)) for k, v in rows.items()]
    for b, chosen in zip(found.bins, rows.values(), strict=True):
        assert b.bleu == bleu(*([side[i] for i in chosen] for side in texts[1:]), "13a")


def test_the_interval_is_the_bootstrap_over_sentences(cfg, few_samples):
    """Drawn again with the seed that sacreBLEU documents, and scored one sample at a time."""
    sources, hypotheses, references = corpus([3, 5, 7, 8, 9, 10])
    [found] = score_by_length(cfg, sources, hypotheses, references).bins
    draws = np.random.default_rng(12345).choice(6, size=(few_samples, 6), replace=True)
    scores = sorted(
        bleu([hypotheses[i] for i in row], [references[i] for i in row], "13a") for row in draws
    )
    # 95% of 40: one of them falls out at each end; sacreBLEU sums in float32.
    assert (found.low, found.high) == pytest.approx((scores[1], scores[-2]), abs=1e-3)
    assert found.low < found.bleu < found.high


@pytest.mark.usefixtures("few_samples")
def test_the_seed_is_fixed_and_shown(cfg, monkeypatch):
    texts = corpus([3, 5, 7, 8, 9, 10])
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    first, second = (score_by_length(cfg, *texts) for _ in range(2))
    assert first == second
    assert "bs:40|seed:12345|" in first.signature
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    other = score_by_length(cfg, *texts)
    assert "|seed:7|" in other.signature
    assert other.bins[0].bleu == first.bins[0].bleu
    assert other.bins[0].low != first.bins[0].low


@pytest.mark.usefixtures("few_samples")
def test_edges(cfg, monkeypatch):
    [found] = score_by_length(cfg, ["a b", "c"], ["x y", "z"], ["u v", "w"]).bins
    assert (found.bleu, found.low, found.high) == (0, 0, 0), "nothing is right"
    assert score_by_length(cfg, [""], ["x"], ["y"]).bins == (), "nothing to translate"
    with pytest.raises(DataError, match="1 translations, 2 references"):
        score_by_length(cfg, ["a", "b"], ["a"], ["a", "b"])
    monkeypatch.setattr(scoring, "MAX_SENTENCES", 1)
    [found] = score_by_length(cfg, ["a b", "c"], ["x y", "z"], ["x y", "w"]).bins
    assert found.low == found.bleu == found.high, "no interval where it would not fit"


@pytest.mark.parametrize(("tokenizer", "label"), [("sentencepiece", "11-20"), ("words", "21-30")])
def test_words_are_those_of_the_length_limit(tokenizer, label, monkeypatch):
    """17 between spaces for subwords; 25 of Moses for a vocabulary of words."""
    text = ["n'est-ce pas l'homme ? " * 4 + "oui"]
    cfg = composed("quickstart", [f"tokenizer={tokenizer}", "data.source_language=fr"])
    [found] = score_by_length(cfg, text, text, text).bins
    assert found.label == label
    # By the rules of the source's language.
    counters = (lambda text: 15, lambda text: 25)
    lengths = [Length("fr", count) for count in counters]
    monkeypatch.setattr(by_length, "lengths_of", lambda cfg, _: lengths)
    assert [b.label for b in score_by_length(cfg, ["a"], ["b"], ["c"]).bins] == ["11-20"]


# The plot -----------------------------------------------------------------------------------

LONG = (
    LengthBin(1, 10, 100, 40.0, 37.0, 42.0),
    LengthBin(11, 20, 50, 38.0, 34.0, 40.0),
    LengthBin(61, None, 3, 20.0, 21.0, 29.0),
)
SHORT = (LengthBin(11, 20, 48, 30.0, 25.0, 33.0), LengthBin(21, 30, 40, 10.0, 5.0, 15.0))


def test_the_picture_shows_every_bin_and_its_interval():
    [axes] = plot_length_bleu({"one": LONG, "$two_": SHORT}).axes
    assert [t.get_text() for t in axes.get_xticklabels()] == [
        *("1-10\nn=100", "11-20\nn=50 / 48", "21-30\nn=40", "61+\nn=3")
    ]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("source length (words)", "BLEU")
    lines = [line for line in axes.lines if line.get_marker() in "os" and len(line.get_xdata())]
    for line, bins, places in zip(lines, (LONG, SHORT), ((0, 1, 3), (1, 2)), strict=True):
        assert list(line.get_ydata()) == [b.bleu for b in bins]
        np.testing.assert_allclose(line.get_xdata(), places, atol=0.1)
    for bars, bins in zip(axes.collections, (LONG, SHORT), strict=True):
        ends = [[y for _, y in segment] for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, [(b.low, b.high) for b in bins])
    assert axes.get_ylim()[0] == 0


def test_two_points_are_no_line_and_an_interval_stays_inside_the_axis():
    low = (LengthBin(1, 10, 9, 0.0, -2.0, 3.0), LengthBin(11, 20, 8, 2.0, 1.0, 4.0))
    [axes] = plot_length_bleu({"three": LONG, "two": low, "one": SHORT[:1]}).axes
    joined = {line.get_marker(): line.get_linestyle() for line in axes.lines}
    assert (joined["o"], joined["s"], joined["^"]) == ("-", "None", "None")
    assert sorted(text.get_text() for text in axes.texts) == ["0.0", "2.0", "30.0"]
    bars = axes.collections[1].get_segments()
    assert [[y for _, y in bar] for bar in bars] == [[0, 3], [1, 4]]
    assert axes.get_ylim()[0] == 0
    assert not any(line.get_clip_on() for line in axes.lines if line.get_marker() in "os^")


def test_runs_stay_apart_in_black_and_white():
    runs = {f"run {i}": LONG for i in range(7)}
    [axes] = plot_length_bleu(runs).axes
    handles = axes.get_legend().legend_handles
    assert [t.get_text() for t in axes.get_legend().get_texts()] == list(runs)
    assert len({handle.get_marker() for handle in handles}) == 7
    assert len({handle.get_linestyle() for handle in handles}) == 4
    assert len({to_hex(handle.get_color()) for handle in handles}) == 7


def test_same_input_gives_same_bytes():
    first, second = (to_png(plot_length_bleu({"$_$": LONG})) for _ in range(2))
    assert first == second
    assert to_png(plot_length_bleu({"nothing": ()})).startswith(b"\x89PNG")


def test_the_table_has_a_row_for_each_length():
    runs = {"one": LengthBleu("sig|a", LONG), "two": LengthBleu("sig|a", SHORT)}
    assert as_table(runs).splitlines() == [
        "words  one                      two",
        "1-10   40.0 (37.0-42.0, n=100)",
        "11-20  38.0 (34.0-40.0, n=50)   30.0 (25.0-33.0, n=48)",
        "21-30                           10.0 (5.0-15.0, n=40)",
        "61+    20.0 (21.0-29.0, n=3)",
        "",
        "BLEU (sig|a)",
    ]


# Runs of a sweep ----------------------------------------------------------------------------


def make_run(folder, changes, bins):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(composed("debug", changes)), "utf-8")
    found = LengthBleu("sig", bins)
    (folder / "length_bleu.json").write_text(json.dumps(to_json(found)))
    assert read_length_bleu(RunDir(folder)) == found
    return folder


@pytest.mark.e2e
def test_a_sweep_is_drawn_in_its_order_and_named_by_what_differs(tmp_path):
    assert compare_lengths(tmp_path) is None
    for job, seed, bins in (("10", 3, SHORT), ("2", 2, LONG), ("0", 1, LONG)):
        make_run(tmp_path / job, [f"seed={seed}"], bins)
    (tmp_path / "1").mkdir()  # a job that failed
    (tmp_path / "multirun.yaml").touch()
    expected = plot_length_bleu({"seed=1": LONG, "seed=2": LONG, "seed=3": SHORT})
    assert compare_lengths(tmp_path) == to_png(expected)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([["name=x"]], ["x"]),
        ([["attention=dot"], ["attention=fixed"]], ["attention=dot", "attention=fixed"]),
        (
            [
                ["seed=1", "decode.beam_size=3", "trainer.max_updates=7"],
                ["seed=2", "decode.beam_size=4", "trainer.max_updates=8"],
            ],
            [
                "seed=1, trainer.max_updates=7, decode.beam_size=3",
                "seed=2, trainer.max_updates=8, decode.beam_size=4",
            ],
        ),
        ([["attention=dot"], ["attention=multi_head", "attention.heads=2"]],
         ["attention=dot", "attention=multi_head, attention.heads=2"]),
        ([["seed=1"], ["seed=1"]], ["{}/0", "{}/1"]),
        (
            [
                ["name=a", "seed=1", "decode.beam_size=3", "trainer.max_updates=7"],
                ["name=b", "seed=2", "decode.beam_size=4", "trainer.max_updates=8"],
            ],
            ["a", "b"],
        ),
    ],
)  # fmt: skip
def test_names_tell_runs_apart(changes, names, tmp_path):
    runs = [make_run(tmp_path / str(i), texts, LONG) for i, texts in enumerate(changes)]
    assert run_names(runs) == [name.format(tmp_path) for name in names]


@pytest.mark.parametrize("text", ["{}", '{"signature": "s", "bins": [{"first": 1}]}'])
def test_damaged_numbers_are_named(tmp_path, text):
    make_run(tmp_path / "0", [], LONG)
    (tmp_path / "0/length_bleu.json").write_text(text)
    with pytest.raises(RunDirError, match=r"0/length_bleu\.json: holds no BLEU by length"):
        compare_lengths(tmp_path)
