"""A page on which to make gold links: data for `gold.js`, which saves them as Pharaoh."""

from collections.abc import Sequence

from seq2seq.alignment.links import GoldLinks
from seq2seq.data.words import Splitter
from seq2seq.report.page import page
from seq2seq.run.errors import printable

SURE, POSSIBLE = 1, 2  # kinds of links, as in `gold.js`; 0 is no link


def gold_page(
    name: str, pairs: Sequence[tuple[str, str]], split: Splitter, gold: Sequence[GoldLinks | None]
) -> str:
    """Return the page for sentence pairs, starting from the gold links that they have.

    `name` is that of the file that the page saves, `split` finds the words to be linked.
    """
    sentences = []
    for texts, links in zip(pairs, gold, strict=True):
        sides = ([printable(text[a:b]) for a, b in split(text)] for text in texts)
        kinds = dict.fromkeys(links.possible, POSSIBLE) if links else {}
        kinds |= dict.fromkeys(links.sure, SURE) if links else {}
        cells = [(i, j, kind) for (i, j), kind in sorted(kinds.items())]
        sentences.append(dict(zip(("source", "target", "links"), (*sides, cells), strict=True)))
    # The script of the report, whose functions draw this page, too, wants runs.
    data = {"runs": [], "file": printable(name), "sentences": sentences}
    return page(f"Gold links: {printable(name)}", data, ("attention.js", "gold.js"))
