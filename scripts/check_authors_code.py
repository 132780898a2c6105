"""Compare the model with what the authors' own code computed.

Builds the model of each file in float64 with the file's weights, runs the file's batch forward and
backward on the readable and on the fused backend, and prints how far cost, word probabilities,
distributions, alignments and every gradient are from the file's. Exit code 1 if any is further
than 1e-5, relative.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an install

from seq2seq.run.requirements import leave_if_too_old

if __name__ == "__main__":
    leave_if_too_old()

from seq2seq.cli.console import option_parser, output_stream, run_script
from seq2seq.run.errors import UserError

if TYPE_CHECKING:
    from groundhog.reference import Reference


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of the authors' numbers")
    return parser.parse_args()


def main() -> None:
    """Compare and print."""
    args = parse()
    from groundhog.compare import MEASURE, TOLERANCE, compute, deviations
    from groundhog.reference import read_reference
    from seq2seq.config.schema import Backend

    references = [read_reference(path) for path in args.files]
    failed = []
    with output_stream(None) as output:
        for reference in references:
            columns = {
                backend.name: deviations(compute(reference, backend), reference.results)
                for backend in (Backend.reference, Backend.fused)
            }
            worst = max(max(column.values()) for column in columns.values())
            if not worst <= TOLERANCE:
                failed.append((reference.path, worst))
            output.write(table(reference, columns, TOLERANCE).encode())
        output.write(f"{MEASURE}\n".encode())
    for path, worst in failed:
        what = f"the model is {worst:.1e} away from it, more than {TOLERANCE:g}"
        raise UserError(path, what, f"{len(failed)} of {len(references)} files differ.")


def table(reference: "Reference", columns: dict[str, dict[str, float]], tolerance: float) -> str:
    """Return the deviations of a file, a line for each result and a column for each backend."""
    letters = ("Kx", "Ky", "m", "n", "n'", "l", "r")
    sizes = " ".join(f"{x}={reference.sizes[x]}" for x in letters if x in reference.sizes)
    batch = reference.batch
    lines = [
        f"{reference.path}: {reference.name}, {len(reference.parameters)} parameters",
        f"  {sizes} B={batch.num_sentences} Tx={batch.src.shape[1]} Ty={batch.tgt.shape[1]}",
        "".join([f"{'':34}", *(f"{name:>12}" for name in columns)]),
    ]
    for key in reference.results:
        values = [column[key] for column in columns.values()]
        mark = "" if all(value <= tolerance for value in values) else "  differs"
        lines.append("".join([f"{key:34}", *(f"{value:12.1e}" for value in values), mark]))
    if reference.absent:
        lines.append(f"not in the file: {', '.join(reference.absent)}")
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    run_script(main)
