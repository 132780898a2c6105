"""The same as `seq2seq export`, in a checkout that is not installed."""

import checkout

if __name__ == "__main__":
    checkout.run("export")
