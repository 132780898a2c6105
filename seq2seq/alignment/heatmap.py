"""Soft alignments to look at: the heatmap of Figure 3, and the step from pieces to words.

Nothing here writes a file. Figures are plain `Figure` objects: pyplot would keep them alive and
could pick a window system.
"""

import io
import logging
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.words import Span, Splitter, word_spans
from seq2seq.run.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Weights = NDArray[np.floating[Any]]
"""Attention weights (Ty, Tx): row i says where target position i looked; rows sum to 1."""

PICTURES = {
    "png": ("Software",),
    "svg": ("Date", "Creator"),
    "pdf": ("CreationDate", "Creator", "Producer"),
}
"""What a picture can be, and what each says of its making unless told not to."""

DPI = 150
CELL, FULL_SIZE_CELLS = 0.22, 20  # inches per cell of a map up to 20 x 20; larger maps shrink it
MIN_CELL = 0.09  # inches: below this a label of one cell's height can no longer be read
MAX_SIDE = 36.0  # inches, 5,400 pixels: beyond that even labels have to shrink
FONT_RATIO = 0.66  # of the cell
MAX_LABEL = 32  # characters: a "word" of Chinese can be a whole sentence
BASE_FONT = "DejaVu Sans"  # ships with matplotlib; Latin, Greek, Cyrillic, Arabic, U+2581
BOX = "\u25a1"  # stands for a character that no font has
_JOINERS = "\u200c\u200d"  # shape letters
_BLANKS = "\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

logger = logging.getLogger(__name__)
_warned: list[str] = []


def plot_alignment(
    alpha: Weights,
    src_labels: Sequence[str],
    tgt_labels: Sequence[str],
    *,
    title: str | None = None,
    font: str | None = None,
) -> "Figure":
    """Draw one soft alignment as in Figure 3: source along the top, target down the left side.

    Grey scale, 0 black and 1 white. Labels are shown as they are (end symbols too, if the caller
    has them), except that unprintable characters are escaped and long labels end in an ellipsis.
    A weight that is no number is a red cell.

    Args:
        alpha: (Ty, Tx), weights in [0, 1].
        src_labels: Tx labels of the columns.
        tgt_labels: Ty labels of the rows.
        title: A line above the map.
        font: Font file for characters that DejaVu Sans lacks, tried before the installed fonts.

    Raises:
        ConfigError: `font` is not a font file.
        ValueError: `alpha` does not fit the labels.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    weights = np.asarray(alpha, dtype=np.float64)
    if weights.shape != (len(tgt_labels), len(src_labels)) or weights.size == 0:
        raise ValueError(
            f"alpha is {weights.shape} for {len(tgt_labels)} target and {len(src_labels)} source "
            "labels"
        )
    labels = [_shorten(label) for label in (*src_labels, *tgt_labels)]
    families, texts = _readable([title or "", *labels], font)
    heading, columns, rows = texts[0], texts[1 : 1 + len(src_labels)], texts[1 + len(src_labels) :]
    cell = _cell_inches(max(weights.shape))
    style: dict[str, Any] = {
        "family": families,
        "size": FONT_RATIO * cell * 72,  # points
        "color": "black",
        "parse_math": False,  # or "$_$" crashes the plot and "$5 and $6" becomes a formula
        "usetex": False,
        "rotation_mode": "anchor",
        "va": "center_baseline",  # one baseline for all labels, whatever letters they have
    }
    figure = Figure(dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    grey = colormaps["gray"].with_extremes(bad="red")
    shown = np.ma.masked_invalid(weights)
    axes.imshow(shown, cmap=grey, vmin=0, vmax=1, interpolation="nearest", origin="upper")
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    axes.set_xticks(range(len(columns)), columns, rotation=90, ha="left", **style)
    axes.set_yticks(range(len(rows)), rows, ha="right", **style)
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, edgecolor="black")
    if heading:
        axes.set_title(heading, pad=6, **style | {"va": "baseline"})
    _fit(figure, axes, width=cell * len(columns), height=cell * len(rows))
    return figure


def to_png(figure: "Figure") -> bytes:
    """Render a figure as PNG; see `render`."""
    return render(figure, "png")


def render(figure: "Figure", form: str) -> bytes:
    """Render a figure. The same input gives the same bytes: no date, no version.

    Args:
        figure: Any.
        form: One of `PICTURES`.
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # Names of parts of an SVG are random without a salt.
    with rc_context({"svg.hashsalt": "attention"}):
        figure.savefig(buffer, format=form, dpi=DPI, metadata=dict.fromkeys(PICTURES[form]))
    return buffer.getvalue()


def merge_words(
    alpha: Weights, src_groups: Sequence[Sequence[int]], tgt_groups: Sequence[Sequence[int]]
) -> Weights:
    """Turn weights between pieces into weights between words.

    Attention *to* a word is the sum over its pieces, attention *from* a word the mean over its
    pieces, so every row still sums to 1 (the rule of Clark et al. 2019, arXiv:1906.04341).

    Args:
        alpha: (Ty, Tx), over pieces.
        src_groups: For each source word the indices of its pieces, in order, none left out.
        tgt_groups: The same for the target.

    Returns:
        (target words, source words).

    Raises:
        ValueError: the groups are not a partition of the pieces in order.
    """
    for groups, num_pieces in zip((tgt_groups, src_groups), alpha.shape, strict=True):
        if [piece for group in groups for piece in group] != list(range(num_pieces)):
            raise ValueError(f"groups {list(groups)} do not partition {num_pieces} pieces in order")
    to_words = np.stack([alpha[:, list(group)].sum(axis=1) for group in src_groups], axis=1)
    return np.stack([to_words[list(group)].mean(axis=0) for group in tgt_groups])


def group_pieces(
    text: str, offsets: Sequence[tuple[int, int]], split: Splitter = word_spans
) -> tuple[list[str], list[list[int]]]:
    """Say which pieces make up which word of a text.

    A piece belongs to the word of which it covers most characters, on a tie to the first one
    (`l'ho` + `mme`: the first piece goes to `l'`). A piece without a printing character of its
    own, a lone blank or the first half of a rewritten character, belongs to the word that
    follows. A word that is left without a piece joins the label of the neighbour whose piece
    covers it: the single piece `homme.` is labelled `homme.`.

    Args:
        text: The sentence.
        offsets: Characters [start, end) of each piece, in order, end symbol left out. They may
            include the blank before a word and may be empty.
        split: What a word is.

    Returns:
        The labels, and for each the indices of its pieces: in order, every piece exactly once.
    """
    words = split(text)
    if not words or not offsets:
        return ([text], [list(range(len(offsets)))]) if offsets else ([], [])
    groups: dict[int, list[int]] = {}  # word -> its pieces
    for piece, (start, end) in enumerate(offsets):
        groups.setdefault(_owner(text, Span(start, end), words), []).append(piece)

    # A label begins at the first word that its own first piece reaches, no piece before it did.
    begins = [0]
    for (before, _), (word, group) in pairwise(groups.items()):
        reached = bisect_right(words, offsets[group[0]][0], key=lambda span: span.end)
        begins.append(max(before + 1, min(reached, word)))
    labels = [
        text[words[begin].start : words[stop - 1].end]
        for begin, stop in pairwise([*begins, len(words)])
    ]
    return labels, list(groups.values())


def _owner(text: str, piece: Span, words: Sequence[Span]) -> int:
    """Return the index of the word a piece belongs to; see `group_pieces`."""
    first = next((i for i in range(*piece) if not text[i].isspace()), piece.end)
    nearest = min(bisect_right(words, first, key=lambda word: word.end), len(words) - 1)
    stop = bisect_left(words, piece.end, key=lambda word: word.start)

    def overlap(word: int) -> int:
        return min(piece.end, words[word].end) - max(first, words[word].start)

    return max(range(nearest, max(stop, nearest + 1)), key=overlap)  # the first of equals


def _cell_inches(num_cells: int) -> float:
    """Return the side of a cell, in inches, for a map whose longer side has so many cells."""
    cell = max(CELL * min(1.0, math.sqrt(FULL_SIZE_CELLS / num_cells)), MIN_CELL)
    pixels = math.floor(min(cell, MAX_SIDE / num_cells) * DPI)  # whole ones: all cells are equal
    return max(pixels, 1) / DPI


def _fit(figure: "Figure", axes: "Axes", width: float, height: float, pad: float = 0.06) -> None:
    """Make the figure as large as a map of the given size (inches) with its labels needs.

    Better than a tight bounding box at `savefig`: TensorBoard renders figures itself.
    """
    figure.set_size_inches(width, height)
    box = axes.get_tightbbox()
    assert box is not None
    left, bottom, right, top = (
        math.ceil(pixels) / DPI + pad
        for pixels in (-box.x0, -box.y0, box.x1 - width * DPI, box.y1 - height * DPI)
    )
    full_width, full_height = left + width + right, bottom + height + top
    figure.set_size_inches(full_width, full_height)
    axes.set_position(
        (left / full_width, bottom / full_height, width / full_width, height / full_height)
    )


def printable(text: str, keep: str = _JOINERS) -> str:
    r"""Escape what has no shape of its own or moves its neighbours: `\x00`, `\x1b`, `\u202e`."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def printable_line(text: str) -> str:
    """Do the same to a sentence, where blanks of any width belong."""
    return printable(text, _JOINERS + _BLANKS)


def _readable(texts: Sequence[str], font: str | None) -> tuple[list[str], list[str]]:
    """Return font families for some texts, and the texts as these can show them."""
    shown = [printable(text) for text in texts]
    families, absent = _choose_fonts(set("".join(shown)), font)
    boxes = dict.fromkeys(map(ord, absent), BOX)
    return families, [text.translate(boxes) for text in shown]


def _shorten(label: str) -> str:
    """Cut a label at `MAX_LABEL` characters."""
    return label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "\u2026"


def _choose_fonts(characters: set[str], font: str | None) -> tuple[list[str], set[str]]:
    """Return font families that together show the characters, and what none of them has.

    Matplotlib takes each glyph from the first family that has it. Installed fonts are searched
    only if DejaVu Sans and `font` are not enough.
    """
    from matplotlib.font_manager import findfont

    families = [BASE_FONT]
    missing = _without(characters, str(findfont(BASE_FONT)))
    if font is not None:
        path = str(Path(font).expanduser().resolve())
        if not _coverage(path).size:
            raise ConfigError(
                "evaluate.heatmap_font",
                f"no usable font file at {font!r}",
                "Give a .ttf, .otf or .ttc file, or null to search the installed fonts.",
            )
        families.append(_register(path))
        missing = _without(missing, path)
    while missing:
        candidates = [(_without(missing, path), path) for path in _installed_fonts()]
        left, path = min(candidates, key=lambda candidate: len(candidate[0]))  # the first of equals
        if left == missing:
            _warn_no_font(min(missing))
            break
        families.append(_register(path))
        missing = left
    return families, missing


def _without(characters: set[str], path: str) -> set[str]:
    """Return the characters that a font lacks."""
    codes = np.array([ord(c) for c in characters], dtype=np.int64)
    return {chr(code) for code in codes[~np.isin(codes, _coverage(path))]}


@cache
def _coverage(path: str) -> NDArray[np.int64]:
    """Return the code points of a font file; none if it is unreadable or made of bitmaps."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(path)
    except (OSError, RuntimeError):  # not there any more; not a font
        return np.array([], dtype=np.int64)
    return np.array(list(face.get_charmap()) if face.scalable else [], dtype=np.int64)


@cache
def _installed_fonts() -> list[str]:
    """Return the font files of this machine, plain sans-serif ones first.

    Asks the system as well as matplotlib, whose own list is a cache from before the last install.
    """
    from matplotlib import font_manager

    known = {str(entry.fname) for entry in font_manager.fontManager.ttflist}
    paths = known | set(font_manager.findSystemFonts())
    unwanted = ("bold", "italic", "oblique", "thin", "light", "black", "medium", "serif", "mono")

    def rank(path: str) -> tuple[int, bool, str]:
        name = Path(path).stem.lower()
        return sum(word in name for word in unwanted), "sans" not in name, path

    # The font of last resort claims every character and draws boxes.
    return sorted((path for path in paths if "LastResort" not in path), key=rank)


@cache
def _register(path: str) -> str:
    """Make a font file known to matplotlib under its path as a name; settings stay untouched."""
    from matplotlib.font_manager import FontEntry, fontManager

    fontManager.ttflist.append(FontEntry(fname=path, name=path))
    return path


def _warn_no_font(character: str) -> None:
    """Say once per process that labels have boxes in them, and what helps."""
    if not _warned:
        _warned.append(character)
        logger.warning(
            "no installed font has U+%04X: heatmap labels show a box instead. Install one "
            "(Debian and Ubuntu: fonts-noto-cjk, fonts-noto-core) or set evaluate.heatmap_font",
            ord(character),
        )
