"""What the attention of several runs does, side by side, and in plain words."""

from collections.abc import Mapping
from pathlib import Path

from seq2seq.alignment.gold import AttentionScores
from seq2seq.alignment.measures import NOT_MEASURED, reading, shown
from seq2seq.evaluation.evaluation import Results
from seq2seq.run.errors import printable
from seq2seq.run.reading import expected, read_json

HEADINGS: tuple[str, ...] = (
    "", "AER", "precision", "recall", "later", "earlier", "entropy", "of log", "uncovered",
    "overcovered", "unlinked", "monotone", "Kendall",
)  # fmt: skip

LEGEND = """\
AER, precision, recall: agreement with the gold links; later, earlier: AER if the alignment is read
one target word later or earlier. Entropy in nats, and as a share of the log of the source length.
Uncovered, overcovered: source words that get less than half of a target word's attention, more than
that of two. Unlinked: source words that no target word looks at most. Monotone: target words that
look no further left than the word before them; Kendall: the same over all pairs, 1 same order, -1
turned round. All between words, along the references."""


def as_table(found: Mapping[str, AttentionScores]) -> str:
    """Return an aligned table, what its columns mean, and a plain reading of each run."""
    rows = [list(HEADINGS), *(_row(name, scores) for name, scores in found.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    said = [f"{name}: {_in_words(scores)}" for name, scores in found.items()]
    return "\n".join(map(printable, [*table, "", *LEGEND.splitlines(), "", *said]))


def _row(name: str, scores: AttentionScores) -> list[str]:
    gold, m = scores.gold, scores.measures
    rates: list[float | None] = [None] * 5
    if gold is not None:
        rates = [gold.error_rate, gold.precision, gold.recall]
        rates += [gold.later_error_rate, gold.earlier_error_rate]
    shares = [m.relative_entropy, m.uncovered, m.overcovered, m.unlinked, m.monotonicity]
    return [
        name,
        *(shown(rate, ".1%") for rate in rates),
        shown(m.entropy, ".2f"),
        *(shown(share, ".1%") for share in shares),
        shown(m.kendall, ".2f"),
    ]


def _in_words(scores: AttentionScores) -> str:
    said = reading(scores.measures)
    return said if scores.gold is None else f"{said} {scores.gold.advice}"


def saved_attention(scores: Path) -> AttentionScores | None:
    """Return what a run measured of its attention; None if it has not, or did before this was.

    Args:
        scores: The run's `scores.json`.

    Raises:
        RunDirError: it is damaged.
    """
    if not scores.exists():
        return None
    with expected(scores):
        found = Results.from_dict(read_json(scores)).attention
        if found is None or found.measures == NOT_MEASURED:
            return None
        values = [value for value in vars(found.measures).values() if value is not None]
        values += vars(found.gold).values() if found.gold else ()
        if not all(isinstance(value, int | float) for value in values):
            raise TypeError("no number")
    return found
