"""The same as `seq2seq verify`, in a checkout that is not installed."""

import checkout  # noqa: F401
from seq2seq.cli.console import run_script
from seq2seq.cli.verify import main

if __name__ == "__main__":
    run_script(main)
