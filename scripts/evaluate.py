"""Score translations with BLEU, chrF and TER, each with its sacreBLEU signature.

With RUN alone, translates the run's test set. With --hypotheses, scores any pair of files.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an install

from seq2seq.cli import output_stream, run_script
from seq2seq.data.text import read_parallel
from seq2seq.errors import UsageError


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="run directory, as train.py prints it")
    parser.add_argument("--source", type=Path, help="translate this file instead of the test set")
    parser.add_argument("--reference", type=Path, help="its reference translations")
    parser.add_argument("--hypotheses", type=Path, help="score this file, translate nothing")
    parser.add_argument("--tokenizer", default="13a", help="BLEU's, without RUN (default: 13a)")
    parser.add_argument("--json", type=Path, help="write the scores to this file, too")
    parser.add_argument("overrides", nargs="*", help="decode.beam_size=12, device=cpu, ...")
    args = parser.parse_intermixed_args()
    if args.hypotheses and (args.run or args.source or not args.reference):
        raise UsageError("--hypotheses", "scores a file against --reference", "Give just these.")
    if not args.hypotheses and not args.run:
        raise UsageError("evaluate.py", "nothing to score", "Give RUN, or --hypotheses.")
    if not args.hypotheses and bool(args.source) != bool(args.reference):
        raise UsageError("--source", "needs --reference, and it needs --source", "Give both.")
    return args


def main() -> None:
    """Score and print."""
    args = parse()
    from seq2seq.inference.scoring import score

    if args.hypotheses:
        pairs = list(read_parallel(args.hypotheses, args.reference))
        tokenizer = args.tokenizer
    else:
        pairs, tokenizer = translated(args)
    scores = score([hyp for hyp, _ in pairs], [ref for _, ref in pairs], tokenizer)
    if args.json:
        with output_stream(args.json) as file:
            file.write(json.dumps(scores.as_dict(), indent=2).encode())
    with output_stream(None) as output:
        output.write(f"{scores.as_table()}\n".encode())


def translated(args: argparse.Namespace) -> tuple[list[tuple[str, str]], str]:
    """Translate the test set of the run, or the given files; return output and reference."""
    import seq2seq
    from seq2seq.data.prepare import load_text
    from seq2seq.run import RunDir

    model = seq2seq.load(args.run, args.overrides)
    if args.source:
        sides = list(read_parallel(args.source, args.reference))
    else:
        run = RunDir.open(args.run)
        sides = list(zip(*(load_text(run, "test", s) for s in ("source", "target")), strict=True))
    outputs = (translation.text for translation in model.stream(src for src, _ in sides))
    pairs = [(output, ref) for output, (_, ref) in zip(outputs, sides, strict=True)]
    return pairs, model.config.evaluate.bleu_tokenizer


if __name__ == "__main__":
    run_script(main)
