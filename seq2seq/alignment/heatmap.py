"""The heatmap of a soft alignment, the paper's Figure 3, and its bytes as a file.

Figures are plain `Figure` objects: pyplot would keep them alive and could pick a window system.
"""

import contextlib
import io
import logging
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.run.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Weights = NDArray[np.floating[Any]]
"""Attention weights (Ty, Tx): row i is how target position i attends to the source; sums to 1."""

FORMATS = {
    "png": ("Software",),
    "svg": ("Date", "Creator"),
    "pdf": ("CreationDate", "Creator", "Producer"),
}
"""File formats of a figure, and the metadata that would make two equal figures differ."""

DPI = 150
CELL, FULL_SIZE_CELLS = 0.22, 20  # inches per cell of a map up to 20 x 20; larger maps shrink it
MIN_CELL = 0.09  # inches: below this a label of one cell's height can no longer be read
MAX_SIDE = 36.0  # inches, 5,400 pixels: beyond that even labels have to shrink
MARGIN = 0.06  # inches around the labels
FONT_RATIO = 0.66  # of the cell
MAX_LABEL = 32  # characters: a "word" of Chinese can be a whole sentence
BASE_FONT = "DejaVu Sans"  # ships with matplotlib; Latin, Greek, Cyrillic, Arabic, U+2581
BOX = "\u25a1"  # stands for a character that no font has
_JOINERS = "\u200c\u200d"  # shape letters
_SPACES = "\u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

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

    Grey scale, 0 black and 1 white; a weight that is not a number is a red cell. Labels are shown
    as they are, but unprintable characters are escaped and long labels end in an ellipsis. A font
    file given serves for characters that DejaVu Sans lacks, before the installed fonts.

    Raises:
        ConfigError: `font` is not a font file.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    weights = np.asarray(alpha, dtype=np.float64)
    assert weights.shape == (len(tgt_labels), len(src_labels)), "not as many labels as cells"

    # Labels in the fonts that have their characters.
    texts = [printable(title or ""), *(_label(text) for text in (*src_labels, *tgt_labels))]
    families, missing = _fonts(set("".join(texts)), font)
    boxes = dict.fromkeys(map(ord, missing), BOX)
    heading, *labels = (text.translate(boxes) for text in texts)
    columns, rows = labels[: len(src_labels)], labels[len(src_labels) :]
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

    # The map, one square cell per weight.
    figure = Figure(dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    grey = colormaps["gray"].with_extremes(bad="red")
    image = np.ma.masked_invalid(weights)
    axes.imshow(image, cmap=grey, vmin=0, vmax=1, interpolation="nearest", origin="upper")

    # Source on top, target on the left, a thin frame, no tick marks.
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    axes.set_xticks(range(len(columns)), columns, rotation=90, ha="left", **style)
    axes.set_yticks(range(len(rows)), rows, ha="right", **style)
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, edgecolor="black")
    if heading:
        axes.set_title(heading, pad=6, **style | {"va": "baseline"})
    # The labels decide how large the figure is.
    _fit(figure, axes, width=cell * len(columns), height=cell * len(rows))
    return figure


def _cell_inches(num_cells: int) -> float:
    """Return the side of a cell, in inches, for a map whose longer side has `num_cells`."""
    cell = max(CELL * min(1.0, math.sqrt(FULL_SIZE_CELLS / num_cells)), MIN_CELL)
    pixels = math.floor(min(cell, MAX_SIDE / num_cells) * DPI)  # whole ones: all cells are equal
    return max(pixels, 1) / DPI


def _fit(figure: "Figure", axes: "Axes", width: float, height: float) -> None:
    """Make the figure as large as a map of the given size (inches) with its labels needs.

    Better than a tight bounding box at `savefig`: TensorBoard renders figures itself.
    """
    figure.set_size_inches(width, height)
    box = axes.get_tightbbox()
    assert box is not None
    left, bottom, right, top = (
        math.ceil(pixels) / DPI + MARGIN
        for pixels in (-box.x0, -box.y0, box.x1 - width * DPI, box.y1 - height * DPI)
    )
    full = (left + width + right, bottom + height + top)
    figure.set_size_inches(*full)
    axes.set_position((left / full[0], bottom / full[1], width / full[0], height / full[1]))


def to_png(figure: "Figure") -> bytes:
    """Render a figure as PNG; see `render`."""
    return render(figure, "png")


def render(figure: "Figure", form: str) -> bytes:
    """Render a figure in one of `FORMATS`. The same input gives the same bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # Names of parts of an SVG are random without a salt.
    with rc_context({"svg.hashsalt": "attention"}):
        figure.savefig(buffer, format=form, dpi=DPI, metadata=dict.fromkeys(FORMATS[form]))
    return buffer.getvalue()


# Labels and their fonts ---------------------------------------------------------------------------


def printable(text: str, keep: str = _JOINERS) -> str:
    r"""Escape what has no shape of its own or moves its neighbours: `\x00`, `\x1b`, `\u202e`."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def printable_line(text: str) -> str:
    """Do the same to a sentence, where spaces of any width belong."""
    return printable(text, _JOINERS + _SPACES)


def _label(text: str) -> str:
    """Cut a label at `MAX_LABEL` characters and make it printable."""
    return printable(text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "\u2026")


def _fonts(characters: set[str], font: str | None) -> tuple[list[str], set[str]]:
    """Return families that together have the characters, and the characters that none has.

    matplotlib takes each glyph from the first family of such a list that has it. The installed
    fonts are searched only if DejaVu Sans and `font` are not enough.
    """
    from matplotlib.font_manager import findfont

    families = [BASE_FONT]
    missing = characters - _glyphs(str(findfont(BASE_FONT)))
    # The user's font comes first, then one installed font after the other while it helps.
    if font is not None:
        path = str(Path(font).expanduser().resolve())
        if not _glyphs(path):
            raise ConfigError(
                "evaluate.heatmap_font",
                f"no usable font file at {font!r}",
                "Give a .ttf, .otf or .ttc file, or null to search the installed fonts.",
            )
        families.append(_register(path))
        missing -= _glyphs(path)
    if missing:
        for name, path in _installed_fonts():
            if missing & _glyphs(path):
                families.append(name)
                missing -= _glyphs(path)
    if missing and not _warned:
        _warned.append(min(missing))  # once per process
        logger.warning(
            "no installed font has U+%04X: heatmap labels show a box instead. Install one "
            "(Debian and Ubuntu: fonts-noto-cjk, fonts-noto-core) or set evaluate.heatmap_font",
            ord(min(missing)),
        )
    return families, missing


@cache
def _register(path: str) -> str:
    """Make a font file known to matplotlib under its path: its family may have other files."""
    from matplotlib.font_manager import FontEntry, fontManager

    fontManager.ttflist.append(FontEntry(fname=path, name=path))
    return path


@cache
def _installed_fonts() -> list[tuple[str, str]]:
    """Return families and files of the fonts of this machine, sans-serif ones first."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    # matplotlib's list is a cache from before the last fonts were installed.
    for path in {*findSystemFonts()} - {str(entry.fname) for entry in fontManager.ttflist}:
        with contextlib.suppress(OSError, RuntimeError):  # not a font that it can read
            fontManager.addfont(path)
    found = {(entry.name, str(entry.fname)) for entry in fontManager.ttflist}
    # The font of last resort claims every character and draws boxes.
    return sorted(
        (entry for entry in found if "Last Resort" not in entry[0]),
        key=lambda entry: ("Sans" not in entry[0], entry),
    )


@cache
def _glyphs(path: str) -> frozenset[str]:
    """Return the characters of a font file; none if it is unreadable or made of bitmaps."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, face.get_charmap())) if face.scalable else frozenset()
