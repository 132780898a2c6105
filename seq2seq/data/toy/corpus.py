"""The corpus: an endless stream of sentences, divided into three disjoint splits."""

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from random import Random

from seq2seq.data.pair import Pair
from seq2seq.data.toy.grammar import Grammar
from seq2seq.data.toy.lexicon import read_lexicon
from seq2seq.data.toy.spelling import render
from seq2seq.data.toy.tables import rows
from seq2seq.run.errors import ConfigError

SPLITS = ("train", "validation", "test")
SHORTEST, LONGEST = 3, 60
MAX_MISSES = 5_000  # consecutive draws without a new sentence after which a split is exhausted


@cache
def grammar() -> Grammar:
    """Return the grammar of all tables, which are read once."""
    return Grammar(rows("rules"), read_lexicon())


def split_of(french: str) -> str:
    """Return the split of a sentence pair, by its French side: a tenth each to validation and test.

    The French side decides because the English determines it: pairs that share either sentence
    share the French one, so no sentence can occur in two splits. Independent of the seed, so
    corpora of different seeds may be mixed.
    """
    bucket = hashlib.blake2b(french.encode(), digest_size=2).digest()[0] % 10
    return {0: "validation", 1: "test"}.get(bucket, "train")


def generate(
    split: str, count: int, *, seed: int, min_words: int, max_words: int
) -> Iterator[Pair]:
    """Yield `count` sentence pairs with gold links.

    The same arguments give the same pairs on every machine, and a smaller count gives a prefix.
    Validation and test have no repeated sentence; train may repeat short ones.

    Args:
        split: train, validation or test.
        count: Number of pairs.
        seed: Each seed gives a different corpus.
        min_words: Minimal number of English words, as counted by `str.split`.
        max_words: Maximal number of English words; lengths are drawn uniformly.

    Raises:
        ConfigError: an argument is out of range, or the split has too few sentences.
    """
    if split not in SPLITS:
        raise ConfigError("data.grammar", f"no split {split!r}", f"Use {', '.join(SPLITS)}.")
    if not SHORTEST <= min_words <= max_words <= LONGEST:
        what = f"min_words={min_words}, max_words={max_words} is not a range of lengths"
        fix = f"Use {SHORTEST} <= min_words <= max_words <= {LONGEST}."
        raise ConfigError("data.grammar", what, fix)
    digest = hashlib.blake2b(f"{seed} {split} {min_words} {max_words}".encode(), digest_size=8)
    # Use only `Random.random`, whose algorithm is fixed, unlike that of `choice` and others.
    random = Random(int.from_bytes(digest.digest(), "big")).random
    return _draw(split, count, random, range(min_words, max_words + 1))


def _draw(split: str, count: int, random: Callable[[], float], lengths: range) -> Iterator[Pair]:
    seen: set[str] = set()
    misses = produced = 0
    while produced < count:
        # Each target belongs to one split, so that no test sentence is trained on.
        pair = render(grammar().draw("S", lengths[int(random() * len(lengths))], random))
        if split_of(pair.tgt) == split and pair.src not in seen:
            if split != "train":
                seen.add(pair.src)
            misses = 0
            produced += 1
            yield pair
        # Of few lengths the grammar has few sentences.
        elif misses < MAX_MISSES:
            misses += 1
        else:
            shortest, longest = lengths[0], lengths[-1]
            what = f"{split} has only {produced} of {count} pairs of {shortest} to {longest} words"
            fix = "Ask for fewer pairs or widen min_words and max_words."
            raise ConfigError("data.grammar", what, fix)
