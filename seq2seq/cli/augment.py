"""Make training pairs from monolingual text: a run translates it, and bad pairs are dropped.

OUTPUT holds pairs.source, pairs.target and report.json, and appears when all is done. If killed,
run the same command again: it resumes, and ends with the same bytes.
"""

import argparse
import math
from collections.abc import Sequence

from seq2seq.cli.console import RUN, TARGET_LANGUAGE, option_parser, show
from seq2seq.run.models import run_paths
from seq2seq.run.naming import expanded

NUMBERS = {
    "drop": (0.0, "noise in sources: chance that a word is left out; 0.1 is usual"),
    "blank": (0.0, "chance that another becomes <BLANK>; 0.1"),
    "swap": (0, "words change places by at most so many; 3"),
    "max-perplexity": (math.inf, "of a token; what is less probable is left out"),
    "max-overlap": (1.0, "share of the words of a translation that stand in the line, too"),
    "max-ratio": (math.inf, "of the lengths of both sides in words"),
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("run", type=run_paths, help=RUN)
    parser.add_argument("--input", type=expanded, required=True, help="text, plain, .gz or .xz")
    parser.add_argument("--output", type=expanded, required=True, help="a new directory")
    side = "the side of the pairs that is translated (default: source, back-translation)"
    parser.add_argument("--synthetic", choices=("source", "target"), default="source", help=side)
    parser.add_argument("--tag", default="", help="in front of every source: <BT>")
    parser.add_argument("--target-language", metavar="CODE", help=TARGET_LANGUAGE)
    for name, (default, what) in NUMBERS.items():
        kind = type(default)
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="X", help=what)
    parser.add_argument("--keep-duplicates", action="store_true", help="of lines")
    overrides = "decode.sample=true, decode.seed=2, decode.beam_size=1, ..."
    parser.add_argument("overrides", nargs="*", help=overrides)
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str]) -> None:
    """Translate, or resume, and print a summary."""
    args = vars(parse(argv))
    import seq2seq  # torch takes seconds; --help does not need it
    from seq2seq.decoding.augment import AugmentRules, augment

    run, overrides, text, output = (args.pop(k) for k in ("run", "overrides", "input", "output"))
    rules = AugmentRules(**args)
    show(f"{augment(seq2seq.load(run, overrides), text, output, rules)}: {output}")
