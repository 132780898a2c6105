"""scripts/score.py, and the files that it and decode.py write for others."""

import functools
import io
import json
import math
import re

import matplotlib.image
import numpy as np
import pytest
from runs import assert_fails

import seq2seq
from seq2seq.alignment import words
from seq2seq.alignment.heatmap import FORMATS
from seq2seq.alignment.links import (
    alignment_errors,
    grow_diag_final_and,
    intersection,
    read_links,
    union,
)
from seq2seq.cli import console as cli
from seq2seq.data.words import blank_spans, split_words
from seq2seq.decoding.formats import LEVELS, at_level
from seq2seq.decoding.translation import END
from seq2seq.evaluation.aligners import align
from seq2seq.run.directory import RunDir

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def model(run):
    return seq2seq.load(run)


PAIRS = [
    ("the cat sees the dog .", "ce chat voit ce chien ."),
    ("", ""),
    ("the pupil waits for the bear today .", "ce élève attend ce ours aujourd'hui ."),
    ("the wolf.", "ce loup."),
    ("the boy .", " "),
]


@pytest.fixture
def files(tmp_path):
    for side, name in enumerate(("src", "tgt")):
        (tmp_path / name).write_text("".join(f"{pair[side]}\n" for pair in PAIRS), "utf-8")
    return ("--source", tmp_path / "src", "--target", tmp_path / "tgt")


def test_options_are_what_there_is():
    assert tuple(LEVELS) == cli.LEVELS
    assert tuple(FORMATS) == cli.FIGURES


def test_json_lines_are_the_librarys(run, script, model, files):
    done = script("score", run, *files, "--format", "jsonl")
    assert done.code == 0, done
    found = [json.loads(line) for line in done.out.decode().splitlines()]
    assert found == [t.as_dict() | {"flags": model.flags(t)} for t in model.force(PAIRS)]
    assert [len(f["hypotheses"]) for f in found] == [1, 0, 1, 1, 0]
    assert found[0]["hypotheses"][0]["text"] == PAIRS[0][1]


def test_sums_by_token_sentence_and_corpus(run, script, files, tmp_path):
    lines = script("score", run, *files, "--format", "jsonl", "--json", tmp_path / "sums.json")
    tokens = [
        p
        for line in lines.out.splitlines()
        for h in json.loads(line)["hypotheses"]
        for p in h["token_log_probs"]
    ]
    sums = json.loads((tmp_path / "sums.json").read_text())
    assert (sums["pairs"], sums["blank"], sums["tokens"]) == (3, 2, len(tokens))
    assert sums["log_prob"] == pytest.approx(sum(tokens), abs=1e-4)
    assert sums["perplexity"] == pytest.approx(math.exp(-sum(tokens) / len(tokens)), rel=1e-5)
    assert sums["perplexity"] > 1
    table = script("score", run, *files, "--format", "tsv").out.decode().split("\n")
    assert [bool(row) for row in table] == [True, False, True, True, False, False]
    rows = [[float(x) for x in row.split("\t")[:3]] for row in table if row]
    assert sum(row[0] for row in rows) == pytest.approx(sums["log_prob"], abs=1e-4)
    assert sum(row[1] for row in rows) == sums["tokens"]
    for log_prob, count, perplexity in rows:
        assert perplexity == pytest.approx(math.exp(-log_prob / count), rel=1e-5)
    shown = script("score", run, *files)
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.decode() == lines.err, "the sums go to stderr where stdout is taken"
    assert f"perplexity {sums['perplexity']:.4f}\n" in shown.out.decode()
    assert "pairs      3, 2 left out as a side is empty\n" in shown.out.decode()
    by_word = script("score", run, *files, "--level", "words", "--json", tmp_path / "w.json")
    assert by_word.code == 0
    words = json.loads((tmp_path / "w.json").read_text())
    assert words["log_prob"] == sums["log_prob"]
    wanted = sum(len(split_words(t)) + 1 for s, t in PAIRS if s.strip() and t.strip())
    assert words["tokens"] == wanted < sums["tokens"]
    assert words["perplexity"] > sums["perplexity"]


@pytest.mark.parametrize("level", LEVELS)
def test_tokens_are_those_of_the_level(run, script, model, files, level):
    """Of text that is cut alike by all; what attention to a word is, `test_words.py` shows."""
    done = script("score", run, *files, "--format", "jsonl", "--level", level)
    for (source, target), line, pieces in zip(
        PAIRS, done.out.decode().splitlines(), model.force(PAIRS), strict=True
    ):
        found = json.loads(line)
        assert len(found["hypotheses"]) == len(pieces.candidates)
        for own, hypothesis in zip(pieces.candidates, found["hypotheses"], strict=True):
            for text, tokens, got in (
                (source, pieces.source_tokens, found["source_tokens"]),
                (target, own.tokens, hypothesis["tokens"]),
            ):
                words = {"pieces": tokens[:-1], "words": split_words(text), "blanks": text.split()}
                assert got == [*words[level], END]
            assert sum(hypothesis["token_log_probs"]) == pytest.approx(own.log_prob, abs=1e-4)
            alpha = np.array(hypothesis["attention"])
            assert alpha.shape == (len(hypothesis["tokens"]), len(found["source_tokens"]))
            np.testing.assert_allclose(alpha.sum(axis=1), 1, atol=1e-4)
            np.testing.assert_allclose(alpha[-1, -1], own.alignment[-1, -1], atol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_pharaoh_links_are_the_largest_weights(run, script, files, level):
    args = (*files, "--level", level, "--format")
    lines = script("score", run, *args, "pharaoh").out.decode().split("\n")
    assert lines.pop() == ""
    rows = script("score", run, *args, "jsonl").out.decode().splitlines()
    for line, row in zip(lines, map(json.loads, rows), strict=True):
        expected = set()
        for h in row["hypotheses"]:
            for i, weights in enumerate(h["attention"][:-1]):
                expected.add(f"{max(range(len(weights) - 1), key=lambda j: weights[j])}-{i}")
        assert set(line.split()) == expected
        assert line.count("-") == len(expected)


def test_npz_holds_the_same_and_needs_no_pickle(run, script, files, tmp_path):
    rows = script("score", run, *files, "--format", "jsonl").out.decode().splitlines()
    for name in ("a.npz", "b.npz"):
        done = script("score", run, *files, "--format", "npz", "--output", tmp_path / name)
        assert (done.code, done.out) == (0, b"")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    piped = script("score", run, *files, "--format", "npz").out
    wanted = {}
    for number, row in enumerate(map(json.loads, rows), start=1):
        wanted[f"{number}.source_tokens"] = row["source_tokens"]
        for h in row["hypotheses"]:
            for name in ("tokens", "attention", "token_log_probs"):
                wanted[f"{number}.1.{name}"] = h[name]
    for place in (tmp_path / "a.npz", io.BytesIO(piped)):
        with np.load(place, allow_pickle=False) as arrays:
            assert set(arrays.files) == set(wanted)
            for name, values in wanted.items():
                if name.endswith("tokens"):
                    assert arrays[name].tolist() == values
                else:
                    assert arrays[name].dtype == np.float32
                    np.testing.assert_allclose(arrays[name], values, atol=1e-6)


def test_npz_holds_every_layer_and_head(layers_run, script, tmp_path):
    """Along references and along what a search finds, between pieces and between words."""
    source, target = (layers_run / f"corpus/test.{side}" for side in ("source", "target"))
    model = seq2seq.load(layers_run, ["decode.n_best=2"])
    lines = [path.read_text("utf-8").splitlines() for path in (source, target)]
    forced = model.force(zip(*lines, strict=True), maps=True)
    for name, level, args, expected in (
        ("score", "pieces", ("--source", source, "--target", target), forced),
        (
            "decode",
            "words",
            ("--input", source, "decode.n_best=2"),
            model.stream(lines[0], maps=True),
        ),
    ):
        done = script(name, layers_run, *args, "--format", "npz", "--level", level)
        with np.load(io.BytesIO(done.out), allow_pickle=False) as arrays:
            for number, translation in enumerate(expected, start=1):
                shown = at_level(translation, level)
                for rank, candidate in enumerate(shown.candidates, start=1):
                    assert list(candidate.maps) == ["encoder", "heads", "decoder"]
                    for kind, weights in candidate.maps.items():
                        found = arrays[f"{number}.{rank}.{kind}"]
                        assert found.dtype == np.float16
                        np.testing.assert_allclose(found, weights, atol=5e-4)
                    heads = arrays[f"{number}.{rank}.heads"].astype(float)
                    alpha = arrays[f"{number}.{rank}.attention"]
                    np.testing.assert_allclose(heads[-1].mean(axis=0), alpha, atol=1e-3)


# Gold links and two directions ------------------------------------------------------------------


def test_gold_links_give_the_error_rate(run, script, files, tmp_path):
    (tmp_path / "gold").write_text("0-0 1-1 2?2 5-5\n\n0-0 6-5\n\n\n", "utf-8")
    args = (*files, "--level", "blanks", "--gold", tmp_path / "gold")
    done = script("score", run, *args, "--json", tmp_path / "sums.json")
    assert done.code == 0, done
    gold = json.loads((tmp_path / "sums.json").read_text())["alignment"]
    lines = script("score", run, *files, "--level", "blanks", "--format", "pharaoh").out.decode()
    predicted = [set(line.split()) for line in lines.split("\n")]
    sure = [{"0-0", "1-1", "5-5"}, set(), {"0-0", "6-5"}, set(), set()]
    possible = [{*sure[0], "2-2"}, *sure[1:]]
    rows = [0, 2, 3]  # the others are blank
    a, s = (sum(len(x[i]) for i in rows) for x in (predicted, sure))
    in_s, in_p = (sum(len(predicted[i] & x[i]) for i in rows) for x in (sure, possible))
    assert gold["error_rate"] == pytest.approx(1 - (in_s + in_p) / (a + s))
    assert (gold["sentences"], gold["skipped"]) == (3, 2)
    assert f"error rate {gold['error_rate']:.1%}" in done.out.decode()
    advice = done.out.decode().splitlines()[-1]
    assert re.fullmatch(r" {11}(Use|Read|Do not use) .*\.", advice)


@pytest.fixture
def back(run, tmp_path, monkeypatch):
    """The run again, said to translate from French: its links are odd, but links they are."""
    real, path = seq2seq.load, tmp_path / "back"

    def load(folder, overrides=()):
        if str(folder) != str(path):
            return real(folder, overrides)
        found = real(run, overrides)
        found.config.data.source_language, found.config.data.target_language = "fr", "en"
        return found

    monkeypatch.setattr(seq2seq, "load", load)
    return path


@pytest.mark.parametrize("how", ["grow-diag-final-and", "intersection", "union"])
def test_two_directions_are_put_together(run, back, script, files, tmp_path, how):
    swapped = ("--source", files[3], "--target", files[1])
    form = ("--level", "words", "--format", "pharaoh")
    done = script("score", run, *files, *form, "--reverse", back, "--symmetrise", how)
    assert done.code == 0, done
    there = script("score", run, *files, *form).out.decode().split("\n")
    behind = script("score", back, *swapped, *form).out.decode().split("\n")
    rule = {"intersection": intersection, "union": union}.get(how, grow_diag_final_and)
    for line, a, b in zip(done.out.decode().split("\n"), there, behind, strict=True):
        turned = tuple((i, j) for j, i in read_links(b).sure)
        assert read_links(line).sure == rule(read_links(a).sure, turned)
    (tmp_path / "gold").write_text("1 1 1 S\n1 2 2 P\n3 1 1\n", "utf-8")
    gold = ("--level", "words", "--gold", tmp_path / "gold", "--json", tmp_path / "sums.json")
    done = script("score", run, *files, *gold, "--reverse", back, "--symmetrise", how)
    rows = [row.split() for row in done.out.decode().splitlines()]
    assert [row[0] for row in rows] == ["links", "forward", "backward", how]
    sums = json.loads((tmp_path / "sums.json").read_text())
    alone = script("score", run, *files, *gold)
    assert alone.code == 0
    forward = json.loads((tmp_path / "sums.json").read_text())["alignment"]["error_rate"]
    assert sums["alignment"]["forward"]["error_rate"] == pytest.approx(forward)
    assert rows[1][2] == f"{forward:.1%}"
    assert sums["links"]["forward"] == sum(map(len, map(str.split, there)))


@pytest.mark.parametrize("both", [False, True])
def test_aligners_stand_beside_attention(run, back, script, files, tmp_path, both, monkeypatch):
    """On the sentences for which attention has links: not the wolf, whose words are lost."""
    lost = {"map_words": lambda *a, real=words.map_words: None if "loup" in a[0] else real(*a)}
    monkeypatch.setattr(words, *lost.popitem())
    lines = ["0-0 1-1 2-2 3-3 4-4 5-5", "", "0-0", "0-0 1-1", ""]
    (tmp_path / "gold").write_text("".join(f"{line}\n" for line in lines))
    args = ("--level", "blanks", "--gold", tmp_path / "gold", "--json", tmp_path / "sums.json")
    more = ("--reverse", back) if both else ()
    done = script("score", run, *files, *args, *more, "--aligners", "--symmetrise", "union")
    assert done.code == 0, done
    values = json.loads((tmp_path / "sums.json").read_text())["aligners"]
    pairs = [pair if all(map(str.strip, pair)) else ("", "") for pair in PAIRS]
    aligned = align(RunDir(run), seq2seq.load(run).config, ("en", "fr"), pairs, blank_spans)
    assert values["trained_on"] == aligned.trained_on > 100
    own = ["forward", "backward", "union"]
    if not both:
        own = ["attention", "attention, a word later", "attention, a word earlier"]
    rows = [re.split(r" {2,}", line) for line in done.out.decode().splitlines()[-9:]]
    assert [row[0] for row in rows[:3]] == own
    gold = [read_links(lines[n]) for n in (0, 2)]
    for name in ("IBM-1", "HMM"):
        ways = dict(zip(("forward", "backward"), aligned.links[name], strict=True))
        ways["union"] = [*map(union, *ways.values())]
        for way, links in ways.items():
            expected = alignment_errors([links[0], links[2]], gold)
            assert values["scores"][name][way] == pytest.approx(vars(expected))
            rates = (f"{rate:.1%}" for rate in vars(expected).values())
            count = [str(len(links[0]) + len(links[2]))] * both
            assert [f"{name} {way}", *count, *rates] in rows


# What cannot be done ----------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused(run, script, files, tmp_path):
    (tmp_path / "gold").write_text("0-0\n\n\n\n\n", "utf-8")
    gold = ("--gold", tmp_path / "gold")
    fails = functools.partial(script, "score", run, *files)
    assert_fails(fails(*gold), 2, "--gold: links words. Add --level words, or --level blanks.")
    assert_fails(fails("--reverse", run), 2, "--reverse: links words. Add --level words")
    words = ("--level", "words")
    assert_fails(fails(*words, "--aligners"), 2, "--aligners: needs gold links to compare with.")
    for more in (("--format", "jsonl"), ("--heatmaps", tmp_path / "maps")):
        assert_fails(
            fails(*words, "--reverse", run, *more), 2, "--reverse: gives links alone. Use --format"
        )
    assert_fails(
        fails(*words, "--reverse", run), 2, f"{run}: translates en-fr. Name a run of fr-en."
    )
    (tmp_path / "gold").write_text("0-0\n\n\n\n0-9\n", "utf-8")
    assert_fails(fails(*words, *gold), 3, f"{tmp_path}/gold:5: links target word 10 of 0.")
    (tmp_path / "tgt").write_text("a\n", "utf-8")
    assert_fails(fails(), 3, "src has 5 lines, tgt has 1")
    assert script("score", run, "--source", tmp_path / "src").code == 2


def test_lost_words_give_an_empty_line_and_a_warning(run, back, script, files, monkeypatch, caplog):
    """Text whose words cannot be found in its pieces; here that is so for one sentence."""
    real = words.map_words

    def lost(text, pieces, split):
        return None if "loup" in text else real(text, pieces, split)

    monkeypatch.setattr(words, "map_words", lost)
    args = (*files, "--level", "words", "--format", "pharaoh")
    for more in ((), ("--reverse", back)):
        caplog.clear()
        done = script("score", run, *args, *more)
        lines = done.out.decode().split("\n")
        assert [bool(line) for line in lines] == [True, False, True, False, False, False]
        said = [r.getMessage() for r in caplog.records]
        assert said == ["line 4: its words cannot be found in its pieces: no links"]


# Heatmaps and decode.py -------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_heatmaps_of_every_line_that_is_not_empty(run, script, files, tmp_path, form):
    for folder in ("a", "b"):
        where = ("--heatmaps", tmp_path / folder, "--figure", form)
        assert script("score", run, *files, *where).code == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [f"line-{n:04d}.{form}" for n in (1, 3, 4)]
    for name in names:
        data = (tmp_path / "a" / name).read_bytes()
        assert data == (tmp_path / "b" / name).read_bytes(), "no date, no version, no chance"
        assert matplotlib.__version__.encode() not in data
        match form:
            case "png":
                assert matplotlib.image.imread(io.BytesIO(data)).shape[2] == 4
            case "svg":
                assert data.startswith(b"<?xml")
                assert b"dc:date" not in data
            case "pdf":
                assert data.startswith(b"%PDF")
                assert b"CreationDate" not in data
                assert b"matplotlib" not in data.lower()
    # Chinese, Arabic, and what would be a formula; by the option's name of 0.1.0.
    (tmp_path / "src").write_text("漢字 $_$ قط\n", "utf-8")
    files = ("--source", tmp_path / "src", "--target", tmp_path / "src")
    done = script("score", run, *files, "--heatmaps", tmp_path / "m", "--picture", form)
    assert done.code == 0, done
    assert len((tmp_path / f"m/line-0001.{form}").read_bytes()) > 1000


def test_decode_writes_links_arrays_and_words(run, script, model, tmp_path):
    """From a beam and greedy: the best candidate, or all of them in the arrays."""
    text = "".join(f"{src}\n" for src, _ in PAIRS).encode()
    for change in ("decode.beam_size=4", "decode.beam_size=1"):
        args = (change, "decode.n_best=1")
        again = seq2seq.load(run, args)
        found = again.translate([src for src, _ in PAIRS])
        for level, split in LEVELS.items():
            rows = script("decode", run, *args, "--format", "jsonl", "--level", level, stdin=text)
            shown = [t if split is None else t.words(split) for t in found]
            assert [json.loads(row) for row in rows.out.splitlines()] == [
                own.as_dict() | {"flags": again.flags(t)}
                for own, t in zip(shown, found, strict=True)
            ]
            done = script("decode", run, *args, "--format", "pharaoh", "--level", level, stdin=text)
            lines = done.out.decode().split("\n")
            assert [bool(line) for line in lines] == [True, False, True, True, True, False]
            for line, t in zip(lines, shown, strict=False):
                best = t.candidates[0].alignment[:-1, :-1] if t.candidates else np.zeros((0, 1))
                expected = {f"{j}-{i}" for i, j in enumerate(best.argmax(axis=1))}
                assert set(line.split()) == expected
    args = ("decode.n_best=2", "--level", "blanks", "--format", "npz")
    done = script("decode", run, *args, "--heatmaps", tmp_path / "maps", stdin=text)
    assert done.code == 0, done
    found = seq2seq.load(run, ["decode.n_best=2"]).translate([src for src, _ in PAIRS])
    assert len(list((tmp_path / "maps").iterdir())) == 4
    with np.load(io.BytesIO(done.out)) as arrays:
        for number, t in enumerate(found, start=1):
            for rank, c in enumerate(t.words(blank_spans).candidates, start=1):
                np.testing.assert_array_equal(arrays[f"{number}.{rank}.attention"], c.alignment)
                assert arrays[f"{number}.{rank}.tokens"].tolist() == [*c.text.split(), END]


# Python -----------------------------------------------------------------------------------------


def test_a_translation_draws_itself(model):
    [t] = model.translate(["the cat sees the dog ."])
    by_blank = t.words(blank_spans)
    for shown, figure in (
        (t.words(), t.plot(title="t")),
        (t.words(), t.words().plot(title="t")),
        (t, t.plot(words=False, title="t")),
        (by_blank, by_blank.plot(words=False, title="t")),
    ):
        axes, best = figure.axes[0], shown.candidates[0]
        for labels, tokens in (
            (axes.get_xticklabels(), shown.source_tokens),
            (axes.get_yticklabels(), best.tokens),
        ):
            wanted = [token.replace("\u2581", " ") for token in tokens]
            assert [label.get_text() for label in labels] == wanted
        np.testing.assert_allclose(axes.images[0].get_array(), best.alignment, rtol=1e-6)
        assert axes.get_title().split("\n")[0] == "t"
    second = t.plot(1, words=False).axes[0].images[0].get_array()
    np.testing.assert_allclose(second, t.candidates[1].alignment)
    assert t.words().text == t.text
    [blank] = model.translate([""])
    assert blank.words() == blank
    with pytest.raises(IndexError):
        blank.plot()
