"""The same as `seq2seq rerank`, in a checkout that is not installed."""

import checkout

if __name__ == "__main__":
    checkout.run("rerank")
