r"""Word links: reads them from attention or files, scores them, and symmetrises two directions.

Gold links come in two formats, detected by the first line of a file.

- Pharaoh: one line per sentence, `0-0 1-2 3?4`, source and target word counted from 0. `-` is a
  sure link; `?` or `p` (`3p4`) a possible one.
- NAACL (Mihalcea & Pedersen 2003): one line per link, `sentence source target [S|P] [confidence]`,
  all counted from 1. Without a letter a link is sure; word 0 stands for "none" and is ignored.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seq2seq.alignment.heatmap import Weights
from seq2seq.data.pair import Links
from seq2seq.data.text import read_lines
from seq2seq.run.errors import DataError

Sizes = tuple[int, int]  # number of words of a source sentence and of its target

_LINK = re.compile(r"(\d{1,9})([-?p])(\d{1,9})")
_NAACL = re.compile(r"(\d{1,9})\s+(\d{1,9})\s+(\d{1,9})(?:\s+([SP]))?(?:\s+[\d.eE+-]+)?")
_NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


@dataclass(frozen=True)
class GoldLinks:
    """The gold links of a sentence pair."""

    sure: Links
    possible: Links  # including the sure ones


@dataclass(frozen=True)
class LinkScores:
    """Scores of predicted links against gold links, over the whole corpus."""

    error_rate: float
    precision: float  # share of predicted links that are possible
    recall: float  # share of sure links that were predicted


def alignment_errors(predicted: Sequence[Links], gold: Sequence[GoldLinks]) -> LinkScores:
    """Score predicted links A against sure links S and possible links P (Och & Ney 2003).

        rate      = 1 - (|A n S| + |A n P|) / (|A| + |S|)
        precision = |A n P| / |A|
        recall    = |A n S| / |S|

    Counts are summed over the corpus first; links are sets, so duplicates count once. Without sure
    links recall is 1. Without predicted links precision is 0, or 1 if there are no sure links
    either; then the rate is 0.
    """
    num_predicted = num_sure = in_sure = in_possible = 0
    for links, wanted in zip(predicted, gold, strict=True):
        a, s = set(links), set(wanted.sure)
        num_predicted += len(a)
        num_sure += len(s)
        in_sure += len(a & s)
        in_possible += len(a & {*s, *wanted.possible})
    total = num_predicted + num_sure
    return LinkScores(
        error_rate=1 - (in_sure + in_possible) / total if total else 0.0,
        precision=in_possible / num_predicted if num_predicted else float(not num_sure),
        recall=in_sure / num_sure if num_sure else 1.0,
    )


def best_links(alpha: Weights, shift: int = 0, *, ended: bool = True) -> Links:
    """Link each target word to the source word with the largest weight, the first on ties.

    Target word i is read from row i + shift of alpha (Ty, Tx), clipped to the rows there are; a row
    without weight on any source word gives no link. The last column is the end symbol's and, if
    `ended`, the last row.
    """
    last, words = len(alpha) - 1, alpha[:, :-1]
    rows = ((i, words[min(max(i + shift, 0), last)]) for i in range(len(alpha) - ended))
    return tuple((int(row.argmax()), i) for i, row in rows if row.max(initial=0) > 0)


def pharaoh(links: Iterable[tuple[int, int]]) -> str:
    """Format links as `0-0 1-2`, source-target, sorted by source."""
    return " ".join(f"{i}-{j}" for i, j in sorted(links))


def read_links(line: str) -> GoldLinks:
    """Parse a line of Pharaoh links.

    Raises:
        ValueError: a word is not a valid link; its argument is that word.
    """
    sure, possible = [], []
    for word in line.split():
        if (found := _LINK.fullmatch(word)) is None:
            raise ValueError(word)
        link = (int(found[1]), int(found[3]))
        possible.append(link)
        if found[2] == "-":
            sure.append(link)
    return GoldLinks(tuple(sure), tuple(possible))


def read_gold(path: Path, sizes: Sequence[Sizes]) -> list[GoldLinks]:
    """Read a file of gold links, in either format, for sentence pairs of these sizes.

    Raises:
        DataError: an invalid link, a link to a word that does not exist, or a different number of
            sentences.
    """
    # In NAACL format the first word is a plain number, that of the sentence.
    lines = list(read_lines(path))
    first = next((line for line in lines if line.strip()), "")
    if first.split()[:1] and first.split()[0].isdigit():
        return _read_naacl(path, lines, sizes)
    if len(lines) != len(sizes):
        what = f"has {len(lines)} lines for {len(sizes)} sentence pairs"
        raise DataError(path, what, "Give a line for each pair, an empty one for no links.")
    # Pharaoh: one line per sentence pair.
    gold = []
    for number, (line, size) in enumerate(zip(lines, sizes, strict=True), start=1):
        try:
            found = read_links(line)
        except ValueError as error:
            what = f"{str(error)[:80]!r} is not a valid link"
            fix = "Write SOURCE-TARGET, words counted from 0; SOURCE?TARGET if only possible."
            raise DataError(f"{path}:{number}", what, fix) from None
        for link in found.possible:
            _check_inside(f"{path}:{number}", link, size)
        gold.append(found)
    return gold


def _read_naacl(path: Path, lines: Sequence[str], sizes: Sequence[Sizes]) -> list[GoldLinks]:
    sure: list[list[tuple[int, int]]] = [[] for _ in sizes]
    possible: list[list[tuple[int, int]]] = [[] for _ in sizes]
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if (found := _NAACL.fullmatch(line.strip())) is None:
            what = f"{line[:80]!r} is not a valid link"
            raise DataError(f"{path}:{number}", what, "Write: sentence source target [S|P].")
        # All three count from 1; word 0 stands for "none".
        sentence, i, j = (int(found[group]) - 1 for group in (1, 2, 3))
        if not 0 <= sentence < len(sizes):
            what = f"sentence {found[1]}, there are {len(sizes)} sentence pairs"
            raise DataError(f"{path}:{number}", what, "Count them from 1.")
        if -1 in (i, j):
            continue
        _check_inside(f"{path}:{number}", (i, j), sizes[sentence])
        possible[sentence].append((i, j))
        if found[4] != "P":
            sure[sentence].append((i, j))
    return [GoldLinks(tuple(s), tuple(p)) for s, p in zip(sure, possible, strict=True)]


def _check_inside(where: str, link: tuple[int, int], size: Sizes) -> None:
    for side, at, words in zip(("source", "target"), link, size, strict=True):
        if at >= words:
            what = f"links {side} word {at + 1} of {words}"
            fix = "Do source and target belong to it, in this order and split into these words?"
            raise DataError(where, what, fix)


# Two directions -----------------------------------------------------------------------------------


def intersection(forward: Links, backward: Links) -> Links:
    """Return the links in both directions: high precision."""
    return tuple(sorted({*forward} & {*backward}))


def union(forward: Links, backward: Links) -> Links:
    """Return the links in either direction: high recall."""
    return tuple(sorted({*forward} | {*backward}))


def grow_diag_final_and(forward: Links, backward: Links) -> Links:
    """Grow the intersection inside the union (Koehn et al. 2003, 2005).

    Links are visited by target word, then source word, from left to right.
    """
    either, grown = {*forward} | {*backward}, {*forward} & {*backward}
    sources, targets = ({link[side] for link in grown} for side in range(2))  # words with a link

    def add(link: tuple[int, int]) -> None:
        grown.add(link)
        sources.add(link[0])
        targets.add(link[1])

    # grow-diag: add neighbours of a link that have an unlinked word, until nothing changes.
    before = -1
    while before != len(grown):
        before = len(grown)
        for i, j in sorted(either, key=lambda link: link[::-1]):
            for step_j, step_i in _NEIGHBOURS if (i, j) in grown else ():
                near = (i + step_i, j + step_j)
                free = near[0] not in sources or near[1] not in targets
                if free and near in either and near not in grown:
                    add(near)
    # final-and: add links of either direction whose words are both unlinked.
    for direction in (forward, backward):
        for i, j in sorted(direction, key=lambda link: link[::-1]):
            if i not in sources and j not in targets:
                add((i, j))
    return tuple(sorted(grown))


SYMMETRISATIONS = {
    "grow-diag-final-and": grow_diag_final_and,
    "intersection": intersection,
    "union": union,
}
"""Ways to combine forward and backward links."""
