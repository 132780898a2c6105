"""Compare the model with results computed by the authors' own code.

Builds the model of each file in float64 with the file's weights, runs the file's batch forward and
backward on the reference and on the fused backend, and prints the deviation of cost, word
probabilities, distributions, alignments and every gradient from the file's. Exit code 1 if any
relative deviation is above 1e-5.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import checkout  # noqa: F401
from seq2seq.cli.console import option_parser, output_stream, run_script, table
from seq2seq.run.errors import UserError

if TYPE_CHECKING:
    from groundhog import Reference


def main(argv: Sequence[str]) -> None:
    """Compare and print."""
    parser = option_parser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", help=".npz files of the authors' numbers")
    files = parser.parse_args(argv).files
    from groundhog import MEASURE, TOLERANCE, compute, deviations, fitting, read_reference
    from seq2seq.config.schema import Backend

    # Print each file's deviations, then fail with the first that is too far away.
    failed = []
    with output_stream(None) as output:
        for path in files:
            with fitting(path):
                reference = read_reference(path)
                columns = {
                    backend.name: deviations(compute(reference, backend), reference.results)
                    for backend in (Backend.reference, Backend.fused)
                }
            worst = max(max(column.values()) for column in columns.values())
            if not worst <= TOLERANCE:
                failed.append((path, worst))
            output.write(shown(reference, columns, TOLERANCE).encode())
        output.write(f"{MEASURE}\n".encode())
    for path, worst in failed:
        what = f"the model is {worst:.1e} away from it, more than {TOLERANCE:g}"
        raise UserError(path, what, f"{len(failed)} of {len(files)} files differ.")


def shown(reference: "Reference", columns: dict[str, dict[str, float]], tolerance: float) -> str:
    """Return the deviations of a file, a line per result and a column per backend."""
    sizes = " ".join(f"{letter}={size}" for letter, size in reference.sizes.items())
    batch = reference.batch
    rows = []
    for key in reference.results:
        values = [column[key] for column in columns.values()]
        mark = "" if all(value <= tolerance for value in values) else "differs"
        rows.append([key, *(f"{value:.1e}" for value in values), mark])
    lines = [
        f"{reference.path}: {reference.name}, {len(reference.weights)} parameters",
        f"  {sizes} B={batch.num_sentences} Tx={batch.src.shape[1]} Ty={batch.tgt.shape[1]}",
        table(rows, ["", *columns, ""], "lr"),
    ]
    if reference.absent:
        lines.append(f"not in the file: {', '.join(reference.absent)}")
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    run_script(main)
