"""Translate lines of text with a trained run.

One line out for each line in, in order; a blank line gives a blank line.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an install

from seq2seq.requirements import leave_if_too_old

if __name__ == "__main__":
    leave_if_too_old()

from seq2seq.cli import input_stream, output_stream, run_script
from seq2seq.data.text import read_lines, read_stream


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run directory, as train.py prints it")
    parser.add_argument("--input", type=Path, help="text, plain, .gz or .xz (default: stdin)")
    parser.add_argument("--output", type=Path, help="whole or absent (default: stdout)")
    parser.add_argument(
        "--format",
        choices=("text", "nbest", "jsonl"),
        default="text",
        help="text: the best translation; nbest: line number, score, text, one hypothesis a line; "
        "jsonl: tokens, scores and attention of every hypothesis",
    )
    parser.add_argument(
        "overrides", nargs="*", help="decode.beam_size=12, decode.n_best=5, device=cpu, ..."
    )
    return parser.parse_intermixed_args()


def main() -> None:
    """Translate."""
    args = parse()
    import seq2seq  # torch takes seconds; --help does not need it

    model = seq2seq.load(args.run, args.overrides)
    lines = read_lines(args.input) if args.input else read_stream(input_stream(), "stdin")
    with output_stream(args.output) as output:
        for number, translation in enumerate(model.stream(lines), start=1):
            match args.format:
                case "text":
                    text = translation.text
                case "jsonl":
                    text = json.dumps(translation.as_dict(), ensure_ascii=False)
                case _:
                    found = translation.candidates
                    text = "\n".join(f"{number}\t{c.score:.4f}\t{c.text}" for c in found)
            output.write(f"{text}\n".encode())
        output.flush()


if __name__ == "__main__":
    run_script(main)
