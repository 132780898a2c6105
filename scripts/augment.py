"""The same as `seq2seq augment`, in a checkout that is not installed."""

import checkout  # noqa: F401
from seq2seq.cli.augment import main
from seq2seq.cli.console import run_script

if __name__ == "__main__":
    run_script(main)
