"""What is kept and what is counted, against filters written a second time as plain loops."""

import json
import logging
import random
import tracemalloc
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
from seq2seq.data.pair import Pair
from seq2seq.data.readers import Place, scan_pairs
from seq2seq.data.text import strict
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


ODD = {
    "have an empty side": lambda n: Pair("", f"{n}"),
    "have the same text as source and target": lambda n: Pair(f"{n}", f"{n}"),
    "repeat an earlier one": lambda n: Pair("a", "b"),
}


@pytest.mark.parametrize(
    ("what", "least"), [("have an empty side", 2), *((what, 6) for what in [*ODD][1:])]
)
def test_C2_C15_many_odd_pairs_warn(caplog, what, least):
    for odd in (least - 1, least):
        pairs = [Pair("a", "b"), *(ODD[what](n) for n in range(odd))]
        pairs += [Pair(f"x{n}", "y") for n in range(9 - odd)]
        with caplog.at_level(logging.WARNING):
            filtered(pairs)
        expected = f"train.en, train.fr: {odd} of 10 pairs {what}"
        assert caplog.messages == ([expected] if odd == least else [])


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


@pytest.mark.parametrize("line", ["w " * 5_000_000, "x" * 10_000_000])
def test_C7_huge_line_takes_little_memory(line):
    tracemalloc.start()
    try:
        filtered([GOOD, Pair(line, "c")], max_words=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150e6
