"""The same as `seq2seq export`, in a checkout that is not installed."""

import sys

import checkout  # noqa: F401
from seq2seq.cli.console import run_script
from seq2seq.cli.export import main as export


def main() -> None:
    """Export."""
    export(sys.argv[1:])


if __name__ == "__main__":
    run_script(main)
