"""Score translations: BLEU, also tokenised, chrF and TER, each with its signature.

With RUN alone, translates the run's test set. With several, says whether the others differ from the
first by more than chance. With --hypotheses, scores any pair of files. With --by-length, shows BLEU
by source length for one or several runs, as a table and as a plot; with --attention, what their
attention does, as a table and in words.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an install

from seq2seq.run.requirements import leave_if_too_old

if __name__ == "__main__":
    leave_if_too_old()

from seq2seq.cli.console import WORDS, output_stream, run_script, runs_and_overrides
from seq2seq.data.text import read_parallel
from seq2seq.run.errors import DataError, RunDirError, UsageError

if TYPE_CHECKING:
    from seq2seq.alignment.gold import AttentionScores
    from seq2seq.decoding.pretrained import Pretrained
    from seq2seq.evaluation.by_length import LengthBleu
    from seq2seq.evaluation.evaluation import Results


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="RUN | KEY=VALUE", help=WORDS)
    parser.add_argument("--source", type=Path, help="translate this file instead of the test set")
    parser.add_argument("--reference", type=Path, help="its reference translations")
    parser.add_argument("--hypotheses", type=Path, help="score this file, translate nothing")
    parser.add_argument("--tokenizer", default="13a", help="BLEU's, without RUN (default: 13a)")
    parser.add_argument("--language", help="of the files, without RUN: adds the tokenised BLEU")
    parser.add_argument("--by-length", type=Path, metavar="PNG", help="BLEU by source length")
    parser.add_argument(
        "--attention",
        action="store_true",
        help="error rate against gold links, shift, entropy, coverage, order; along the references",
    )
    parser.add_argument("--json", type=Path, help="write the scores to this file, too")
    args = parser.parse_intermixed_args()
    args.runs, args.overrides = runs_and_overrides(args.words)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Refuse arguments that make no sense together."""
    shown = args.by_length or args.attention
    if args.hypotheses and (args.words or args.source or shown or not args.reference):
        raise UsageError("--hypotheses", "scores a file against --reference", "Give just these.")
    if not args.hypotheses and not args.runs:
        raise UsageError("evaluate.py", "nothing to score", "Give RUN, or --hypotheses.")
    if not args.hypotheses and bool(args.source) != bool(args.reference):
        raise UsageError("--source", "needs --reference, and it needs --source", "Give both.")
    if args.attention and args.by_length:
        raise UsageError("--attention", "is another table than --by-length", "Give one of them.")


def main() -> None:
    """Score and print."""
    args = parse()
    if args.by_length:
        shown, values = by_length(args)
    elif args.attention:
        shown, values = attention(args)
    elif len(args.runs) > 1:
        shown, values = significance(args)
    else:
        results = score_files(args) if args.hypotheses else score_run(args)
        shown, values = str(results), results.as_dict()
    if args.json:
        with output_stream(args.json) as file:
            file.write(json.dumps(values, indent=2, ensure_ascii=False).encode())
    with output_stream(None) as output:
        output.write(f"{shown}\n".encode())


def score_files(args: argparse.Namespace) -> "Results":
    """Score one file against another."""
    from seq2seq.evaluation.evaluation import Results
    from seq2seq.evaluation.scoring import score

    pairs = list(read_parallel(args.hypotheses, args.reference))
    hypotheses, references = [hyp for hyp, _ in pairs], [ref for _, ref in pairs]
    return Results(score(hypotheses, references, args.tokenizer, args.language))


def score_run(args: argparse.Namespace) -> "Results":
    """Translate the test set of the run, or the given files, and score that."""
    import seq2seq  # torch takes seconds; --help does not need it
    from seq2seq.alignment.gold import GOLD, align_test_set
    from seq2seq.decoding.translate import translate
    from seq2seq.evaluation.evaluation import Results, known_rows, score_all, second_pass
    from seq2seq.run.directory import RunDir

    [folder] = args.runs
    model = seq2seq.load(folder, args.overrides)
    sources, references = parallel_text(args, folder)
    outputs = texts(model, sources)
    rows = known_rows(model.tokenizers, sources, references)
    known = {row: outputs[row] for row in rows}
    if again := second_pass(rows, len(sources), model.config.decode):
        found = translate(model.model, model.tokenizers, (sources[row] for row in rows), again)
        known = {row: translation.text for row, translation in zip(rows, found, strict=True)}
    scores = score_all(model.config, outputs, references, known)
    if args.source:
        return Results(*scores)
    run = RunDir.open(folder)
    if not run.path(GOLD).exists():
        return Results(*scores)
    return Results(*scores, align_test_set(run, model.model, model.tokenizers, model.config.decode))


def by_length(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Score runs by source length and draw them; return the table and the numbers."""
    from seq2seq.alignment.heatmap import to_png
    from seq2seq.evaluation.by_length import as_table, plot_length_bleu, run_names
    from seq2seq.run.directory import RunDir

    for run in args.runs:
        RunDir.open(run)  # names come from its files
    names = run_names(args.runs)
    found = {name: length_bleu(args, run) for name, run in zip(names, args.runs, strict=True)}
    with output_stream(args.by_length) as file:
        file.write(to_png(plot_length_bleu({name: f.bins for name, f in found.items()})))
    return as_table(found), {name: f.as_dict() for name, f in found.items()}


def length_bleu(args: argparse.Namespace, folder: Path) -> "LengthBleu":
    """Read a run's own numbers, or translate if they are not there or something is overridden."""
    import seq2seq
    from seq2seq.evaluation.by_length import LENGTH_BLEU, read_length_bleu, score_by_length
    from seq2seq.run.directory import RunDir

    as_it_is = not args.source and not args.overrides
    if as_it_is and RunDir.open(folder).path(LENGTH_BLEU).exists():
        return read_length_bleu(folder)
    model = seq2seq.load(folder, args.overrides)
    sources, references = parallel_text(args, folder)
    return score_by_length(model.config, sources, texts(model, sources), references)


def significance(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Compare runs with the first one on the same sentences; return tables and numbers."""
    from seq2seq.config.compose import load_run_config
    from seq2seq.evaluation.by_length import run_names
    from seq2seq.evaluation.significance import as_table, compare

    pairs = [parallel_text(args, run) for run in args.runs]
    for run, own in zip(args.runs, pairs, strict=True):
        if own != pairs[0]:
            what = f"its test set is not that of {args.runs[0]}"
            raise DataError(run, what, "Give --source and --reference, the same for all.")
    sources, references = pairs[0]
    outputs = [translations(args, run, sources) for run in args.runs]
    systems = dict(zip(run_names(args.runs), outputs, strict=True))
    cfg = load_run_config(args.runs[0] / "config.yaml", args.overrides)
    found = compare(systems, references, cfg.evaluate.bleu_tokenizer)
    return as_table(found), {c.metric: c.as_dict() for c in found}


def translations(args: argparse.Namespace, folder: Path, sources: list[str]) -> list[str]:
    """Read a run's own translations, or translate if they are not there or not those asked for."""
    import seq2seq
    from seq2seq.evaluation.evaluation import TRANSLATIONS
    from seq2seq.run.directory import RunDir
    from seq2seq.run.reading import read_lines_of

    path = RunDir.open(folder).path(TRANSLATIONS)
    if args.source or args.overrides or not path.exists():
        return texts(seq2seq.load(folder, args.overrides), sources)
    found = list(read_lines_of(path))
    if len(found) != len(sources):
        what = f"has {len(found)} lines, expected {len(sources)}"
        raise RunDirError(path, what, "Run the decode stage again.")
    return found


def attention(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Measure the attention of runs along references; return a table and the numbers."""
    from seq2seq.alignment.attention_table import as_table
    from seq2seq.evaluation.by_length import run_names
    from seq2seq.run.directory import RunDir

    for run in args.runs:
        RunDir.open(run)  # names come from its files
    names = run_names(args.runs)
    found = {name: attention_of(args, run) for name, run in zip(names, args.runs, strict=True)}
    return as_table(found), {name: asdict(scores) for name, scores in found.items()}


def attention_of(args: argparse.Namespace, folder: Path) -> "AttentionScores":
    """Read a run's own numbers, or force it along the references if they are not there."""
    import seq2seq
    from seq2seq.alignment.attention_table import saved_attention
    from seq2seq.alignment.gold import AttentionTally, align_test_set
    from seq2seq.run.directory import RunDir

    run = RunDir.open(folder)
    as_it_is = not args.source and not args.overrides
    if as_it_is and (saved := saved_attention(run.path("scores.json"))):
        return saved
    model = seq2seq.load(folder, args.overrides)
    if not args.source:
        return align_test_set(run, model.model, model.tokenizers, model.config.decode)
    tally = AttentionTally()
    for translation in model.force(read_parallel(args.source, args.reference)):
        tally.add(translation, None)
    return tally.scores()


def parallel_text(args: argparse.Namespace, folder: Path) -> tuple[list[str], list[str]]:
    """Return source and reference: of the given files, or of a run's test set."""
    from seq2seq.data.prepare import SIDES, load_text
    from seq2seq.run.directory import RunDir

    if args.source:
        pairs = list(read_parallel(args.source, args.reference))
        return [src for src, _ in pairs], [ref for _, ref in pairs]
    run = RunDir.open(folder)
    sources, references = (list(load_text(run, "test", side)) for side in SIDES)
    return sources, references


def texts(model: "Pretrained", sources: list[str]) -> list[str]:
    """Return the best translations."""
    return [translation.text for translation in model.stream(sources)]


if __name__ == "__main__":
    run_script(main)
