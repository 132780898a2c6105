"""One sentence pair, the currency of everything that reads a corpus."""

from dataclasses import dataclass

# Word links (source word, target word), both counted from 0 as `words.split_words` splits.
Links = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Pair:
    """A source sentence and its translation, without line ends.

    `links` is the gold word alignment; only the embedded corpus has one.
    """

    src: str
    tgt: str
    links: Links | None = None
