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
from pathlib import Path

import pytest
from many_scripts import PLAIN, TYPOGRAPHIC
from runs import assert_fails, run_here
from sacrebleu.metrics import CHRF

from seq2seq.config.schema import SentencePieceConfig
from seq2seq.data.subword_vocabulary import train_sentencepiece
from seq2seq.evaluation import scoring
from seq2seq.evaluation.scoring import (
    LOWER_CASED,
    TOKENISED,
    Against,
    Score,
    Scores,
    bleu,
    bleu_metric,
    score,
    tokenised_bleu,
)
from seq2seq.run.errors import ConfigError, DataError, PlatformError
from seq2seq.run.jsonable import from_json, to_json

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


def command(folder: Path, names: list[str], *options: str) -> list[dict]:
    """What the sacrebleu command says of files against `ref`."""
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", "ref", "-i", *names, "-m", "bleu", "chrf", "ter",
         "--format", "json", *options],
        cwd=folder, env={**os.environ, "PYTHONUTF8": "1"}, capture_output=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_several_references_are_those_of_the_command(tmp_path, script):
    """Each sentence follows one of two references: 100, and what sacreBLEU itself says."""
    other = ["On voit la mer.", "Qui est là ?", "Il dort.", "Bref.", "Oui, bien sûr, vas-y !"]
    mixed = [REFERENCES[i] if i % 2 else other[i] for i in range(5)]
    for name, lines in {"ref": REFERENCES, "b": other, "mixed": mixed, "h": HYPOTHESES}.items():
        write_lines(tmp_path / name, lines)
    refs = ["--reference", tmp_path / "ref", "--reference", tmp_path / "b"]
    for name, perfect in (("mixed", True), ("h", False)):
        path = tmp_path / f"{name}.json"
        done = script("evaluate", "--hypotheses", tmp_path / name, *refs, "--json", path)
        assert done.code == 0, done.err
        found = json.loads(path.read_text())["scores"]
        said = subprocess.run(
            [sys.executable, "-m", "sacrebleu", "ref", "b", "-i", name, "-m", "bleu", "chrf", "ter",
             "--format", "json"],
            cwd=tmp_path, env={**os.environ, "PYTHONUTF8": "1"}, capture_output=True, check=True,
        )  # fmt: skip
        for metric, wanted in zip(("BLEU", "chrF", "TER"), json.loads(said.stdout), strict=True):
            assert found[metric]["value"] == pytest.approx(wanted["score"], abs=0.051)
            assert found[metric]["signature"].startswith("nrefs:2|")
        assert (found["BLEU"]["value"] == pytest.approx(100)) == perfect
    write_lines(tmp_path / "b", other[:4])
    done = script("evaluate", "--hypotheses", tmp_path / "h", *refs)
    assert_fails(done, 3, "h has 5 lines, b has 4")


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="")


@pytest.mark.e2e
def test_V2_scores_are_those_of_the_command_to_the_digit(scores, tmp_path):
    """And intervals to the digits that it prints; signatures are those of the score alone."""
    write_lines(tmp_path / "ref", REFERENCES)
    write_lines(tmp_path / "hyp", HYPOTHESES)
    plain = command(tmp_path, ["hyp"], "--width", "12")
    confident = command(tmp_path, ["hyp"], "--confidence", "--width", "4")
    assert [row["name"] for row in plain] == ["BLEU", "chrF2", "TER"]
    assert list(scores.scores) == ["BLEU", "chrF", "TER"]
    assert scores.sentences == 5
    for ours, row, interval in zip(scores.scores.values(), plain, confident, strict=True):
        assert round(ours.value, 12) == row["score"]
        assert 10 < ours.value < 90, "not trivial"
        assert ours.signature == row["signature"]
        assert "version:" in ours.signature
        half = interval["confidence_var"]  # of the central part of the samples
        assert (ours.high - ours.low) / 2 == pytest.approx(half, abs=2e-4)
        assert ours.low < ours.value < ours.high


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
        write_lines(folder / "ref", references)
        names = [f"hyp-{i}" for i in range(20)]
        for name in names:
            others = random_lines(rng, 5)
            mixed = [rng.choice(pair) for pair in zip(references, others, strict=True)]
            write_lines(folder / name, mixed)
        expected = {row["system"]: row for row in command(folder, names, "--width", "10")}
        assert list(expected) == names
        for name in names:
            args = ("--hypotheses", folder / name, "--reference", folder / "ref")
            result = run_here(monkeypatch, "evaluate", *args, "--json", folder / "scores.json")
            assert (result.code, result.err) == (0, "")
            found = json.loads((folder / "scores.json").read_text("utf-8"))["scores"]
            for metric, ours in (("BLEU", "BLEU"), ("chrF2", "chrF"), ("TER", "TER")):
                assert f"{found[ours]['value']:.10f}" == expected[name][metric], (name, metric)
                assert found[ours]["signature"] in result.out.decode()
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
    assert found.value == 0
    assert bleu(["a b c x d"], ["a b c y d"], "13a") > 0
    assert re.fullmatch(
        r"tokens:moses-en\.0\.2\.[\d]+\|nrefs:1\|case:mixed\|eff:no\|tok:none\|smooth:none\|version:.+",
        found.signature,
    )


def test_lower_cased_bleu_is_that_of_lower_cased_text_and_says_so():
    upper, lower = ["Le Chat noir dort ."] * 2, ["le chat noir dort ."] * 2
    assert tokenised_bleu(upper, lower, "fr").value < 100
    found = tokenised_bleu(upper, lower, "fr", lowercase=True)
    assert found.value == pytest.approx(100)
    assert "case:lc" in found.signature


def test_tokenised_bleu_stands_beside_the_other_where_the_language_is_known(scores, caplog):
    found = score(HYPOTHESES, REFERENCES, "13a", "fr")
    assert list(found.scores) == ["BLEU", TOKENISED, LOWER_CASED, "chrF", "TER", "chrF++"]
    tokenised = tokenised_bleu(HYPOTHESES, REFERENCES, "fr")
    lower = tokenised_bleu(HYPOTHESES, REFERENCES, "fr", lowercase=True)
    pairs = CHRF(word_order=2).corpus_score(HYPOTHESES, [REFERENCES]).score
    assert found.scores["chrF++"].value == pairs
    rest = {name: one for name, one in found.scores.items() if name != "chrF++"}
    assert rest == {**scores.scores, TOKENISED: tokenised, LOWER_CASED: lower}
    tokenised_bleu(["le chat ."] * 200, ["le chat ."] * 200, "fr")
    assert not caplog.records, "sacreBLEU is told that the text is tokenised"


@pytest.mark.parametrize(
    ("hypotheses", "references", "expected"),
    [
        (REFERENCES, REFERENCES, {"BLEU": 100, "chrF": 100, "TER": 0}),
        # One word of four replaced, one of four missing: two edits over eight words.
        (["a b c x", "a b c"], ["a b c d", "a b c d"], {"TER": 100 * 2 / 8}),
        (["", ""], ["a b", "c d"], {"BLEU": 0, "TER": 100}),
    ],
)
def test_scores_by_hand(hypotheses, references, expected):
    found = score(hypotheses, references, "13a").scores
    assert {name: found[name].value for name in expected} == pytest.approx(expected)


def test_the_tokenizer_is_that_of_validation_and_in_the_signature(scores):
    for tokenizer in ("13a", "char"):
        found = score(HYPOTHESES, REFERENCES, tokenizer).scores["BLEU"]
        assert f"tok:{tokenizer}" in found.signature
        assert bleu(HYPOTHESES, REFERENCES, tokenizer) == found.value
    assert found.value != scores.scores["BLEU"].value


def test_references_that_stay_give_the_same_scores_each_time():
    against = Against(REFERENCES, "13a")
    for hypotheses in (HYPOTHESES, REFERENCES, HYPOTHESES[::-1], [""] * 5):
        found = score(hypotheses, REFERENCES, "13a").scores
        assert against.bleu(hypotheses) == found["BLEU"].value
        assert against.chrf(hypotheses) == found["chrF"].value
    assert Against(REFERENCES, "char").bleu(HYPOTHESES) != against.bleu(HYPOTHESES)


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


def test_scores_survive_json_and_make_a_table(scores):
    assert from_json(Scores, json.loads(json.dumps(to_json(scores)))) == scores
    some = {"BLEU": Score(7.126, "s", 5.0, 10.256), "TER": Score(3.0, "t")}
    header, *rows = Scores(2, some).as_table().splitlines()
    assert [row.split() for row in rows] == [
        ["BLEU", "7.13", "5.00-10.26", "s"],
        ["TER", "3.00", "t"],
    ]
    assert header.index("signature") == rows[0].index("s") == rows[1].index("t"), "aligned"


def test_samples_that_score_nothing_do_no_harm():
    found = score(["", "a b c d"], ["x y", "a b c d"], "13a").scores
    assert all(s.low < s.high for s in found.values())
    nothing = score(["a", "b"], ["c", "d"], "13a").scores["BLEU"]
    assert (nothing.value, nothing.interval) == (0, "0.00-0.00")


def test_the_library_does_not_talk(caplog):
    with caplog.at_level(logging.INFO):
        score(HYPOTHESES, REFERENCES, "13a")
    assert not caplog.records
    assert logging.getLogger("sacrebleu").level == logging.NOTSET


def test_no_interval_where_it_would_not_fit(monkeypatch):
    monkeypatch.setattr(scoring, "MAX_SENTENCES", 4)
    found = score(HYPOTHESES, REFERENCES, "13a").scores["BLEU"]
    assert (found.low, found.high, found.interval) == (None, None, "")
    assert found.value == bleu(HYPOTHESES, REFERENCES, "13a")
    assert score(HYPOTHESES[:4], REFERENCES[:4], "13a").scores["BLEU"].interval


# The language decides ---------------------------------------------------------------------------

UNSPACED = ["th", "lo", "km", "my", "bo", "zh", "ja"]


def language_cases():
    texts = [*PLAIN.items(), *((code, lines) for code, lines in TYPOGRAPHIC.items())]
    return [pytest.param(code, lines, id=f"{code}-{i}") for i, (code, lines) in enumerate(texts)]


@pytest.mark.e2e
@pytest.mark.parametrize(("language", "lines"), language_cases())
def test_identical_files_are_perfect_in_every_language(language, lines):
    """With its code, with one of a region or script, and without any."""
    lines = [" ".join(lines)] * 4  # BLEU counts four words in a row
    for code in (language, "", f"{language}-XX"):
        found = score(lines, lines, None, code).scores
        assert {"BLEU", "chrF", "TER"} <= set(found)
        for name, one in found.items():
            perfect = 0.0 if name == "TER" else 100.0
            assert one.value == pytest.approx(perfect), (name, code)
            assert 0 <= one.low <= one.high <= 100
            assert one.interval == f"{perfect:.2f}-{perfect:.2f}"


@pytest.mark.parametrize(("language", "lines"), language_cases())
def test_moses_is_asked_where_it_can_cut(language, lines):
    found = score(lines, lines, None, language).scores
    assert ("BLEU, tokenised" in found) == (language not in UNSPACED)


@pytest.mark.parametrize(
    ("code", "tokenizer", "ter"),
    [
        ("zh", "tok:zh", "norm:yes|punct:yes|asian:yes"),
        ("zho_Hant", "tok:zh", "norm:yes|punct:yes|asian:yes"),
        ("ja", "tok:char", "norm:yes|punct:yes|asian:yes"),
        ("ko", "tok:char", "tok:tercom|norm:no|punct:yes|asian:no"),
        ("th", "tok:char", "tok:char|norm:no"),
        ("my", "tok:char", "tok:char|norm:no"),
        ("hi", "tok:13a", "tok:tercom|norm:no"),
        ("en", "tok:13a", "tok:tercom|norm:no"),
    ],
)
def test_signatures_name_what_a_word_is(monkeypatch, code, tokenizer, ter):
    missing(monkeypatch)
    lines = PLAIN[code[:2]]
    found = score(lines, lines, None, code).scores
    assert f"|{tokenizer}|" in found["BLEU"].signature
    assert ter in found["TER"].signature


def missing(monkeypatch) -> None:
    """No segmenter, and no model that sacreBLEU has fetched."""
    for name, module in (("ja", "MeCab"), ("ko", "mecab_ko")):
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(
            sys.modules, f"sacrebleu.tokenizers.tokenizer_{name}_mecab", raising=False
        )
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", "nowhere")
    scoring._say_missing.cache_clear()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "ja",
            ["BLEU by the tokenizer char, as ja-mecab is missing (pip install 'sacrebleu[ja]')"],
        ),
        ("km", ["BLEU by the tokenizer char, as flores200 is missing"]),
        ("zh", []),
        ("fr", []),
    ],
)
def test_a_tokenizer_that_is_missing_is_told_once(monkeypatch, caplog, code, said):
    missing(monkeypatch)
    for _ in range(2):
        bleu(PLAIN[code], PLAIN[code], None, code)
    assert [record.getMessage() for record in caplog.records] == said


def test_a_model_that_was_fetched_serves(monkeypatch, caplog, tmp_path):
    """FLORES' own are too large to be here: one of these lines stands for it."""
    model = train_sentencepiece(PLAIN["th"], SentencePieceConfig(vocab_size=50), "nfc")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "flores200sacrebleuspm").write_bytes(model)
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", str(tmp_path))
    found = score(PLAIN["th"], PLAIN["th"], None, "th").scores["BLEU"]
    assert "|tok:flores200|" in found.signature
    assert found.value == pytest.approx(100)
    assert not caplog.records


def test_a_wrong_chinese_translation_is_not_perfect():
    """By hand: of 24 characters one differs."""
    wrong = [PLAIN["zh"][0].replace("船", "车"), PLAIN["zh"][1]]
    found = score(wrong, PLAIN["zh"], None, "zh").scores
    assert 50 < found["BLEU"].value < 95
    assert found["TER"].value == pytest.approx(100 / (12 + 12))
