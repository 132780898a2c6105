"""Rules of the search against exhaustion, regular expressions and loops written from the papers."""

import itertools
import re
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from conftest import random_pairs, tiny_model, tiny_transformer
from test_search import RULES, check_forced, forced, random_sources, search
from test_tokenizer import corpus, tokenizer

from seq2seq.config.schema import DecodeConfig, LengthNorm, PieceModel
from seq2seq.data.batching import pad_ids
from seq2seq.data.tokenizer import EOS, PAD, SPACE, UNK, Token, surface
from seq2seq.data.word_vocabulary import WordTokenizer
from seq2seq.data.words import Span
from seq2seq.decoding.constrained import ConstrainedBeams, Constraints
from seq2seq.decoding.constraints import ConstraintBuilder
from seq2seq.decoding.forced import force_ids
from seq2seq.decoding.request import Request
from seq2seq.decoding.sampling import SamplingRules, sample
from seq2seq.decoding.search import beam_search
from seq2seq.decoding.translate import translate
from seq2seq.model.ensemble import Ensemble, Mixture
from seq2seq.run.errors import DataError

EVERY = replace(RULES, eos=EOS, forbidden=(PAD, UNK), min_ratio=0.0)
SPELLED = {"subwords": ["▁a", "▁ab", "b", "▁b", "a"], "Chinese": ["▁", "猫", "狗", "▁猫", "a"]}
TOLERANCE = 1e-5  # scores are float32


class Toy:
    """A vocabulary of given pieces; text is cut from the left, the longest piece first."""

    def __init__(self, pieces):
        self._pieces = ["<pad>", "<unk>", "</s>", *pieces]

    def __len__(self):
        return len(self._pieces)

    def pieces(self, ids):
        return [self._pieces[i] for i in ids]

    def tokens(self, texts):
        return [[*self._cut(text)] for text in texts]

    def _cut(self, text):
        left = text and SPACE + text.replace(" ", SPACE)
        while left:
            longest = max((p for p in self._pieces if left.startswith(p)), key=len, default=left[0])
            at = len(text) + 1 - len(left)
            known = self._pieces.index(longest) if longest in self._pieces else UNK
            yield Token(known, longest, Span(max(at - 1, 0), max(at - 1 + len(longest), 0)))
            left = left[len(longest) :]

    def write(self, pieces):
        return surface(pieces)


def stands(phrase: str, text: str) -> bool:
    """Whether a phrase stands in a text as words, by `re`; Chinese anywhere."""
    left, right = (r"(?<!\w)" * phrase[0].isascii(), r"(?!\w)" * phrase[-1].isascii())
    joined = re.sub(r"([^\x00-\x7f])", r" \1 ", text) if phrase.isascii() else text
    return re.search(left + re.escape(phrase) + right, joined) is not None


def keeps(text: str, request: Request) -> bool:
    return (
        text.startswith(request.prefix)
        and all(any(stands(p, text) for p in each) for each in request.required)
        and not any(stands(phrase, text) for phrase in request.forbidden)
    )


def constrained_search(model, source, rules, constraints: Constraints, groups=1, diversity=0.0):
    src, mask = pad_ids([source], PAD)
    with torch.no_grad():
        [found] = beam_search(
            model, src, mask, rules, ConstrainedBeams(rules, [constraints], groups, diversity)
        )
    return found


def exhaustion(model, source, num_pieces, longest):
    """All translations that end, at most so long, with their log-probabilities and attention."""
    targets = [
        (*words, EOS)
        for length in range(longest)
        for words in itertools.product(range(3, num_pieces), repeat=length)
    ]
    return dict(zip(targets, forced(model, source, targets), strict=True))


# Words that must and must not appear ------------------------------------------------------------

ASKED = {
    "subwords": [
        {"required": [["ab"]]},
        {"required": [["b", "aab"]], "forbidden": ["a"]},
        {"required": [["a"], ["b"]], "forbidden": ["a b"]},
        {"required": [["ab", "ba"]], "forbidden": ["a", "b"]},
        {"forbidden": ["ab", "b"]},
        {"required": [["a b"]]},
        {"required": [["a b"], ["b a"]]},  # together as `a b a`
    ],
    "Chinese": [
        {"required": [["猫"]], "forbidden": ["狗"]},
        {"required": [["猫狗", "a"]]},
        {"forbidden": ["猫狗", "a"]},
    ],
}


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("kind", "asked"), [(k, asked) for k, each in ASKED.items() for asked in each], ids=str
)
def test_a_wide_beam_is_exhaustion_over_what_keeps_the_constraints(kind, asked):
    """Whatever pieces spell the words. Longer translations are not compared."""
    target, longest = Toy(SPELLED[kind]), 4
    request = Request("", **asked)
    constraints = ConstraintBuilder(target, DecodeConfig()).build(request, 1).constraints
    rules = replace(EVERY, beam_size=700, max_ratio=2.0)
    for seed, make in enumerate((tiny_model, tiny_transformer)):
        model = make(seed, vocab=len(target))
        [source] = random_sources(seed, [4], len(target))
        every = exhaustion(model, source, len(target), longest)
        scores = {
            ids: log_p.sum()
            for ids, (log_p, _) in every.items()
            if keeps(target.write(target.pieces(ids[:-1]))[0], request)
        }
        assert 0 < len(scores) < len(every)
        found = [
            h
            for h in constrained_search(model, source, rules, constraints)
            if len(h.ids) <= longest
        ]
        assert [h.ids for h in found] == sorted(scores, key=scores.get, reverse=True)
        assert [h.log_prob for h in found] == pytest.approx(
            [scores[h.ids] for h in found], abs=TOLERANCE
        )


@cache
def vocabulary_words() -> list[str]:
    return sorted({word for line in corpus()[1] for word in line.split()} - {"?"})


VOCABULARIES = {
    "bpe": lambda: tokenizer(PieceModel.bpe),
    "unigram": lambda: tokenizer(PieceModel.unigram),
    "words": lambda: WordTokenizer(["‿", *vocabulary_words(), "'", "."], "fr"),
}


def random_request(rng: np.random.Generator, source: str) -> Request:
    """Up to three required words with alternatives, up to three forbidden ones, often a prefix."""
    words = rng.permutation([word for word in vocabulary_words() if word.isalpha()]).tolist()
    required = [words[i : i + 1 + rng.integers(2)] for i in range(0, 2 * rng.integers(4), 2)]
    if rng.random() < 0.3:
        required.append([" ".join(words[8:10])])
    forbidden = words[12 : 12 + rng.integers(4)]
    open_end = bool(rng.random() < 0.5)
    prefix = " ".join(words[20 : 20 + rng.integers(4)])
    prefix = prefix[: -1 if open_end else None]
    return Request(source, prefix, open_end, required, forbidden)


@pytest.mark.e2e
@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("beam", [1, 3, 6])
def test_prefixes_and_words_are_kept_to_whatever_the_batch(name, beam):
    """Untrained models, for which nothing is likely; lines with requests beside lines without."""
    target, rng = VOCABULARIES[name](), np.random.default_rng(beam)
    model = (tiny_transformer if beam == 3 else tiny_model)(beam, vocab=len(target))
    lines = [str(line) for line in rng.choice(corpus()[1], 10)]
    requests = [random_request(rng, line) for line in lines]
    cfg = DecodeConfig(beam_size=beam, max_ratio=1.0, n_best=min(beam, 2))

    def decode(lines, **changes):
        return [*translate(model, (target, target), lines, replace(cfg, **changes))]

    mixed = decode([item for pair in zip(lines, requests, strict=True) for item in pair])
    for request, line, translation in zip(requests, lines, mixed[1::2], strict=True):
        assert translation.source == line
        for candidate in translation.candidates:
            assert keeps(candidate.text, request), (request, candidate.text)
            rest = candidate.text[len(request.prefix) :]
            goes_on = bool(re.match(r"[a-zà-ÿ]", rest)) and bool(request.prefix)
            assert not goes_on or request.complete_last_word, "a word began after the prefix"
            for span in candidate.spans:
                assert 0 <= span.start <= span.end <= len(candidate.text)
    # Lines without are what they are alone, to the bit; the others whatever their mates.
    assert [t.as_dict() for t in mixed[::2]] == [t.as_dict() for t in decode(lines)]
    for size in (1, 3):
        again = decode(requests, batch_sentences=size)
        for one, other in zip(again, mixed[1::2], strict=True):
            assert [c.text for c in one.candidates] == [c.text for c in other.candidates]
            assert one.score == pytest.approx(other.score, abs=TOLERANCE)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_prefix_is_written_as_it_was_given(name):
    """Letters and words that the vocabulary does not know, marks in two spellings, spaces."""
    target = VOCABULARIES[name]()
    model = tiny_model(1, vocab=len(target))
    for prefix in ("Xyz \U0001f43a est", "e\u0301le\u0300ve", "le  chat\t", "«\u00a0où", "l'ho"):
        for complete in (False, True):
            request = Request("le chat", prefix, complete)
            [t] = translate(model, (target, target), [request], DecodeConfig(replace_unknown=True))
            expected = surface([prefix])[0]
            assert t.text.startswith(expected), (prefix, t.text)
            best = t.candidates[0]
            assert len(best.spans) + best.finished == len(best.tokens)


@pytest.mark.e2e
def test_a_word_that_may_be_completed_is_cut_as_the_model_likes():
    """Of all translations that begin so, by exhaustion; a completed one may be one piece."""
    target = Toy(["▁h", "▁ho", "o", "u", "▁house", "▁x"])
    model = tiny_model(3, vocab=len(target))
    [source] = random_sources(1, [4], len(target))
    rules = replace(EVERY, beam_size=2000, max_ratio=1.5)
    every = exhaustion(model, source, len(target), 6)
    texts = {ids: target.write(target.pieces(ids[:-1]))[0] for ids in every}
    for complete, pattern in ((True, "x hou.*"), (False, "x hou( .*)?")):
        request = Request("", "x hou", complete)
        constraints = ConstraintBuilder(target, DecodeConfig()).build(request, 1).constraints
        scores = {
            ids: log_p.sum()
            for ids, (log_p, _) in every.items()
            if re.fullmatch(pattern, texts[ids])
            and ids[:1] == (8,)
            and (complete or ids[1:3] == (4, 6))
        }
        found = [h.ids for h in constrained_search(model, source, rules, constraints)]
        assert found == sorted(scores, key=scores.get, reverse=True)
        assert any(texts[ids].startswith("x house") for ids in found) == complete


def test_what_is_required_takes_the_steps_that_it_needs():
    """A bound below that is raised; no unfinished translation lacks a word or has a wrong one."""
    target = Toy(SPELLED["subwords"])
    model = tiny_model(2, vocab=len(target))
    request = Request("", "ab", required=[["aab"], ["bb"], ["a b a"]], forbidden=["ab b"])
    constraints = ConstraintBuilder(target, DecodeConfig()).build(request, 1).constraints
    rules = replace(EVERY, beam_size=3, max_ratio=0.1)
    for h in constrained_search(model, [3, 4, EOS], rules, constraints):
        ids = h.ids[:-1] if h.finished else h.ids
        assert keeps(target.write(target.pieces(ids))[0], request)


def test_members_of_an_ensemble_keep_to_it_together():
    target = Toy(SPELLED["subwords"])
    both = [tiny_model(1, vocab=len(target)), tiny_transformer(2, vocab=len(target))]
    model = Ensemble(both, Mixture([0.5, 0.5], False)).eval()
    request = Request("a b", "b", required=[["ab"]], forbidden=["a"])
    cfg = DecodeConfig(beam_size=4, n_best=4)
    [t] = translate(model, (target, target), [request], cfg)
    assert t.candidates
    assert all(keeps(c.text, request) for c in t.candidates)
    for c in t.candidates:
        ids = [target.pieces(range(len(target))).index(piece) for piece in c.tokens]
        source = [token.id for token in target.tokens(["a b"])[0]]
        [again] = force_ids(model, [([*source, EOS], ids)], EVERY)
        assert c.log_prob == pytest.approx(again.log_prob, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("asked", "changes", "message"),
    [
        ({"required": [["ab"], ["c", "ac"]]}, {}, "the target vocabulary cannot spell 'c' or 'ac'"),
        ({"required": [["ab"]], "forbidden": ["ab"]}, {}, "no text has all required words"),
        ({"required": [["a b"]], "forbidden": ["b"]}, {}, "no text has all required words"),
        ({"prefix": "b a", "forbidden": ["a"]}, {}, "the prefix has a forbidden word"),
        ({"required": [[""]]}, {}, "an empty word is required or forbidden"),
        ({"required": [["a"]] * 31}, {}, "more than 30 words are required"),
        ({"prefix": "a"}, {"sample": True}, "sampling supports no prefix and no word constraints"),
        ({"required": [["a"]]}, {"beam_groups": 2, "diversity": 1.0}, "required words and decode."),
        ({"prefix": "a b a"}, {"max_source_tokens": 2}, "a prefix of 3 tokens is above decode.max"),
    ],
)
def test_what_cannot_be_done_is_named_with_its_line(asked, changes, message):
    target, cfg = Toy(SPELLED["subwords"]), DecodeConfig(**changes)
    model = tiny_model(1, vocab=len(target))
    for where, request in (
        ("line 2", Request("a", **asked)),
        ("in.tsv:7", Request("a", **asked, where="in.tsv:7")),
    ):
        with pytest.raises(DataError, match=re.escape(f"{where}: {message}")):
            list(translate(model, (target, target), ["a", request], cfg))


def test_a_way_that_ends_nowhere_is_named():
    """The only word that completes the prefix is forbidden, which shows on the way."""
    target = WordTokenizer(["‿", "house", "x"], "en")
    model, request = tiny_model(1, vocab=len(target)), Request("x", "x hou", True, (), ["house"])
    with pytest.raises(DataError, match="line 1: no translation was found that does all"):
        list(translate(model, (target, target), [request], DecodeConfig()))


def test_an_unlikely_forbidden_word_is_no_error():
    """One that cannot be written anyway, or that goes on after the prefix."""
    builder = ConstraintBuilder(Toy(SPELLED["subwords"]), DecodeConfig())
    assert builder.build(Request("a", forbidden=["xyz"]), 1) is not None
    assert builder.build(Request("a", "b a", True, forbidden=["a"]), 1) is not None
    assert builder.build(Request("a"), 1) is None


# Repeats, scores, groups ------------------------------------------------------------------------


def repeats(ids, size: int) -> bool:
    counts = Counter(ids[i : i + size] for i in range(len(ids) - size + 1))
    return any(count > 1 for count in counts.values())


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_sequence_of_pieces_stands_twice(size):
    target, longest = Toy(["▁a", "▁b"]), 7
    cfg = DecodeConfig(no_repeat_ngram=size)
    constraints = ConstraintBuilder(target, cfg).build(Request(""), 1).constraints
    model = tiny_model(size, vocab=len(target))
    [source] = random_sources(1, [longest], len(target))
    rules = replace(EVERY, beam_size=700, max_ratio=1.0)
    every = exhaustion(model, source, len(target), longest)
    scores = {i: log_p.sum() for i, (log_p, _) in every.items() if not repeats(i, size)}
    assert len(scores) < len(every)
    found = constrained_search(model, source, rules, constraints)
    assert [h.ids for h in found] == sorted(scores, key=scores.get, reverse=True)
    # What is asked for comes first.
    request = Request("", "b b b b", required=[["a a a a"]])
    constraints = ConstraintBuilder(target, cfg).build(request, 1).constraints
    for h in constrained_search(model, source, replace(rules, beam_size=2), constraints):
        assert keeps(target.write(target.pieces(h.ids[:-1] if h.finished else h.ids))[0], request)


@pytest.mark.parametrize(
    ("alpha", "beta", "gnmt"), [(0.6, 0.0, True), (1.0, 0.2, True), (0.7, 0.4, False)]
)
def test_scores_are_those_of_the_paper_wherever_they_are_computed(alpha, beta, gnmt):
    """Wu et al. 2016, Eq. (14), in loops; by the search, by forcing and of samples."""
    rules = replace(RULES, length_penalty=alpha, coverage_penalty=beta, gnmt=gnmt, max_ratio=1.0)
    model = tiny_model(5, vocab=5)
    sources = random_sources(2, [4, 2, 3], 5)

    def score(source, ids):
        [(log_p, weights)] = forced(model, source, [ids])
        length = (5 + len(ids)) ** alpha / (5 + 1) ** alpha if gnmt else len(ids) ** alpha
        coverage = 0.0
        for j in range(len(source)):
            coverage += np.log(min(sum(weights[i][j] for i in range(len(ids))), 1.0))
        return log_p.sum() / length + beta * coverage

    src, mask = pad_ids(sources, PAD)
    samples = sample(model, src, mask, [1, 2, 3], SamplingRules(replace(rules, n_best=5)))
    wide = replace(rules, beam_size=300, min_ratio=0.0)
    for source, own, found in zip(sources, samples, search(model, sources, wide), strict=True):
        again = force_ids(model, [(source, h.ids) for h in own], rules)
        for h in (*own, *again, *found[:40]):
            assert h.score == pytest.approx(score(source, h.ids), abs=TOLERANCE)
        for ranked in (own, found):
            assert [h.score for h in ranked] == sorted((h.score for h in ranked), reverse=True)


def diverse(model, source, rules, groups, strength):
    """Vijayakumar et al. 2016, Algorithm 1, with the Hamming distance, in loops."""
    beams, ended = [[((), 0.0)] for _ in range(groups)], {}
    left = [rules.beam_size // groups] * groups
    for _ in range(int(rules.max_ratio * len(source))):
        before = Counter()
        for g in range(groups):
            options = []
            for ids, total in beams[g]:
                for word, value in enumerate(log_probs_after(model, source, ids)):
                    if word not in rules.forbidden:
                        cost = strength * before[word]
                        options.append((total + value - cost, (*ids, word), total + value))
            beams[g] = []
            for _, ids, total in sorted(options, reverse=True)[: left[g]]:
                before[ids[-1]] += 1
                if ids[-1] == rules.eos:
                    ended[ids] = total
                    left[g] -= 1
                else:
                    beams[g].append((ids, total))
    return ended or dict(itertools.chain(*beams))


def log_probs_after(model, source, ids) -> np.ndarray:
    """Of all words that may follow some."""
    state = model.begin(torch.tensor([source]), torch.ones(1, len(source)).bool())
    for y in (PAD, *ids):
        prediction, state = model.step(torch.tensor([y]), state)
    return prediction.log_probs()[0].numpy()


@pytest.mark.e2e
@torch.no_grad()
@pytest.mark.parametrize(("groups", "strength"), [(2, 0.7), (3, 2.0), (3, 0.01)])
def test_groups_of_the_beam_are_the_algorithm_of_the_paper(groups, strength):
    differ = 0
    rules = replace(RULES, beam_size=6, min_ratio=0.0)
    for seed in range(6):
        model = tiny_model(seed, vocab=6, scale=1.0)
        [source] = random_sources(seed, [4], 6)
        expected = diverse(model, source, rules, groups, strength)
        found = constrained_search(model, source, rules, Constraints(), groups, strength)
        assert {h.ids: h.log_prob for h in found} == pytest.approx(expected, abs=TOLERANCE)
        check_forced(model, source, found)
        [plain] = search(model, [source], rules)
        differ += {h.ids for h in found} != {h.ids for h in plain}
    assert differ > 1


def test_settings_of_the_search_reach_it():
    """Groups of a config, more of them than a narrower beam of validation has; GNMT's penalties."""
    target = tokenizer(PieceModel.bpe)
    model = tiny_model(1, vocab=len(target), scale=0.5)
    lines = list(corpus()[1][:4])
    plain = DecodeConfig(beam_size=6, n_best=6, max_ratio=0.3)

    def scored(**changes):
        found = translate(model, (target, target), lines, replace(plain, **changes))
        return [[(c.text, c.score) for c in t.candidates] for t in found]

    assert scored(beam_groups=3, diversity=1.0) != scored()
    assert scored(beam_groups=3, diversity=1.0, beam_size=2, n_best=2)
    assert scored(length_penalty=0.6, length_norm=LengthNorm.gnmt) != scored(length_penalty=0.6)
    assert scored(coverage_penalty=5.0) != scored()
    assert scored(no_repeat_ngram=1) != scored()


def test_mates_of_a_batch_do_not_reach_the_hypotheses():
    """Of `search_batch`'s two parts; scores and attention as the model has them along the ids."""
    target = Toy(SPELLED["subwords"])
    builder = ConstraintBuilder(target, DecodeConfig())
    asked = [{"required": [["ab"]]}, {"forbidden": ["b"]}, {"prefix": "b"}, {"prefix": "a b a b"}]
    constraints = [builder.build(Request("", **each), 1).constraints for each in asked]
    model = tiny_model(6, vocab=len(target))
    sources = [source for source, _ in random_pairs(3, vocab=len(target))]
    sources = [[3 + word % 5 for word in source[:-1]] + [EOS] for source in sources]
    src, mask = pad_ids(sources, PAD)
    with torch.no_grad():
        together = beam_search(
            model, src, mask, EVERY, ConstrainedBeams(EVERY, constraints, 1, 0.0)
        )
    for source, own, found in zip(sources, constraints, together, strict=True):
        assert [h.ids for h in constrained_search(model, source, EVERY, own)] == [
            h.ids for h in found
        ]
        check_forced(model, source, found)
