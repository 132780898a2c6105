"""What is kept and what is counted, against filters written a second time as plain loops."""

import json
import logging
import random
import tracemalloc
from dataclasses import fields, replace

import pytest

from seq2seq.config.schema import DataConfig, GrammarConfig, OnBadLine
from seq2seq.data.filters import MAX_WORD_CHARACTERS, NUM_EXAMPLES, HeldOut, is_blank, keep
from seq2seq.data.pair import Pair
from seq2seq.run.errors import DataError


def data_config(**changes) -> DataConfig:
    grammar = GrammarConfig(
        seed=1, train_pairs=10, validation_pairs=5, test_pairs=5, min_words=3, max_words=9
    )
    cfg = DataConfig(
        source_language="en",
        target_language="fr",
        root=".",
        train=["train.en", "train.fr"],
        validation=["embedded"],
        test=["embedded"],
        max_words=4,
        max_ratio=3.0,
        drop_duplicates=True,
        on_bad_line=OnBadLine.error,
        limit=None,
        grammar=grammar,
    )
    return replace(cfg, **changes)


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
    (Pair(" a  b\u00a0c d ", "c d e f"), "kept", "blanks make no words"),
    (Pair("x" * 4 * MAX_WORD_CHARACTERS, "c"), "kept", "four words' worth of characters"),
    (Pair("x" * (4 * MAX_WORD_CHARACTERS + 1), "c"), "too_long", "one endless word"),
    (Pair("a b c", "c"), "kept", "exactly max_ratio"),
    (Pair("a b c d", "c"), "ratio", "above max_ratio"),
    (Pair("c", "a b c d"), "ratio", "above max_ratio, other way"),
]


@pytest.mark.parametrize(("pair", "expected", "why"), CASES)
def test_C2_C16_each_rule(pair, expected, why):
    kept = keep([Pair("first", "first'"), pair], data_config())
    passed = list(kept)
    assert passed[1:] == ([pair] if expected == "kept" else []), why
    counts = kept.report.as_dict()
    if expected == "kept":
        assert kept.report.kept == 2
    else:
        assert (counts["kept"], counts[expected], counts["examples"][expected]) == (1, 1, [2])


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
    kept = keep(iter(pairs), data_config())
    assert list(kept) == survivors, f"seed {seed}"
    report = kept.report
    for reason, numbers in expected.items():
        assert getattr(report, reason) == len(numbers), reason
        assert report.examples[reason] == numbers[:NUM_EXAMPLES], reason
    assert report.read == 500 == len(survivors) + sum(map(len, expected.values()))
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
    assert set(report.as_dict()) == {field.name for field in fields(report)}


def test_duplicates_need_both_sides():
    pairs = [Pair("a", "b"), Pair("a", "c"), Pair("d", "b"), Pair("a", "b"), Pair("b", "a")]
    assert list(keep(pairs, data_config())) == [*pairs[:3], pairs[4]]
    assert list(keep(pairs, data_config(drop_duplicates=False))) == pairs


def test_limit_reads_to_the_end():
    read = []

    def pairs():
        for number in range(10):
            read.append(number)
            yield Pair(f"a{number}", "" if number == 1 else f"b{number}")

    kept = keep(pairs(), data_config(limit=3))
    assert [pair.src for pair in kept] == ["a0", "a2", "a3"]
    assert len(read) == 10
    report = kept.report
    assert (report.read, report.kept, report.empty, report.beyond_limit) == (10, 3, 1, 6)
    assert report.summary() == "10 pairs read, 3 kept (dropped: 1 empty); 6 beyond data.limit"


def test_limit_still_finds_an_error_far_down():
    def pairs():
        yield from [GOOD] * 5
        raise DataError("train.en", "5 lines", "Look.")

    kept = keep(pairs(), data_config(limit=1))
    assert next(kept) == GOOD
    with pytest.raises(DataError, match="5 lines"):
        next(kept)


def test_summary_names_each_reason():
    pairs = [Pair(f"a{n}", "b") for n in range(1200)]
    pairs += [Pair("", "x"), Pair("a b c d e", "x"), Pair("a b c d", "x"), pairs[0]]
    kept = keep(pairs, data_config())
    assert sum(1 for _ in kept) == 1200
    assert kept.report.summary() == (
        "1,204 pairs read, 1,200 kept (dropped: 1 empty, 1 longer than 4 words, "
        "1 ratio above 3, 1 duplicate)"
    )
    kept = keep([GOOD], data_config())
    assert next(kept) == GOOD
    assert kept.report.summary() == "1 pairs read, 1 kept"


def test_C2_nothing_left():
    with pytest.raises(DataError) as caught:
        list(keep([Pair("", "x"), Pair("a b c d e", "x")], data_config()))
    assert str(caught.value) == (
        "train.en, train.fr: no training pair is left: 2 pairs read, 0 kept (dropped: 1 empty, "
        "1 longer than 4 words). Look at the files, or raise data.max_words and data.max_ratio."
    )


@pytest.mark.parametrize(("empty", "warns"), [(1, False), (2, True)])
def test_C2_many_empty_sides_warn(caplog, empty, warns):
    pairs = [Pair("", "x")] * empty + [Pair(str(n), f"x{n}") for n in range(10 - empty)]
    with caplog.at_level(logging.WARNING):
        list(keep(pairs, data_config()))
    assert ("2 of 10 pairs have an empty side" in caplog.text) == warns


@pytest.mark.parametrize(("copies", "warns"), [(5, False), (6, True)])
def test_C15_copies_warn(caplog, copies, warns):
    pairs = [Pair(str(n), str(n) if n < copies else "x") for n in range(10)]
    with caplog.at_level(logging.WARNING):
        assert len(list(keep(pairs, data_config()))) == 10
    assert ("in 6 of 10 pairs source and target are the same text" in caplog.text) == warns


@pytest.mark.parametrize(("repeats", "warns"), [(4, False), (5, False), (6, True)])
def test_C15_repeats_warn(caplog, repeats, warns):
    pairs = [Pair("a", "b")] * (repeats + 1) + [Pair(str(n), "x") for n in range(9 - repeats)]
    with caplog.at_level(logging.WARNING):
        assert len(list(keep(pairs, data_config()))) == 10 - repeats
    assert ("repeat an earlier one" in caplog.text) == warns
    assert not warns or "train.en, train.fr: 6 of 10 pairs repeat" in caplog.text


def test_C15_held_out_pairs_among_the_training_pairs_are_counted(caplog):
    """Pairs of equal text on both sides; each line of the held-out set counts once."""
    held_out = [Pair("a", "b"), Pair("a", "b"), Pair("c", "d"), Pair("e", "f"), Pair("b", "a")]
    training = [Pair("a", "b"), Pair("x", "y"), Pair("a", "b"), Pair("c", "other"), Pair("e", "f")]
    test = HeldOut("data.test")
    with caplog.at_level(logging.WARNING):
        assert list(test.note(held_out)) == held_out
        assert list(test.watch(training)) == training
    assert test.in_training == 3
    assert "data.test: 3 of 5 pairs are training pairs, too" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        list(HeldOut("data.test").watch(training))
    assert not caplog.text


@pytest.mark.parametrize(("max_words", "reason"), [(2000, "ratio"), (999, "too_long")])
def test_C16_one_to_a_thousand(max_words, reason):
    long = "w " * 1000
    pairs = [GOOD, Pair("w", long), Pair(long, "w"), Pair(long, long)]
    kept = keep(pairs, data_config(max_words=max_words))
    assert list(kept) == ([GOOD, pairs[3]] if reason == "ratio" else [GOOD])
    assert kept.report.examples[reason][:2] == [2, 3]
    assert getattr(kept.report, reason) == (2 if reason == "ratio" else 3)


def test_C3_bad_lines_beyond_the_limit():
    """With `skip` they are beyond the limit as others are; with `error` they still stop."""
    pairs = [GOOD, DataError("a:2", "bad", "Mend it."), Pair("x", "y")]
    kept = keep(pairs, data_config(limit=1, on_bad_line=OnBadLine.skip))
    assert list(kept) == [GOOD]
    assert (kept.report.beyond_limit, kept.report.bad_line, kept.report.read) == (2, 0, 3)
    with pytest.raises(DataError, match="a:2: bad"):
        list(keep(pairs, data_config(limit=1)))


def test_links_ride_along():
    pair = Pair("a", "b", ((0, 0),))
    assert next(keep([pair], data_config())).links == ((0, 0),)


@pytest.mark.parametrize("line", ["w " * 5_000_000, "x" * 10_000_000])
def test_C7_huge_line_takes_little_memory(line):
    tracemalloc.start()
    try:
        kept = keep([GOOD, Pair(line, "c")], data_config(max_words=1_000_000))
        list(kept)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150e6


@pytest.mark.parametrize("text", ["", "\r", "\x01", "\u2060", "\u00ad"])
def test_blank(text):
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", " .", "\u0301", "\U0010ffff", "\u200d\U0001f469"])
def test_not_blank(text):
    assert not is_blank(text)
