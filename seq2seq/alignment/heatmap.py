"""Draws the heatmap of a soft alignment, as in the paper's Figure 3, and renders it to a file.

Figures are plain `Figure` objects: pyplot would keep them alive and might open a window system.
"""

import contextlib
import io
import logging
import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.run.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

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
MIN_POINTS = 7.0  # of the title and the scale
TILT = 45  # degrees, of column labels that are wider than a cell
BAR, BAR_GAP, MIN_BAR = 0.12, 0.15, 0.9  # inches: width of the scale, space beside it, height
DARK, FLAT = 0.5, 0.9
"""Below this maximum the scale ends at the maximum; above this share of the greatest entropy, the
mean over rows, attention is called flat."""
MAX_LABEL = 32  # characters: a "word" of Chinese can be a whole sentence
BASE_FONT = "DejaVu Sans"  # ships with matplotlib; Latin, Greek, Cyrillic, Arabic
BOX = "\u25a1"  # replaces characters that no font has
SPACE = "\u2581"  # SentencePiece's mark of a space in front of a piece
FLAT_NOTE = "flat attention, no alignment yet: train longer or add data"
TEXT: dict[str, Any] = {
    "color": "black",
    "parse_math": False,  # or "$_$" crashes the plot and "$5 and $6" becomes a formula
    "usetex": False,
    "rotation_mode": "anchor",
    "va": "center_baseline",  # one baseline for all labels, whatever their letters
}
"""Properties of every text; its family and size depend on the figure."""
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
    note: str | None = None,
    font: str | None = None,
) -> "Figure":
    """Draw one soft alignment as in Figure 3: source along the top, target down the left side.

    The grey scale beside the map goes from 0, black, to 1, white; if no weight reaches `DARK`, to
    the largest weight, as the title then says. NaN is a red cell. U+2581 in labels is drawn as a
    space. Unprintable characters are escaped and long labels end in an ellipsis.

    The note is a second line of the title, by default one that says so if attention is flat. `font`
    is a file for characters that DejaVu Sans lacks, tried before the installed fonts.

    Raises:
        ConfigError: `font` is not a font file.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    weights = np.asarray(alpha, dtype=np.float64)
    assert weights.shape == (len(tgt_labels), len(src_labels)), "not as many labels as cells"
    image = np.ma.masked_invalid(weights)
    largest = float(np.ma.filled(image.max(), 0.0)) if weights.size else 0.0
    white = largest if 0 < largest < DARK else 1.0

    # Labels, and the fonts that have their characters; a box stands for one of no font.
    head = [title, note or (FLAT_NOTE if is_flat(weights) else None)]
    head.append(f"white is {white:.2g}, the largest weight" if white < 1 else None)
    heading = [printable(line) for line in head if line]
    texts = [heading, *([_label(text) for text in side] for side in (src_labels, tgt_labels))]
    families, missing = _fonts(set("".join(chain(*texts))), font)
    boxes = dict.fromkeys(map(ord, missing), BOX)
    lines, columns, rows = ([text.translate(boxes) for text in side] for side in texts)
    cell = _cell_inches(max(weights.shape))
    style = TEXT | {"family": families, "size": FONT_RATIO * cell * 72}  # points

    # The map, one square cell per weight.
    figure = Figure(dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    grey = colormaps["gray"].with_extremes(bad="red")
    shown = axes.imshow(
        image, cmap=grey, vmin=0, vmax=white, interpolation="nearest", origin="upper"
    )

    _add_labels(axes, columns, rows, style, cell)
    style["size"] = max(style["size"], MIN_POINTS)
    if lines:
        axes.set_title("\n".join(lines), pad=6, **style | {"va": "baseline"})
    bar = _add_scale(figure, shown, largest, style)

    # The labels determine the size of the figure.
    _fit(figure, axes, bar, width=cell * len(columns), height=cell * len(rows))
    return figure


def _add_labels(
    axes: "Axes", columns: Sequence[str], rows: Sequence[str], style: Mapping[str, Any], cell: float
) -> None:
    """Label the source on top, the target on the left; a thin frame, no tick marks."""
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    axes.tick_params(axis="x", pad=5)  # corners of tilted labels reach below their baseline
    upright = {**style, "ha": "center", "va": "baseline"}
    axes.set_xticks(range(len(columns)), columns, **upright)
    axes.set_yticks(range(len(rows)), rows, ha="right", **style)
    for label in _tilted(axes, cell):
        label.set(rotation=TILT, ha="left", va=style["va"])
    for spine in axes.spines.values():
        spine.set(linewidth=0.6, edgecolor="black")


def _add_scale(
    figure: "Figure", shown: "AxesImage", largest: float, style: Mapping[str, Any]
) -> "Axes":
    """Draw the scale: its ends, its middle, and the largest weight."""
    bar = figure.add_axes((0.0, 0.0, 1.0, 1.0), label="scale")
    white = float(shown.get_clim()[1])
    figure.colorbar(shown, cax=bar, ticks=[0, white / 2, white], format="%.2g")
    bar.tick_params(length=2, width=0.6, labelsize=style["size"], color="black", labelcolor="black")
    below = {**style, "va": "top", "ha": "left", "rotation_mode": "default"}
    bar.set_xlabel(f"max {largest:.2g}", x=0, labelpad=8, **below)
    bar.spines["outline"].set(linewidth=0.6, edgecolor="black")
    for label in bar.get_yticklabels():
        label.set_fontfamily(style["family"])
    return bar


def is_flat(alpha: Weights) -> bool:
    """Return whether attention is so even that no alignment can be read from it."""
    p = np.clip(np.nan_to_num(np.asarray(alpha, np.float64)), 0, 1)
    nats = np.sum(p * -np.log(np.where(p > 0, p, 1)), axis=1)
    return bool(p.shape[1] > 1 and len(p) and nats.mean() > FLAT * np.log(p.shape[1]))


def _tilted(axes: "Axes", cell: float) -> list[Any]:
    """Return the column labels to tilt: all of them, unless only one is wider than its cell."""
    labels = list(axes.get_xticklabels())
    wide = [label for label in labels if label.get_window_extent().width > cell * DPI]
    return labels if len(wide) > 1 else wide


def _cell_inches(num_cells: int) -> float:
    """Return the side length of a cell, in inches, for a map whose longer side has `num_cells`."""
    cell = max(CELL * min(1.0, math.sqrt(FULL_SIZE_CELLS / num_cells)), MIN_CELL)
    pixels = math.floor(min(cell, MAX_SIDE / num_cells) * DPI)  # integer: all cells are equal
    return max(pixels, 1) / DPI


def _fit(figure: "Figure", axes: "Axes", bar: "Axes", width: float, height: float) -> None:
    """Resize the figure to fit a map of the given size (inches), its scale and all labels.

    A tight bounding box at `savefig` would not do: TensorBoard renders figures itself.
    """
    from matplotlib.transforms import Bbox

    # Lower left corner and size of the map and of the scale right of it, top to top.
    tall = min(max(height, MIN_BAR), 2.5)
    places = {axes: (0.0, 0.0, width, height), bar: (width + BAR_GAP, height - tall, BAR, tall)}
    figure.set_size_inches(1, 1)  # so that a position in inches is a fraction
    for each, place in places.items():
        each.set_position(place)
    boxes = [each.get_tightbbox() for each in places]
    box = Bbox.union([box for box in boxes if box is not None])
    # Margins are whole pixels, so that all cells are equal.
    left, bottom = (math.ceil(-pixels) / DPI + MARGIN for pixels in (box.x0, box.y0))
    right, top = (math.ceil(pixels) / DPI + MARGIN for pixels in (box.x1, box.y1))
    full = (left + right, bottom + top)
    figure.set_size_inches(*full)
    for each, (x, y, wide, high) in places.items():
        spot = ((left + x) / full[0], (bottom + y) / full[1], wide / full[0], high / full[1])
        each.set_position(spot)


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
    """Show U+2581 as a space, cut a label at `MAX_LABEL` characters and make it printable."""
    text = "\u2423" if text == SPACE else text.replace(SPACE, " ")
    return printable(text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "\u2026")


def _fonts(characters: set[str], font: str | None) -> tuple[list[str], set[str]]:
    """Return font families that together cover the characters, and the characters left over.

    matplotlib takes each glyph from the first family that has it. The installed fonts are searched
    only if DejaVu Sans and `font` are not enough.
    """
    from matplotlib.font_manager import findfont

    # What matplotlib always has
    families = [BASE_FONT]
    missing = characters - _glyphs(str(findfont(BASE_FONT)))
    # The user's font comes first, then every installed font that adds characters.
    if font is not None:
        path = str(Path(font).expanduser().resolve())
        if not _glyphs(path):
            fix = "Give a .ttf, .otf or .ttc file, or null to search the installed fonts."
            raise ConfigError("evaluate.heatmap_font", f"no usable font file at {font!r}", fix)
        families.append(_register(path))
        missing -= _glyphs(path)
    if missing:
        for name, path in _installed_fonts():
            if missing & _glyphs(path):
                families.append(name)
                missing -= _glyphs(path)
    # What is left will be boxes.
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
