"""The same as `seq2seq train`, in a checkout that is not installed."""

import sys

from seq2seq.cli.main import prepared

if __name__ == "__main__":
    prepared("train")(sys.argv[1:])
