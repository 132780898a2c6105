"""What is kept and what is counted, against filters written a second time as plain loops."""

import json
import logging
import random
import tracemalloc
import unicodedata
from collections.abc import Iterator
from dataclasses import replace

import pytest

from seq2seq.config.schema import DataConfig, GrammarConfig, OnBadLine
from seq2seq.data.filters import (
    MAX_WORD_CHARACTERS,
    NUM_EXAMPLES,
    FilterSummary,
    HeldOut,
    keep,
)
from seq2seq.data.lengths import CHARACTERS_PER_WORD, Length
from seq2seq.data.pair import Pair
from seq2seq.data.readers import Place, scan_pairs
from seq2seq.data.text import strict
from seq2seq.data.words import count_words
from seq2seq.run.errors import DataError


def data_config(**changes) -> DataConfig:
    cfg = DataConfig(
        train=["train.en", "train.fr"],
        validation=["embedded"],
        test=["embedded"],
        max_words=4,
        max_ratio=3.0,
        drop_duplicates=True,
        grammar=GrammarConfig(seed=1, train_pairs=10, validation_pairs=5, min_words=3, max_words=9),
    )
    return replace(cfg, **changes)


def pairs_of(cfg: DataConfig, split: str = "train") -> Iterator[Pair]:
    return strict(scan_pairs(Place(cfg, split)))


def filtered(pairs, *count, **changes) -> tuple[list[Pair], FilterSummary]:
    """The pairs that pass, and what is said of all of them."""
    cfg = data_config(**changes)
    summary = FilterSummary(cfg.max_words, cfg.max_ratio)
    return list(keep(pairs, cfg, summary, *count)), summary


GOOD = Pair("a b", "c d")

# one pair, the count it goes to, and why the row is here
CASES = [
    (GOOD, "kept", "plain"),
    (Pair("", "c"), "empty", "one side"),
    (Pair("a", ""), "empty", "other side"),
    (Pair("", ""), "empty", "both"),
    (Pair(" \t", "c"), "empty", "white space"),
    (Pair("\u00a0", "c"), "empty", "no-break space"),
    (Pair("a", "\u3000\u3000"), "empty", "ideographic space"),
    (Pair("\u200b", "c"), "empty", "zero width is no white space for str.strip"),
    (Pair("a", "\ufeff \u200b"), "empty", "mixed"),
    (Pair("\u200ba", "c"), "kept", "something to see"),
    (Pair("a b c d", "c d e f"), "kept", "exactly max_words"),
    (Pair("a b c d e", "c d"), "too_long", "source, one above"),
    (Pair("c d", "a b c d e"), "too_long", "target, one above"),
    (Pair(" a  b\u00a0c d ", "c d e f"), "kept", "spaces make no words"),
    (Pair("x" * 4 * MAX_WORD_CHARACTERS, "c"), "kept", "four words' worth of characters"),
    (Pair("x" * (4 * MAX_WORD_CHARACTERS + 1), "c"), "too_long", "one endless word"),
    (Pair("a b c", "c"), "kept", "exactly max_ratio"),
    (Pair("a b c d", "c"), "ratio", "above max_ratio"),
    (Pair("c", "a b c d"), "ratio", "above max_ratio, other way"),
    (Pair("first", "first'"), "duplicate", "both sides"),
    (Pair("first", "c"), "kept", "one side"),
    (Pair("c", "first'"), "kept", "the other side"),
    (Pair("first'", "first"), "kept", "other way round"),
]


@pytest.mark.parametrize(("pair", "expected", "why"), CASES)
def test_C2_C16_each_rule(pair, expected, why):
    kept, summary = filtered([Pair("first", "first'"), pair])
    assert kept[1:] == ([pair] if expected == "kept" else []), why
    counts = summary.as_dict()
    assert counts[expected] == (2 if expected == "kept" else 1)
    assert expected == "kept" or counts["examples"][expected] == [2]


def test_C2_C16_counts_equal_a_second_account():
    seed = 7
    draw = random.Random(seed)
    sides = ["", " ", "\u200b", "a", "b", "a b", "a b c d", "a b c d e"]
    pairs = [Pair(draw.choice(sides), draw.choice(sides)) for _ in range(500)]
    expected = {"empty": [], "too_long": [], "ratio": [], "duplicate": []}
    survivors = []
    for number, pair in enumerate(pairs, 1):
        lengths = [len([w for w in text.split(" ") if w]) for text in (pair.src, pair.tgt)]
        if not pair.src.strip(" \u200b") or not pair.tgt.strip(" \u200b"):
            expected["empty"].append(number)
        elif max(lengths) > 4:
            expected["too_long"].append(number)
        elif max(lengths) / min(lengths) > 3:
            expected["ratio"].append(number)
        elif pair in survivors:
            expected["duplicate"].append(number)
        else:
            survivors.append(pair)
    kept, summary = filtered(iter(pairs))
    assert kept == survivors, f"seed {seed}"
    counts = summary.as_dict()
    for reason, numbers in expected.items():
        assert counts[reason] == len(numbers), reason
        assert counts["examples"][reason] == numbers[:NUM_EXAMPLES], reason
    assert counts["read"] == 500 == len(survivors) + sum(map(len, expected.values()))
    assert json.loads(json.dumps(counts)) == counts


def test_duplicates_may_be_kept():
    assert filtered([GOOD, GOOD], drop_duplicates=False)[0] == [GOOD, GOOD]


def test_limit_reads_to_the_end():
    pairs = iter([Pair(f"a{n}", "" if n == 1 else f"b{n}") for n in range(10)])
    kept, summary = filtered(pairs, limit=3)
    assert [pair.src for pair in kept] == ["a0", "a2", "a3"]
    assert next(pairs, None) is None
    assert (summary.read, summary.kept, summary.beyond_limit) == (10, 3, 6)
    assert str(summary) == "10 pairs read, 3 kept (dropped: 1 empty); 6 beyond data.limit"


def test_the_summary_names_each_reason():
    pairs = [Pair(f"a{n}", "b") for n in range(1200)]
    pairs += [Pair("", "x"), Pair("a b c d e", "x"), Pair("a b c d", "x"), pairs[0]]
    kept, summary = filtered(pairs)
    assert len(kept) == 1200
    assert str(summary) == (
        "1,204 pairs read, 1,200 kept (dropped: 1 empty, 1 longer than 4 words, "
        "1 ratio above 3, 1 duplicate)"
    )
    assert str(filtered([GOOD])[1]) == "1 pairs read, 1 kept"


def test_C2_nothing_left():
    with pytest.raises(DataError) as caught:
        filtered([Pair("", "x"), Pair("a b c d e", "x")])
    assert str(caught.value) == (
        "train.en, train.fr: no training pair is left: 2 pairs read, 0 kept (dropped: 1 empty, "
        "1 longer than 4 words). Look at the files, or raise data.max_words and data.max_ratio."
    )


def warnings_of(caplog, pairs, **changes) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        filtered(pairs, **changes)
    return caplog.messages


def test_C2_C15_copies_warn(caplog):
    for odd in (5, 6):
        pairs = [Pair(f"x{n}", f"{'x' if n < odd else 'y'}{n}") for n in range(10)]
        said = f"train.en, train.fr: {odd} of 10 pairs have the same text as source and target"
        assert warnings_of(caplog, pairs) == ([said] if odd == 6 else [])


LONG = "a b c d e" + " and so on" * 10
# a pair of which number n is dropped, what is said of such pairs, and what to do
DROPPED = {
    "empty": (
        lambda n: Pair("", f"{n}"),
        "have an empty side, and were dropped, such as 9 ( | 0), 10 ( | 1). Look at data.train.",
    ),
    "duplicate": (
        lambda n: Pair("x0", "y"),
        "repeat an earlier one, and were dropped, such as 9 (x0 | y), 10 (x0 | y). Set data.drop",
    ),
    "too_long": (
        lambda n: Pair(LONG, f"{n}\x1b[2J"),
        "are longer than 4 words, or 10 characters without spaces, and were dropped, such as 9 "
        "(a b c d e and so on and so on and so on ... | 0\\x1b[2J), 10 "
        "(a b c d e and so on and so on and so on ... | 1\\x1b[2J). "
        "Raise data.max_words to keep them.",
    ),
    "ratio": (
        lambda n: Pair("a", f"b c d {n}"),
        "have a side over 3 times as long as the other, and were dropped, such as 9 (a | b c d 0), "
        "10 (a | b c d 1). "
        "Raise data.max_ratio to keep them.",
    ),
}


@pytest.mark.parametrize("reason", DROPPED)
def test_a_filter_that_drops_over_a_tenth_is_named_with_examples_and_its_setting(caplog, reason):
    make, said = DROPPED[reason]
    for total, warns in ((20, False), (19, True)):  # 2 of them
        pairs = [Pair(f"x{n}", "y") for n in range(total - 2)]
        pairs[8:8] = [make(0), make(1)]
        found = warnings_of(caplog, pairs)
        start = f"train.en, train.fr: 2 of {total} pairs {said}"
        assert len(found) == warns
        assert not warns or found[0].startswith(start)


# Lengths: of scripts without spaces in characters -----------------------------------------------

ZH = "今天天气很好我们去公园散步"
KANA, THAI = "あいうえおかきくけこ", "ภาษาไทย"


def lengths_for(source: str, target: str) -> tuple[Length, Length]:
    return Length(source, count_words), Length(target, count_words)


@pytest.mark.parametrize(
    ("text", "language", "length", "unit"),
    [
        ("a b\u00a0c  d", "en", 4, "words"),
        (ZH, "zh", 13, "characters"),
        (f"{ZH[:5]} {ZH[5:]}\u3000\u200b", "zh-TW", 13, "characters"),
        (unicodedata.normalize("NFD", "ガギグ"), "ja", 3, "characters"),
        ("สวัสดี", "tha", 4, "characters"),
        ("배가 항구에 있다", "ko", 3, "words"),
        (ZH, "xx", 13, "characters"),
        (ZH, "en", 13, "characters"),
        (KANA, "und", 10, "characters"),
        ("Ọ̀rọ̀ wà", "yo", 2, "words"),
        ("हिन्दी भाषा", "hi", 2, "words"),
    ],
)
def test_the_unit_is_that_of_the_language_or_of_the_text(text, language, length, unit):
    measured = Length(language, count_words)
    assert (measured(text), measured.unit([text])) == (length, unit)
    words = length / CHARACTERS_PER_WORD if unit == "characters" else length
    assert measured.in_words(text) == words


@pytest.mark.parametrize("code", ["zh", "zho_Hant", "xx", "en"])
def test_good_pairs_of_a_script_without_spaces_are_kept(caplog, code):
    """10 to 21 English words and 15 to 40 characters, as in F2; also under a wrong code."""
    draw = random.Random(3)
    pairs = []
    for number in range(800):
        count = 10 + number % 12
        text = "".join(draw.choices(ZH, k=round(count * draw.uniform(1.5, 1.9))))
        pairs.append(Pair(" ".join(["word"] * count), text))
    limits = {"max_words": 80, "max_ratio": 9.0, "drop_duplicates": False}
    kept, summary = filtered(pairs, lengths_for("en", code), **limits)
    assert kept == pairs
    found = summary.as_dict()["lengths"]
    assert found["source"] == {"unit": "words", "mean": 15.48, "longest": 21}
    texts = [len(pair.tgt) for pair in pairs]
    mean = round(sum(texts) / 800, 2)
    assert found["target"] == {"unit": "characters", "mean": mean, "longest": max(texts)}
    assert summary.mean_lengths() == f"source 15.5 words, target {mean:.1f} characters"


@pytest.mark.parametrize(
    ("pair", "max_words", "reason"),
    [
        (Pair("a b c d e", ZH * 431), 4000, "ratio"),  # 5 words, 5,603 characters
        (Pair("a b c d e", ZH * 431), 80, "too_long"),
        (Pair("a " * 60, KANA * 600), 60, "too_long"),
        (Pair(THAI * 100, "a b c d"), 60, "too_long"),
        (Pair("a " * 90, ZH[:4]), 100, "ratio"),
        (Pair(KANA * 15, "a " * 40), 60, None),
        (Pair(KANA * 15 + "あ", "a " * 40), 60, "too_long"),
    ],
)
def test_characters_meet_the_limits_too(pair, max_words, reason):
    limits = {"max_words": max_words, "max_ratio": 9.0}
    languages = lengths_for("ja", "zh")
    kept, summary = filtered([GOOD, pair], languages, **limits)
    assert [name for name, count in summary.dropped.items() if count] == [reason] * (
        reason is not None
    )
    assert len(kept) == 1 + (reason is None)


def test_C15_held_out_pairs_among_the_training_pairs_are_counted(caplog):
    """Pairs of equal text on both sides; each line of the held-out set counts once."""
    held_out = [Pair("a", "b"), Pair("a", "b"), Pair("c", "d"), Pair("e", "f"), Pair("b", "a")]
    training = [Pair("a", "b"), Pair("x", "y"), Pair("a", "b"), Pair("c", "other"), Pair("e", "f")]
    test, other = HeldOut("data.test"), HeldOut("data.validation")
    with caplog.at_level(logging.WARNING):
        assert list(test.note(held_out)) == held_out
        assert list(other.watch(test.watch(training))) == training
    assert (test.in_training, other.in_training) == (3, 0)
    assert caplog.messages == ["data.test: 3 of 5 pairs are training pairs, too"]


@pytest.mark.parametrize(("max_words", "reason"), [(2000, "ratio"), (999, "too_long")])
def test_C16_one_to_a_thousand(max_words, reason):
    long = "w " * 1000
    pairs = [GOOD, Pair("w", long), Pair(long, "w"), Pair(long, long)]
    kept, summary = filtered(pairs, max_words=max_words)
    assert kept == ([GOOD, pairs[3]] if reason == "ratio" else [GOOD])
    assert summary.examples[reason] == [2, 3, 4][: summary.dropped[reason]]
    assert summary.dropped[reason] == (2 if reason == "ratio" else 3)


def test_C3_bad_lines_beyond_the_limit():
    """With `skip` they are beyond the limit as others are; with `error` they still stop."""
    pairs = [GOOD, DataError("a:2", "bad", "Mend it."), Pair("x", "y")]
    kept, summary = filtered(pairs, limit=1, on_bad_line=OnBadLine.skip)
    assert kept == [GOOD]
    assert (summary.beyond_limit, summary.dropped["bad_line"], summary.read) == (2, 0, 3)
    with pytest.raises(DataError, match="a:2: bad"):
        filtered(pairs, limit=1)


def test_links_ride_along():
    assert filtered([Pair("a", "b", ((0, 0),))])[0][0].links == ((0, 0),)


@pytest.mark.e2e
@pytest.mark.parametrize("size", [1_000_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("text", ["w ", "x"])
def test_C7_huge_line_takes_little_memory(text, size):
    line = text * (size // len(text))
    tracemalloc.start()
    try:
        filtered([GOOD, Pair(line, "c")], max_words=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 15 * size
