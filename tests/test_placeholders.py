"""Texts that are carried over: found, learnt as symbols, and once in every translation."""

import json
import random
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import tiny_model
from runs import begin, composed, locked, template_pairs, write_corpus
from test_tokenizer import corpus

from seq2seq.config.compose import to_config
from seq2seq.config.schema import (
    CharactersConfig,
    DecodeConfig,
    PieceModel,
    SentencePieceConfig,
    WordsConfig,
)
from seq2seq.config.schema.placeholders import patterns_of
from seq2seq.data.character_vocabulary import Characters
from seq2seq.data.pair import Pair
from seq2seq.data.placeholders import CarryingTokenizer, Placeholders, placeholders_of
from seq2seq.data.prepare import load_pairs, load_text, load_tokenizers, prepare
from seq2seq.data.subword_vocabulary import Subwords
from seq2seq.data.tokenizer import EOS, UNK
from seq2seq.data.word_vocabulary import Words
from seq2seq.decoding.carried import Carried
from seq2seq.decoding.constraints import ConstraintBuilder
from seq2seq.decoding.forced import force
from seq2seq.decoding.request import Request
from seq2seq.decoding.search import Hypothesis
from seq2seq.decoding.translate import translate
from seq2seq.run.errors import ConfigError, DataError

ALL = ["url", "email", "number", "tag", "name=Zoe|Ben( Doe)?"]
FOUND = Placeholders(patterns_of(ALL), ["<2de>"])

# What is found ----------------------------------------------------------------------------------

SOURCES = {
    "<2de> See https://a.b/c?d=1, or www.x.org.": "<2de> See <url1>, or <url2>.",
    "(http://x.y/z) ftp://q": "(<url1>) <url2>",
    "Mail me.too@x-y.co.uk: now": "Mail <email1>: now",
    "3,500 of 12 in a1, 1/2 7.": "<number1> of <number2> in a1, <number3> <number4>.",
    "2020-01-31, or 10:30?": "<number1>, or <number2>?",
    '<b class="x y">Zoe</b> & Ben Doe > Bens': "<tag1><name1><tag2> & <name2> > <name3>s",
    "see <url3> http://x.y <number1>": "see <url1> <url2> <number1>",
    " ".join(map(str, range(11))): " ".join([*(f"<number{i}>" for i in range(1, 10)), "9 10"]),
    "nothing": "nothing",
}


def with_symbols(text: str, symbols) -> str:
    for (start, end), symbol in reversed(symbols.items()):
        text = text[:start] + symbol + text[end:]
    return text


@pytest.mark.parametrize("text", SOURCES)
def test_what_is_found_in_a_source(text):
    assert with_symbols(text, FOUND.source(text)) == SOURCES[text]


PAIRS = [
    # source, target, the same to learn from
    ("5 of http://x.y", "http://x.y: 5", "<number1> of <url1>", "<url1>: <number1>"),
    ("3 and 4 and 4", "vier 4 4 4", "3 and <number1> and <number2>", "vier <number1> <number2> 4"),
    ("12 for 1", "1 2 12", "<number1> for <number2>", "<number2> 2 <number1>"),
    ("1 and 2", "2", "1 and <number1>", "<number1>"),
    ("12", "x12 1,2", "12", "x12 1,2"),
    ("<2de> 1", "<2de> 1", "<2de> <number1>", "<2de> <number1>"),
]


@pytest.mark.parametrize(("source", "target", "src", "tgt"), PAIRS)
def test_a_pair_learns_symbols_for_what_both_sides_have(source, target, src, tgt):
    assert FOUND.pair(Pair(source, target)) == Pair(src, tgt)


@pytest.mark.parametrize(
    ("placeholders", "message"),
    [
        ("[urls]", "'urls' is not a known kind. Known: url, email, number, tag; give others as"),
        ("['x1=a']", "'x1=a' is not a known kind"),
        ("['x=(']", "'x=(' is not a valid regular expression (missing ), unterminated subpattern"),
        ("[url,'url=x']", "'url' is given twice. Join"),
    ],
)
def test_what_names_no_texts_is_one_line(placeholders, message):
    with pytest.raises(ConfigError) as caught:
        composed("debug", [f"data.placeholders={placeholders}"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_symbols_of_both_kinds_do_not_meet():
    with pytest.raises(ConfigError, match="'<url1>' is given twice"):
        composed("debug", ["data.placeholders=[url]", "tokenizer.symbols=['<url1>']"])
    words = ["tokenizer=words", "~tokenizer.sampling", "data.placeholders=[url]"]
    with pytest.raises(ConfigError, match="Use 13 or more"):
        composed("debug", [*words, "tokenizer.vocab_size=12"])


# Tokens -----------------------------------------------------------------------------------------

KINDS = ["bpe", "words", "characters"]
VOCABULARY = 130


@cache
def tokenizers(kind: str):
    """Vocabularies of one size, with placeholders, and the same as they read symbols."""
    symbols = FOUND.symbols
    if kind == "words":
        vocabulary = Words(WordsConfig(vocab_size=VOCABULARY, symbols=symbols))
    elif kind == "characters":
        vocabulary = Characters(CharactersConfig(joint=True, symbols=symbols))
    else:
        cfg = {"kind": PieceModel.bpe, "vocab_size": VOCABULARY, "joint": True}
        vocabulary = Subwords(SentencePieceConfig(symbols=symbols, **cfg))
    data = vocabulary.learn(corpus(), ["en", "fr"], ["a", "b"])
    plain = [vocabulary.load(data[i], i, code, "v") for i, code in enumerate(["en", "fr"])]
    assert kind == "characters" or [*map(len, plain)] == [VOCABULARY] * 2
    return (CarryingTokenizer(*plain, FOUND), plain[1]), tuple(plain)


def planted(count: int, seed: int = 1) -> list[tuple[str, list[str]]]:
    """Sentences with one to three texts at random places."""
    draw = random.Random(seed)
    texts = [
        lambda: f"https://x{draw.randrange(99)}.org/a_b?c={draw.randrange(99)}",
        lambda: f"{draw.randrange(1, 9)},{draw.randrange(100, 999)}",
        lambda: f"{draw.choice('abc')}.d@mail.com",
        lambda: f'<a href="{draw.randrange(99)}  x">',
        lambda: draw.choice(["Zoe", "Ben Doe"]),
    ]
    found = []
    for sentence in draw.choices(corpus()[0], k=count):
        words = sentence.rstrip(".").split()[:3]
        own = [draw.choice(texts)() for _ in range(draw.randrange(1, 4))]
        for text in own:
            words.insert(draw.randrange(len(words) + 1), text)
        found.append((" ".join(words), own))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_text_and_symbols_have_their_ids(kind):
    (source, target), plain = tokenizers(kind)
    for line, own in planted(60):
        [tokens], [ids] = source.tokens([line]), source.encode([line])
        masked = with_symbols(line, FOUND.source(line))
        assert [token.id for token in tokens] == ids == plain[0].encode([masked])[0]
        shown = [token.piece.strip("▁") for token in tokens]
        assert sorted(t.replace(" ", "▁") for t in own) == sorted(
            text for text in shown if text.replace("▁", " ") in own
        )
        for token in tokens:
            if token.id != UNK and token.piece != "▁":
                assert line[slice(*token.span)].strip() == token.piece.strip("▁").replace("▁", " ")
        carried = source.carried(line, ids, [token.span for token in tokens])
        assert sorted(text for text, _ in carried.values()) == sorted(own)
        for symbol, (text, place) in carried.items():
            assert target.pieces([symbol])[0].strip("▁") in FOUND.symbols
            assert tokens[place].piece.strip("▁") == text.replace(" ", "▁")


# Translations -----------------------------------------------------------------------------------

RULES = {
    "beam": DecodeConfig(beam_size=3, n_best=2, max_ratio=1.0),
    "greedy": DecodeConfig(beam_size=1, max_ratio=1.5, min_ratio=0, replace_unknown=True),
    "samples": DecodeConfig(sample=True, n_best=2, max_ratio=1.0, seed=3),
}


def translated(kind: str, lines, cfg: DecodeConfig, size: int = 50):
    model = tiny_model(3, vocab=len(tokenizers(kind)[0][1]), scale=1.0)
    rules = SimpleNamespace(**vars(cfg) | {"batch_sentences": size})
    return list(translate(model, tokenizers(kind)[0], lines, DecodeConfig(**vars(rules))))


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("kind", "rules", "count"),
    [
        ("bpe", "beam", 60),
        ("words", "beam", 60),
        pytest.param("bpe", "beam", 250, marks=pytest.mark.slow),
        pytest.param("words", "beam", 250, marks=pytest.mark.slow),
        ("characters", "beam", 60),
        ("bpe", "samples", 60),
        ("words", "greedy", 60),
    ],
)
def test_each_text_is_in_each_translation_once(kind, rules, count):
    """A model of random weights drops, repeats and invents symbols."""
    cases = planted(count)
    found = translated(kind, [line for line, _ in cases], RULES[rules])
    for (line, own), translation in zip(cases, found, strict=True):
        assert translation.source == line
        assert len(translation.candidates) >= 1
        for c in translation.candidates:
            assert [c.text.count(text) for text in own] == [own.count(text) for text in own], line
            assert not any(symbol in c.text for symbol in FOUND.symbols)
            # Tokens, places and attention are those of the text.
            ends = (*c.tokens, "</s>")[: len(c.spans) + 1]
            assert c.tokens == ends if c.finished else c.tokens == ends[:-1]
            assert len(c.tokens) == len(c.token_log_probs) == len(c.alignment)
            assert c.alignment.shape[1] == len(translation.source_tokens)
            for token, span in zip(c.tokens, c.spans, strict=False):
                shown = token.replace("▁", " ").strip()
                if shown in own:
                    assert c.text[slice(*span)].strip() == shown
            assert c.log_prob == pytest.approx(sum(c.token_log_probs))
            assert sum(t.replace("▁", " ").strip() in own for t in c.tokens) == len(own)
    lines = [line for line, _ in cases[:7]]
    alone = [t for line in lines for t in translated(kind, [line], RULES[rules], 1)]
    if rules != "samples":  # which are keyed by the number of the line
        assert [t.text for t in alone] == [t.text for t in found[:7]]
        assert [t.words().source_tokens[-1] for t in found[:7]] == ["</s>"] * 7


@pytest.mark.parametrize("rules", ["beam", "samples"])
def test_repaired_candidates_are_ordered_by_their_new_scores(rules):
    """Scores fall, but for one rise at most: from the last unchanged one to the best repaired."""
    count = {"n_best": 6, "max_ratio": 1.0} | ({} if rules == "samples" else {"beam_size": 6})
    lines = [line for line, _ in planted(25)]
    found = translated("words", lines, DecodeConfig(sample=rules == "samples", **count))
    scores = [[c.score for c in translation.candidates] for translation in found]
    assert sum(map(len, scores)) > 4 * len(lines)
    assert max(sum(a < b for a, b in pairwise(own)) for own in scores) <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_given_translation_has_the_symbols_of_its_source(kind):
    carrying, plain = tokenizers(kind)
    model = tiny_model(3, vocab=len(plain[0]))
    pairs = [("See 12 https://x.y and 7", "https://x.y 7 voir 8"), ("Zoe", "le chat")]
    masked = [
        ("See <number1> <url1> and <number2>", "<url1> <number2> voir 8"),
        ("<name1>", "le chat"),
    ]
    cfg = DecodeConfig()
    for own, other, (_, target) in zip(
        force(model, carrying, pairs, cfg), force(model, plain, masked, cfg), pairs, strict=True
    ):
        assert own.candidates[0].token_log_probs == other.candidates[0].token_log_probs
        assert own.text == target
        assert not {*own.source_tokens, *own.candidates[0].tokens} & {*FOUND.symbols}


# By hand: ids 3.. are symbols of the target, whose words are w10 ..
WRITTEN = {3: "<url1>", 4: "<url2>", 5: "<number1>"}


class Spelled:
    """A vocabulary whose words begin with a space, those of odd ids above 10 excepted."""

    def pieces(self, ids):
        return [WRITTEN.get(i, f"{'▁' if i % 2 == 0 else ''}w{i}") for i in ids]

    def encode(self, texts):
        return [[8, next(i for i, symbol in WRITTEN.items() if symbol == text)] for text in texts]


@pytest.mark.parametrize(
    ("ids", "attends", "places", "expected"),
    [
        # each row attends to one place of the source
        ([10, 3, EOS], [0, 1, 2], {3: 1}, [10, 3]),
        ([10, 3, 12, 3, EOS], [0, 1, 0, 1, 2], {3: 1}, [10, 3, 12]),  # a second time
        ([10, 4, 12, EOS], [0, 0, 0, 2], {3: 1}, [10, 3, 12]),  # in place of a foreign one
        ([4, 10, 5, EOS], [1, 2, 0, 2], {3: 0, 4: 1}, [4, 10, 3]),  # the one attended to there
        ([5, 3, EOS], [1, 0, 2], {4: 1, 3: 0}, [4, 3]),
        ([5, 5, EOS], [0, 1, 2], {4: 1, 3: 0}, [3, 4]),
        ([10, 12, 14, EOS], [0, 1, 2, 2], {3: 1}, [10, 8, 3, 12, 14]),  # before what attends to it
        ([10, 13, 15, EOS], [2, 2, 1, 2], {3: 1}, [8, 3, 10, 13, 15]),  # not inside of a word
        ([10, 12, EOS], [0, 0, 1], {3: 1}, [10, 12, 8, 3]),  # at the end, whose row does
        ([10, 12], [1, 0], {3: 1}, [8, 3, 10, 12]),  # that came to no end
        ([10, EOS], [0, 1], {3: 1, 4: 1}, [10, 8, 3, 8, 4]),
        ([5, EOS], [0, 1], {}, []),
    ],
)
def test_what_a_search_left_out_is_put_where_it_is_attended_to(ids, attends, places, expected):
    alpha = np.zeros((len(ids), 3), np.float32)
    alpha[range(len(ids)), attends] = 1
    h = Hypothesis(tuple(ids), 0.0, 0.0, (), alpha, finished=ids[-1] == EOS)
    own = Carried(dict.fromkeys(places, "x"), places, 0, WRITTEN)
    assert own._mended(h, Spelled()) == expected


# In a run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["words", "sentencepiece", "characters"])
def test_a_run_learns_symbols_and_keeps_what_is_scored_as_it_is(tmp_path, tokenizer):
    pairs = [(f"{a} 1{i}", f"{b} 1{i}") for i, (a, b) in enumerate(template_pairs(60))]
    names = write_corpus(tmp_path / "corpus", pairs, held_out=10)
    kind = [f"tokenizer={tokenizer}", "~tokenizer.sampling", "tokenizer.vocab_size=90"]
    cfg = composed("debug", [*names, *kind, "data.placeholders=[number]"])
    with locked(begin(tmp_path / "run", cfg)) as run:
        prepare(run, cfg)
        learnt, scored = load_text(run, "train", "source"), load_text(run, "validation", "target")
        assert all(line.endswith(" <number1>") for line in learnt)
        assert all(line.split()[-1].isdigit() for line in scored)
        both = load_tokenizers(run, cfg)
        symbol = both[1].encode(["<number1>"])[0][-1]
        assert symbol == 3
        for split in ("train", "validation"):
            ids = load_pairs(run, split, both)
            for row in range(3):
                assert int(ids.src[row][-2]) == int(ids.tgt[row][-2]) == symbol
        assert (
            json.loads(run.path("data_report.json").read_text())["test"]["unwritable"]["lines"] == 0
        )


def test_tags_of_languages_are_no_placeholders():
    corpora = [{"train": "a.tsv", "validation": "v.tsv", "test": "t.tsv", "target_language": code}
               for code in ("de", "fr")]  # fmt: skip
    raw = {"data": {"corpora": corpora, "placeholders": ["tag"]}}
    raw["tokenizer"] = {"name": "sentencepiece"}
    placeholders = placeholders_of(to_config(raw))
    assert [*placeholders.source("<2fr> a <b> c").values()] == ["<tag1>"]


def test_requests_are_refused_where_texts_are_carried_over():
    """Mending might break a prefix, or a required word apart."""
    (_, target), _ = tokenizers("bpe")
    builder = ConstraintBuilder(target, DecodeConfig(), carrying=True)
    assert builder.build(Request("a"), 1) is None
    for request in (Request("a", prefix="b"), Request("a", required=[["b"]])):
        with pytest.raises(DataError, match="supports no prefix"):
            builder.build(request, 1)
