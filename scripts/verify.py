"""Check a run: compare every file that any computation reads with its checksum, a line each.

This detects damage, not tampering: whoever writes a directory also writes its checksums.
"""

import argparse
from pathlib import Path

import checkout  # noqa: F401
from seq2seq.cli.console import option_parser, run_script, show
from seq2seq.run.errors import RunDirError


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(__doc__)
    parser.add_argument("run", type=Path, help="run directory, as train.py prints it")
    parser.add_argument("--quiet", action="store_true", help="only what is damaged")
    return parser.parse_args()


def main() -> None:
    """Print a line per file; exit with 4 if one is damaged."""
    args = parse()
    from seq2seq.cli.verify import inspect
    from seq2seq.run.directory import RunDir

    damaged = count = 0
    for finding in inspect(RunDir.open(args.run)):
        count += 1
        damaged += finding.problem is not None
        if finding.problem or not args.quiet:
            state = f"DAMAGED  {finding.problem}" if finding.problem else "ok"
            show(f"{finding.path.relative_to(args.run)}  {state}")
    if damaged:
        raise RunDirError(
            args.run, f"{damaged} of {count} files are damaged", "Restore them from a copy."
        )


if __name__ == "__main__":
    run_script(main)
