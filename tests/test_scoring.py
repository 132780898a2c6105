"""Scores equal those of the sacrebleu command, and say how they were made."""

import json
import logging
import math
import os
import random
import re
import socket
import subprocess
import sys
from collections import Counter

import pytest
from runs import run_here

from seq2seq.evaluation import scoring
from seq2seq.evaluation.scoring import Score, Scores, bleu, bleu_metric, score, tokenised_bleu
from seq2seq.run.errors import ConfigError, DataError, PlatformError

REFERENCES = [
    "Le petit chat dort sur la chaise.",
    "Où est-ce que vous avez vu l’élève ?",
    "Elle n’a rien acheté hier, hélas !",
    "Il y a 1 200 livres (env. 3,5 %) dans la bibliothèque.",
    "漢字 & « guillemets » – 50 % !",
]
HYPOTHESES = [
    "Le petit chat dort sur une chaise.",
    "Où est-ce que vous avez trouvé l’élève ?",
    "",
    "Il y a 1 200 livres (env. 3,5 %) dans la grande bibliothèque.",
    "漢字 & « guillemets » – 50 % !",
]


@pytest.fixture(scope="module")
def scores() -> Scores:
    return score(HYPOTHESES, REFERENCES, "13a")


@pytest.mark.e2e
def test_V2_scores_are_those_of_the_command_to_the_digit(scores, tmp_path):
    for name, lines in (("ref", REFERENCES), ("hyp", HYPOTHESES)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", "-m", "bleu", "chrf", "ter"]
    done = subprocess.run(
        [*command, "--format", "json", "--width", "12"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    expected = json.loads(done.stdout)
    assert [row["name"] for row in expected] == ["BLEU", "chrF2", "TER"]
    for row, ours in zip(expected, scores.scores, strict=True):
        assert row["name"].startswith(ours.name)
        assert round(ours.value, 12) == row["score"]
        assert ours.signature == row["signature"]


def random_lines(rng: random.Random, count: int) -> list[str]:
    """Words of the sentences above in any order, with odd blanks and empty lines among them."""
    words = [*" ".join(REFERENCES).split(), "\u2028", "a\rb", "\t", "\x85", "x" * 50, "\u0301"]
    return [
        rng.choice([" ", " ", "  ", "\t"]).join(rng.choices(words, k=rng.choice([0, 3, 9, 15])))
        for _ in range(count)
    ]


@pytest.mark.e2e
def test_V2_files_score_as_with_the_command_and_without_a_network(monkeypatch, tmp_path, tally):
    """100 pairs of files: five references, twenty translations of each."""
    monkeypatch.setattr(scoring, "SAMPLES", 3)  # intervals have a test of their own

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    rng = random.Random(2)
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        references = random_lines(rng, 5)
        (folder / "ref").write_text("".join(f"{x}\n" for x in references), "utf-8", newline="")
        names = [f"hyp-{i}" for i in range(20)]
        for name in names:
            mixed = [
                rng.choice(pair) for pair in zip(references, random_lines(rng, 5), strict=True)
            ]
            (folder / name).write_text("".join(f"{x}\n" for x in mixed), "utf-8", newline="")
        command = [sys.executable, "-m", "sacrebleu", "ref", "-i", *names]
        command += ["-m", "bleu", "chrf", "ter", "--format", "json", "--width", "10"]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONUTF8": "1"}, capture_output=True,
            check=True,
        )  # fmt: skip
        expected = {row["system"]: row for row in json.loads(done.stdout)}
        assert list(expected) == names
        for name in names:
            args = ("--hypotheses", folder / name, "--reference", folder / "ref")
            result = run_here(monkeypatch, "evaluate", *args, "--json", folder / "scores.json")
            assert (result.code, result.err) == (0, "")
            found = Scores.from_dict(json.loads((folder / "scores.json").read_text("utf-8")))
            for metric, ours in (("BLEU", "BLEU"), ("chrF2", "chrF"), ("TER", "TER")):
                assert f"{found[ours].value:.10f}" == expected[name][metric], (name, metric)
                assert found[ours].signature in result.out.decode()
    tally("V2", "files scored against the sacrebleu command", 100, 100, "equal in 10 digits")


MOSES = [
    ("L'homme n'a pas dit : « Aujourd'hui, non ! »",
     "L' homme n' a pas dit : « Aujourd' hui , non ! »"),
    ("Il coûte 3,50 $ (dont 3 %), M. Dupont.", "Il coûte 3,50 $ ( dont 3 % ) , M. Dupont ."),
    ("Jean-Pierre & <Marie> dorment...", "Jean-Pierre & < Marie > dorment ..."),
]  # fmt: skip
"""French text, and as Moses cuts it: nothing is escaped."""


def multi_bleu(hypotheses: list[list[str]], references: list[list[str]]) -> float:
    """BLEU of token lists as multi-bleu.perl defines it: 0 as soon as one precision is."""
    log_precision = 0.0
    for n in range(1, 5):
        right = total = 0
        for pair in zip(hypotheses, references, strict=True):
            hyp, ref = (Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for t in pair)
            right += sum(min(count, ref[gram]) for gram, count in hyp.items())
            total += sum(hyp.values())
        if not right:
            return 0.0
        log_precision += math.log(right / total) / 4
    lengths = [sum(map(len, side)) for side in (hypotheses, references)]
    return 100 * math.exp(log_precision + min(0, 1 - lengths[1] / lengths[0]))


def test_tokenised_bleu_is_that_of_multi_bleu_on_moses_tokens():
    references = [text for text, _ in MOSES]
    hypotheses = [text.replace("homme", "Homme").replace("dont ", "") for text in references]
    tokens = [words.split() for _, words in MOSES]
    output = [[w.replace("homme", "Homme") for w in words if w != "dont"] for words in tokens]
    found = tokenised_bleu(hypotheses, references, "fr")
    assert found.value == pytest.approx(multi_bleu(output, tokens), abs=1e-9)
    assert 50 < found.value < 95
    assert found.value != pytest.approx(bleu(hypotheses, references, "13a"), abs=0.5)


def test_tokenised_bleu_is_not_smoothed_and_says_so():
    found = tokenised_bleu(["a b c x d"], ["a b c y d"], "en")
    assert (found.value, found.name) == (0, "BLEU, tokenised")
    assert bleu(["a b c x d"], ["a b c y d"], "13a") > 0
    assert re.fullmatch(
        r"tokens:moses-en\.0\.2\.[\d]+\|nrefs:1\|case:mixed\|eff:no\|tok:none\|smooth:none\|version:.+",
        found.signature,
    )


def test_tokenised_bleu_stands_beside_the_other_where_the_language_is_known(scores, caplog):
    found = score(HYPOTHESES, REFERENCES, "13a", "fr")
    assert [s.name for s in found.scores] == ["BLEU", "BLEU, tokenised", "chrF", "TER"]
    assert tuple(s for s in found.scores if s.name != "BLEU, tokenised") == scores.scores
    assert found["BLEU, tokenised"] == tokenised_bleu(HYPOTHESES, REFERENCES, "fr")
    tokenised_bleu(["le chat ."] * 200, ["le chat ."] * 200, "fr")
    assert not caplog.records, "sacreBLEU is told that the text is tokenised"


def test_scores_are_not_trivial(scores):
    assert [s.name for s in scores.scores] == ["BLEU", "chrF", "TER"]
    assert scores.num_sentences == 5
    for name in ("BLEU", "chrF", "TER"):
        assert 10 < scores[name].value < 90
    with pytest.raises(StopIteration):
        scores["METEOR"]


def test_perfect_translations():
    found = score(REFERENCES, REFERENCES, "13a")
    assert found["BLEU"].value == pytest.approx(100)
    assert found["chrF"].value == pytest.approx(100)
    assert found["TER"].value == 0


def test_ter_by_hand():
    """One word of four replaced, one of four missing: two edits over eight words."""
    found = score(["a b c x", "a b c"], ["a b c d", "a b c d"], "13a")
    assert found["TER"].value == pytest.approx(100 * 2 / 8)


def test_every_score_carries_its_signature(scores):
    for one in scores.scores:
        assert "version:" in one.signature
        assert one.signature in str(one)
        assert f"{one.value:.2f}" in str(one)
    assert "tok:13a" in scores["BLEU"].signature
    assert "tok:char" in score(HYPOTHESES, REFERENCES, "char")["BLEU"].signature


def test_validation_bleu_is_the_test_bleu(scores):
    assert bleu(HYPOTHESES, REFERENCES, "13a") == scores["BLEU"].value
    char = score(HYPOTHESES, REFERENCES, "char")["BLEU"].value
    assert bleu(HYPOTHESES, REFERENCES, "char") == char != scores["BLEU"].value


@pytest.mark.parametrize(
    ("hypotheses", "references", "text"),
    [
        (["a"], ["a", "b"], "1 translations, 2 references"),
        (["a", "b"], ["a"], "2 translations, 1 references"),
        ([], ["a"], "0 translations, 1 references"),
        ([], [], "no sentences"),
    ],
)
def test_unequal_or_no_lines_are_refused(hypotheses, references, text):
    with pytest.raises(DataError, match=text):
        score(hypotheses, references, "13a")


@pytest.mark.parametrize("measure", [score, bleu])
def test_unknown_tokenizer_is_refused_with_the_known_ones(measure):
    with pytest.raises(ConfigError) as caught:
        measure(["a"], ["a"], "13b")
    assert caught.value.what == "evaluate.bleu_tokenizer='13b' is unknown"
    assert caught.value.fix.startswith("Choose one of: 13a, char, ")


def test_tokenizer_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "MeCab", None)
    monkeypatch.delitem(sys.modules, "sacrebleu.tokenizers.tokenizer_ja_mecab", raising=False)
    with pytest.raises(PlatformError, match=r"pip install 'sacrebleu\[ja\]'") as caught:
        bleu_metric("ja-mecab")
    assert "\n" not in str(caught.value)


def test_scores_survive_json(scores):
    assert Scores.from_dict(json.loads(json.dumps(scores.as_dict()))) == scores


def test_table_is_aligned():
    table = Scores(
        2, (Score("BLEU", 7.126, "sig|a:1"), Score("chrF", 100.0, "s"), Score("x", 0.0, ""))
    ).as_table()
    assert table.splitlines() == [
        "metric   score  signature",
        "BLEU      7.13  sig|a:1",
        "chrF    100.00  s",
        "x         0.00  ",
    ]


def test_a_table_with_intervals():
    table = Scores(2, (Score("BLEU", 7.126, "s", 5.0, 10.256), Score("TER", 3.0, "t"))).as_table()
    assert table.splitlines() == [
        "metric  score  95% interval  signature",
        "BLEU     7.13  5.00-10.26    s",
        "TER      3.00                t",
    ]
    assert str(Score("BLEU", 7.126, "s", 5.0, 10.256)) == "BLEU 7.13 [5.00-10.26] (s)"


@pytest.mark.e2e
def test_intervals_are_those_of_the_command(scores, tmp_path):
    """To the digits that it prints; the signature stays that of the score alone."""
    for name, lines in (("ref", REFERENCES), ("hyp", HYPOTHESES)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", "-m", "bleu", "chrf", "ter"]
    done = subprocess.run(
        [*command, "--confidence", "--format", "json", "--width", "4"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    for row, ours in zip(json.loads(done.stdout), scores.scores, strict=True):
        mean, half = row["confidence_mean"], row["confidence_var"]
        assert (ours.low, ours.high) == pytest.approx((mean - half, mean + half), abs=2e-4)
        assert ours.low < ours.value < ours.high
        assert "bs:1000|seed:12345" in row["signature"]
        assert ours.signature == row["signature"].replace("bs:1000|seed:12345|", "")


def test_samples_that_score_nothing_do_no_harm():
    found = score(["", "a b c d"], ["x y", "a b c d"], "13a")
    assert all(s.low < s.high for s in found.scores)
    nothing = score(["a", "b"], ["c", "d"], "13a")["BLEU"]
    assert (nothing.value, nothing.interval) == (0, "0.00-0.00")


def test_the_library_does_not_talk(caplog):
    with caplog.at_level(logging.INFO):
        score(HYPOTHESES, REFERENCES, "13a")
    assert not caplog.records
    assert logging.getLogger("sacrebleu").level == logging.NOTSET


def test_no_interval_where_it_would_not_fit(monkeypatch):
    monkeypatch.setattr(scoring, "MOST_SENTENCES", 4)
    found = score(HYPOTHESES, REFERENCES, "13a")["BLEU"]
    assert (found.low, found.high, found.interval) == (None, None, "")
    assert found.value == bleu(HYPOTHESES, REFERENCES, "13a")
    assert score(HYPOTHESES[:4], REFERENCES[:4], "13a")["BLEU"].interval


def test_an_empty_hypothesis_is_a_translation():
    found = score(["", ""], ["a b", "c d"], "13a")
    assert found["BLEU"].value == 0
    assert found["TER"].value == 100
