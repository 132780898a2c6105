"""Cuts drawn by a seed: the library's own cuts where nothing is left to chance, and its chances."""

import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
from conftest import draws_of
from runs import ROOT, template_pairs
from sentencepiece import sentencepiece_model_pb2 as proto
from test_tokenizer import EVIL, ODD, corpus, every_kind, model, text_of, tokenizer

from seq2seq.config.schema import PieceModel
from seq2seq.data.sampling import Sampler

TEXTS = [french for _, french in template_pairs(300)]
STRANGE = [*EVIL, *ODD, "漢字 et 😀😀x", "x漢", "", " ", "▁▁a", "a ▁ b", "▁", "é" * 90]
CERTAIN = {PieceModel.bpe: 0.0, PieceModel.unigram: 500.0}
"""No merge is left out; the best cut has all the weight."""


@pytest.mark.e2e
@every_kind
def test_without_chance_it_is_the_cut_of_the_library(kind):
    tok = tokenizer(kind)
    texts = TEXTS + STRANGE
    assert Sampler(tok._processor, CERTAIN[kind]).sample(texts, draws_of(texts, 1)) == tok.encode(
        texts
    )


WORDS = ["professeur", "aujourd'hui", "漢voit"]


def shares(tok, word, rate):
    """How often our sampler gives each cut: a share that is really p is off by 0.05 in 10^-5."""
    count = 2000
    drawn = Counter(map(tuple, tok.sample([word] * count, rate, draws_of([word] * count, 3))))
    return {cut: found / count for cut, found in drawn.items()}


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("word", WORDS)
def test_a_skipped_merge_is_offered_again_at_the_next_step(rate, word):
    """Algorithm 1 of Provilkov et al. 2020, as exact probabilities."""
    processor = tokenizer(PieceModel.bpe)._processor
    model = proto.ModelProto.FromString(processor.serialized_model_proto())
    ranks = {p.piece: -p.score for p in model.pieces if p.type == p.NORMAL}

    @cache
    def cuts(parts):
        """The cuts that these parts end as; the i-th best merge is done if the better are not."""
        merges = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        found = Counter({parts: rate ** len(merges)})
        for better, (_, i) in enumerate(sorted(merges)):
            after = cuts((*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :]))
            found.update({c: rate**better * (1 - rate) * p for c, p in after.items()})
        return found

    expected = Counter()
    for parts, share in cuts(tuple("▁" + word)).items():
        expected[tuple(processor.piece_to_id(list(parts)))] += share
    ours = shares(tokenizer(PieceModel.bpe), word, rate)
    assert sum(expected.values()) == pytest.approx(1)
    for cut in ours.keys() | expected:
        assert ours.get(cut, 0) == pytest.approx(expected[cut], abs=0.05), cut


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("word", WORDS)
def test_unigram_cuts_are_as_frequent_as_those_of_the_library(rate, word):
    tok, count = tokenizer(PieceModel.unigram), 2000
    ours = shares(tok, word, rate)
    drawn = tok._processor.encode(
        [word] * count, enable_sampling=True, alpha=rate, nbest_size=-1, num_threads=1
    )
    theirs = Counter(map(tuple, drawn))
    assert len(ours) > 1 or len(theirs) < 3
    for cut in ours.keys() | theirs:
        assert ours.get(cut, 0) == pytest.approx(theirs[cut] / count, abs=0.08), cut


@every_kind
def test_T1_T2_cuts_are_decided_by_their_seed_and_are_still_the_text(kind):
    tok, texts = tokenizer(kind), [*corpus()[1][:40], *ODD[:3], ""]
    encoded = tok.encode(texts)
    drawn = [tok.sample(texts, 0.3, draws_of(texts, seed)) for seed in (7, 8, 2**32 - 1, 7)]
    assert drawn[0] == drawn[3]
    assert len({str(cuts) for cuts in [*drawn, encoded]}) == 4
    for cuts in drawn:
        assert [text_of(tok, ids) for ids in cuts] == texts
        assert cuts[-1] == []
    assert tok.encode(texts) == encoded


ELSEWHERE = """
import sys
sys.path.insert(0, {root!r})
from seq2seq.data.subword_vocabulary import SentencePieceTokenizer
tok = SentencePieceTokenizer(sys.stdin.buffer.read(), "test")
from seq2seq.model.draws import fold, stream
texts = {texts!r}
print(tok.sample(texts, 0.3, [stream(fold(7, number)) for number in range(len(texts))]))
"""


@every_kind
@pytest.mark.e2e
def test_T1_another_process_draws_the_same(kind):
    """SentencePiece itself does not: its generator is salted in every process."""
    code = ELSEWHERE.format(root=str(ROOT), texts=TEXTS[:40])
    done = subprocess.run(
        [sys.executable, "-c", code], input=model(kind), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == str(
        tokenizer(kind).sample(TEXTS[:40], 0.3, draws_of(TEXTS[:40], 7))
    )


def test_more_dropout_gives_more_pieces():
    tok = tokenizer(PieceModel.bpe)
    counts = [
        sum(map(len, tok.sample(TEXTS, rate, draws_of(TEXTS, 1)))) for rate in (0.0, 0.1, 0.5)
    ]
    assert counts[0] < counts[1] < counts[2]
    [ids] = Sampler(tok._processor, 1.0).sample(["le chat"], draws_of(["le chat"], 1))
    assert tok.pieces(ids) == list("▁le▁chat")


@every_kind
def test_a_text_is_cut_by_its_own_draws_whatever_stands_beside_it(kind):
    tok = tokenizer(kind)
    together = tok.sample(TEXTS, 0.3, draws_of(TEXTS, 1))
    for rows in (slice(0, 1), slice(7, 60), slice(3, None, 11)):
        assert tok.sample(TEXTS[rows], 0.3, draws_of(TEXTS, 1)[rows]) == together[rows]
