"""BLEU by source length, as in the paper's Fig. 2: numbers, and one figure for several runs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq.alignment.heatmap import to_png
from seq2seq.cli.console import table
from seq2seq.config.schema import Config, Direction
from seq2seq.data.prepare import lengths_of
from seq2seq.evaluation.scoring import bleu_metric, bootstrap, check_lines
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError, printable
from seq2seq.run.jsonable import from_json
from seq2seq.run.plain_yaml import read_plain_yaml
from seq2seq.run.reading import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENGTH_BLEU, LENGTH_PLOT = "length_bleu.json", "length_bleu.png"
"""File names of the numbers and the figure in a run."""

WIDTH, LAST = 10, 60  # bins of Fig. 2: 1-10, 11-20, ...; lengths above `LAST` share one bin
MAX_LABEL_KEYS = 3  # settings in the name of a run; more do not fit in a legend
STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"), ("X", "-."))
"""Markers and line styles of runs, distinguishable in black and white."""


@dataclass(frozen=True)
class LengthBin:
    """Corpus BLEU of the sentences in a bin of source lengths."""

    first: int  # minimum words, or characters of a source without spaces
    last: int | None  # maximum; None: no limit
    sentences: int
    bleu: float
    low: float  # of the 95% interval, which need not be symmetric about `bleu`
    high: float

    @property
    def label(self) -> str:
        """`11-20`, or `61+`."""
        return label_of(bin_of(self.first))


@dataclass(frozen=True)
class LengthBleu:
    """BLEU by source length of one run; empty bins are left out."""

    signature: str
    bins: tuple[LengthBin, ...]
    unit: str = "words"  # unit of the lengths; or "characters"


def score_by_length(
    cfg: Config,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    direction: Direction | None = None,
) -> LengthBleu:
    """Score detokenised text by length of the source, in words or characters.

    Empty sources are left out. Without a direction, the text is of the first one of the config.

    Raises:
        DataError: different numbers of lines, or none.
    """
    check_lines(hypotheses, references)
    direction = direction or cfg.data.directions[0]
    # The rows of each bin.
    length, _ = lengths_of(cfg, direction)
    metric = bleu_metric(cfg.evaluate.bleu_tokenizer, direction[1], references)
    rows_of: dict[int, list[int]] = {}
    for row, source in enumerate(sources):
        if count := length(source):
            rows_of.setdefault(bin_of(count), []).append(row)
    # Their scores; a bin without an interval has the score as both ends.
    bins, signature = [], ""
    for index, rows in sorted(rows_of.items()):
        score = bootstrap(metric, [hypotheses[i] for i in rows], [references[i] for i in rows])
        last = None if index == LAST // WIDTH else (index + 1) * WIDTH
        low, high = (score.value if end is None else end for end in (score.low, score.high))
        bins.append(LengthBin(index * WIDTH + 1, last, len(rows), score.value, low, high))
        signature = score.signature
    return LengthBleu(signature, tuple(bins), length.unit(sources))


def bin_of(length: int) -> int:
    """Return the index of the bin of a length; 0, which is in no bin, counts as 1."""
    return min(max(0, length - 1) // WIDTH, LAST // WIDTH)


def label_of(index: int) -> str:
    """Return the label of a bin, given its index."""
    end = "+" if index == LAST // WIDTH else f"-{(index + 1) * WIDTH}"
    return f"{index * WIDTH + 1}{end}"


def plot_length_bleu(runs: Mapping[str, Sequence[LengthBin]], unit: str = "words") -> "Figure":
    """Draw BLEU against source length as in Fig. 2, with 95% intervals; runs by their names.

    Only three points or more are joined by a line. Labels have the number of sentences of a bin,
    of each run if they differ.
    """
    from matplotlib.figure import Figure

    # Every bin of any run gets a place on the x axis.
    counts: dict[int, dict[str, None]] = {}
    for b in (b for bins in runs.values() for b in bins):
        counts.setdefault(b.first, {})[f"{b.sentences:,}"] = None
    labels = [f"{label_of(bin_of(k))}\nn={' / '.join(n)}" for k, n in sorted(counts.items())]
    place = {first: x for x, first in enumerate(sorted(counts))}
    # A line and its intervals for each run.
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    lines = []
    for number, (bins, (marker, dashes)) in enumerate(zip(runs.values(), cycle(STYLES))):
        aside = 0.06 * (number - (len(runs) - 1) / 2)  # so that intervals do not overlap
        x = [place[b.first] + aside for b in bins]
        style: dict[str, Any] = {"marker": marker, "linestyle": dashes, "markersize": 5}
        style |= {"linestyle": "none"} if len(bins) < 3 else {}
        [line] = axes.plot(x, [b.bleu for b in bins], clip_on=False, **style)
        ends = [(max(b.low, 0.0), b.high) for b in bins]  # 0.1.0 had them below 0
        middle, half = ([(high + sign * low) / 2 for low, high in ends] for sign in (1, -1))
        bars: dict[str, Any] = {"fmt": "none", "elinewidth": 0.8, "capsize": 3}
        axes.errorbar(x, middle, half, ecolor=line.get_color(), **bars)
        for at, b in zip(x, bins, strict=True) if len(bins) < 3 else ():
            where: dict[str, Any] = {"textcoords": "offset points", "va": "center"}
            axes.annotate(f"{b.bleu:.1f}", (at, b.bleu), (8, 0), **where)
        lines.append(line)
    # Axes and legend; names of runs are text, never formulas.
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.5, max(len(labels), 1) - 0.5)
    axes.set_xlabel(f"source length ({unit})")
    axes.set_ylabel("BLEU")
    axes.set_ylim(0, max(axes.get_ylim()[1], 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    for text in axes.legend(lines, list(runs), frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def as_table(runs: Mapping[str, LengthBleu]) -> str:
    """Return an aligned table: length, then BLEU, interval and sentences of each run."""
    labels = {b.first: b.label for found in runs.values() for b in found.bins}
    cells = {name: {b.first: _cell(b) for b in found.bins} for name, found in runs.items()}
    rows = [
        [labels[first], *(cells[name].get(first, "") for name in runs)] for first in sorted(labels)
    ]
    signatures = dict.fromkeys(found.signature for found in runs.values())
    notes = [f"BLEU ({printable(signature)})" for signature in signatures]
    return "\n".join([table(rows, [unit_of(runs.values()), *map(printable, runs)]), "", *notes])


def unit_of(lengths: Iterable[LengthBleu]) -> str:
    """Return the unit of the lengths of several runs; both if their sources differ."""
    return " or ".join(sorted({printable(found.unit) for found in lengths}, reverse=True))


def _cell(found: LengthBin) -> str:
    return f"{found.bleu:.1f} ({found.low:.1f}-{found.high:.1f}, n={found.sentences:,})"


def compare_lengths(directory: Path) -> bytes | None:
    """Draw BLEU by length of all runs in a directory, such as a sweep, as PNG; None without runs.

    Raises:
        RunDirError: a run's file is damaged.
    """
    runs = [path.parent for path in directory.glob(f"*/{LENGTH_BLEU}")]
    runs.sort(key=lambda path: (len(path.name), path.name))  # numeric order: job 2 before 10
    if not runs:
        return None
    lengths = [read_length_bleu(RunDir(run)) for run in runs]
    bins = dict(zip(run_names(runs), (found.bins for found in lengths), strict=True))
    return to_png(plot_length_bleu(bins, unit_of(lengths)))


def read_length_bleu(run: RunDir) -> LengthBleu:
    """Read the numbers of a run.

    Raises:
        RunDirError: they are missing or damaged.
    """
    path = run.checked(LENGTH_BLEU)
    values = read_json(path)
    try:
        return from_json(LengthBleu, values)
    except ValueError:
        raise RunDirError(path, "holds no BLEU by length", "Run the evaluate stage.") from None


def run_names(runs: Sequence[Path]) -> list[str]:
    """Name runs so that names differ: by their name, a few settings, or else their directory."""
    # The settings in which the runs differ.
    settings = [_flat(read_plain_yaml(RunDir(run).checked("config.yaml"))) for run in runs]
    keys = dict.fromkeys(key for values in settings for key in values)
    differ = [k for k in keys if len({str(values.get(k)) for values in settings}) > 1]
    names = [str(values.get("name")) for values in settings]
    if len(runs) > 1 and 1 <= len(differ) <= MAX_LABEL_KEYS:
        names = [", ".join(f"{k}={v[k]}" for k in differ if k in v) for v in settings]
    counts = Counter(names)
    return [name if counts[name] == 1 else str(run) for name, run in zip(names, runs, strict=True)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted keys; `attention.name` becomes `attention`, as in Hydra."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif prefix and key == "name":
            flat[prefix.removesuffix(".")] = value
        else:
            flat[f"{prefix}{key}"] = value
    return flat
