r"""Locates the pairs of a split, and dispatches to the reader for that form of corpus.

A form is a function registered with the pattern of the names it reads, inside or outside this
package:

    @reads(r".*\.csv", example="pairs.csv")
    def read_csv(place: Place) -> Iterator[Pair | DataError]: ...

Errors that need no reading (a bad name, a missing file) are raised by the call itself, so a mistake
in the test set ends a run before its training set is read. A line or row that cannot be read is
yielded as its error.
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
    # Grows while the split is read: summaries of its files, in the order of the config.
    inputs: list[FileSummary] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names in the config: files, or a name with a prefix such as `hub:`."""
        names: list[str] = getattr(self.cfg, self.split)
        return names

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target language."""
        return self.cfg.source_language, self.cfg.target_language

    def path(self, name: str) -> Path:
        """Return the path of a file; names are relative to `data.root`."""
        return Path(self.cfg.root).expanduser() / Path(name).expanduser()


LONGEST_ALONE = 1000
"""Maximal characters of a single pair: a longer one is a text without line ends."""

Pairs = Iterator[Pair | DataError]
Reader = Callable[[Place], Pairs]

_forms: list[tuple[int, re.Pattern[str], str, Reader]] = []


def reads(pattern: str, *, example: str, names: int = 1) -> Callable[[Reader], Reader]:
    """Register a function as the reader of a form; of several matches, the latest counts.

    Args:
        pattern: Must match each whole name; case-insensitive.
        example: Shown in the error about an unknown form.
        names: Number of names that the config gives.
    """

    def register(reader: Reader) -> Reader:
        _forms.insert(0, (names, re.compile(pattern, re.IGNORECASE), example, reader))
        return reader

    return register


def scan_pairs(place: Place) -> Pairs:
    """Yield all pairs of a split in order, or their errors.

    Unequal line counts and errors far down a file only show at the end: exhaust the iterator before
    training on its pairs.

    Raises:
        ConfigError: immediately, if no reader knows the form.
        UserError: as raised by the reader, or if there is no pair at all.
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
        what = f"has a single line of {count:,} characters"
        raise DataError(where, what, "Write one sentence per line, each ending with a line feed.")
