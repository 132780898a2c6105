"""Make training pairs from monolingual text: translate it with a run and drop bad pairs.

OUTPUT, a directory with pairs.source, pairs.target and report.json, appears when all is done. If
interrupted, run the same command again: it resumes and ends with the same bytes.
"""

import argparse
import math
from collections.abc import Sequence

from seq2seq.cli.console import RUN, TARGET_LANGUAGE, option_parser, show
from seq2seq.run.models import run_paths
from seq2seq.run.naming import expanded

NUMBERS = {
    "drop": (0.0, "noise in the source: probability of dropping a word (typically 0.1)"),
    "blank": (0.0, "noise: probability of replacing a word by <BLANK> (0.1)"),
    "swap": (0, "noise: move words by at most X places (3)"),
    "max-perplexity": (math.inf, "drop translations with a higher perplexity per token"),
    "max-overlap": (1.0, "drop pairs that share a larger fraction of words (copies)"),
    "max-ratio": (math.inf, "drop pairs whose lengths in words differ by a larger factor"),
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    add = parser.add_argument
    add("run", type=run_paths, metavar="RUN", help=RUN)
    add("--input", type=expanded, required=True, help="monolingual text, plain, .gz or .xz")
    add("--output", type=expanded, required=True, help="directory to create")
    side = "the side of the pairs that is synthetic (default: source, back-translation)"
    add("--synthetic", choices=("source", "target"), default="source", help=side)
    add("--tag", default="", help="word to put before every source, such as <BT>")
    add("--target-language", metavar="CODE", help=TARGET_LANGUAGE)
    for name, (default, what) in NUMBERS.items():
        kind = type(default)
        add(f"--{name}", type=kind, default=default, metavar="X", help=what)
    add("--keep-duplicates", action="store_true", help="keep repeated lines")
    overrides = "settings, such as decode.sample=true decode.seed=2"
    add("overrides", nargs="*", metavar="KEY=VALUE", help=overrides)
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str]) -> None:
    """Translate, or resume, and print a summary."""
    args = vars(parse(argv))
    import seq2seq  # torch takes seconds; --help does not need it
    from seq2seq.decoding.augment import AugmentRules, augment

    run, overrides, text, output = (args.pop(k) for k in ("run", "overrides", "input", "output"))
    rules = AugmentRules(**args)
    show(f"{augment(seq2seq.load(run, overrides), text, output, rules)}: {output}")
