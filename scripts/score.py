"""The same as `seq2seq score`, in a checkout that is not installed."""

import checkout

if __name__ == "__main__":
    checkout.run("score")
