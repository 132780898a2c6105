"""Ensembles against mixed distributions of the oracles, by exhaustion; as models of runs."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import FAMILY, oracle_of, random_pairs, tiny_model, tiny_transformer
from runs import ROOT, assert_fails, config_of, copy_of
from test_search import RULES, random_sources, search
from test_translate import PLAIN, STRANGE, assert_same

import seq2seq
from seq2seq.config.compose import to_yaml
from seq2seq.decoding.forced import force_ids
from seq2seq.decoding.ranking import Ranking
from seq2seq.evaluation import runs as tested
from seq2seq.model.ensemble import Ensemble, Mixture
from seq2seq.run.directory import RunDir

TOLERANCE = 1e-5  # scores are float32
VOCAB = 5

MEMBERS = {
    "recurrent": lambda: [tiny_model(1, vocab=VOCAB), tiny_model(2, vocab=VOCAB, hidden_size=3)],
    "three, of both families": lambda: [
        tiny_transformer(3, vocab=VOCAB),
        tiny_model(4, vocab=VOCAB, attention=FAMILY["hard"]),
        tiny_transformer(5, vocab=VOCAB, head=1),
    ],
}


def mixed(models, weights, of_logs, source, target) -> tuple[np.ndarray, np.ndarray]:
    """Distributions (Ty, K) along a target and attention (Ty, Tx), one word after the other."""
    parts = [oracle_of(model).force(source, target) for model in models]
    rows = []
    for distributions in zip(*(part.distributions.real for part in parts), strict=True):
        if of_logs:
            row = np.prod([p**w for p, w in zip(distributions, weights, strict=True)], axis=0)
            rows.append(row / row.sum())
        else:
            rows.append(sum(w * p for p, w in zip(distributions, weights, strict=True)))
    alpha = sum(w * part.alignments.real for part, w in zip(parts, weights, strict=True))
    return np.array(rows), alpha


@pytest.mark.parametrize("of_logs", [False, True], ids=["probabilities", "log_probs"])
@pytest.mark.parametrize("name", MEMBERS)
def test_a_wide_beam_is_exhaustion_over_mixed_probabilities(name, of_logs):
    models = MEMBERS[name]()
    weights = np.array([3.0, 1.0, 2.0][: len(models)])
    weights /= weights.sum()
    ensemble = Ensemble(models, Mixture(weights.tolist(), of_logs)).eval()
    [source] = random_sources(1, [3], VOCAB)
    targets = [(*words, 1) for n in range(3) for words in itertools.product((2, 3, 4), repeat=n)]
    scores = {}
    for target in targets:
        rows, alpha = mixed(models, weights, of_logs, source, target)
        scores[target] = (np.log(rows[range(len(target)), target]), alpha)
    rules = replace(RULES, beam_size=200, min_ratio=0.0, max_ratio=1.0)
    [found] = search(ensemble.for_search(), [source], rules)
    assert [h.ids for h in found] == sorted(targets, key=lambda t: -scores[t][0].sum())
    forced = force_ids(ensemble, [(source, target) for target in targets], Ranking())
    for h in (*found, *forced):
        log_probs, alpha = scores[h.ids]
        np.testing.assert_allclose(h.token_log_probs, log_probs, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(h.alpha, alpha, rtol=0, atol=TOLERANCE)


def test_probabilities_that_underflow_are_mixed_in_full():
    log_probs = torch.tensor([[[0.0, -150.0, -200.0]], [[-120.0, 0.0, -210.0]]])
    found = Mixture([0.25, 0.75], of_logs=False).logits([*log_probs])
    wanted = np.log(np.einsum("m,mrk->rk", [0.25, 0.75], np.exp(log_probs.double().numpy())))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("of_logs", [False, True])
def test_a_model_with_itself_is_the_model(of_logs):
    model = tiny_model(6)
    ensemble = Ensemble([model, model], Mixture([0.25, 0.75], of_logs)).eval()
    sources = [source for source, _ in random_pairs(7)]
    every = (search(stepper, sources, RULES) for stepper in (model, ensemble.for_search()))
    for alone, twice in zip(*map(itertools.chain.from_iterable, every), strict=True):
        assert alone.ids == twice.ids
        assert twice.log_prob == pytest.approx(alone.log_prob, abs=TOLERANCE)
        np.testing.assert_allclose(twice.alpha, alone.alpha, atol=TOLERANCE)


# Runs -------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_runs_are_an_ensemble_whatever_the_batch(run):
    lines, names = [*PLAIN, *STRANGE], [run, f"{run}@last"]
    alone, together = ([*seq2seq.load(n).translate(lines)] for n in (run, names))
    assert [t.score for t in alone] != [t.score for t in together]
    for size in (1, 7):
        changed = [f"decode.batch_sentences={size}"]
        assert_same(seq2seq.load(names, changed).translate(lines), together)
    assert_same(seq2seq.load(names, ["decode.weights=[1e9,1e-9]"]).translate(lines), alone)


@pytest.mark.e2e
def test_commands_take_an_ensemble(run, script, tmp_path):
    name, change = f"{run}+{run}@last", "decode.ensemble=log_probs"
    model = seq2seq.load([run, f"{run}@last"], [change])
    [own] = model.translate(PLAIN[:1])
    found = script("decode", name, change, "--format", "jsonl", stdin=PLAIN[0].encode())
    assert json.loads(found.out) == own.as_dict() | {"flags": model.flags(own)}
    files = [tmp_path / "source", tmp_path / "target"]
    for path, text in zip(files, (PLAIN[0], own.text), strict=True):
        path.write_text(f"{text}\n", "utf-8")
    scored = script("score", name, change, "--source", files[0], "--target", files[1])
    assert f"{own.candidates[0].log_prob:.4f} nats" in scored.out.decode()
    result = script("evaluate", run, name, "--json", tmp_path / "scores.json")
    assert result.code == 0, result
    assert [row.split()[0] for row in result.out.decode().splitlines() if name in row]


def test_beside_an_ensemble_runs_are_named_by_their_paths():
    """Alone, by the setting in which they differ."""
    both = [str(ROOT / "tests/formats/0.1.0" / name) for name in ("additive", "words")]
    runs = [tested.TestedRun(name, (), None) for name in (*both, "+".join(both))]
    assert list(tested.named(runs)) == [run.name for run in runs]
    assert not {*tested.named(runs[:2])} & {*both}


@pytest.mark.e2e
def test_what_is_no_ensemble_is_named(run, script, tmp_path):
    other = ROOT / "tests/formats/0.1.0/words"
    vocabularies = f"{other}/tokenizers: these vocabularies are not those of {run}/tokenizers"
    assert_fails(script("decode", f"{run}+{other}", stdin=b"a\n"), 4, vocabularies)
    carrying, cfg = RunDir(copy_of(run, tmp_path / "carrying")), config_of(run)
    cfg.data.placeholders = ["url"]
    carrying.write("config.yaml", to_yaml(cfg))
    carrying.record("config.yaml")
    placeholders = f"{carrying.root}: its data.placeholders are not those of {run}"
    assert_fails(script("decode", f"{run}+{carrying.root}", stdin=b"a\n"), 4, placeholders)
    for weights, code, message in (
        ("[1,1]", 1, "decode.weights=[1.0, 1.0] are 2 for 1 runs. Give one for each."),
        ("[1,0]", 1, "decode.weights=[1.0, 0.0] must all be above 0"),
    ):
        assert_fails(
            script("decode", run, f"decode.weights={weights}", stdin=b"a\n"), code, message
        )
    assert_fails(script("report", f"{run}+{run}"), 2, f"{run}+{run}: is an ensemble")
