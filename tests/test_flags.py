"""Flags of pairs: each is about what it names, and its limit is that of the references."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from runs import config_of, module_of
from test_report import data_of

import seq2seq
from seq2seq.cli.decode_stage import Job, limits_of
from seq2seq.data.words import word_spans
from seq2seq.decoding import flags
from seq2seq.decoding.flags import CALIBRATED, FIXED, LEAST, MEANINGS, calibrated, flagged
from seq2seq.decoding.translation import Candidate, Translation
from seq2seq.evaluation.test_set import read_results
from seq2seq.report.build import build
from seq2seq.run.directory import RunDir
from seq2seq.run.jsonable import to_json
from seq2seq.run.signals import StopRequest

SOURCE = "a small red car sleeps here"
ODD = {
    "diffuse": {"alpha": np.full((7, 7), 1 / 7)},
    "uncovered": {"alpha": np.eye(7)[[0, 0, 1, 1, 2, 2, 6]]},
    "overcovered": {"alpha": np.eye(7)[[0, 0, 0, 1, 1, 1, 6]]},
    "short": {"text": "une dort"},
    "long": {"text": "une petite auto rouge dort ici oui mais non pas du tout alors"},
    "improbable": {"log_prob": -5.0},
    "unfinished": {"end": -6.0},
    "copied": {"text": "a small red car dort ici"},
    "repeated": {"text": "une auto rouge une auto rouge"},
    "unknown": {"unknown": True},
}
LIMITS = {**FIXED, "diffuse": 0.5, "uncovered": 0.4, "overcovered": 0.2} | {
    "short": 2.0, "long": 2.0, "improbable": 3.0, "unfinished": 5.0
}  # fmt: skip


def pair(text="une petite auto rouge dort ici", alpha=None, log_prob=-0.5, end=-0.1, unknown=False):
    """A translation whose pieces are words; each attends to the word that stands at its place."""
    tokens, source = (*text.split(), "</s>"), (*SOURCE.split(), "</s>")
    if alpha is None:
        rows = np.linspace(0, len(source) - 2, len(tokens) - 1).round().astype(int)
        alpha = np.eye(len(source))[[*rows, -1]]
    chances = (*[log_prob] * (len(tokens) - 1), end)
    found = Candidate(text, tokens, chances, sum(chances), 0.0, alpha.astype(np.float32), True)
    return Translation(SOURCE, source, (found,), unknown=unknown)


def measured(pair, split=word_spans):
    return flags.measures(pair.soft_alignment(), split, unknown=pair.unknown)


@pytest.mark.parametrize("name", ODD)
def test_a_flag_is_about_what_it_names(name):
    assert list(ODD) == list(MEANINGS)
    usual = measured(pair())
    assert flagged(usual, LIMITS) == []
    odd = measured(pair(**ODD[name]))
    assert name in (found := flagged(odd, LIMITS))
    # What else is odd about these: words attended to often leave others out; a half is short.
    more = {"overcovered": {"uncovered"}, "short": {"uncovered"}, "long": {"overcovered"}}
    assert {*found} <= {name} | more.get(name, set())
    # The limit itself is not beyond.
    assert name not in flagged(odd, {name: odd[name]})


def test_words_said_again_as_in_the_source_are_not_repeated():
    tokens = ("a", "car", "a", "red", "car", "a", "red", "car", "</s>")
    again = Translation(" ".join(tokens[:-1]), tokens, ())
    [found] = pair("une auto rouge une auto rouge").candidates
    same = replace(again, candidates=(replace(found, alignment=np.eye(7, 9, dtype=np.float32)),))
    assert measured(same)["repeated"] < 1
    assert "repeated" not in measured(same, None), "letters always come again"


def test_limits_are_those_that_one_reference_in_a_hundred_exceeds():
    rows = [dict.fromkeys(CALIBRATED, float(i)) for i in range(1001)]
    assert calibrated(rows[::-1]) == FIXED | dict.fromkeys(CALIBRATED, 990.0)
    assert calibrated(rows[: LEAST - 1]) == FIXED


def test_a_run_saves_its_limits_and_shows_its_flags(run, script, monkeypatch, tmp_path):
    lines = [json.loads(line) for line in (run / "decode/test.jsonl").read_text().splitlines()]
    saved = json.loads((run / "decode/flags.json").read_text())
    numbered = flags.by_flag(line["flags"] for line in lines)
    assert saved.pop("decode") == to_json(config_of(run).decode)
    assert saved == {"limits": dict(FIXED), "lines": numbered}, "too few references for more"
    results = read_results(run / "scores.json")
    assert results.flags.lines == numbered
    assert f"Flags      {results.flags.summary(len(lines))}\n" in f"{results}\n"
    # The model reads the limits; more references would give more of them.
    model = seq2seq.load(run)
    assert model.limits == FIXED
    monkeypatch.setattr(flags, "LEAST", 1)
    model.limits = limits_of(Job(config_of(run), RunDir(run), StopRequest()), model)
    assert {*model.limits} == {*MEANINGS}
    assert all(model.limits[name] > 0 for name in ("diffuse", "short", "long", "improbable"))
    # Forced: a copy of the source.
    text = json.loads((run / "decode/test.jsonl").read_text().splitlines()[0])["source"]
    [forced] = model.force([(text, text)])
    found = model.flags(forced)
    assert "copied" in found
    found = [name for name in found if name in FIXED]  # the limits that are saved
    for name in "ab":
        (tmp_path / name).write_text(f"{text}\n\n")
    files = ("--source", tmp_path / "a", "--target", tmp_path / "b")
    table = script("score", run, *files, "--format", "tsv").out.decode().split("\n")
    assert [row.split("\t")[3:] for row in table] == [[",".join(found)], [], []]
    shown = script("score", run, *files, "--format", "jsonl").out.decode().splitlines()
    assert [json.loads(line)["flags"] for line in shown] == [found, []]


def test_the_report_explains_the_flags_of_each_translation(run, monkeypatch):
    monkeypatch.setattr("seq2seq.decoding.pretrained.FIXED", {"long": 0.0})
    monkeypatch.setattr("seq2seq.decoding.pretrained.saved_flags", lambda run: None)
    [sentence] = data_of(build([run], [], 1, 1))["sentences"]
    found = sentence["runs"][0]["found"]
    assert [each["flags"] for each in found] == [{"long": MEANINGS["long"]}] * len(found)


def test_a_summary_counts_lines_and_names_the_first():
    lines = [["long"], [], ["long", "copied"], *[["long"]] * 8]
    text = flags.Flags({}, flags.by_flag(lines)).summary(11)
    assert text == "10 of 11 lines; long 10 (1, 3, 4, 5, 6, 7, 8, 9, ...); copied 1 (3)"


def test_planted_errors_and_their_shares():
    script = module_of("flags")
    pairs = [("a b", f"{i} un deux trois quatre cinq.") for i in range(4)]
    said = {kind: plant(0, pairs, random.Random(1)) for kind, plant in script.KINDS.items()}
    assert said == {
        "clean": pairs[0][1],
        "truncated to its half": "0 un deux",
        "translated twice": f"{pairs[0][1]} {pairs[0][1]}",
        "three words repeated": said["three words repeated"],
        "source copied": "a b",
        "of another sentence": pairs[2][1],
        "a word dropped": said["a word dropped"],
    }
    assert len(said["three words repeated"].split()) == 12
    assert len(said["a word dropped"].split()) == 5
    found = {
        "clean": [[], [], [], ["long"]],
        "a word dropped": [["short"], ["short", "long"], [], []],
    }
    text, shares = script.summary(found)
    assert shares["a word dropped"] == {"long": 0.25, "short": 0.5, "any": 0.5}
    assert "66.7%" in text
