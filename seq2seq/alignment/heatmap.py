"""Draws the heatmap of a soft alignment, as in the paper's Figure 3, and renders it to a file.

Figures are plain `Figure` objects: pyplot would keep them alive and might open a window system.
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
"""File formats of a figure, and their metadata that would make equal figures differ."""

DPI = 150
CELL, FULL_SIZE_CELLS = 0.22, 20  # inches per cell up to 20 x 20 cells; larger maps shrink cells
MIN_CELL = 0.09  # inches: in smaller cells labels are not readable
MAX_SIDE = 36.0  # inches, 5,400 pixels: larger maps shrink their labels, too
MARGIN = 0.06  # inches around the labels
FONT_RATIO = 0.66  # of the cell
MAX_LABEL = 32  # characters: a "word" of Chinese can be a whole sentence
BASE_FONT = "DejaVu Sans"  # ships with matplotlib; Latin, Greek, Cyrillic, Arabic, U+2581
BOX = "\u25a1"  # replaces characters that no font has
_JOINERS = "\u200c\u200d"  # affect the shape of letters
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

    Grey scale, 0 black and 1 white; NaN is a red cell. Unprintable characters in labels are escaped
    and long labels end in an ellipsis. `font` is a font file for characters that DejaVu Sans lacks;
    it is tried before the installed fonts.

    Raises:
        ConfigError: `font` is not a font file.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    weights = np.asarray(alpha, dtype=np.float64)
    assert weights.shape == (len(tgt_labels), len(src_labels)), "not as many labels as cells"

    # Labels, and the fonts that have their characters.
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
        "va": "center_baseline",  # one baseline for all labels, whatever their letters
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
    # The labels determine the size of the figure.
    _fit(figure, axes, width=cell * len(columns), height=cell * len(rows))
    return figure


def _cell_inches(num_cells: int) -> float:
    """Return the side length of a cell, in inches, for a map whose longer side has `num_cells`."""
    cell = max(CELL * min(1.0, math.sqrt(FULL_SIZE_CELLS / num_cells)), MIN_CELL)
    pixels = math.floor(min(cell, MAX_SIDE / num_cells) * DPI)  # integer: all cells are equal
    return max(pixels, 1) / DPI


def _fit(figure: "Figure", axes: "Axes", width: float, height: float) -> None:
    """Resize the figure to fit a map of the given size (inches) and its labels.

    A tight bounding box at `savefig` would not do: TensorBoard renders figures itself.
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
    # Without a salt, ids in an SVG are random.
    with rc_context({"svg.hashsalt": "attention"}):
        figure.savefig(buffer, format=form, dpi=DPI, metadata=dict.fromkeys(FORMATS[form]))
    return buffer.getvalue()


# Labels and their fonts ---------------------------------------------------------------------------


def printable(text: str, keep: str = _JOINERS) -> str:
    r"""Escape characters that are invisible or move their neighbours: `\x00`, `\x1b`, `\u202e`."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def printable_line(text: str) -> str:
    """Make a sentence printable; unlike `printable`, keep spaces of any width."""
    return printable(text, _JOINERS + _SPACES)


def _label(text: str) -> str:
    """Cut a label at `MAX_LABEL` characters and make it printable."""
    return printable(text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "\u2026")


def _fonts(characters: set[str], font: str | None) -> tuple[list[str], set[str]]:
    """Return font families that together cover the characters, and the characters left over.

    matplotlib takes each glyph from the first family that has it. The installed fonts are searched
    only if DejaVu Sans and `font` are not enough.
    """
    from matplotlib.font_manager import findfont

    families = [BASE_FONT]
    missing = characters - _glyphs(str(findfont(BASE_FONT)))
    # The user's font comes first, then every installed font that adds characters.
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
    """Register a font file under its path, because its family may include other files."""
    from matplotlib.font_manager import FontEntry, fontManager

    fontManager.ttflist.append(FontEntry(fname=path, name=path))
    return path


@cache
def _installed_fonts() -> list[tuple[str, str]]:
    """Return families and files of the installed fonts, sans-serif first."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    # matplotlib's list is cached and may lack recently installed fonts.
    for path in {*findSystemFonts()} - {str(entry.fname) for entry in fontManager.ttflist}:
        with contextlib.suppress(OSError, RuntimeError):  # unreadable font
            fontManager.addfont(path)
    found = {(entry.name, str(entry.fname)) for entry in fontManager.ttflist}
    # The "Last Resort" font claims every character but draws boxes.
    return sorted(
        (entry for entry in found if "Last Resort" not in entry[0]),
        key=lambda entry: ("Sans" not in entry[0], entry),
    )


@cache
def _glyphs(path: str) -> frozenset[str]:
    """Return the characters of a font file; none if it is unreadable or a bitmap font."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, face.get_charmap())) if face.scalable else frozenset()
