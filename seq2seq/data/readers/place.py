r"""Where the pairs of a split lie, and which reader reads that form of corpus.

A form is a function with the pattern of the names that it reads. From inside this package or from
outside of it:

    @reads(r".*\.csv", example="pairs.csv")
    def read_csv(place: Place) -> Iterator[Pair | DataError]: ...

What can be checked without reading (a name, a missing file) is an error of the call itself, so that
a mistake in the test set ends a run before its training set is read. A line or row that cannot be
read is yielded as its error.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from seq2seq.config.schema import DataConfig
from seq2seq.data.encodings import PACKED
from seq2seq.data.pair import Pair
from seq2seq.data.text import FileSummary
from seq2seq.run.errors import ConfigError, DataError


@dataclass(frozen=True)
class Place:
    """A split to read: "train", "validation" or "test" of a config."""

    cfg: DataConfig
    split: str
    # Grows while the split is read: what its files held, in the order of the config.
    inputs: list[FileSummary] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """What the config says: files, or a name with a prefix such as `hub:`."""
        names: list[str] = getattr(self.cfg, self.split)
        return names

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target."""
        return self.cfg.source_language, self.cfg.target_language

    def path(self, name: str) -> Path:
        """Return the path of a file; relative names start from `data.root`."""
        return Path(self.cfg.root).expanduser() / Path(name).expanduser()


LONGEST_ALONE = 1000
"""Characters of a pair that is the only one: more are a text without line ends."""

Pairs = Iterator[Pair | DataError]
Reader = Callable[[Place], Pairs]

_forms: list[tuple[int, re.Pattern[str], str, Reader]] = []


def reads(pattern: str, *, example: str, names: int = 1) -> Callable[[Reader], Reader]:
    """Name the form of corpus that a function reads; of several that match, the latest counts.

    Args:
        pattern: Of the whole of each name, capital letters or not.
        example: For the error about a form that nothing reads.
        names: How many the config gives.
    """

    def register(reader: Reader) -> Reader:
        _forms.insert(0, (names, re.compile(pattern, re.IGNORECASE), example, reader))
        return reader

    return register


def scan_pairs(place: Place) -> Pairs:
    """Yield the pairs of a split in their order, none left out, or their errors.

    Line counts, and all that is wrong far down a file, show only at the end: use up the iterator
    before training on its pairs.

    Raises:
        ConfigError: at once, if the place is of no known form.
        UserError: as its reader does; and if there is no pair at all.
    """
    names = place.names
    for count, pattern, _, reader in _forms:
        if len(names) == count and all(map(pattern.fullmatch, names)):
            return _not_empty(reader(place), ", ".join(names))
    examples = ", ".join(f"[{example}]" for _, _, example, _ in _forms)
    what = f"data.{place.split}={names} is no known form of corpus"
    packed = "; unpack it first" if any(x.lower().endswith(PACKED) for x in names) else ""
    raise ConfigError("config", what, f"Use one of {examples}{packed}.")


def _not_empty(pairs: Pairs, where: str) -> Pairs:
    pair, number = None, 0
    for number, pair in enumerate(pairs, 1):  # noqa: B007 - used after the loop
        yield pair
    if number == 0:
        raise DataError(where, "holds no sentence pair", "Give a file with at least one.")
    count = max(len(pair.src), len(pair.tgt)) if isinstance(pair, Pair) else 0
    if number == 1 and count > LONGEST_ALONE:
        what = f"holds a single line of {count:,} characters"
        raise DataError(where, what, "Write one sentence a line, each ended by a line feed.")
