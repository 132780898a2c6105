"""Check a run: compare every file that any computation reads with its checksum, a line each.

This detects damage, not tampering: whoever writes a directory also writes its checksums.
"""

from collections.abc import Sequence

from seq2seq.cli.console import RUN_OR_MODEL, option_parser, show
from seq2seq.run.errors import RunDirError
from seq2seq.run.models import run_directory


def main(argv: Sequence[str]) -> None:
    """Print a line per file; exit with 4 if one is damaged."""
    parser = option_parser(__doc__)
    parser.add_argument("run", type=run_directory, metavar="RUN", help=RUN_OR_MODEL)
    parser.add_argument("--quiet", action="store_true", help="list only damaged files")
    args = parser.parse_args(argv)
    from seq2seq.cli.inspection import inspect
    from seq2seq.run.directory import RunDir

    damaged = count = 0
    for finding in inspect(RunDir.open(args.run)):
        count += 1
        damaged += finding.problem is not None
        if finding.problem or not args.quiet:
            state = f"DAMAGED  {finding.problem}" if finding.problem else "ok"
            show(f"{finding.path.relative_to(args.run)}  {state}")
    if damaged:
        what = f"{damaged} of {count} files are damaged"
        raise RunDirError(args.run, what, "Restore them from a copy.")
