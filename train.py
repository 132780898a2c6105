"""The same as `seq2seq train`, in a checkout that is not installed."""

import sys

from seq2seq.cli.main import run

if __name__ == "__main__":
    run("train", sys.argv[1:])
