"""Reranking against loops, and weights against a dense grid."""

import json
import math

import numpy as np
import pytest
from runs import assert_fails, template_pairs
from sacrebleu.metrics import BLEU

import seq2seq
from seq2seq.decoding.rerank import NBest, _Surface, bleu_of, read_nbest, tune

# Choosing, and tuning, by arithmetic --------------------------------------------------------------

WEIGHTS = {"score": 0.5, "words": -0.25, "forward": 2.0}


def toy_lists(seed: int, count: int = 12) -> tuple[list[NBest], list[str]]:
    """Noisy copies of references, with two features that know a little of how noisy they are."""
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(8)]
    references = [" ".join(rng.choice(words, rng.integers(4, 9))) for _ in range(count)]
    lists = []
    for reference in references:
        own, forward = NBest(f"source of {reference}"), []
        for _ in range(rng.integers(1, 7)):
            text = [w if rng.random() < 0.7 else rng.choice(words) for w in reference.split()]
            text = text[: rng.integers(3, len(text) + 1)]
            right = sum(a == b for a, b in zip(text, reference.split(), strict=False))
            own.add(" ".join(text), float(right + 3 * rng.normal()))
            forward.append(float(right / len(text) + rng.normal()))
        own.features["forward"] = forward
        lists.append(own)
    lists.append(NBest("", features={"score": [], "words": [], "forward": []}))
    return lists, [*references, "nothing is translated"]


@pytest.mark.parametrize("seed", range(5))
def test_the_best_is_that_of_a_loop(seed):
    lists, _ = toy_lists(seed)
    for own in lists:
        best, most = "", -math.inf
        totals = []
        for i, text in enumerate(own.texts):
            total = 0.5 * own.features["score"][i] - 0.25 * len(text.split())
            totals.append(total + 2.0 * own.features["forward"][i])
            if totals[-1] > most:
                best, most = text, totals[-1]
        assert own.best(WEIGHTS) == best
        found = own.as_dict(WEIGHTS)
        assert [h["score"] for h in found["hypotheses"]] == pytest.approx(sorted(totals)[::-1])
        assert found["text"] == best


def test_of_equals_the_first_stays():
    own = NBest("a")
    for text in ("x", "y z", "y", " "):
        own.add(text, 1.0)
    assert own.best({"score": 1.0}) == "x"
    assert own.best({"score": 1.0, "words": 1.0}) == "y z"
    assert own.texts == ["x", "y z", "y"]


def test_bleu_of_sums_is_sacrebleu_s():
    rng = np.random.default_rng(1)
    metric = BLEU()
    for _ in range(200):
        total = np.sort(rng.integers(0, 12, 4))[::-1]
        matches = np.minimum(rng.integers(0, 12, 4) * rng.integers(0, 2, 4), total)
        sums = [int(total[0]), int(rng.integers(1, 14)), *map(int, matches), *map(int, total)]
        expected = metric._compute_score_from_stats([*sums]).score
        assert bleu_of(np.array([sums]))[0] == pytest.approx(expected, abs=1e-9)


def corpus_bleu(texts, references) -> float:
    return BLEU().corpus_score(texts, [references]).score


@pytest.mark.parametrize("seed", range(3))
def test_a_line_search_finds_the_best_point_of_its_line(seed):
    lists, references = toy_lists(seed)
    surface = _Surface(lists, references, BLEU())
    rng = np.random.default_rng(seed)
    for _ in range(8):
        w, d = rng.normal(size=(2, 3))
        value, t = surface.along(w, d)
        at_t = [own.best(dict(zip(WEIGHTS, w + t * d, strict=True))) for own in lists]
        assert corpus_bleu(at_t, references) == pytest.approx(value)
        scan = [surface.bleu(w + s * d) for s in np.tan(np.linspace(-1.57, 1.57, 1501))]
        assert max(scan) <= value + 1e-9
        assert max(scan) == pytest.approx(value, abs=1.0)


@pytest.mark.e2e
@pytest.mark.parametrize("seed", range(4))
def test_tuned_weights_are_as_good_as_the_best_of_a_dense_grid(seed):
    lists, references = toy_lists(seed)
    found = tune(lists, references, BLEU())
    assert found == tune(lists, references, BLEU())
    assert sum(map(abs, found.values())) == pytest.approx(1)
    tuned = corpus_bleu([own.best(found) for own in lists], references)
    grid = set()
    for polar in np.linspace(0.01, math.pi - 0.01, 60):
        for around in np.linspace(-math.pi, math.pi, 120):
            flat = math.sin(polar)
            w = (flat * math.cos(around), flat * math.sin(around) * 3, math.cos(polar) * 3)
            grid.add(tuple(own.best(dict(zip(WEIGHTS, w, strict=True))) for own in lists))
    best = max(corpus_bleu([*texts], references) for texts in grid)
    assert tuned >= best - 1e-9
    assert len(grid) > 50, "or there is little to choose"


# Lists of runs ----------------------------------------------------------------------------------


@pytest.mark.e2e
def test_the_command_scores_tunes_and_chooses(run, script, tmp_path):
    pairs = template_pairs(30, seed=5)
    files = {name: tmp_path / name for name in ("in", "ref", "w.json", "out", "nbest", "jsonl")}
    files["in"].write_text("".join(f"{s}\n" for s, _ in pairs) + "\n", "utf-8")
    files["ref"].write_text("".join(f"{t}\n" for _, t in pairs) + "\n", "utf-8")
    rules = ["decode.beam_size=4", "decode.n_best=4"]
    for form in ("nbest", "jsonl"):
        args = ("--input", files["in"], "--output", files[form], "--format", form)
        assert script("decode", run, *args, *rules).code == 0

    # Features are what forced scoring says, and both forms of list are one list.
    name = f"{run}@update-120"
    models = ["--forward", name, "--reverse", run, "--language-model", run, "--forward", run]
    weights = ["--weights", files["w.json"]]
    tuned = script("rerank", files["jsonl"], *models, *weights, "--tune", files["ref"])
    assert tuned.code == 0, tuned
    saved = json.loads(files["w.json"].read_text())
    assert [*saved["weights"]] == [
        *("score", "words", "forward", "forward2", "reverse", "language_model")
    ]
    assert saved["bleu"]["after"] >= saved["bleu"]["before"]
    found = script("rerank", files["jsonl"], *models, *weights, "--format", "jsonl")
    rows = [json.loads(line) for line in found.out.decode().splitlines()]
    best = seq2seq.load(run)
    older = seq2seq.load(name)
    for row, (source, _) in zip(rows[:4], pairs, strict=False):
        for h in row["hypotheses"]:
            text, features = h["text"], h["features"]
            for key, model, pair in (
                ("forward", older, (source, text)),
                ("forward2", best, (source, text)),
                ("reverse", best, (text, source)),
                ("language_model", best, (".", text)),
            ):
                [t] = model.force([pair])
                assert features[key] == pytest.approx(t.candidates[0].log_prob, abs=1e-4)
            assert features["words"] == len(text.split())
            total = sum(saved["weights"][key] * value for key, value in features.items())
            assert h["score"] == pytest.approx(total)
    assert rows[-1] == {"source": "", "text": "", "hypotheses": []}
    texts = [row["text"] for row in rows]
    assert corpus_bleu(texts, [*(t for _, t in pairs), ""]) == pytest.approx(saved["bleu"]["after"])
    args = ("--source", files["in"], "--output", files["out"])
    assert script("rerank", files["nbest"], *args, *models, *weights).code == 0
    assert files["out"].read_text("utf-8").split("\n")[:-1] == texts

    # What does not fit is one line.
    short = script("rerank", files["jsonl"], *models[:2], *weights)
    assert_fails(short, 2, "the features are score, words, forward. Name the models")
    wrong = script("rerank", files["nbest"], *weights)
    assert_fails(wrong, 3, f"{files['nbest']}:1: is not part of an n-best list")
    files["out"].write_text("30\t-1.0\ta\n32\t-1.0\ta\n", "utf-8")
    wrong = script("rerank", files["out"], "--source", files["in"], *weights)
    assert_fails(wrong, 3, f"{files['out']}:2: is not part of an n-best list")
    files["w.json"].write_text('{"weights": {"score": "x"}}')
    assert_fails(script("rerank", files["jsonl"], *weights), 4, "w.json: has unexpected content")
    files["ref"].write_text("a\n")
    few = script("rerank", files["jsonl"], *weights, "--tune", files["ref"])
    assert_fails(few, 3, "31 translations, 1 references")


def test_lists_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "lists"
    row = {"source": "a", "hypotheses": [{"text": "x y", "score": -1}, {"text": "", "score": -2}]}
    path.write_text(f"{json.dumps(row)}\n")
    [own] = read_nbest(path)
    assert own == NBest("a", ["x y"], {"score": [-1.0], "words": [2.0]})


@pytest.mark.e2e
def test_a_translation_of_a_blank_line_is_no_part_of_a_list(run, script, tmp_path):
    """As if the list were of another text; a blank translation of a blank line is none at all."""
    (tmp_path / "source").write_text("\n \n")
    (tmp_path / "list").write_text("1\t-1.0\t\n2\t-1.0\tce chat dort .\n", "utf-8")
    args = ("--source", tmp_path / "source", "--forward", run, "--weights", tmp_path / "w.json")
    wrong = script("rerank", tmp_path / "list", *args)
    assert_fails(wrong, 3, f"{tmp_path / 'list'}:2: is not part of an n-best list")
