"""The corpus: an endless stream of sentences, dealt into three splits that never meet."""

import hashlib
from collections.abc import Iterator

from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.phrase import render
from seq2seq.data.grammar.sentences import count_words, sentence
from seq2seq.data.pair import Pair
from seq2seq.run.errors import ConfigError

SPLITS = ("train", "validation", "test")
SHORTEST, LONGEST = 3, 60
MAX_MISSES = 5_000
"""Draws in a row without a new sentence after which a split counts as used up (seconds)."""


def split_of(french: str) -> str:
    """Tell the split of a sentence pair by its French side: a tenth each to validation and test.

    The French side decides because translation is a function of the English: pairs that share
    either sentence share the French one, so neither sentence can cross into another split.
    Independent of the seed, so corpora of different seeds may be mixed.
    """
    bucket = hashlib.blake2b(french.encode(), digest_size=2).digest()[0] % 10
    return {0: "validation", 1: "test"}.get(bucket, "train")


def generate(
    split: str, count: int, *, seed: int, min_words: int, max_words: int
) -> Iterator[Pair]:
    """Yield `count` sentence pairs with gold links.

    The same arguments give the same pairs on every machine, and a smaller count a prefix.
    Validation and test hold no sentence twice; train may repeat short ones.

    Args:
        split: train, validation or test.
        count: Number of pairs.
        seed: Every seed gives another corpus.
        min_words: Fewest English words, as `str.split` counts them.
        max_words: Most English words; lengths are drawn evenly in between.

    Raises:
        ConfigError: an argument is out of range, or the split has not that many sentences.
    """
    _check(split, min_words, max_words)
    dice = Dice(f"{seed} {split} {min_words} {max_words}")
    return _draw(split, count, dice, (min_words, max_words))


def _draw(split: str, count: int, dice: Dice, words: tuple[int, int]) -> Iterator[Pair]:
    shortest, longest = words
    seen: set[str] = set()
    misses = produced = 0
    while produced < count:
        phrase, mark = sentence(dice, dice.between(shortest, longest))
        pair = render(phrase, mark) if shortest <= count_words(phrase) <= longest else None
        if pair is None or split_of(pair.tgt) != split or pair.src in seen:
            misses += 1
            if misses > MAX_MISSES:
                what = (
                    f"{split} has only {produced} of {count} pairs of {shortest} to {longest} words"
                )
                raise ConfigError(
                    "data.grammar",
                    what,
                    "Ask for fewer pairs or widen min_words and max_words.",
                )
            continue
        if split != "train":
            seen.add(pair.src)
        misses = 0
        produced += 1
        yield pair


def _check(split: str, min_words: int, max_words: int) -> None:
    if split not in SPLITS:
        raise ConfigError("data.grammar", f"no split {split!r}", f"Use {', '.join(SPLITS)}.")
    if not SHORTEST <= min_words <= max_words <= LONGEST:
        raise ConfigError(
            "data.grammar",
            f"min_words={min_words}, max_words={max_words} is no range of lengths",
            f"Use {SHORTEST} <= min_words <= max_words <= {LONGEST}.",
        )
