"""Write a report of one run, or of several side by side, as one self-contained HTML file.

It has settings compared to the paper, learning curves, scores, BLEU by source length, and
translations of the test set with interactive attention: of every hypothesis of the beam, of greedy
search, and of the reference (forced decoding).
"""

import argparse
from collections.abc import Sequence

from seq2seq.cli.console import WORDS, option_parser, runs_and_overrides, show, write_text
from seq2seq.run.errors import UsageError
from seq2seq.run.models import named_runs
from seq2seq.run.naming import expanded


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    add = parser.add_argument
    add("words", nargs="+", metavar="RUN | KEY=VALUE", help=WORDS)
    text = "output (default: report.html in RUN, report-OTHERS.html in the first of several)"
    add("--output", type=expanded, help=text)
    text = "number of test sentences, evenly spread (default: 50)"
    add("--sentences", type=int, default=50, help=text)
    add("--hypotheses", type=int, default=5, help="hypotheses per sentence (default: 5)")
    args = parser.parse_intermixed_args(argv)
    args.runs, args.overrides = runs_and_overrides(args.words)
    # Invalid arguments, before anything is loaded.
    if not args.runs:
        raise UsageError("report", "nothing to report on", "Give RUN.")
    if together := [text for text in args.runs if len(named_runs(text)) > 1]:
        raise UsageError(together[0], "is an ensemble", "Name its runs one by one.")
    for name in ("sentences", "hypotheses"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name}", "less than one", "Give 1 or more.")
    return args


def main(argv: Sequence[str]) -> None:
    """Write the report and print its path."""
    args = parse(argv)
    from seq2seq.report.build import build, default_path  # torch takes seconds

    path = args.output or default_path(args.runs)
    text = build(args.runs, args.overrides, args.sentences, args.hypotheses, path.parent)
    write_text(path, text)
    show(f"report  {path}")
