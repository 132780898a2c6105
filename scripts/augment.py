"""Make training pairs of text in one language: a run translates it, bad translations are left out.

OUTPUT holds pairs.source, pairs.target and report.json, and appears when all is done. Killed at any
time, the same command goes on, and ends with the same bytes.
"""

import argparse
from pathlib import Path

import checkout  # noqa: F401
from seq2seq.cli.console import RUN, option_parser, run_script, show


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("run", help=RUN)
    parser.add_argument("--input", type=Path, required=True, help="text, plain, .gz or .xz")
    parser.add_argument("--output", type=Path, required=True, help="a new directory")
    parser.add_argument(
        "--synthetic",
        choices=("source", "target"),
        default="source",
        help="the side of the pairs that is translated (default: source, back-translation)",
    )
    parser.add_argument("--tag", default="", help="in front of every source: <BT>")
    noise = parser.add_argument_group(
        "noise in sources, with these chances; 0.1, 0.1 and 3 are usual"
    )
    noise.add_argument("--drop", type=float, default=0.0, metavar="P", help="leave a word out")
    noise.add_argument("--blank", type=float, default=0.0, metavar="P", help="write <BLANK> for it")
    noise.add_argument(
        "--swap", type=int, default=0, metavar="N", help="shuffle, by at most N places"
    )
    left_out = parser.add_argument_group("what is left out besides blank and copied lines")
    left_out.add_argument(
        "--max-perplexity", type=float, default="inf", metavar="X", help="of a token"
    )
    left_out.add_argument(
        "--max-overlap",
        type=float,
        default=1.0,
        metavar="S",
        help="share of the words of a translation that stand in the line, too",
    )
    left_out.add_argument(
        "--max-ratio", type=float, default="inf", metavar="R", help="of the lengths in words"
    )
    left_out.add_argument("--keep-duplicates", action="store_true", help="of lines")
    parser.add_argument(
        "overrides", nargs="*", help="decode.sample=true, decode.seed=2, decode.beam_size=1, ..."
    )
    return parser.parse_intermixed_args()


def main() -> None:
    """Translate, or go on, and say what came of it."""
    args = vars(parse())
    import seq2seq  # torch takes seconds; --help does not need it
    from seq2seq.decoding.augment import AugmentRules, Side, augment

    run, overrides, text, output = (args.pop(k) for k in ("run", "overrides", "input", "output"))
    rules = AugmentRules(**args | {"synthetic": Side[args["synthetic"]]})
    show(f"{augment(seq2seq.load(run, overrides), text, output, rules)}: {output}")


if __name__ == "__main__":
    run_script(main)
