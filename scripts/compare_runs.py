"""The same as `seq2seq compare`, in a checkout that is not installed."""

import checkout  # noqa: F401
from seq2seq.cli.compare_runs import main
from seq2seq.cli.console import run_script

if __name__ == "__main__":
    run_script(main)
