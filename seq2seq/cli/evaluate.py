"""Score translations: BLEU, chrF and TER with signatures and intervals; error rates.

Translates the test set of a RUN; several are compared to the first with paired tests. With
--hypotheses, scores files instead. --by-length shows BLEU by source length, as a table and a plot;
--attention shows statistics of attention, --faithfulness how far it may be believed, both as tables
and in words.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq.cli import console
from seq2seq.data.text import read_parallel
from seq2seq.run.errors import UsageError
from seq2seq.run.jsonable import to_json
from seq2seq.run.models import run_paths
from seq2seq.run.naming import expanded

if TYPE_CHECKING:
    from seq2seq.evaluation.test_set import Results


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = console.option_parser(__doc__)
    add = parser.add_argument
    # What is scored.
    add("words", nargs="*", metavar="RUN | KEY=VALUE", help=console.WORDS)
    add("--source", type=expanded, help="translate this file instead of the test set")
    text = "reference translations of --source or --hypotheses; for the latter, may be repeated"
    add("--reference", type=expanded, action="append", help=text)
    add("--hypotheses", type=expanded, help="score this file instead of translating")
    add("--tokenizer", help="sacreBLEU tokenizer for --hypotheses (default: by language or script)")
    text = "language of --hypotheses; adds tokenised BLEU if words are separated by spaces"
    add("--language", default="", help=text)
    # What is measured.
    text = f"{console.TARGET_LANGUAGE}; only that part of its test set is scored"
    add("--target-language", metavar="CODE", help=text)
    add("--by-length", type=expanded, metavar="PNG", help="plot BLEU by source length")
    add(
        "--attention",
        action="store_true",
        help="statistics of attention along the references: alignment error rate against gold "
        "links, shift, entropy, coverage, order",
    )
    add_faithfulness(parser)
    add(
        "--exact",
        action="store_true",
        help="with --hypotheses: also exact match, character and symbol error rate (runs show them "
        "where they suit the task)",
    )
    # How, and where to.
    console.add_processes(parser)
    add("--json", type=expanded, help="also write the scores to this file")
    args = parser.parse_intermixed_args(argv)
    args.runs, args.overrides = console.runs_and_overrides(args.words)
    check(args)
    return args


def add_faithfulness(parser: argparse.ArgumentParser) -> None:
    """Add the options of the faithfulness sheet."""
    parser.add_argument(
        "--faithfulness",
        action="store_true",
        help="what the words depend on: counterfactual weights, erased source words, gradients; "
        "takes minutes, is kept in RUN, and continues if interrupted",
    )
    text = "with --faithfulness: number of sentences, evenly spread (default: 1000)"
    parser.add_argument("--sentences", type=int, metavar="N", help=text)
    text = "with --faithfulness: state the BLEU of RUN, retrained with attention=uniform"
    parser.add_argument("--uniform", metavar="RUN", help=text)
    parser.add_argument(
        "--seeds",
        metavar="RUN",
        action="append",
        help="with --faithfulness: compare the attention of RUN, trained from another seed; may be "
        "repeated",
    )


def check(args: argparse.Namespace) -> None:
    """Refuse incompatible arguments."""
    shown = args.by_length or args.attention or args.faithfulness or args.target_language
    if args.hypotheses and (args.words or args.source or shown or not args.reference):
        what = "needs --reference, and nothing else"
        raise UsageError("--hypotheses", what, "Give only these two.")
    if not args.hypotheses and not args.runs:
        raise UsageError("evaluate", "nothing to score", "Give RUN, or --hypotheses.")
    if not args.hypotheses and bool(args.source) != bool(args.reference):
        raise UsageError("--source", "and --reference go together", "Give both.")
    if not args.hypotheses and len(args.reference or ()) > 1:
        what = "is given several times, which is for --hypotheses"
        raise UsageError("--reference", what, "Translate with `seq2seq decode` first.")
    if args.runs:
        check_settings_of_runs(args)
    chosen = [o for o in ("by_length", "attention", "faithfulness") if getattr(args, o)]
    if len(chosen) > 1:
        first, second = (f"--{option.replace('_', '-')}" for option in chosen[:2])
        raise UsageError(second, f"cannot be combined with {first}", "Give one of them.")
    check_faithfulness(args)


def check_faithfulness(args: argparse.Namespace) -> None:
    """Refuse options without what they belong to."""
    for option in ("sentences", "uniform", "seeds"):
        if getattr(args, option) is not None and not args.faithfulness:
            raise UsageError(f"--{option}", "is for --faithfulness", "Leave it out.")
    if args.sentences is not None and args.sentences < 1:
        raise UsageError("--sentences", "less than one", "Give 1 or more.")
    if (args.uniform or args.seeds) and len(args.runs) > 1:
        raise UsageError("--faithfulness", "of several runs", "Give one for --uniform and --seeds.")


def check_settings_of_runs(args: argparse.Namespace) -> None:
    """Refuse what is for files: a run has it in its settings."""
    fixes = {
        "--tokenizer": args.tokenizer and f"Add evaluate.bleu_tokenizer={args.tokenizer}.",
        "--language": args.language and "Leave it out: RUN knows its languages.",
        "--exact": args.exact and "Leave it out: scores of RUN have them where they suit its task.",
    }
    for option, fix in fixes.items():
        if fix:
            raise UsageError(option, "is for --hypotheses", fix)


def main(argv: Sequence[str]) -> None:
    """Score and print."""
    args = parse(argv)
    if args.hypotheses:
        results = score_files(args)
        text, values = str(results), to_json(results)
    else:
        text, values = score_runs(args)
    if args.json:
        console.write_json(args.json, values)
    console.show(text)


def score_files(args: argparse.Namespace) -> "Results":
    """Score one file against another."""
    from seq2seq.evaluation.error_rates import score_exactness
    from seq2seq.evaluation.scoring import score
    from seq2seq.evaluation.test_set import Results

    first, *others = args.reference
    hypotheses, references = columns(args.hypotheses, first)
    more = [columns(args.hypotheses, path)[1] for path in others]
    scores = score(hypotheses, references, args.tokenizer, args.language, more).scores
    if args.exact:
        scores = {**scores, **score_exactness(hypotheses, [references, *more]).scores}
    return Results(sentences=len(references), scores=scores)


def score_runs(args: argparse.Namespace) -> tuple[str, Any]:
    """Score the translations of the runs; return the text to show, and the numbers."""
    # torch takes seconds
    from seq2seq.alignment.heatmap import to_png
    from seq2seq.evaluation import attention, by_length, faithfulness, significance
    from seq2seq.evaluation.runs import TestedRun, compare_runs, named

    given = columns(args.source, args.reference[0]) if args.source else None
    options = (args.overrides, given, args.target_language, args.processes)
    runs = [TestedRun(name, *options) for name in args.runs]
    # One view of them, if any is asked for; else comparisons, or the scores of a single run.
    if args.by_length:
        lengths = {name: run.by_length() for name, run in named(runs).items()}
        bins = {name: found.bins for name, found in lengths.items()}
        figure = by_length.plot_length_bleu(bins, by_length.unit_of(lengths.values()))
        with console.output_stream(args.by_length) as file:
            file.write(to_png(figure))
        return by_length.as_table(lengths), to_json(lengths)
    if args.attention:
        scores = {name: run.attention() for name, run in named(runs).items()}
        return attention.as_table(scores), to_json(scores)
    if args.faithfulness:
        uniform = TestedRun(run_paths(args.uniform), *options) if args.uniform else None
        more = uniform, [run_paths(name) for name in args.seeds or ()]
        sheets = {
            k: run.faithfulness(args.sentences or 1000, *more) for k, run in named(runs).items()
        }
        return faithfulness.as_text(sheets), to_json(sheets)
    if len(runs) > 1:
        comparisons = compare_runs(named(runs))
        return significance.as_table(comparisons), to_json(comparisons)
    results = runs[0].results()
    return str(results), to_json(results)


def columns(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Read two files with the same number of lines."""
    pairs = list(read_parallel(source, target))
    return [src for src, _ in pairs], [tgt for _, tgt in pairs]
