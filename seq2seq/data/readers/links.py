"""Word links of training pairs, from a file beside the corpus."""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest

from seq2seq.config.schema import LinkLevel
from seq2seq.data.pair import Pair
from seq2seq.data.readers.place import Pairs, Place
from seq2seq.data.text import FileSummary, open_regular, scan_lines
from seq2seq.data.words import blank_spans, word_spans
from seq2seq.run.errors import DataError

_LINK = re.compile(r"(\d{1,9})-(\d{1,9})")


def with_links(pairs: Pairs, place: Place, name: str) -> Pairs:
    """Add the links of a file in Pharaoh format, a line per pair, to the pairs of a place.

    Raises:
        DataError: immediately, if the file cannot be read; at the end, if it has another number of
            lines.
    """
    path = place.path(name)
    open_regular(path).close()
    place.inputs.append(FileSummary(path.name))
    return _linked(pairs, scan_lines(path, place.inputs[-1]), place, str(path))


def _linked(pairs: Pairs, lines: Iterator[str | DataError], place: Place, path: str) -> Pairs:
    for number, (pair, line) in enumerate(zip_longest(pairs, lines), 1):
        if pair is None or line is None:
            what = f"has {'more' if pair is None else 'fewer'} lines than there are training pairs"
            raise DataError(path, what, "Give a line for each pair, an empty one for no links.")
        if isinstance(pair, Pair) and isinstance(line, str):
            pair = _with_line(pair, line, place.cfg.link_level, f"{path}:{number}")
        yield line if isinstance(line, DataError) else pair


def _with_line(pair: Pair, line: str, level: LinkLevel, where: str) -> Pair | DataError:
    split = word_spans if level is LinkLevel.words else blank_spans
    sizes = len(split(pair.src)), len(split(pair.tgt))
    links = []
    for word in line.split():
        found = _LINK.fullmatch(word)
        if found is None or int(found[1]) >= sizes[0] or int(found[2]) >= sizes[1]:
            fix = "Write SOURCE-TARGET, words counted from 0; data.link_level says what is a word."
            return DataError(where, f"{word[:80]!r} links no words", fix)
        links.append((int(found[1]), int(found[2])))
    return replace(pair, links=tuple(links))
