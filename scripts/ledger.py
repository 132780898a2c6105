"""Add finished runs to a ledger, one JSON line each, and print it.

A line records what was trained (command, commit, seed, parameters), how long it took, and the
scores on the validation set, which selects the weights, and on the test set. Each run is listed
once.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import checkout  # noqa: F401
from seq2seq.cli.console import ONE_RUN, option_parser, run_script, show, table
from seq2seq.run.errors import RunDirError, UsageError
from seq2seq.run.naming import run_path

SPEED = "train/tokens_per_second"
METRICS = ("BLEU", "BLEU, lower-cased tokenised", "chrF")
RATES = ("exact match", "character error rate", "symbol error rate")
"""Recorded if the run has them, but not in the table; so are the scores of several directions."""


def main(argv: Sequence[str]) -> None:
    """Add and print."""
    parser = option_parser(__doc__)
    parser.add_argument("ledger", type=Path, metavar="LEDGER", help="a file, which may be new")
    parser.add_argument("runs", type=run_path, nargs="*", metavar="RUN", help=ONE_RUN)
    args = parser.parse_args(argv)
    from seq2seq.run.writing import append  # --help does not need it

    ledger = read(args.ledger)
    known = {line["sha256"] for line in ledger}
    for path in args.runs:
        line = line_of(path)
        if line["sha256"] not in known:
            known.add(line["sha256"])
            append(args.ledger, (json.dumps(line, ensure_ascii=False) + "\n").encode())
            ledger.append(line)
    show(as_table(ledger))


def read(ledger: Path) -> list[dict[str, Any]]:
    """Return the lines of a ledger; empty if it does not exist."""
    from seq2seq.run.reading import parse_json, read_lines_of

    if not ledger.exists():
        return []
    lines = [parse_json(line.encode(), ledger) for line in read_lines_of(ledger)]
    if any("sha256" not in line for line in lines):
        raise UsageError(str(ledger), "is not a ledger", "Name a new file.")
    return lines


def line_of(path: Path) -> dict[str, Any]:
    """Return the ledger line of a finished run.

    Raises:
        RunDirError: the run is not finished, or is damaged.
    """
    from seq2seq.config.compose import load_run_config
    from seq2seq.data.prepare import load_tokenizers
    from seq2seq.decoding.pretrained import outline
    from seq2seq.evaluation.test_set import read_results
    from seq2seq.run.checksums import read_checksummed
    from seq2seq.run.directory import RunDir
    from seq2seq.run.reading import read_json
    from seq2seq.training.curves import read_metrics

    run = RunDir.open(path)
    if not run.path("scores.json").exists():
        raise RunDirError(str(path), "no scores.json", "Add it when all its stages are done.")
    # What it records of itself: settings, start, metrics, the best update, scores.
    cfg = load_run_config(run.checked("config.yaml"))
    record = read_checksummed(run.checked("run.json"))
    metrics = read_metrics(run)
    rows = [row for row in metrics if SPEED in row]
    best = read_json(run.path("checkpoints/best.json"))
    found = {row["update"]: row for row in metrics if "validation/loss" in row}
    scores = read_results(run.checked("scores.json")).scores
    return {
        "name": cfg.name,
        "seed": cfg.seed,
        "commit": record.get("commit"),
        "command": record["command"],
        "parameters": sum(p.numel() for p in outline(cfg, load_tokenizers(run, cfg)).parameters()),
        "threads": record["threads"],
        "updates": int(rows[-1]["update"]),
        "minutes": round(rows[-1]["seconds"] / 60, 1),
        "tokens_per_second": round(median(row[SPEED] for row in rows)),
        "best_update": best["update"],
        "validation": {
            name.removeprefix("validation/"): value
            for name, value in found[best["update"]].items()
            if name.startswith("validation/")
        },
        "test": {
            name: [score.value, score.low, score.high, score.signature]
            for name, score in scores.items()
            if re.sub(r"^\S+-\S+ ", "", name) in (*METRICS, *RATES)  # of a direction: en-de BLEU
        },
        "sha256": hashlib.sha256(run.path("run.json").read_bytes()).hexdigest(),
    }


def as_table(ledger: list[dict[str, Any]]) -> str:
    """Return a table of the runs, with their scores on validation and test set."""
    rows = [
        [
            line["name"],
            str(line["seed"]),
            f"{line['parameters']:,}",
            f"{line['updates']:,}",
            f"{line['minutes']:.1f}",
            *(f"{line['validation'].get(name, float('nan')):.2f}" for name in ("loss", "bleu")),
            *(f"{line['test'][name][0]:.2f}" if name in line["test"] else "" for name in METRICS),
        ]
        for line in ledger
    ]
    head = ["name", "seed", "parameters", "updates", "minutes", "nats", "val. BLEU", "BLEU"]
    return table(rows, [*head, "lower-cased", "chrF"], "lrrrrrrrrr")


if __name__ == "__main__":
    run_script(main)
