"""Score given translations: log-probability, perplexity and alignment, nothing searched for.

Without --format, prints sums over all pairs; with one, writes every pair, and the sums to stderr.
With --reverse, puts the links of two runs of opposite directions together. --level says what a
token is: log-probabilities and attention to a word are sums over its pieces, attention from a word
is their mean.
"""

import argparse
import collections
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an install

from seq2seq.run.requirements import leave_if_too_old

if __name__ == "__main__":
    leave_if_too_old()

from seq2seq.cli.console import add_attention_options, interrupt, output_stream, run_script
from seq2seq.data.text import read_parallel
from seq2seq.run.errors import UsageError

if TYPE_CHECKING:
    from seq2seq.alignment.forced_scores import ForcedScores
    from seq2seq.alignment.links import GoldLinks
    from seq2seq.data.pair import Links
    from seq2seq.decoding.pretrained import Pretrained

    Gold = Sequence[GoldLinks | None]

log = logging.getLogger("seq2seq.score")

SYMMETRISED = ("grow-diag-final-and", "intersection", "union")

Pairs = Sequence[tuple[str, str]]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run directory, as train.py prints it")
    parser.add_argument("--source", type=Path, required=True, help="text, plain, .gz or .xz")
    parser.add_argument("--target", type=Path, required=True, help="its translations")
    parser.add_argument("--output", type=Path, help="whole or absent (default: stdout)")
    parser.add_argument(
        "--format",
        choices=("tsv", "jsonl", "pharaoh", "npz"),
        help="tsv: log-probability, tokens, perplexity of a token; jsonl: also of each token, and "
        "attention, as decode.py writes it; pharaoh: links 0-0 1-2, source-target; npz: for NumPy",
    )
    add_attention_options(parser)
    parser.add_argument(
        "--gold", type=Path, help="gold links, Pharaoh or NAACL: adds the alignment error rate"
    )
    parser.add_argument("--reverse", type=Path, metavar="RUN", help="of the opposite direction")
    parser.add_argument(
        "--symmetrise", choices=SYMMETRISED, default=SYMMETRISED[0], help="with --reverse"
    )
    parser.add_argument("--json", type=Path, help="write the sums to this file, too")
    parser.add_argument("overrides", nargs="*", help="decode.batch_sentences=32, device=cpu, ...")
    args = parser.parse_intermixed_args()
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Refuse arguments that make no sense together."""
    if args.level == "pieces" and (args.gold or args.reverse):
        option = "--gold" if args.gold else "--reverse"
        raise UsageError(option, "links words", "Add --level words, or --level blanks.")
    if args.reverse and (args.format not in (None, "pharaoh") or args.heatmaps):
        raise UsageError("--reverse", "gives links alone", "Use --format pharaoh.")


def main() -> None:
    """Score."""
    args = parse()
    pairs = list(read_parallel(args.source, args.target))
    gold = gold_links(args, pairs)
    import seq2seq  # torch takes seconds; --help does not need it

    model = seq2seq.load(args.run, args.overrides)
    if args.reverse:
        shown, values = both_ways(args, model, pairs, gold)
    else:
        scores = score(args, model, pairs, gold)
        shown, values = str(scores), scores.as_dict()
    if args.json:
        with output_stream(args.json) as file:
            file.write(json.dumps(values, indent=2, ensure_ascii=False).encode())
    if args.format:
        print(shown, file=sys.stderr)
        return
    with output_stream(args.output) as output:
        output.write(f"{shown}\n".encode())


def gold_links(args: argparse.Namespace, pairs: Pairs) -> "Gold":
    """Read the gold links of all pairs, if there are some."""
    from seq2seq.alignment.links import read_gold
    from seq2seq.decoding.formats import LEVELS

    split = LEVELS[args.level]
    if args.gold is None or split is None:
        return [None] * len(pairs)
    return read_gold(args.gold, [(len(split(src)), len(split(tgt))) for src, tgt in pairs])


def score(
    args: argparse.Namespace, model: "Pretrained", pairs: Pairs, gold: "Gold"
) -> "ForcedScores":
    """Score all pairs, and write and draw them if that was asked for."""
    from seq2seq.alignment.forced_scores import Tally
    from seq2seq.decoding.formats import LEVELS, draw_along, write
    from seq2seq.run.directory import RunDir

    tally = Tally(LEVELS[args.level])
    found = tally.count(model.force(pairs), gold)
    if args.heatmaps:
        font = model.config.evaluate.heatmap_font
        found = draw_along(found, RunDir(args.heatmaps), args.picture, args.level, font)
    if args.format is None:
        collections.deque(found, maxlen=0)
    else:
        with output_stream(args.output) as output:
            write(output, found, args.format, args.level, interrupt.held)
    return tally.scores()


def both_ways(
    args: argparse.Namespace, forward: "Pretrained", pairs: Pairs, gold: "Gold"
) -> tuple[str, dict[str, Any]]:
    """Put the links of two runs together; return what is shown and the numbers."""
    import seq2seq
    from seq2seq.alignment.forced_scores import as_table
    from seq2seq.alignment.links import alignment_errors, pharaoh

    backward = seq2seq.load(args.reverse, args.overrides)
    check_directions(args, forward, backward)
    rows = list(linked(args, forward, backward, pairs))
    if args.format:
        with output_stream(args.output) as output:
            for row in rows:
                output.write(f"{pharaoh(row[-1]) if row else ''}\n".encode())
    names = ("forward", "backward", args.symmetrise)
    kept = [(row, wanted) for row, wanted in zip(rows, gold, strict=True) if row and wanted]
    found = {
        name: alignment_errors([row[i] for row, _ in kept], [wanted for _, wanted in kept])
        for i, name in enumerate(names)
    }
    counts = {name: sum(len(row[i]) for row in rows if row) for i, name in enumerate(names)}
    values = {"links": counts, "pairs": sum(row is not None for row in rows)}
    if args.gold is None:
        return as_table(counts, {}), values
    return as_table(counts, found), values | {
        "alignment": {name: asdict(scores) for name, scores in found.items()}
    }


def check_directions(
    args: argparse.Namespace, forward: "Pretrained", backward: "Pretrained"
) -> None:
    """See that the second run translates back."""
    there, back = forward.config.data, backward.config.data
    wanted = (there.target_language, there.source_language)
    if (back.source_language, back.target_language) != wanted:
        what = f"translates {back.source_language}-{back.target_language}"
        raise UsageError(args.reverse, what, f"Name a run of {'-'.join(wanted)}.")


def linked(
    args: argparse.Namespace, forward: "Pretrained", backward: "Pretrained", pairs: Pairs
) -> "Iterator[tuple[Links, Links, Links] | None]":
    """Yield the links of each pair by both runs, and put together; None where words are lost."""
    from seq2seq.alignment import links
    from seq2seq.decoding.formats import links as links_of

    combine = {
        "grow-diag-final-and": links.grow_diag_final_and,
        "intersection": links.intersection,
        "union": links.union,
    }[args.symmetrise]
    swapped = ((tgt, src) for src, tgt in pairs)
    both = zip(forward.force(pairs), backward.force(swapped), strict=True)
    for number, (there, back) in enumerate(both, start=1):
        ahead, behind = (links_of(found, args.level) for found in (there, back))
        if ahead is None or behind is None:
            log.warning("line %d: its words cannot be found in its pieces: no links", number)
            yield None
            continue
        behind = tuple((i, j) for j, i in behind)
        yield ahead, behind, combine(ahead, behind)


if __name__ == "__main__":
    run_script(main)
