"""What a run does differently from the paper and from the authors' code.

`reference/paper.yaml` and `reference/authors.yaml` are two configs in which every value has its
source; a report is where the config of a run differs from them. A part of the model is the paper's
if its config class claims so. Another part is named, and none of its settings is compared.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from seq2seq.config.compose import flatten
from seq2seq.config.schema import Config

Outcome = StrEnum("Outcome", "same differs silent")
"""How a run stands to a source, which can be silent."""

PAPER, AUTHORS = (
    yaml.safe_load((Path(__file__).parent / "reference" / name).read_text("utf-8"))
    for name in ("paper.yaml", "authors.yaml")
)


@dataclass(frozen=True)
class Row:
    """A part of the model, a setting or a habit of the code, and how it stands to both sources."""

    point: str
    here: str
    paper: str | None
    authors: str | None
    from_paper: Outcome
    from_authors: Outcome
    source: str
    note: str

    @property
    def differs(self) -> bool:
        """Whether the run differs from either source."""
        return Outcome.differs in (self.from_paper, self.from_authors)


@dataclass(frozen=True)
class Report:
    """All rows: parts of the model, settings in the order of the config, habits of the code."""

    run: str
    follows: str  # what the preset says of itself
    rows: tuple[Row, ...]

    def count(self) -> str:
        """Return how many deviations there are, for a log; the rest is in the files."""
        paper = sum(row.from_paper is Outcome.differs for row in self.rows)
        authors = sum(row.from_authors is Outcome.differs for row in self.rows)
        count = f"{paper} from the paper, {authors} from the authors' code"
        return f"deviations: {count} (all points: fidelity.md)"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        points = [asdict(row) for row in self.rows]
        return {"run": self.run, "follows": self.follows, "points": points}

    def as_markdown(self) -> str:
        """Return the model in a sentence, and tables of where the run differs and where not."""
        parts = [row for row in self.rows if row.point in PAPER["parts"] and row.differs]
        model = "The parts of the model are the paper's."
        if parts:
            model = f"Not the paper's model: {'; '.join(f'{p.point} {p.here}' for p in parts)}."
        text = f"# What {self.run} does differently\n\n{model}"
        text += f" The preset follows {self.follows}" if self.follows else ""
        text += " Settings are from the run's config.\n"
        for title, differs in (("Deviations", True), ("No deviations", False)):
            text += f"\n## {title}\n\n{_table([r for r in self.rows if r.differs is differs])}\n"
        return text


def compare(cfg: Config) -> Report:
    """Compare a run's config with both sources."""
    values = flatten(cfg)
    if cfg.data.corpora:
        sides = (" + ".join(dict.fromkeys(side)) for side in zip(*cfg.data.directions, strict=True))
        values["data.source_language"], values["data.target_language"] = sides
        names = ["-".join((part.source_language, part.target_language)) for part in cfg.data.parts]
        both = zip(names, cfg.data.corpora, strict=True)
        values["data.corpora"] = [f"{name} (weight {each.weight:g})" for name, each in both]
    # Parts first: of another part than the paper's no setting is compared.
    rows = [_part(cfg, name, entry) for name, entry in PAPER["parts"].items()]
    if other := {row.point for row in rows if row.differs}:
        values["attention.name"] = "of another model"  # which is in no table of the paper
    for key in flatten(Config()):
        group, _, setting = key.partition(".")
        entries = [source["settings"].get(key) for source in (PAPER, AUTHORS)]
        if any(entries):
            rows.append(_setting(key, {} if group in other else values, *entries))
            other |= {group} if setting == "name" and rows[-1].differs else set()
    for point, habit in AUTHORS["always"].items():
        texts = (habit["here"], None, habit["text"], Outcome.silent, Outcome.differs)
        rows.append(Row(point, *texts, habit["source"], habit.get("note", "")))
    return Report(cfg.name, cfg.follows, tuple(rows))


def _part(cfg: Config, name: str, entry: Mapping[str, Any]) -> Row:
    """Compare what a part of the model claims; a subclass has to claim for itself."""
    kind, ends = getattr(cfg, name).name, (cfg.encoder, cfg.decoder)
    claimed = {*vars(type(getattr(cfg, name))).get("claims", ())} & {*entry["claims"]}
    if name == "cell" and not any(getattr(end, "has_cells", True) for end in ends):
        kind, claimed = "none", set()
    if name == "model" and not all(vars(type(end)).get("claims") for end in ends):
        kind, claimed = "other parts", set()
    here = kind if claimed else f"{kind}, not {entry['is']} ({entry['claims'][0]})"
    outcome = Outcome.same if claimed else Outcome.differs
    both = (entry["is"], entry["is"], outcome, outcome)
    return Row(name, here, *both, entry["source"], entry.get("note", ""))


def _setting(key: str, values: Mapping[str, Any], *entries: Mapping[str, Any] | None) -> Row:
    """Compare a setting; where the run has another part, there is nothing to compare."""
    texts, outcomes = [], []
    for entry in entries:
        outcomes.append(_outcome(entry, key, values) if entry else Outcome.silent)
        texts.append(entry.get("text", _written(entry["is"], " or ")) if entry else None)
    here = _written(values[key]) if key in values else "no such setting"
    source, note = ("; ".join(e[k] for e in entries if e and k in e) for k in ("source", "note"))
    return Row(key, here, texts[0], texts[1], outcomes[0], outcomes[1], source, note)


def _outcome(entry: Mapping[str, Any], key: str, values: Mapping[str, Any]) -> Outcome:
    allowed, cases = entry["is"], entry.get("by", [])
    if cases and key in values:
        allowed = allowed.get(" ".join(str(values[case]) for case in cases), "silent")
    if key not in values or allowed == "silent":
        return Outcome.silent
    allowed = allowed if isinstance(allowed, list) else [allowed]
    return Outcome.same if values[key] in allowed or "any" in allowed else Outcome.differs


def _written(value: Any, between: str = " + ") -> str:
    """Write a value for people: `1,000`, `1e-06`, `yes`, `none`, `a + b`."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, list):
        return between.join(map(_written, value)) or "none"
    return format(value, "," if isinstance(value, int) else "g" if isinstance(value, float) else "")


def _table(rows: list[Row]) -> str:
    head = ["Point", "This run", "The paper", "The authors' code", "Where", "Note"]
    lines = [head, ["---"] * len(head)]
    for r in rows:
        texts = (r.point, r.here, r.paper or "silent", r.authors or "silent", r.source, r.note)
        lines.append([text.replace("|", r"\|") for text in texts])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
