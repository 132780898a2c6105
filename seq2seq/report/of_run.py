"""Collects what a report shows of a whole run, from its directory: settings, scores, curves."""

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from seq2seq.config.schema import Config, DecodeConfig, SelectBy
from seq2seq.data.prepare import REPORT
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.evaluation.by_length import LENGTH_BLEU, read_length_bleu
from seq2seq.evaluation.erasure import SHARES
from seq2seq.evaluation.faithfulness import LEGEND, NAMES, reading
from seq2seq.evaluation.faithfulness_of_run import saved
from seq2seq.evaluation.test_set import SCORES, Results, other_settings, read_results
from seq2seq.fidelity import compare
from seq2seq.run.checksums import read_checksummed
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import printable
from seq2seq.run.jsonable import to_json
from seq2seq.run.provenance import RECORD
from seq2seq.run.reading import expected
from seq2seq.training.curves import Row, read_metrics

CURVES = {
    **{"training": "train/loss", "validation": "validation/loss"},
    **{by.name: f"validation/{by.name}" for by in SelectBy if by is not SelectBy.loss},
}

FILES = [
    *("config.yaml", "scores.json", "fidelity.md", "metrics.jsonl", "train.log"),
    *("data_report.json", "decode/test.txt", "curves.png", "length_bleu.png", "heatmaps"),
]
"""Files of a run to link to."""

MAX_POINTS = 200  # maximum points of a curve: a screen shows no more


def describe_run(
    run: RunDir, name: str, model: Pretrained, *, scored: bool, linked: bool
) -> dict[str, Any]:
    """Return the JSON-compatible values that a page shows of a run and its model.

    `scored` says whether the saved scores are those of this model, `linked` whether the page is to
    be in the directory of the run, so that it can link to files.

    Raises:
        RunDirError: a file of the run is damaged.
    """
    rows = read_metrics(run)
    has = {name: scored and run.checked(name).exists() for name in (SCORES, LENGTH_BLEU)}
    results = read_results(run.path(SCORES)) if has[SCORES] else None
    curves = {key: _curve(rows, tag) for key, tag in CURVES.items()}
    lengths = read_length_bleu(run) if has[LENGTH_BLEU] else None
    return {
        "name": printable(name),
        "facts": [[fact, printable(text)] for fact, text in _facts(run, model, rows)],
        "scores": [] if results is None else _scores(results),
        "warning": None if results is None or results.note is None else printable(results.note),
        "notes": [] if results is None else _notes(results, model.config.decode),
        "files": [name for name in FILES if linked and run.path(name).exists()],
        "rates": _rates(results),
        "faithfulness": _faithfulness(run, model) if scored else None,
        "shown": model.shown,
        "curves": curves,
        "lengths": [to_json(b) | {"label": b.label} for b in (lengths.bins if lengths else ())],
        "lengthUnit": printable(lengths.unit) if lengths else "words",
    }


def describe_fidelity(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Return the points of comparison with the paper, each with the choice of every run."""
    found = []
    for rows in zip(*(compare(config).rows for config in configs), strict=True):
        shared = ("point", "paper", "authors", "source", "note")
        point = {name: getattr(rows[0], name) for name in shared}
        of_runs = {name: [getattr(row, name) for row in rows] for name in ("here", "differs")}
        found.append(point | of_runs)
    return found


def _curve(rows: Iterable[Row], tag: str) -> list[list[float]]:
    """Return the points (update, value) of a curve, evenly thinned; the last one always stays."""
    values = [(row["update"], row[tag]) for row in rows if tag in row]
    points = [[int(update), round(value, 4)] for update, value in values if math.isfinite(value)]
    stride = -(-len(points) // MAX_POINTS) or 1
    return points[::-stride][::-1]


def _facts(run: RunDir, model: Pretrained, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the main facts about a run, in the same order for every run."""
    cfg = model.config
    sizes = " and ".join(f"{len(tokenizer):,}" for tokenizer in model.tokenizers)
    kind = {"words": "words", "characters": "units"}.get(cfg.tokenizer.name, "subwords")
    count = sum(p.numel() for p in model.model.parameters())
    # What an exported model may lack
    pairs = "unknown"
    if run.path(REPORT).exists() or run.path("corpus").exists():
        with expected(run.path(REPORT)):
            pairs = f"{int(read_checksummed(run.path(REPORT))['train']['kept']):,}"
    seconds = max((row.get("seconds", 0.0) for row in rows), default=0.0)
    return [
        ("Languages", ", ".join(" \u2192 ".join(direction) for direction in cfg.data.directions)),
        ("Training pairs", pairs),
        ("Vocabulary", f"{sizes} {kind}"),
        ("Attention", cfg.attention.name.replace("_", " ")),
        ("Parameters", f"{count:,}"),
        ("Weights", f"of update {model.update:,}"),
        ("Training time", f"{seconds / 60:,.1f} minutes" if rows else "unknown"),
        ("Seed", str(cfg.seed)),
        *_origin(run),
        ("Search", f"beam {cfg.decode.beam_size}, length penalty {cfg.decode.length_penalty:g}"),
    ]


def _origin(run: RunDir) -> list[tuple[str, str]]:
    """Return the command that trained a run, without directories, and the commit of the code."""
    if not run.path(RECORD).exists():  # an exported model
        return [("Command", "unknown"), ("Commit", "unknown")]
    found = read_checksummed(run.path(RECORD))
    with expected(run.path(RECORD)):
        return [("Command", shlex.join(found["command"])), ("Commit", found["commit"] or "unknown")]


def _scores(results: Results) -> list[dict[str, Any]]:
    return [
        {"name": printable(name)} | to_json(replace(score, signature=printable(score.signature)))
        for name, score in results.shown.items()
    ]


def _rates(results: Results | None) -> Sequence[Sequence[float]]:
    """Return the alignment error rates per layer: those of its heads, then of their mean."""
    heads = results.alignment.heads if results and results.alignment else None
    return heads.rates if heads else []


def _faithfulness(run: RunDir, model: Pretrained) -> dict[str, Any] | None:
    """Return the reading and the tables of the sheet, if there is one of this model."""
    sheet = saved(run)
    if sheet is None or sheet.settings["update"] != model.update:
        return None
    curves = {
        kind: [
            {"label": NAMES.get(ranking, ranking), "values": getattr(ways["removed"], kind).values}
            for ranking, ways in sheet.erasure.items()
        ]
        for kind in ("comprehensiveness", "sufficiency")
    }
    return {
        "reading": reading(sheet),
        "legend": LEGEND,
        "tables": [{"head": head, "rows": rows} for head, rows in sheet.tables() if rows],
        "curves": curves,
        "shares": [f"{share:.0%}" for share in SHARES],
    }


def _notes(results: Results, cfg: DecodeConfig) -> list[str]:
    """Return sentences on other settings of the search, subsets and attention, with advice."""
    others = printable(" ".join(other_settings(results.flags, cfg)))
    notes = [f"The scores are of translations with {others}."] if others else []
    notes += [f"{name}: {text}." for name, text in results.subsets.items()]
    if (gold := results.alignment) is not None:
        rate = f"Alignment error rate {gold.error_rate:.1%} against gold links."
        notes.append(f"{rate} {gold.advice}")
        if gold.heads is not None:
            notes.append(f"Of all layers and heads, {gold.heads.best}.")
    if results.attention is not None:
        notes.append(f"Attention along the references: {results.attention}.")
    return notes
