"""The report of a run: a table of all points, short for the log, whole for the run folder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seq2seq.config.compose import flatten
from seq2seq.config.schema import Config
from seq2seq.fidelity.of_decoding import DECODING_POINTS
from seq2seq.fidelity.of_model import MODEL_POINTS
from seq2seq.fidelity.of_training import DATA_POINTS, TRAINING_POINTS
from seq2seq.fidelity.point import Outcome, Point, Says, Values

GROUPS = {
    "model": MODEL_POINTS,
    "data": DATA_POINTS,
    "training": TRAINING_POINTS,
    "decoding": DECODING_POINTS,
}
POINTS = tuple(point for points in GROUPS.values() for point in points)

IRRELEVANT = (
    "name",
    "seed",
    "device",
    "threads",
    "stages",
    "data.root",
    "data.on_bad_line",  # the paper's text has no such line
    "model.backend",  # the same numbers, faster
    "model.name",  # one option each
    "cell.name",
    "encoder.name",
    "decoder.name",
    "trainer.accumulate",  # the same gradient
    "trainer.max_minutes",  # a stopped run goes on as if it had not been
    "trainer.checkpoint_every",
    "trainer.keep_checkpoints",
    "trainer.on_out_of_memory",  # the same gradient
    "decode.n_best",  # how many are shown, not which is best
    "decode.batch_sentences",  # a sentence is translated as if it were alone
    "evaluate.heatmaps",
    "evaluate.heatmap_words",
    "evaluate.heatmap_font",
    "evaluate.examples",
    "logging.*",
)
"""Settings that cannot make a run differ from the paper; every other one belongs to a point."""


@dataclass(frozen=True)
class Row:
    """A point and how a run stands to it."""

    point: Point
    here: str
    paper: Outcome
    authors: Outcome

    @property
    def differs(self) -> bool:
        """Whether the run differs from either source."""
        return Outcome.differs in (self.paper, self.authors)


@dataclass(frozen=True)
class Report:
    """All points, in their order."""

    run: str
    rows: tuple[Row, ...]

    def from_paper(self) -> list[Row]:
        """Return the deviations from the paper."""
        return [row for row in self.rows if row.paper is Outcome.differs]

    def from_authors(self) -> list[Row]:
        """Return the deviations from the authors' code."""
        return [row for row in self.rows if row.authors is Outcome.differs]

    def lines(self) -> list[str]:
        """Return the deviations for a log: how many, and a line for each."""
        count = f"{len(self.from_paper())} from the paper, {len(self.from_authors())} from"
        rows = [row for row in self.rows if row.differs]
        return [f"deviations: {count} the authors' code (all points: fidelity.md)"] + [
            f"  {row.point.name}: {row.here} ({_sources(row)})" for row in rows
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        points = [
            {
                "point": row.point.name,
                "here": row.here,
                "paper": _text(row.point.paper),
                "authors": _text(row.point.authors),
                "from_paper": row.paper.name,
                "from_authors": row.authors.name,
                "fixed": row.point.fixed,
                "settings": list(row.point.keys),
                "source": row.point.source,
                "note": row.point.note,
            }
            for row in self.rows
        ]
        return {"run": self.run, "points": points}

    def as_markdown(self) -> str:
        """Return the whole table: both kinds of deviations, what is the same, what is open."""
        same = [row for row in self.rows if not row.differs and _spoken(row)]
        silent = [row for row in self.rows if not row.differs and not _spoken(row)]
        return "\n".join(
            [
                f"# What {self.run} does differently",
                "",
                "From the config of the run. *Fixed* points have no setting.",
                *_section("From the paper", self.from_paper(), "The paper", _paper),
                *_section("From the authors' code", self.from_authors(), "Their code", _authors),
                "",
                "## The same as every source that says something",
                "",
                "; ".join(row.point.name for row in same) + ".",
                *_section("Neither source says anything", silent, "The sources", lambda _: None),
                *_whole(self.rows),
                "",
            ]
        )


def compare(cfg: Config) -> Report:
    """Compare a run's config with both sources."""
    values = flatten(cfg)
    return Report(cfg.name, tuple(_row(point, values) for point in POINTS))


def _row(point: Point, values: Values) -> Row:
    here = point.here(values)
    return Row(point, here, _outcome(here, point.paper), _outcome(here, point.authors))


def _outcome(here: str, source: Says | None) -> Outcome:
    if source is None:
        return Outcome.silent
    return Outcome.same if here in source.same else Outcome.differs


def _spoken(row: Row) -> bool:
    return Outcome.same in (row.paper, row.authors)


def _text(source: Says | None) -> str | None:
    return None if source is None else source.text


def _paper(row: Row) -> Says | None:
    return row.point.paper


def _authors(row: Row) -> Says | None:
    return row.point.authors


def _sources(row: Row) -> str:
    """Say what the sources do that a run does not."""
    said: dict[str, str] = {}
    if row.paper is Outcome.differs:
        said["paper"] = str(_text(row.point.paper))
    if row.authors is Outcome.differs:
        said["authors' code"] = str(_text(row.point.authors))
    if len(set(said.values())) == 1:
        said = {" and ".join(said): next(iter(said.values()))}
    return "; ".join(f"{who}: {what}" for who, what in said.items())


def _section(
    title: str, rows: list[Row], who: str, source: Callable[[Row], Says | None]
) -> list[str]:
    """Return a heading with the table of some rows, or with the word that there are none."""
    if not rows:
        return ["", f"## {title}", "", "Nothing."]
    table = [
        [_marked(row.point), row.here, _text(source(row)) or "silent", row.point.source]
        for row in rows
    ]
    return ["", f"## {title}", "", *_table(["Point", "This run", who, "Where"], table)]


def _whole(rows: tuple[Row, ...]) -> list[str]:
    head = ["Point", "This run", "The paper", "", "Their code", "", "Settings", "Note"]
    table = [
        [
            _marked(row.point),
            row.here,
            _text(row.point.paper) or "",
            row.paper.name,
            _text(row.point.authors) or "",
            row.authors.name,
            ", ".join(f"`{key}`" for key in row.point.keys),
            row.point.note,
        ]
        for row in rows
    ]
    return ["", "## All points", "", *_table(head, table)]


def _marked(point: Point) -> str:
    return f"{point.name} (*fixed*)" if point.fixed else point.name


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    ]
