"""Score given translations (forced decoding): log-probability, perplexity and alignment.

Prints totals over all pairs; with --format, writes each pair, and the totals to stderr. --reverse
combines the word links of two runs of opposite directions; --aligners compares them to those of
statistical aligners. --level sets the unit of tokens: for a word, log-probabilities and attention
to it are summed over its pieces, attention from it averaged.
"""

import argparse
import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from seq2seq.alignment.links import (
    SYMMETRISATIONS,
    GoldLinks,
    LinkScores,
    alignment_errors,
    pharaoh,
    read_gold,
)
from seq2seq.cli import console
from seq2seq.data.pair import Links
from seq2seq.data.text import read_parallel
from seq2seq.run.errors import UsageError
from seq2seq.run.jsonable import to_json
from seq2seq.run.models import named_runs, run_paths
from seq2seq.run.naming import expanded

if TYPE_CHECKING:
    from seq2seq.decoding.pretrained import Pretrained
    from seq2seq.decoding.translation import Translation
    from seq2seq.evaluation.attention import GoldAlignment

Pairs = Sequence[tuple[str, str]]
Gold = Sequence[GoldLinks | None]

_RATES = ["error rate", "precision", "recall"]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = console.option_parser(__doc__)
    add = parser.add_argument
    # What is scored.
    add("run", type=run_paths, nargs="?", metavar="RUN", help=console.RUN)
    add("--source", type=expanded, required=True, help="source text, plain, .gz or .xz")
    add("--target", type=expanded, required=True, help="its translations")
    add("--output", type=expanded, help=console.OUTPUT)
    add(
        "--format",
        choices=("tsv", "jsonl", "pharaoh", "npz"),
        help="tsv: log-probability, number of tokens, perplexity per token, flags; jsonl: each "
        "token and attention, as decode writes them; pharaoh: word links, source-target, such as "
        "0-0 1-2; npz: tokens and attention for NumPy",
    )
    add("--target-language", metavar="CODE", help=console.TARGET_LANGUAGE)
    console.add_attention_options(parser)
    # Word alignment.
    add("--gold", type=expanded, help="gold links, Pharaoh or NAACL; adds the alignment error rate")
    add(
        "--edit-gold",
        type=expanded,
        metavar="HTML",
        help="instead of scoring, write a page on which to make gold links, or to correct those of "
        "--gold, by mouse or keyboard; it saves them as Pharaoh",
    )
    add(
        "--aligners",
        action="store_true",
        help="with --gold: also the error rates of statistical aligners that are trained on the "
        "run's corpus and this text: IBM-1, HMM, and fast_align and eflomal if installed",
    )
    add("--reverse", type=run_paths, metavar="RUN", help="a run of the opposite direction")
    text = "how --reverse and --aligners combine the links of both directions"
    add("--symmetrise", choices=SYMMETRISATIONS, default="grow-diag-final-and", help=text)
    add("--json", type=expanded, help="also write the totals to this file")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="settings, such as device=cpu")
    args = parser.parse_intermixed_args(argv)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Refuse incompatible arguments."""
    if args.edit_gold:
        args.level = args.level or "words"
        others = (args.run, args.overrides, args.format, args.heatmaps, args.output, args.json)
        if any((*others, args.reverse, args.aligners)):
            what = "scores nothing, it takes only --source, --target, --level and --gold"
            raise UsageError("--edit-gold", what, "Leave out RUN and other options.")
    elif not args.run:
        raise UsageError("score", "nothing to score with", "Give RUN.")
    if args.level in (None, "pieces") and (args.edit_gold or args.gold or args.reverse):
        option = "--edit-gold" if args.edit_gold else "--gold" if args.gold else "--reverse"
        raise UsageError(option, "links words", "Add --level words, or --level blanks.")
    if args.aligners and not args.gold:
        raise UsageError("--aligners", "needs gold links to compare with", "Add --gold FILE.")
    if args.reverse and (args.format not in (None, "pharaoh") or args.heatmaps):
        raise UsageError("--reverse", "gives links alone", "Use --format pharaoh.")


def main(argv: Sequence[str]) -> None:
    """Score."""
    args = parse(argv)
    pairs = list(read_parallel(args.source, args.target))
    gold = gold_links(args, pairs)
    if args.edit_gold:
        edit_gold(args, pairs, gold)
        return
    import seq2seq  # torch takes seconds; --help does not need it

    model = seq2seq.load(args.run, args.overrides)
    text, values = (both_ways if args.reverse else one_way)(args, model, pairs, gold)
    if args.json:
        console.write_json(args.json, values)
    if args.format:
        console.tell(text)
    else:
        console.write_text(args.output, f"{text}\n")


def gold_links(args: argparse.Namespace, pairs: Pairs) -> Gold:
    """Read the gold links of all pairs, if given."""
    from seq2seq.decoding.formats import splitter

    split = splitter(args.level)
    if args.gold is None or split is None:
        return [None] * len(pairs)
    return read_gold(args.gold, [(len(split(src)), len(split(tgt))) for src, tgt in pairs])


def edit_gold(args: argparse.Namespace, pairs: Pairs, gold: Gold) -> None:
    """Write a page on which to make gold links, and print its path."""
    from seq2seq.decoding.formats import LEVELS
    from seq2seq.report.gold import gold_page

    split = LEVELS[args.level]
    assert split is not None  # `check` refuses pieces
    text = gold_page(f"{args.edit_gold.stem}.links", pairs, split, gold)
    console.write_text(args.edit_gold, text)
    console.show(f"page  {args.edit_gold}")


def one_way(
    args: argparse.Namespace, model: "Pretrained", pairs: Pairs, gold: Gold
) -> tuple[str, Any]:
    """Score all pairs, write and draw them if requested; return text and numbers."""
    from seq2seq.decoding.formats import draw_along, splitter, write
    from seq2seq.evaluation.attention import Tally
    from seq2seq.run.directory import RunDir

    # Pairs pass one by one through the tally, the figures and the output.
    tally = Tally(splitter(args.level), model.shown)
    maps = args.format == "npz" or args.gold is not None
    forced = model.force(pairs, maps=maps, target_language=args.target_language)
    found = tally.along(forced, gold)
    if args.heatmaps:
        found = draw_along(found, RunDir(args.heatmaps), args.figure, args.level, model.config)
    if args.format is None:
        collections.deque(found, maxlen=0)
    else:
        with console.output_stream(args.output) as output:
            write(output, found, args.format, args.level, model.flags, console.interrupt.held)
    # Totals; with --aligners, a row for attention and for each aligner.
    scores = tally.scores()
    text, values = str(scores), to_json(scores)
    if args.aligners and (own := scores.alignment):
        own_rows = [
            ["attention", *_rates(own)],
            ["attention, a word later", f"{own.later_error_rate:.1%}"],
            ["attention, a word earlier", f"{own.earlier_error_rate:.1%}"],
        ]
        note, rows, values["aligners"] = baselines(args, model, pairs, gold, tally.aligned)
        rows = [[name, *rates] for name, _, *rates in rows]
        text = "\n".join([text, "", note, console.table([*own_rows, *rows], ["", *_RATES], "lr")])
    return text, values


def both_ways(
    args: argparse.Namespace, forward: "Pretrained", pairs: Pairs, gold: Gold
) -> tuple[str, Any]:
    """Combine the links of two runs, write them if requested; return text and numbers."""
    import seq2seq

    # The second run must translate in the opposite direction.
    backward = seq2seq.load(args.reverse, args.overrides)
    from seq2seq.data.tags import direction_to

    direction = direction_to(forward.config.data, args.target_language)
    wanted, back = direction[::-1], backward.config.data.directions
    if wanted not in back:
        what = f"translates {', '.join(map('-'.join, back))}"
        raise UsageError(args.reverse, what, f"Name a run of {'-'.join(wanted)}.")

    there = forward.force(pairs, target_language=direction[1])
    swapped = ((tgt, src) for src, tgt in pairs)
    back_again = backward.force(swapped, target_language=direction[0])
    rows = list(combined(args, zip(there, back_again, strict=True)))
    if args.format:
        with console.output_stream(args.output) as output:
            for row in rows:
                output.write(f"{pharaoh(row[-1]) if row else ''}\n".encode())

    # Number of links of each set, and their agreement with gold links.
    scored = [n for n, (row, links) in enumerate(zip(rows, gold, strict=True)) if row and links]
    counts, scores, cells = {}, {}, []
    for i, name in enumerate(("forward", "backward", args.symmetrise)):
        counts[name] = sum(len(row[i]) for row in rows if row)
        scores[name] = agreement([row[i] if row else () for row in rows], gold, scored)
        cells.append([name, f"{counts[name]:,}", *(_rates(scores[name]) if args.gold else ())])
    values = {"links": counts, "pairs": sum(row is not None for row in rows)}
    values |= {"alignment": to_json(scores)} if args.gold else {}
    note = []
    if args.aligners:
        first, more, values["aligners"] = baselines(args, forward, pairs, gold, scored)
        note, cells = [first], cells + more
    headers = ["", "links", *(_RATES if args.gold else [])]
    return "\n".join([*note, console.table(cells, headers, "lr")]), values


def agreement(links: Sequence[Links], gold: Gold, scored: Sequence[int]) -> LinkScores:
    """Score the links of some of the pairs."""
    wanted = [own for n in scored if (own := gold[n]) is not None]
    return alignment_errors([links[n] for n in scored], wanted)


def _rates(found: "LinkScores | GoldAlignment") -> list[str]:
    return [f"{rate:.1%}" for rate in (found.error_rate, found.precision, found.recall)]


def baselines(
    args: argparse.Namespace, model: "Pretrained", pairs: Pairs, gold: Gold, scored: Sequence[int]
) -> tuple[str, list[list[str]], Any]:
    """Score the links of statistical aligners; return what they saw, table rows, and numbers."""
    from seq2seq.data.tags import direction_to
    from seq2seq.decoding.formats import splitter
    from seq2seq.evaluation.aligners import align
    from seq2seq.run.directory import RunDir

    # The links of the aligners, trained on the text of the first run.
    run, split = RunDir.open(named_runs(args.run)[0].path), splitter(args.level)
    direction = direction_to(model.config.data, args.target_language)
    assert split is not None  # `parse` refuses pieces
    aligned = align(run, model.config, direction, pairs, split)
    # Their agreement with the gold links of the pairs for which attention has links, too.
    rows, scores = [], {}
    for aligner, (forward, backward) in aligned.links.items():
        both = map(SYMMETRISATIONS[args.symmetrise], forward, backward)
        sets = {"forward": forward, "backward": backward, args.symmetrise: [*both]}
        scores[aligner] = {way: agreement(links, gold, scored) for way, links in sets.items()}
        for way, links in sets.items():
            count = sum(len(links[n]) for n in scored)
            rows.append([f"{aligner} {way}", f"{count:,}", *_rates(scores[aligner][way])])
    note = (
        f"aligners   trained on {aligned.trained_on:,} training pairs of the run and these "
        f"{len(pairs):,}, in lower case"
    )
    return note, rows, {"trained_on": aligned.trained_on, "scores": to_json(scores)}


def combined(
    args: argparse.Namespace, both: Iterable[tuple["Translation", "Translation"]]
) -> Iterator[tuple[Links, Links, Links] | None]:
    """Yield the links of each pair by both runs, and combined; None if words cannot be found."""
    from seq2seq.decoding.formats import links

    for number, (ahead, behind) in enumerate(both, start=1):
        there = links(ahead, number, args.level)
        back = None if there is None else links(behind, number, args.level)
        if there is None or back is None:
            yield None
            continue
        back = tuple((i, j) for j, i in back)
        yield there, back, SYMMETRISATIONS[args.symmetrise](there, back)
