"""BLEU by source length, the paper's Fig. 2: as numbers, and as one picture for several runs.

Nothing here writes a file. Figures are plain `Figure` objects, as in `alignment.py`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq.alignment.heatmap import to_png
from seq2seq.config.schema import Config
from seq2seq.data.prepare import word_counters
from seq2seq.evaluation.scoring import SAMPLES, bleu_metric, check_lines
from seq2seq.run.errors import RunDirError, printable
from seq2seq.run.plain_yaml import read_plain_yaml
from seq2seq.run.reading import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENGTH_BLEU, LENGTH_PLOT = "length_bleu.json", "length_bleu.png"
"""Names of the numbers and the picture, in a run."""

WIDTH, LAST = 10, 60
"""Bins of Fig. 2: 1-10, 11-20, ... words; all that is longer than `LAST` is one bin."""

MAX_LABEL_KEYS = 3  # settings in the name of a run; a longer list no longer fits in a legend
STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"), ("X", "-."))
"""Markers and lines of runs: they stay apart in black and white."""


@dataclass(frozen=True)
class LengthBin:
    """Corpus BLEU of the sentences whose source has so many words."""

    first: int  # fewest words
    last: int | None  # most words; None: no limit
    sentences: int
    bleu: float
    low: float  # of the 95% interval: the mean of the bootstrap samples -/+ half of their
    high: float  # central 95%, as sacreBLEU gives it; need not be symmetric about `bleu`

    @property
    def label(self) -> str:
        """`11-20`, or `61+`."""
        return _label(self.first, self.last)


@dataclass(frozen=True)
class LengthBleu:
    """BLEU by source length of one run; bins without a sentence are left out."""

    signature: str
    bins: tuple[LengthBin, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"signature": self.signature, "bins": [asdict(b) for b in self.bins]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LengthBleu":
        """Read what `as_dict` gave."""
        bins = tuple(LengthBin(**b) for b in values["bins"])
        if not all(isinstance(v, int | float | None) for b in bins for v in asdict(b).values()):
            raise TypeError("no number")
        return cls(str(values["signature"]), bins)


def score_by_length(
    cfg: Config, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
) -> LengthBleu:
    """Score detokenised text by length of the source, in words as `data.max_words` counts them.

    The same input gives the same numbers: sacreBLEU draws from seed 12345, or from what
    SACREBLEU_SEED says, and its signature tells.

    Args:
        cfg: Of the run.
        sources: One sentence a line; blank ones count nowhere.
        hypotheses: Their translations.
        references: One a line.

    Raises:
        DataError: different numbers of lines, or none.
    """
    check_lines(hypotheses, references)
    count, _ = word_counters(cfg)
    metric = bleu_metric(cfg.evaluate.bleu_tokenizer)
    rows_of: dict[int, list[int]] = {}
    for row, source in enumerate(sources):
        if words := count(source):
            rows_of.setdefault(bin_of(words), []).append(row)
    bins = [
        _score_bin(metric, index, [hypotheses[i] for i in rows], [references[i] for i in rows])
        for index, rows in sorted(rows_of.items())
    ]
    return LengthBleu(str(metric.get_signature()), tuple(bins))


def bin_of(length: int) -> int:
    """Return the number of the bin of a length; 0, which is in none, counts as 1."""
    return min(max(0, length - 1) // WIDTH, LAST // WIDTH)


def label_of(index: int) -> str:
    """Return the label of a bin by its number."""
    return _label(*_limits(index))


def _limits(index: int) -> tuple[int, int | None]:
    return index * WIDTH + 1, None if index == LAST // WIDTH else (index + 1) * WIDTH


def _label(first: int, last: int | None) -> str:
    return f"{first}+" if last is None else f"{first}-{last}"


def _score_bin(
    metric: Any, index: int, hypotheses: Sequence[str], references: Sequence[str]
) -> LengthBin:
    found = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=SAMPLES)
    # Its public way to the interval; there is none if all samples score 0.
    told = json.loads(found.format(6, signature=str(metric.get_signature()), is_json=True))
    mean, half = (told.get(f"confidence_{name}", 0.0) for name in ("mean", "var"))
    first, last = _limits(index)
    return LengthBin(
        first=first,
        last=last,
        sentences=len(references),
        bleu=float(found.score),
        low=mean - half,
        high=mean + half,
    )


def plot_length_bleu(runs: Mapping[str, Sequence[LengthBin]]) -> "Figure":
    """Draw BLEU against source length as in Fig. 2, with 95% intervals.

    Args:
        runs: Bins of each run, by the name that the legend shows.
    """
    from matplotlib.figure import Figure

    labels = {b.first: b.label for bins in runs.values() for b in bins}
    place = {first: x for x, first in enumerate(sorted(labels))}
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    lines = []
    for number, (bins, (marker, dashes)) in enumerate(zip(runs.values(), cycle(STYLES))):
        aside = 0.06 * (number - (len(runs) - 1) / 2)  # or the intervals hide one another
        x = [place[b.first] + aside for b in bins]
        [line] = axes.plot(x, [b.bleu for b in bins], marker + dashes, markersize=5)
        axes.errorbar(
            x,
            [(b.high + b.low) / 2 for b in bins],
            yerr=[(b.high - b.low) / 2 for b in bins],
            fmt="none",
            ecolor=line.get_color(),
            elinewidth=0.8,
            capsize=3,
        )
        lines.append(line)
    axes.set_xticks(list(place.values()), [labels[first] for first in place])
    axes.set_xlabel("source length (words)")
    axes.set_ylabel("BLEU")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    for text in axes.legend(lines, list(runs), frameon=False).get_texts():
        text.set_parse_math(False)
    return figure


def as_table(runs: Mapping[str, LengthBleu]) -> str:
    """Return an aligned table: words, then BLEU, interval and sentences of each run."""
    labels = {b.first: b.label for found in runs.values() for b in found.bins}
    rows = [["words", *runs]]
    for first in sorted(labels):
        cells = [next((b for b in found.bins if b.first == first), None) for found in runs.values()]
        shown = ("" if b is None else _cell(b) for b in cells)
        rows.append([labels[first], *shown])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    signatures = dict.fromkeys(found.signature for found in runs.values())
    table = [*lines, "", *(f"BLEU ({signature})" for signature in signatures)]
    return "\n".join(map(printable, table))


def _cell(found: LengthBin) -> str:
    return f"{found.bleu:.1f} ({found.low:.1f}-{found.high:.1f}, n={found.sentences:,})"


def compare_lengths(folder: Path) -> bytes | None:
    """Draw BLEU by length of all runs in a folder, of a sweep say, as one PNG.

    Returns:
        PNG; None if no run there has `length_bleu.json`.

    Raises:
        RunDirError: a run's file is damaged.
    """
    runs = sorted(
        (path.parent for path in folder.glob(f"*/{LENGTH_BLEU}")),
        key=lambda path: (len(path.name), path.name),  # the jobs of a sweep: 2 before 10
    )
    if not runs:
        return None
    found = map(read_length_bleu, runs)
    return to_png(
        plot_length_bleu({n: f.bins for n, f in zip(run_names(runs), found, strict=True)})
    )


def read_length_bleu(run: Path) -> LengthBleu:
    """Read the numbers of a run.

    Raises:
        RunDirError: they are missing or damaged.
    """
    path = run / LENGTH_BLEU
    values = read_json(path)
    try:
        return LengthBleu.from_dict(values)
    except (KeyError, TypeError, AttributeError):
        raise RunDirError(path, "holds no BLEU by length", "Run the evaluate stage.") from None


def run_names(runs: Sequence[Path]) -> list[str]:
    """Name runs by what tells them apart: their name, a few settings, or else their folder."""
    settings = [_flat(read_plain_yaml(run / "config.yaml")) for run in runs]
    keys = dict.fromkeys(key for values in settings for key in values)
    differ = [k for k in keys if len({str(values.get(k)) for values in settings}) > 1]
    names = [str(values.get("name")) for values in settings]
    if len(runs) > 1 and 1 <= len(differ) <= MAX_LABEL_KEYS:
        names = [", ".join(f"{k}={v[k]}" for k in differ if k in v) for v in settings]
    counts = Counter(names)
    return [name if counts[name] == 1 else str(run) for name, run in zip(names, runs, strict=True)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested settings into dotted keys; `attention.name` is what a command line calls it."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif prefix and key == "name":
            flat[prefix.removesuffix(".")] = value
        else:
            flat[f"{prefix}{key}"] = value
    return flat
