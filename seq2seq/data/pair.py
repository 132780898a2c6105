"""A sentence pair, the unit of everything that reads a corpus."""

from dataclasses import dataclass

# Word links (source word, target word), as indices from 0 into `words.split_words` or, depending on
# `data.link_level`, the strings between spaces.
Links = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Pair:
    """A source sentence and its translation, without line ends.

    `links` is the gold word alignment of the embedded corpus, or what `data.links` gives.
    """

    src: str
    tgt: str
    links: Links | None = None
