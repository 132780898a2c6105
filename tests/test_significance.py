"""Paired tests: the library's numbers against loops and the command, and what may be compared."""

import json
import os
import subprocess
import sys

import pytest
from runs import assert_fails, copy_of, run_here
from sacrebleu.significance import PairedTest
from strangers import forge

from seq2seq.evaluation.attention import LEGEND
from seq2seq.evaluation.significance import TESTS, as_table, compare
from seq2seq.run.errors import DataError
from seq2seq.run.jsonable import to_json

REFERENCES = [
    f"le chat {w} voit la maison rouge et dort ." for w in ["un", "deux", "trois", "six"]
] * 5
GOOD = [r.replace("rouge", "verte") if i % 4 == 0 else r for i, r in enumerate(REFERENCES)]
BAD = [r.replace("chat", "chien").replace("dort", "x") for r in REFERENCES]


@pytest.fixture(scope="module")
def found():
    return compare({"a": GOOD, "b": BAD, "c": GOOD}, REFERENCES, "13a")


@pytest.mark.e2e
def test_a_difference_is_told_from_none(found):
    first, other, same = found["BLEU"].systems
    assert first.p == {}
    assert set(other.p) == set(TESTS)
    assert all(p < 0.05 for p in other.p.values())
    assert all(p == 1 for p in same.p.values())


@pytest.mark.e2e
def test_p_values_are_those_of_the_command(found, tmp_path):
    for name, lines in (("ref", REFERENCES), ("a", GOOD), ("b", BAD)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    for test, option in (("bootstrap", "--paired-bs"), ("randomisation", "--paired-ar")):
        command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "a", "b", "-m", "bleu"]
        done = subprocess.run(
            [*command, option, "--format", "json", "--width", "4"],
            cwd=tmp_path, env={**os.environ, "PYTHONUTF8": "1"}, capture_output=True, check=True,
        )  # fmt: skip
        rows = json.loads(done.stdout)
        cell = next(v for k, v in rows[1].items() if k.startswith("BLEU"))
        assert cell["p_value"] == pytest.approx(found["BLEU"].systems[1].p[test], abs=1e-4)


@pytest.mark.e2e
def test_the_table_shows_what_was_found(found):
    lines = as_table(found).splitlines()
    assert lines[0].split("  ")[0].strip() == "BLEU"
    assert "p, bootstrap" in lines[0]
    rows = [line.split() for line in lines[1:4]]
    assert [row[0] for row in rows] == ["a", "b", "c"]
    assert len(rows[0]) == 3, "the first is compared with nothing"
    b = found["BLEU"].systems[1]
    assert rows[1][3] == f"{b.value - found['BLEU'].systems[0].value:+.2f}"
    assert rows[1][4:] == [f"{b.p[test]:.4f}" for test in TESTS]
    assert "bs:1000" in lines[4]
    assert "ar:10000" in lines[5]
    assert lines[-2].startswith("p: how often chance alone")


# The script -------------------------------------------------------------------------------------


@pytest.fixture
def few_samples(monkeypatch):
    monkeypatch.setattr(PairedTest, "_DEFAULT_SAMPLES", {"ar": 60, "bs": 60})


def other_run(run, folder):
    """A copy that says something else of every third sentence, under another seed."""
    other = copy_of(run, folder)
    lines = (other / "decode/test.txt").read_text("utf-8").splitlines()
    worse = [line.replace("ce", "le") if i % 3 else line for i, line in enumerate(lines)]
    (other / "decode/test.txt").write_text("".join(f"{line}\n" for line in worse), "utf-8")
    forge(other)
    return other


@pytest.mark.e2e
@pytest.mark.usefixtures("few_samples")
def test_runs_are_compared_on_what_they_wrote(run, monkeypatch, tmp_path):
    other = other_run(run, tmp_path / "other")
    args = (run, other, "--json", tmp_path / "found.json")
    done = run_here(monkeypatch, "evaluate", *args)
    assert done.code == 0, done
    values = json.loads((tmp_path / "found.json").read_text())
    references = (run / "corpus/test.target").read_text("utf-8").splitlines()
    texts = [(r / "decode/test.txt").read_text("utf-8").splitlines() for r in (run, other)]
    names = [system["name"] for system in values["BLEU"]["systems"]]
    assert names == [str(run), str(other)], "nothing else tells them apart"
    expected = compare(dict(zip(names, texts, strict=True)), references, "13a")
    assert values == json.loads(json.dumps(to_json(expected)))
    assert done.out.decode() == f"{as_table(expected)}\n"
    assert values["BLEU"]["systems"][1]["p"]["bootstrap"] < 0.05


@pytest.mark.e2e
@pytest.mark.usefixtures("few_samples")
def test_runs_translate_where_something_else_is_asked_for(run, monkeypatch, tmp_path):
    other = other_run(run, tmp_path / "other")
    files = [run / f"corpus/test.{side}" for side in ("source", "target")]
    given = ("--source", files[0], "--reference", files[1], "--json", tmp_path / "found.json")
    (other / "corpus/test.source").write_text("something else\n" * 20, "utf-8")
    forge(other)
    assert run_here(monkeypatch, "evaluate", run, other, *given).code == 0
    first, second = json.loads((tmp_path / "found.json").read_text())["BLEU"]["systems"]
    assert first["value"] == second["value"], "both have the same weights"
    refused = run_here(monkeypatch, "evaluate", run, other)
    assert_fails(refused, 3, f"{other}: its test set is not that of {run}. Give --source and")


@pytest.mark.e2e
def test_a_cut_translation_is_named(run, monkeypatch, tmp_path):
    other = other_run(run, tmp_path / "other")
    (other / "decode/test.txt").write_text("a\n", "utf-8")
    forge(other)
    refused = run_here(monkeypatch, "evaluate", run, other)
    assert_fails(refused, 4, "decode/test.txt: has 1 lines, expected 20. Run the decode stage")
    with pytest.raises(DataError, match="19 translations, 20 references"):
        compare({"a": GOOD, "b": BAD[1:]}, REFERENCES, "13a")


# What attention does, as a table ----------------------------------------------------------------


@pytest.mark.e2e
def test_attention_of_several_runs_is_one_table(run, monkeypatch, tmp_path):
    """One without gold links, and one with, which then has saved its numbers."""
    linked = copy_of(run, tmp_path / "linked")
    sides = [
        (run / f"corpus/test.{s}").read_text("utf-8").splitlines() for s in ("source", "target")
    ]
    links = [
        " ".join(f"{i}-{i}" for i in range(min(len(s.split()), len(t.split()))))
        for s, t in zip(*sides, strict=True)
    ]
    (linked / "corpus/test.links").write_text("".join(f"{x}\n" for x in links), "utf-8")
    json_file = tmp_path / "found.json"
    for folder in (linked, linked):  # the second time from scores.json
        done = run_here(monkeypatch, "evaluate", run, folder, "--attention", "--json", json_file)
        assert done.code == 0, done
        values = list(json.loads(json_file.read_text()).values())
        assert values[0]["alignment"] is None
        assert values[0]["attention"] == values[1]["attention"]
        own = json.loads((linked / "scores.json").read_text())
        own |= {"attention": values[1]["attention"], "alignment": values[1]["alignment"]}
        (linked / "scores.json").write_text(json.dumps(own), "utf-8")
        forge(linked)
    gold, m = values[1]["alignment"], values[1]["attention"]
    rows = done.out.decode().splitlines()
    assert rows[1].split()[1:6] == ["-"] * 5
    assert rows[4:9] == LEGEND.splitlines()[:5]
    keys = ("error_rate", "precision", "recall", "later_error_rate", "earlier_error_rate")
    assert rows[2].split()[1:6] == [f"{gold[key]:.1%}" for key in keys]
    assert rows[2].split()[6:8] == [f"{m['entropy']:.2f}", f"{m['relative_entropy']:.1%}"]
    assert rows[-2].startswith(f"{run}: Each target word attends to ")
    assert rows[-1].startswith(f"{linked}: Each target word attends to ")
    assert rows[-1].endswith(("is not better.", "does not help.", "%."))
    own["alignment"]["error_rate"] = 0.125  # it is the saved number that is shown
    (linked / "scores.json").write_text(json.dumps(own), "utf-8")
    forge(linked)
    done = run_here(monkeypatch, "evaluate", linked, "--attention")
    assert done.out.decode().splitlines()[1].split()[1] == "12.5%"
    odd = own | {"alignment": own["alignment"] | {"recall": "x"}}
    (linked / "scores.json").write_text(json.dumps(odd), "utf-8")
    forge(linked)
    refused = run_here(monkeypatch, "evaluate", linked, "--attention")
    assert_fails(refused, 4, f"{linked}/scores.json: has unexpected content")
    refused = run_here(monkeypatch, "evaluate", run, "--attention", "--by-length", "a.png")
    assert_fails(refused, 2, "--attention: cannot be combined with --by-length. Give one of them.")
