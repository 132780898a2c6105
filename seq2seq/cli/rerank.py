"""Rerank n-best lists with other models.

Features are the search score, the length and the log-probability of each model. With --tune, their
weights are tuned on the n-best lists of validation sentences and written to --weights; without it,
they are read from there.
"""

import argparse
import json
from collections.abc import Sequence

from seq2seq.cli.console import OUTPUT, option_parser, output_stream, show, write_json
from seq2seq.run.models import run_paths
from seq2seq.run.naming import expanded

SCORERS = {
    "forward": "model of the same direction, such as one with data.target_order=right_to_left",
    "reverse": "model of the opposite direction",
    "language_model": "language model of the target: a run trained with . as every source sentence",
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    add = parser.add_argument
    text = "n-best lists from decode, --format jsonl or nbest"
    add("nbest", type=expanded, metavar="NBEST", help=text)
    add("--source", type=expanded, help="the source text, if NBEST is in --format nbest")
    for name, what in SCORERS.items():
        option = f"--{name.replace('_', '-')}"
        text = f"{what}; may be repeated"
        add(option, type=run_paths, metavar="RUN", action="append", default=[], help=text)
    several = "language of multilingual models; --reverse translates into the source language"
    add("--target-language", metavar="CODE", help=several)
    add("--source-language", metavar="CODE", help=several)
    add("--weights", type=expanded, required=True, metavar="JSON", help="file of feature weights")
    text = "tune the weights for these reference translations"
    add("--tune", type=expanded, metavar="REFERENCE", help=text)
    add("--output", type=expanded, help=OUTPUT)
    text = "text: the best of each list; jsonl: all, with features"
    add("--format", choices=("text", "jsonl"), default="text", help=text)
    add("overrides", nargs="*", metavar="KEY=VALUE", help="settings, such as device=cpu")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str]) -> None:
    """Score, tune if requested, and choose."""
    args = parse(argv)
    import seq2seq  # torch takes seconds; --help does not need it
    from seq2seq.data.text import read_lines
    from seq2seq.decoding.rerank import SCORE, Scorer, add_scores, read_nbest, read_weights, tune
    from seq2seq.evaluation.scoring import bleu_metric

    # Each run adds its score of every hypothesis.
    lists = read_nbest(args.nbest, args.source)
    for scorer in Scorer:
        language = args.source_language if scorer is Scorer.reverse else args.target_language
        for run in getattr(args, scorer):
            model = seq2seq.load(run, args.overrides)
            add_scores(lists, scorer, model, language if model.config.data.tags else None)
    # Tune the weights, or choose by given ones.
    if args.tune:
        references = list(read_lines(args.tune))
        metric = bleu_metric(references=references)
        weights = tune(lists, references, metric)
        texts = {"before": {SCORE: 1.0}, "after": weights}
        bleu = {
            name: metric.corpus_score([own.best(w) for own in lists], [references]).score
            for name, w in texts.items()
        }
        values = {"weights": weights, "bleu": bleu, "signature": str(metric.get_signature())}
        write_json(args.weights, values)
        show(f"BLEU {bleu['before']:.2f} -> {bleu['after']:.2f}: {args.weights}")
        return
    weights = read_weights(args.weights, lists)
    with output_stream(args.output) as output:
        for own in lists:
            line = own.best(weights)
            if args.format == "jsonl":
                line = json.dumps(own.as_dict(weights), ensure_ascii=False)
            output.write(f"{line}\n".encode())
