# ruff: noqa: RUF001
"""Words, links, blanks and the way through the vocabulary, in languages of many scripts."""

import json
import unicodedata
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from conftest import draws_of
from many_scripts import PLAIN, TYPOGRAPHIC
from runs import ROOT, begin, composed, locked, template_pairs, write_corpus

from seq2seq.alignment.links import best_links
from seq2seq.alignment.words import SoftAlignment, to_words
from seq2seq.config.registry import build
from seq2seq.config.schema import PieceModel, SentencePieceConfig, WordsConfig
from seq2seq.data.prepare import prepare
from seq2seq.data.tokenizer import UNK, places_before_composing
from seq2seq.data.words import blank_spans, is_blank, split_words, word_spans
from seq2seq.decoding.translation import END
from seq2seq.evaluation.scoring import score

UNSPACED = {"th", "lo", "km", "my", "bo", "zh", "ja"}
PRESETS = sorted(path.stem for path in (ROOT / "configs/experiment").glob("*.yaml"))
KINDS = {
    "bpe": SentencePieceConfig(vocab_size=None),
    "unigram": SentencePieceConfig(vocab_size=None, kind=PieceModel.unigram),
    "joint": SentencePieceConfig(vocab_size=None, joint=True),
    "words": WordsConfig(vocab_size=1000),
}


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def vocabularies(cfg, language: str, lines):
    """A source and a target vocabulary of the same lines."""
    kind = build(cfg)
    learnt = kind.learn([lines, lines], [language] * 2, ["a", "b"])
    return [kind.load(data, side, language, "test") for side, data in enumerate(learnt)]


# What goes in comes out -------------------------------------------------------------------------


def lines_of(language: str) -> list[str]:
    return [*PLAIN.get(language, ()), *TYPOGRAPHIC.get(language, ())]


@cache
def settings() -> dict[str, object]:
    """Vocabularies of every kind and of every preset, of as many pieces as so little text gives."""
    found: dict[str, object] = dict(KINDS)
    for preset in PRESETS:
        cfg = composed(preset).tokenizer
        if isinstance(cfg, SentencePieceConfig):
            cfg.vocab_size = None
        if cfg not in found.values():
            found[preset] = cfg
    return found


LANGUAGES = sorted({*PLAIN, *TYPOGRAPHIC})


def assert_comes_back(name: str, cfg: object, language: str) -> None:
    lines = lines_of(language)
    _, target = vocabularies(cfg, language, lines)
    rows = target.encode(lines)
    assert not any(UNK in row for row in rows), name
    written = [target.write(target.pieces(row))[0] for row in rows]
    assert [line.split() for line in written] == [nfc(line).split() for line in lines], name
    assert target.lost(lines) == [None] * len(lines), name
    whole = [" ".join(lines)], [" ".join(written)]
    assert score(whole[1], [nfc(line) for line in whole[0]]).scores["BLEU"].value > 99.999


@pytest.mark.e2e
@pytest.mark.parametrize(("turn", "language"), [*enumerate(LANGUAGES)])
def test_text_comes_back_and_is_perfect(turn, language):
    """Each language with one kind in turn."""
    name = [*KINDS][turn % len(KINDS)]
    assert_comes_back(name, KINDS[name], language)


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_text_comes_back_from_every_kind_and_preset(language):
    for name, cfg in settings().items():
        assert_comes_back(name, cfg, language)


def test_no_space_is_lost_that_a_reader_sees():
    line = "«\u00a0Oui\u202f!\u00a0» dit-il\u3000: 5\u2009%"
    _, target = vocabularies(KINDS["bpe"], "fr", [line])
    assert target.write(target.pieces(target.encode([line])[0]))[0] == line
    broken = "a\tb\u2028c\x85d"  # a line stays one
    _, target = vocabularies(KINDS["bpe"], "fr", [broken])
    assert target.write(target.pieces(target.encode([broken])[0]))[0] == "a b c d"


def test_the_source_is_folded_and_the_target_is_not():
    source, target = vocabularies(SentencePieceConfig(vocab_size=None), "en", ["10⁵ ½ ﬁn"])
    assert [t.write(t.pieces(t.encode(["10⁵ ½ ﬁn"])[0]))[0] for t in (source, target)] == [
        "105 1\u20442 fin",
        "10⁵ ½ ﬁn",
    ]
    old = SentencePieceConfig(vocab_size=None, target_normalization=None)
    assert vocabularies(old, "en", ["½"])[1].lost(["a½", "1"]) == ["a", None]


def test_lines_with_reserved_characters_are_learnt_from():
    lines = ["a ▅ b", "c▁d ▅▁"] * 3
    for name in KINDS:
        for tok in vocabularies(KINDS[name], "en", lines):
            rows = tok.encode(lines)
            assert not any(UNK in row for row in rows)
            assert [tok.write(tok.pieces(row))[0] for row in rows] == lines
    # What was not there to be learnt from is a space, as it was before.
    _, tok = vocabularies(KINDS["bpe"], "en", ["a b"])
    assert tok.write(tok.pieces(tok.encode(["a▁b"])[0]))[0] == "a b"
    assert tok.lost(["a▁b"]) == ["▁"]


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ([], 0),
        (["tokenizer.target_normalization=nmt_nfkc"], "½"),
        (["tokenizer=words", "~tokenizer.sampling", "tokenizer.vocab_size=7"], 60),
    ],
)
def test_what_cannot_be_written_is_counted(tmp_path, changes, lines):
    pairs = template_pairs(80)
    for row in (2, 30, 50):
        pairs[row] = (pairs[row][0], "le ½ chat .")
    names = write_corpus(tmp_path / "corpus", pairs, held_out=10)
    cfg = composed("debug", [*names, "tokenizer.vocab_size=60", *changes])
    with locked(begin(tmp_path / "run", cfg)) as run:
        prepare(run, cfg)
        report = json.loads(run.path("data_report.json").read_text("utf-8"))
        text = run.path("corpus/train.target").read_text("utf-8").splitlines()
    found = report["train"]["unwritable"]
    assert found["lines"] == (sum("½" in line for line in text) if lines == "½" else lines)
    if found["lines"]:
        assert found["first"] in text[found["first_line"] - 1].split()
        assert not any(found["first"] in line.split() for line in text[: found["first_line"] - 1])


# Blank ------------------------------------------------------------------------------------------

BLANK = [
    "",
    " ",
    "\u00ad",
    "\u2060",
    "\u180e",
    "\x85",
    "\u200b",
    "\ufeff",
    "\u200e\u200f",
    "\u3164",
]
BLANK += ["\u115f\u1160", "\u2800", "\ufe0f", "\u034f", "\u200d", "\x01 \x1f", "\u3000", "\u2028"]
SEEN = ["a", " .", "\u0301", "\u06dd", "▁", "👍\u200d", "\u200b\u200bx", "\u00adу", "\U0010ffff"]


@pytest.mark.parametrize("text", BLANK, ids=ascii)
def test_what_shows_nothing_is_blank_everywhere(text):
    assert is_blank(text)
    assert word_spans(text) == blank_spans(text) == []
    for cfg in KINDS.values():
        for tok in vocabularies(cfg, "fr", ["un mot \u00ad\u200b x\u200bx"]):
            assert tok.encode([text]) == tok.tokens([text]) == [[]]
            assert tok.sample([text], 0.1, draws_of([text], 1)) == [[]]


@pytest.mark.parametrize("text", SEEN, ids=ascii)
def test_what_shows_something_is_not_blank(text):
    assert not is_blank(text)
    assert len(word_spans(text)) == len(blank_spans(text)) == 1


# Words ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी भाषा सरल है।", "हिन्दी|भाषा|सरल|है|।"),
        ("বাংলা ভাষা", "বাংলা|ভাষা"),
        ("தமிழ் மொழி", "தமிழ்|மொழி"),
        ("مُحَمَّدٌ، هنا؟", "مُحَمَّدٌ|،|هنا|؟"),
        ("می\u200cخواهد برود", "می\u200cخواهد|برود"),
        ("שָׁלוֹם צה״ל ח׳", "שָׁלוֹם|צה״ל|ח׳"),
        ("cafe\u0301 noir", "cafe\u0301|noir"),
        ("Donau\u00addampf\u2011schiff", "Donau\u00addampf\u2011schiff"),
        ("\u200fA\u200f \u00ad b", "A\u200f|b"),
        ("Ọ̀rọ̀ rẹ̀", "Ọ̀rọ̀|rẹ̀"),
        ("замо́к ёж", "замо́к|ёж"),
        ("ᾠδὴ", "ᾠδὴ"),
        ("한국어 문장", "한국어|문장"),
        ("ሰላም፣ ዓለም።", "ሰላም|፣|ዓለም|።"),
        ("col·lega", "col·lega"),
        ("L’amitié, qu'il don’t", "L’|amitié|,|qu'|il|don’|t"),
        ("👍🏽👩‍👩‍👧 ❤️🇫🇷1️⃣", "👍🏽|👩‍👩‍👧|❤️|🇫🇷|1️⃣"),
        ("Wait… ½ m² 10⁵ ℃ ™", "Wait|…|½|m²|10⁵|℃|™"),
        ("The\u200b old\u200b man", "The|old|man"),
        ("东京,ABC。", "东|京|,|ABC|。"),
        ("か\u3099カー", "か\u3099|カ|ー"),
        ("ก้าว 12", "ก้|า|ว|12"),
    ],
)
def test_one_word_is_one_word(text, words):
    assert split_words(text) == words.split("|")


@pytest.mark.parametrize("language", PLAIN)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_words_are_the_same_in_either_spelling(language, form):
    for line in lines_of(language):
        assert [nfc(word) for word in split_words(unicodedata.normalize(form, line))] == (
            split_words(nfc(line))
        )


def test_composing_keeps_places():
    """Against the text itself: what stands before a place, composed, is the beginning."""
    for line in [line for language in PLAIN for line in lines_of(language)]:
        text = unicodedata.normalize("NFD", line)
        places = places_before_composing(text)
        assert len(places) == len(nfc(text)) + 1
        assert all(a <= b for a, b in pairwise(places))
        for i, place in enumerate(places):
            if i == len(nfc(text)) or not unicodedata.combining(nfc(text)[i]):
                assert nfc(text[:place]) == nfc(text)[:i]


# Links ------------------------------------------------------------------------------------------


def chunks_of(language: str) -> list[str]:
    """What stands between spaces, if it is letters alone: one word each; or one character each."""
    line = nfc(PLAIN[language][0])
    if language in UNSPACED:
        return [char for char in line if unicodedata.category(char)[0] == "L"][:8]
    return [c for c in line.split() if all(unicodedata.category(x)[0] in "LMC" for x in c)]


def placed(chunks: list[str], space: str) -> tuple[str, list[tuple[int, int]]]:
    """Chunks as a text, and where each one stands."""
    text, places = "", []
    for chunk in chunks:
        text += space if text else ""
        places.append((len(text), len(text) + len(chunk)))
        text += chunk
    return text, places


def links_of(vocabulary, chunks, wanted, space=" "):
    """Links by words where each target chunk attends, from all its pieces, to the one wanted."""
    source, target = placed(chunks, space), placed([chunks[i] for i in wanted], space)
    sides = [vocabulary.tokens([text])[0] for text, _ in (source, target)]

    def chunk(token, places) -> int:
        """By the last character of a piece, never a space; of an empty one, by what follows."""
        at = max(token.span.end - 1, token.span.start)
        return next((i for i, (_, end) in enumerate(places) if at < end), len(places) - 1)

    columns, rows = (
        [chunk(token, places) for token in tokens]
        for tokens, (_, places) in zip(sides, (source, target), strict=True)
    )
    alpha = np.array([[float(column == wanted[row]) for column in columns] + [0.1] for row in rows])
    pieces = SoftAlignment(
        source=source[0],
        target=target[0],
        source_tokens=(*(t.piece for t in sides[0]), END),
        target_tokens=tuple(t.piece for t in sides[1]),
        log_probs=(-1.0,) * len(rows),
        weights=alpha / alpha.sum(axis=1, keepdims=True),
        ended=False,
        source_spans=tuple(t.span for t in sides[0]),
        target_spans=tuple(t.span for t in sides[1]),
    )
    words = to_words(pieces)
    assert words.matched
    return best_links(words.weights, ended=False)


VARIANTS = {
    "NFD": lambda chunk: unicodedata.normalize("NFD", chunk),
    "zero-width space": lambda chunk: f"{chunk}\u200b",
    "soft hyphen": lambda chunk: f"{chunk[0]}\u00ad{chunk[1:]}" if chunk[1:] else chunk,
    "right-to-left mark": lambda chunk: f"\u200f{chunk}\u200f",
    "none": lambda chunk: chunk,
}


@pytest.mark.parametrize(
    ("language", "kind"),
    [
        pytest.param(language, kind, marks=() if turn % 4 == number else pytest.mark.slow)
        for turn, language in enumerate(PLAIN)
        for number, kind in enumerate(KINDS)
    ],
)
def test_links_do_not_depend_on_the_spelling(language, kind):
    plain = chunks_of(language)
    assert len(plain) > 1
    wanted = [*range(len(plain))][::-1]  # the target in reverse order
    expected = tuple((j, i) for i, j in enumerate(wanted))
    space = "" if language in UNSPACED else " "
    for source in vocabularies(KINDS[kind], language, [" ".join(plain)] * 2):
        for name, variant in VARIANTS.items():
            if language in UNSPACED and name in ("soft hyphen", "right-to-left mark"):
                continue  # characters: there is nothing inside of one
            if kind == "words" and language in UNSPACED:
                continue  # a line is one word
            links = links_of(source, [variant(chunk) for chunk in plain], wanted, space)
            assert links == expected, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sign", "words"), [("…", 1), ("...", 3), ("½", 1), ("℃", 1), ("™", 1), ("10⁵", 1), ("ﬁ", 1)]
)
def test_signs_that_are_rewritten_only_renumber(kind, sign, words):
    chunks = ["the", "old", sign, "ship", "sails"]
    lines = ["the old ship sails … ... ½ ℃ ™ 10⁵ ﬁ fi TM °C 1⁄2 105"] * 2
    source, _ = vocabularies(KINDS[kind], "en", lines)
    expected = ((2 + words, 0), (1, 1), (3 + words, 2), (0, 3))
    assert links_of(source, chunks, [3, 1, 4, 0]) == expected
