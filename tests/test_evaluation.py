"""What is known to a vocabulary, and the scores of that part of a test set."""

import json
from dataclasses import replace

import pytest
from runs import composed, config_of, copy_of, locked
from strangers import forge

import seq2seq
from seq2seq.alignment.measures import Measures, average, measure
from seq2seq.cli import stages
from seq2seq.config.schema import DecodeConfig
from seq2seq.data.pair import Pair
from seq2seq.data.placeholders import placeholders_of
from seq2seq.data.tokenizer import UNK, Token
from seq2seq.data.words import Span
from seq2seq.decoding.flags import SAVED, Flags
from seq2seq.evaluation import runs as tested
from seq2seq.evaluation.attention import AttentionScores, GoldAlignment
from seq2seq.evaluation.scoring import Score, Scores, bleu
from seq2seq.evaluation.test_set import (
    TRANSLATIONS,
    Results,
    known_rows,
    not_learnt,
    other_settings,
    read_results,
    score_all,
    score_unseen,
    second_pass,
)
from seq2seq.run.directory import RunDir
from seq2seq.run.jsonable import to_json
from seq2seq.run.signals import StopRequest


class Knows:
    """A vocabulary of a few words."""

    def __init__(self, *words: str) -> None:
        self.ids = {word: i for i, word in enumerate(words, start=3)}

    def tokens(self, texts):
        cut = [text.split() for text in texts]
        return [[Token(self.ids.get(word, UNK), word, Span(0, 0)) for word in row] for row in cut]


def test_a_sentence_is_known_if_both_its_sides_are():
    tokenizers = (Knows("a", "b"), Knows("x", "y"))
    sources = ["a b", "a c", "b", "", "c"]
    references = ["x y", "x", "z", "x", "z"]
    assert known_rows(tokenizers, sources, references) == [0, 3]


@pytest.mark.parametrize(
    ("known", "forbidden", "again"),
    [(3, False, True), (3, True, False), (0, False, False), (5, False, False)],
)
def test_a_second_pass_is_paid_only_where_it_can_differ(known, forbidden, again):
    cfg = replace(composed("debug").decode, forbid_unknown=forbidden, replace_unknown=not forbidden)
    found = second_pass(range(known), 5, cfg)
    assert found == (replace(cfg, forbid_unknown=True, replace_unknown=False) if again else None)


GOOD = ["a small cat sleeps on the chair", "she reads a book", "no, no and no", "very very good"]
BAD = [
    "the the the the cat",
    "of a cat of a cat of a cat",
    "あいあいあいあいあい",
    "it is it is it is .",
]
FLAT = Measures(2.0, 0.97, 0.1, 0.0, 0.9, 0.5, 0.0)


@pytest.mark.parametrize(
    ("bleu_score", "texts", "attention", "signs"),
    [
        (30.0, GOOD, None, None),
        (30.0, GOOD, FLAT, None),  # a fixed context, say
        (2.0, [*GOOD * 2, *BAD[:3]], None, None),
        (1.04, GOOD, None, "BLEU is 1.04"),
        (0.0, BAD, FLAT, "BLEU is 0.00, 100% of its translations repeat words, it attends to all"),
        (12.0, [*GOOD, *BAD], None, "50% of its translations repeat words"),
    ],
)
def test_a_model_that_has_not_learnt_is_told_by_its_signs(bleu_score, texts, attention, signs):
    said = not_learnt(bleu_score, texts, AttentionScores(attention=attention))
    start = f"The model has hardly learnt to translate yet ({signs}"
    assert said is None if signs is None else said.startswith(start)
    assert said is None or said.endswith("show no alignment: train longer, or add data.")


@pytest.mark.e2e
def test_no_unk_is_scored_on_its_own_sentences():
    hypotheses = ["le chat voit un chien .", "une maison rouge", "il dort sur la table ."]
    references = ["le chat voit le chien .", "la grande maison", "il dort sur une table ."]
    known = ["le chat voit un chien .", "il dort sur la grande table ."]
    cfg, asked = composed("debug"), []
    cfg.decode.forbid_unknown = False
    words = " ".join([*references[::2], "a b"]).split()
    arguments = cfg, (Knows("a", "b"), Knows(*words)), (["a", "b", "a b"], references), hypotheses
    others = AttentionScores(), [("en", "fr")] * 3
    found = score_all(*arguments, lambda rows, _: asked.append(rows) or known, *others)
    assert asked == [[0, 2]]
    assert (found.sentences, found.no_unknown.sentences) == (3, 2)
    assert found.scores["BLEU"].value == bleu(hypotheses, references, "13a")
    chosen = [references[0], references[2]]
    assert found.no_unknown.scores["BLEU"].value == bleu(known, chosen, "13a")
    assert list(found.no_unknown.scores) == ["BLEU", "BLEU, tokenised"]
    nothing = cfg, (Knows(), Knows()), (["a", "b", "a b"], references), hypotheses
    assert score_all(*nothing, None, *others).no_unknown == Scores(0, {})


@pytest.mark.parametrize("placeholders", [[], ["number"]])
def test_sentences_of_the_training_data_are_scored_apart(placeholders, tmp_path):
    """Two sources are in the training data; then none or all of them are, or there is no data."""
    cfg = composed("debug", [f"data.placeholders={placeholders}"])
    sources = ["a cat 12 .", "the dog sees .", "the cat", "a house at 9 ."]
    references = ["un chat 12 .", "le chien voit .", "le chat", "une maison rouge a 9 ."]
    hypotheses = ["un chat 12 .", "un chien voit .", "le chat", "une maison verte a 9 ."]
    rest = (sources, references), hypotheses, [("en", "fr")] * 4
    assert score_unseen(cfg, RunDir(tmp_path), *rest) is None
    symbols = placeholders_of(cfg)

    def train_on(*rows):
        pairs = [
            Pair("the dog sees a cat .", "x"),
            *(Pair(sources[i], references[i]) for i in rows),
        ]
        pairs = pairs if symbols is None else map(symbols.pair, pairs)
        (tmp_path / "corpus").mkdir(exist_ok=True)
        text = "".join(f"{pair.src}\n" for pair in pairs)
        (tmp_path / "corpus/train.source").write_text(text, "utf-8")
        return score_unseen(cfg, RunDir(tmp_path), *rest)

    assert train_on() == Scores(4, {})
    assert train_on(3, 0, 2, 1, 1) == Scores(0, {})
    found = train_on(2, 0)
    assert (found.sentences, list(found.scores)) == (2, ["BLEU", "BLEU, tokenised"])
    chosen = [[texts[1], texts[3]] for texts in (hypotheses, references)]
    assert found.scores["BLEU"].value == bleu(*chosen, "13a") != bleu(hypotheses, references, "13a")


SCORES = {"BLEU": Score(20.0, "s"), "TER": Score(5.0, "t", 4.0, 6.0)}


@pytest.mark.parametrize(
    ("known", "line"),
    [
        (Scores(1200, SCORES), "no sentence has an unknown word, so the scores are"),
        (Scores(0, {}), "every sentence has an unknown word, so there is no score"),
        (Scores(1100, SCORES), "1,100 of 1,200 sentences: BLEU 20.00; TER 5.00 [4.00-6.00]"),
    ],
)
def test_results_say_what_the_second_column_is(known, line, tmp_path):
    gold = GoldAlignment(0.25, 0.5, 1.0, 0.75, 0.875, 1200, 3)
    measures = Measures(0.5, 0.25, 0.125, 0.0, 0.3, 0.75, None)
    plain = Results(sentences=1200, scores=SCORES)
    results = replace(plain, no_unknown=known, attention=measures, alignment=gold, unseen=known)
    table = Scores(1200, SCORES).as_table()
    shown = str(results).splitlines()
    assert "\n".join(shown[:3]) == table
    assert shown[3].startswith(f"No UNK     {line}")
    assert shown[4].startswith(
        f"Unseen     {line.replace('has an unknown word', 'is in the training data')}"
    )
    assert shown[5].startswith("attention  entropy 0.50 nats (25% of log length)")
    assert shown[6].startswith("alignment  error rate 25.0%, ")
    assert shown[7:] == [" " * 11 + gold.advice]
    assert str(plain) == table
    (tmp_path / "scores.json").write_text(json.dumps(to_json(results)))
    assert read_results(tmp_path / "scores.json") == results


# A trained run ------------------------------------------------------------------------------


@pytest.mark.e2e
def test_a_test_set_without_unknown_words_is_decoded_once(run):
    assert not (run / stages.NO_UNKNOWN).exists()
    results = json.loads((run / "scores.json").read_text())
    assert results["no_unknown"]["sentences"] == results["sentences"] == 20
    for name in ("BLEU", "BLEU, tokenised"):
        assert results["no_unknown"]["scores"][name] == results["scores"][name]


@pytest.mark.e2e
def test_unknown_words_on_either_side_make_a_second_column(run, tmp_path, monkeypatch):
    """A character that the vocabularies lack, in one source and in another reference."""
    own = RunDir.open(copy_of(run, tmp_path / "own"))
    for side, row in (("source", 0), ("target", 2)):
        path = own.path(f"corpus/test.{side}")
        lines = path.read_text("utf-8").splitlines()
        lines[row] = "\u6f22 " + lines[row]
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    forge(own.root)
    cfg = config_of(own.root)
    cfg.decode.forbid_unknown = False
    with locked(own):
        stages.decode(cfg, own, StopRequest())
        stages.evaluate(cfg, own, StopRequest())
    sources = own.path("corpus/test.source").read_text("utf-8").splitlines()
    rows = [1, *range(3, 20)]
    model = seq2seq.load(own.root, ["decode.forbid_unknown=true"])
    expected = [t.text for t in model.translate([sources[i] for i in rows])]
    assert own.path(stages.NO_UNKNOWN).read_text("utf-8").splitlines() == expected
    references = own.path("corpus/test.target").read_text("utf-8").splitlines()
    results = json.loads(own.path("scores.json").read_text())
    assert (results["sentences"], results["no_unknown"]["sentences"]) == (20, 18)
    value = bleu(expected, [references[i] for i in rows], "13a")
    assert results["no_unknown"]["scores"]["BLEU"]["value"] == value
    assert results["scores"]["BLEU"]["value"] != value
    assert "No UNK     18 of 20 sentences: BLEU " in stages.summary(own)


@pytest.mark.e2e
def test_test_sentences_planted_in_the_training_data_are_counted(run, script, tmp_path):
    """By the stage and by the command; the exported model has no training data."""
    own = RunDir.open(copy_of(run, tmp_path / "own"))
    sources, training = (own.path(f"corpus/{split}.source") for split in ("test", "train"))
    lines = training.read_text("utf-8").splitlines()
    lines[7], lines[90] = (sources.read_text("utf-8").splitlines()[row] for row in (3, 11))
    training.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    forge(own.root)
    with locked(own):
        stages.evaluate(config_of(own.root), own, StopRequest())
    assert read_results(own.path("scores.json")).unseen.sentences == 18
    assert b"\nUnseen     18 of 20 sentences: BLEU " in script("evaluate", own.root).out
    given = ("--source", sources, "--reference", own.path("corpus/test.target"))
    assert b"Unseen" in script("evaluate", own.root, *given).out
    assert b"Unseen" not in script("evaluate", own.root / "model", *given).out


# Settings that the config does not have ----------------------------------------------------------


def test_settings_are_those_that_differ_and_matter():
    cfg = DecodeConfig(beam_size=12, batch_sentences=7)

    def others(**record):
        return other_settings(Flags({}, {}, record), cfg)

    assert others(**to_json(cfg)) == []
    assert (
        others(beam_size=12, batch_sentences=1) == []
    )  # the rest are defaults, of a later version
    assert others(**to_json(cfg) | {"top_k": 3, "precision": "bf16", "mbr": None}) == [
        "decode.precision=bf16",
        "decode.top_k=3",
    ]
    assert others(**to_json(DecodeConfig(forbid_unknown=True))) == [
        "decode.beam_size=10",
        "decode.forbid_unknown=true",
    ]
    assert others(beam_size=12, removed="x") == ["decode.removed=x"]
    assert other_settings(Flags({}, {}), cfg) == other_settings(None, cfg) == []


@pytest.mark.e2e
def test_results_of_other_settings_do_not_count(run, tmp_path):
    """As after `train resume=RUN decode.max_ratio=0.3 ...`, which leaves the config as it is."""
    own, names = RunDir.open(copy_of(run, tmp_path / "own")), ("scores.json", "length_bleu.json")
    cfg = config_of(own.root)
    before = tested.TestedRun(str(own.root), [], None)
    assert all(map(before.saved, (TRANSLATIONS, *names)))
    lines, lengths = before.translations(), before.by_length()

    cfg.decode.max_ratio, cfg.decode.extra_steps = 0.3, 0
    with locked(own):
        stages.decode(cfg, own, StopRequest())
        assert before.saved(TRANSLATIONS) is None
        assert all(map(before.saved, names)), "they are of the translations before"
        stages.evaluate(cfg, own, StopRequest())
    assert own.path(TRANSLATIONS).read_text("utf-8").splitlines() != lines
    after = tested.TestedRun(str(own.root), [], None)
    assert not any(map(after.saved, (TRANSLATIONS, *names)))
    assert (after.translations(), after.by_length()) == (lines, lengths)

    # Runs of older versions have no record of their settings.
    saved = json.loads(own.path(SAVED).read_text("utf-8"))
    assert saved.pop("decode")["max_ratio"] == 0.3
    own.write_json(SAVED, saved)
    forge(own.root)
    assert tested.TestedRun(str(own.root), [], None).saved(TRANSLATIONS) == own.path(TRANSLATIONS)


@pytest.mark.e2e
def test_attention_of_characters_is_measured_between_characters(characters_run):
    own = tested.TestedRun(str(characters_run), [], None)
    forced = own.model.force(zip(*own.text, strict=True))
    expected = average([measure(found.alignment, ended=True) for found in forced])
    assert own.attention().attention == expected
    assert tested.TestedRun(str(characters_run), [], own.text).attention().attention == expected
