"""Forced decoding: probabilities of the model's own equations, attention of the search."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import FAMILY, random_pairs, tiny_model

import seq2seq
from seq2seq.data.tokenizer import EOS, PAD
from seq2seq.decoding import forced
from seq2seq.decoding.forced import force, force_ids
from seq2seq.decoding.ranking import Ranking
from seq2seq.decoding.translation import END
from seq2seq.run.errors import MemoryLimitError


def word_by_word(model, src, tgt) -> tuple[list[float], np.ndarray]:
    """The protocol of the search, one sentence, one word after the other."""
    with torch.inference_mode():
        ids = torch.tensor([src])
        state = model.begin(ids, torch.ones_like(ids, dtype=torch.bool))
        before, log_probs, alphas = torch.tensor([PAD]), [], []
        for word in tgt:
            found, state = model.step(before, state)
            log_probs.append(float(found.log_probs()[0, word]))
            alphas.append(found.alpha[0].numpy())
            before = torch.tensor([word])
    return log_probs, np.stack(alphas)


@pytest.mark.parametrize("name", FAMILY)
def test_it_is_what_the_search_would_say_word_by_word(name):
    model = tiny_model(3, attention=FAMILY[name], align_size=6)
    pairs = random_pairs(4)
    pairs.append((pairs[0][0], [3, 4]))  # one that came to no end
    ranking = Ranking(length_penalty=0.5)
    for pair, found in zip(pairs, force_ids(model, pairs, ranking), strict=True):
        log_probs, alpha = word_by_word(model, *pair)
        np.testing.assert_allclose(found.token_log_probs, log_probs, atol=1e-6)
        np.testing.assert_allclose(found.alpha, alpha, atol=1e-6)
        assert found.ids == tuple(pair[1])
        assert found.log_prob == pytest.approx(sum(log_probs), abs=1e-5)
        assert found.score == pytest.approx(sum(log_probs) / len(pair[1]) ** 0.5, abs=1e-5)
        assert found.finished == (pair[1][-1] == EOS)


# A trained run ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(run):
    return seq2seq.load(run, ["device=cpu", "decode.beam_size=4", "decode.n_best=4"])


@pytest.fixture(scope="module")
def sources(run) -> list[str]:
    return (run / "corpus/test.source").read_text("utf-8").splitlines()


@pytest.mark.e2e
def test_text_is_scored_in_order_and_empty_lines_are_left_out(model, sources):
    """As the vocabulary cuts it, the end included; the same whatever goes through at once."""
    sides = [(s, s.replace("the", "ce")) for s in sources]
    pairs = [sides[0], ("", "ce chat ."), *sides[1:], ("the cat .", " "), ("the 漢 .", "ce 漢 .")]
    seen = []
    for size in (1, 3, 64):
        cfg = replace(model.config.decode, batch_sentences=size)
        seen.append(list(force(model.model, model.tokenizers, iter(pairs), cfg)))
    for (source, target), *results in zip(pairs, *seen, strict=True):
        for t in results:
            assert t.source == source
            if not (source.strip() and target.strip()):
                assert t.candidates == ()
                continue
            [c] = t.candidates
            assert c.text == target
            for text, tokens, tokenizer in zip(
                (source, target), (t.source_tokens, c.tokens), model.tokenizers, strict=True
            ):
                assert tokens == (*(token.piece for token in tokenizer.tokens([text])[0]), END)
            [first] = results[0].candidates
            np.testing.assert_allclose(c.token_log_probs, first.token_log_probs, atol=1e-4)
            np.testing.assert_allclose(c.alignment, first.alignment, atol=1e-5)
            np.testing.assert_allclose(c.alignment.sum(axis=1), 1, atol=1e-5)
            assert c.alignment.shape == (len(c.tokens), len(t.source_tokens))
            assert c.finished
            assert c.perplexity == pytest.approx(math.exp(-np.mean(c.token_log_probs)), rel=1e-4)
            power = model.config.decode.length_penalty
            assert c.score == pytest.approx(c.log_prob / len(c.tokens) ** power)


@pytest.mark.e2e
def test_long_sides_are_cut_and_named(model, caplog):
    cfg = replace(model.config.decode, max_source_tokens=4)
    pairs = [("the cat", "ce"), ("the cat " * 9, "ce"), ("the", "ce chat " * 9)]
    _, long_source, long_target = force(model.model, model.tokenizers, pairs, cfg)
    assert len(long_source.source_tokens) == len(long_target.candidates[0].tokens) == 5
    assert long_source.source_tokens[-1] == long_target.candidates[0].tokens[-1] == END
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in said] == ["line 2", "line 3"]
    assert all(line.endswith("to 4 tokens") for line in said)


@pytest.mark.e2e
def test_too_little_memory_names_the_longest_pair(model, monkeypatch):
    def greedy(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr(forced, "force_ids", greedy)
    pairs = [("the cat", "ce"), ("the cat sees the dog .", "ce chat voit ce chien ."), ("a", "b")]
    with pytest.raises(MemoryLimitError, match="line 2: out of memory with 3 sentences of up to"):
        list(model.force(pairs))
