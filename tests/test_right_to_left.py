"""`data.target_order=right_to_left`: tokens in reverse order for the model, text as ever."""

import math

import numpy as np
import pytest
import torch
from runs import assert_fails, copy_of, go, tokenized_run

import seq2seq
from seq2seq.cli.stages import trainer_of
from seq2seq.config.compose import load_run_config
from seq2seq.data.prepare import load_pairs, load_text, load_tokenizers
from seq2seq.data.tokenizer import EOS, PAD
from seq2seq.evaluation import figures
from seq2seq.run.directory import RunDir
from seq2seq.run.signals import StopRequest

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same data in both directions; right to left, some training as well."""
    folder = tmp_path_factory.mktemp("left")
    both = [
        tokenized_run(
            folder / name,
            f"data.target_order={name}",
            "trainer.validate_every=80",
            pairs=60,
            held_out=5,
        )
        for name in ("left_to_right", "right_to_left")
    ]
    go(both[1], "trainer.max_updates=80", "stages=[train,decode]")
    return both


@pytest.fixture(scope="module")
def model(runs):
    return seq2seq.load(runs[1], ["decode.beam_size=3", "decode.n_best=3", "decode.max_ratio=2"])


def test_training_reads_the_ids_of_a_target_from_its_last(runs):
    stores = []
    for root in runs:
        run, cfg = RunDir(root), load_run_config(root / "config.yaml")
        stores.append(load_pairs(run, "train", load_tokenizers(run, cfg)))
    plain, left = stores
    for row in range(len(plain)):
        assert left.src[row].tolist() == plain.src[row].tolist()
        assert left.tgt[row].tolist() == [*plain.tgt[row][-2::-1], EOS]
    assert any(left.tgt[row].tolist() != plain.tgt[row].tolist() for row in range(len(plain)))


def test_heatmaps_show_the_words_of_the_text(runs, monkeypatch):
    run, cfg = RunDir(runs[1]), load_run_config(runs[1] / "config.yaml")
    cfg.evaluate.heatmaps = [1, 2]
    drawn = []
    monkeypatch.setattr(figures, "heatmap_png", lambda _cfg, tokens, **_: drawn.append(tokens))
    for _, draw in figures.draw_heatmaps(cfg, run):
        draw()
    texts = (runs[1] / "decode/test.txt").read_text("utf-8").splitlines()
    assert [tokens.target for tokens in drawn] == texts[:2]
    for tokens in drawn:
        assert [*tokens.target_spans] == sorted(tokens.target_spans)


def test_cuts_drawn_for_an_update_are_reversed_too(runs):
    run, cfg = RunDir(runs[1]), load_run_config(runs[1] / "config.yaml")
    assert cfg.tokenizer.sampling > 0
    batch = trainer_of(cfg, run, StopRequest())._batch(range(8), 1)
    inner = load_tokenizers(RunDir(runs[0]), load_run_config(runs[0] / "config.yaml"))[1]
    for row in range(8):
        *ids, end = batch.tgt[row][batch.tgt_mask[row]].tolist()
        assert end == EOS
        assert inner.write(inner.pieces(ids[::-1]))[0] == load_text(run, "train", "target")[row]


def step_by_step(model, source: str, ids: list[int]) -> tuple[list[float], np.ndarray]:
    """Log-probabilities and attention along ids, one word after the other."""
    with torch.inference_mode():
        stepper = model.model.for_search()
        src = torch.tensor([[*model.tokenizers[0].encode([source])[0], EOS]])
        state, before, log_probs, alphas = stepper.begin(src, src > 0), PAD, [], []
        for word in ids:
            prediction, state = stepper.step(torch.tensor([before]), state)
            log_probs.append(float(prediction.log_probs()[0, word]))
            alphas.append(prediction.alpha[0].numpy())
            before = word
    return log_probs, np.array(alphas)


def test_scores_are_those_of_the_reversed_tokens_and_stand_in_reading_order(runs, model):
    inner = load_tokenizers(RunDir(runs[0]), load_run_config(runs[0] / "config.yaml"))[1]
    source, target = "the cat sees the dog .", "ce chien voit un chat rouge ."
    ids = inner.encode([target])[0]
    log_probs, alpha = step_by_step(model, source, [*ids[::-1], EOS])
    [t] = model.force([(source, target)])
    [c] = t.candidates
    assert c.log_prob == pytest.approx(math.fsum(log_probs), abs=1e-4)
    assert c.tokens == (*inner.pieces(ids), "</s>")
    order = [*range(len(ids))[::-1], len(ids)]
    np.testing.assert_allclose(c.token_log_probs, np.array(log_probs)[order], atol=1e-5)
    np.testing.assert_allclose(c.alignment, alpha[order], atol=1e-5)
    assert c.spans == tuple(token.span for token in inner.tokens([target])[0])
    assert c.text == target


def test_what_is_searched_is_what_is_scored(model):
    """Text, tokens, attention and words of hypotheses are those of their text, forced."""
    lines = ["the cat sees the dog .", "the boy", "the wolf follows the neighbour again ."]
    found = model.translate(lines)
    pairs = [(t.source, c) for t in found for c in t.candidates if c.finished and c.text]
    forced = model.force([(source, c.text) for source, c in pairs])
    same = 0
    for (_, c), t in zip(pairs, forced, strict=True):
        [own] = t.candidates
        if own.tokens == c.tokens:  # or the search has cut the text otherwise
            same += 1
            assert own.log_prob == pytest.approx(c.log_prob, abs=1e-4)
            np.testing.assert_allclose(own.token_log_probs, c.token_log_probs, atol=1e-4)
            np.testing.assert_allclose(own.alignment, c.alignment, atol=1e-5)
            words = t.words().candidates[0]
            assert [*words.tokens[:-1]] == c.text.replace("'", "' ").split()
    assert same > 1


def test_directions_do_not_mix(runs, script, tmp_path):
    left = copy_of(runs[1], tmp_path / "left")
    plain = copy_of(runs[0], tmp_path / "plain")
    failed = script("decode", f"{left}+{plain}", stdin=b"a\n")
    assert_fails(failed, 4, f"{plain}: writes left_to_right, {left} does not. Use it to rescore")
