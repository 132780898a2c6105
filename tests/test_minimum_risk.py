"""Minimum risk on a toy model against the exact expectation, and as an option of a training."""

import copy
import math
from dataclasses import replace
from functools import cache
from itertools import product
from typing import ClassVar

import pytest
import torch
from conftest import PAD, loss_of, tiny_model, tiny_transformer
from runs import composed, goes_on_to_the_bit, template_pairs, write_corpus
from sacrebleu.metrics import BLEU, CHRF

from seq2seq.config.registry import build
from seq2seq.config.schema import (
    Candidates,
    CorpusConfig,
    MinimumRiskConfig,
    Normalize,
    Precision,
    Utility,
)
from seq2seq.data.batching import collate
from seq2seq.data.tokenizer import EOS, Token
from seq2seq.data.words import Span
from seq2seq.model.draws import name_sites
from seq2seq.run.errors import ConfigError
from seq2seq.training.gradient import accumulated_gradient, split
from seq2seq.training.objective import draw_keys

PAIRS = (([3, 1, EOS], [3, 1, EOS]), ([EOS], [1, EOS]), ([3, 3, 1, EOS], [3, 3, EOS]))
STEPS, WORDS = 3, (1, EOS, 3)  # of a translation; all ids but that of padding
METRICS = {Utility.bleu: BLEU(effective_order=True), Utility.chrf: CHRF()}


class Letters:
    """A vocabulary that writes each id as its number, repeated."""

    def pieces(self, ids):
        return [str(i) * 3 for i in ids]

    def write(self, pieces):
        return " ".join(pieces), []

    @staticmethod
    def text(ids):
        return " ".join(str(i) * 3 for i in ids)


class Characters:
    """A vocabulary of four characters and two tags, written without spaces."""

    tags: ClassVar = {"<2fr>": 7, "<2zh>": 8}

    def tokens(self, texts):
        return [[Token(self.tags[text], text, Span(0, len(text)))] for text in texts]

    def pieces(self, ids):
        return [self.text([i]) for i in ids]

    def write(self, pieces):
        return "".join(pieces), []

    @staticmethod
    def text(ids):
        return "".join("??。猫狗鸟鱼fz"[i] for i in ids)


@cache
def base():
    return composed("debug", ["init.run=ORIGIN"])


def config(**changes):
    cfg = copy.deepcopy(base())
    cfg.trainer.normalize, cfg.trainer.label_smoothing = Normalize.none, 0.0
    cfg.decode.min_ratio, cfg.decode.max_ratio, cfg.decode.extra_steps = 0.0, 1e-3, STEPS
    cfg.decode.forbid_unknown = False
    return replace(cfg, objective=MinimumRiskConfig(**changes))


def objective_of(cfg):
    return build(cfg.objective, cfg, (Letters(), Letters()))


def toy(make, **changes):
    model = make(5, vocab=4, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.4)  # so that no translation is rare
    name_sites(model)
    return model, collate(PAIRS, PAD)


def gradient(model, batch, cfg, parts=1):
    objective = objective_of(cfg)
    keys = draw_keys(3, 5, batch.num_sentences, objective.passes)
    found = accumulated_gradient(model, objective, batch, keys, parts, cfg)
    return found.total.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


# The expectation, with each sequence scored alone and word by word -------------------------------


def every_translation():
    """All sequences of at most `STEPS` words; those of `STEPS` may lack the end."""
    for size in range(1, STEPS + 1):
        for ids in product(WORDS, repeat=size):
            if EOS not in ids[:-1] and (ids[-1] == EOS or size == STEPS):
                yield ids


def log_prob(model, src, ids):
    state, y, total = model.begin(src, src != PAD), torch.tensor([PAD]), 0.0
    for word in ids:
        prediction, state = model.step(y, state)
        total = total + prediction.log_probs()[0, word]
        y = torch.tensor([word])
    return total


def exact(model, batch, own, candidates, metrics=None, write=Letters.text):
    """The likelihood, and the mixture with the risk, of sums over candidates in plain Python.

    Each sentence may have a metric of its own.
    """
    nats = mixed = 0.0
    for i, metric in enumerate(metrics or [METRICS[own.score]] * batch.num_sentences):
        src = batch.src[i : i + 1, : batch.src_mask[i].sum()]
        reference = batch.tgt[i][batch.tgt_mask[i]].tolist()
        text = write(reference[:-1])
        above = below = 0.0
        for ids in candidates[i]:
            words = [word for word in ids if word != EOS]
            score = metric.sentence_score(write(words), [text]).score
            q = torch.exp(own.sharpness * log_prob(model, src, ids))
            above, below = above + q * (1 - score / 100), below + q
        loss = -log_prob(model, src, reference)
        nats, mixed = nats + loss, mixed + own.weight * loss + (1 - own.weight) * above / below
    return nats, mixed


def assert_exact(model, batch, cfg, candidates):
    total, found = gradient(model, batch, cfg)
    keys = draw_keys(3, 5, batch.num_sentences, 1)
    loss = loss_of(objective_of(cfg), model, batch, keys)
    model.zero_grad()
    nats, mixed = exact(model, batch, cfg.objective, candidates)
    mixed.backward()
    assert total == pytest.approx(nats.item(), rel=1e-6)  # added up in float32
    assert loss.smoothed.item() == pytest.approx(mixed.item(), rel=1e-12)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-13)
    assert max(grad.abs().max() for grad in found.values()) > 1e-3


@pytest.mark.e2e
@pytest.mark.parametrize("make", [tiny_model, tiny_transformer])
@pytest.mark.parametrize(
    "own",
    [
        {"weight": 0.0},
        {"weight": 0.0, "sharpness": 0.3},
        {"weight": 0.4, "score": Utility.chrf, "sharpness": 2.0, "reference": True},
    ],
)
def test_over_all_translations_it_is_the_exact_expectation(make, own):
    """A thousand samples are all of them, many times over; each counts once."""
    model, batch = toy(make)
    every = [*every_translation()]
    assert len(every) == 1 + 2 + 4 * 3
    cfg = config(candidates=Candidates.samples, count=1000, **own)
    assert_exact(model, batch, cfg, [every] * len(PAIRS))


@pytest.mark.parametrize("reference", [True, False])
def test_over_the_beam_and_the_reference(reference):
    model, batch = toy(tiny_model)
    cfg = config(count=3, reference=reference)
    keys = draw_keys(3, 5, len(PAIRS), 1)[:, 0]
    found = objective_of(cfg).candidates(model, batch, keys)
    assert {len(each) for each in found} <= {2, 3}, "the finished ones"
    references = [
        tuple(row[real].tolist()) for row, real in zip(batch.tgt, batch.tgt_mask, strict=True)
    ]
    both = [{*each, *[ref] * reference} for each, ref in zip(found, references, strict=True)]
    assert (sum(map(len, both)) > sum(map(len, found))) == reference
    assert_exact(model, batch, cfg, both)


# Several target languages ------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", Candidates)
def test_candidates_have_no_tag_and_the_scores_of_their_language(candidates):
    """Without spaces, 13a takes a sentence for one word and zh for one per character."""
    sentence = [3, 4, 5, 6, EOS]
    pairs = [([tag, 3, EOS], sentence) for tag in (8, 7, 8, 7)]
    model, batch = tiny_model(5, vocab=9), collate(pairs, PAD)
    name_sites(model)
    cfg = config(candidates=candidates, count=12, weight=0.0)
    cfg.decode.extra_steps = 6
    corpora = [CorpusConfig(target_language=language) for language in ("fr", "zh")]
    cfg.data = replace(cfg.data, corpora=corpora)
    objective, keys = build(cfg.objective, cfg, (Characters(), Characters())), torch.arange(4)
    found = objective.candidates(model, batch, keys)
    assert not {7, 8} & {word for each in found for ids in each for word in ids}
    metrics = [BLEU(tokenize="zh", effective_order=True), BLEU(effective_order=True)] * 2
    distinct = [[*dict.fromkeys(each)] for each in found]
    _, risk = exact(model, batch, cfg.objective, distinct, metrics, Characters.text)
    loss = loss_of(objective, model, batch, keys[:, None])
    assert loss.smoothed.item() == pytest.approx(risk.item(), rel=1e-9)
    _, other = exact(model, batch, cfg.objective, distinct, metrics[::-1], Characters.text)
    assert abs(other.item() - risk.item()) > 1e-3


# As an option of a training ----------------------------------------------------------------------


@pytest.mark.parametrize("candidates", Candidates)
def test_parts_of_a_batch_add_up_and_candidates_have_no_dropout(candidates):
    model, batch = toy(tiny_model, embedding_dropout=0.4)
    cfg = config(candidates=candidates, count=4)
    objective, keys = objective_of(cfg), draw_keys(3, 5, len(PAIRS), 1)[:, 0]
    alone = objective.candidates(model.eval(), batch, keys)
    assert not model.training
    whole = gradient(model.train(), batch, cfg)
    assert model.training
    assert objective.candidates(model, batch, keys) == alone
    each = zip(split(batch, 3), keys.split(1), strict=True)
    assert [objective.candidates(model, part, own)[0] for part, own in each] == alone
    parts = gradient(model, batch, cfg, parts=3)
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    for name, grad in parts[1].items():
        torch.testing.assert_close(grad, whole[1][name], rtol=1e-9, atol=1e-12)
    other = objective.candidates(model, batch, keys + 1)
    assert (other != alone) == (candidates is Candidates.samples)


def test_bfloat16_has_the_gradient_of_float32_but_for_rounding():
    model, batch = toy(tiny_model)
    cfg = config(count=3, weight=0.0)
    exactly = gradient(model.float(), batch, cfg)[1]
    cfg.trainer.precision = Precision.bf16
    for name, grad in gradient(model, batch, cfg)[1].items():
        assert math.isclose(grad.norm(), exactly[name].norm(), rel_tol=0.2, abs_tol=1e-3), name


def test_it_needs_a_trained_model_without_a_loss_of_its_own():
    with pytest.raises(ConfigError, match="minimum_risk is for a trained model"):
        objective_of(replace(config(), init=replace(base().init, run=None)))
    with pytest.raises(ConfigError, match="objective=minimum_risk cannot train attention=hard"):
        composed("debug", ["attention=hard", "objective=minimum_risk"])


@pytest.mark.e2e
def test_a_run_goes_on_to_the_bit(run, tmp_path):
    names = write_corpus(tmp_path / "corpus", template_pairs(120))
    changes = [*names, "objective=minimum_risk", "objective.candidates=samples", f"init.run={run}"]
    changes += ["objective.count=4", "stages=[tokenize,train]", "tokenizer.vocab_size=120"]
    changes += ["trainer.validate_every=2"]
    goes_on_to_the_bit(tmp_path, changes)
