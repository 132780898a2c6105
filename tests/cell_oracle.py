"""Other cells than the paper's a second time, in NumPy: loops over one sentence.

Shares nothing with `seq2seq` but the names of the weights, which also tell the kind of a cell.
Analytic, for the complex step of `oracles.py`.
"""

from collections.abc import Sequence

import numpy as np
from oracles import Array, Oracle


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class CellOracle(Oracle):
    """`Oracle` whose units have a state of several vectors, side by side; the output is first."""

    def is_lstm(self, name: str) -> bool:
        return f"{name}.b" in self.weights

    def begin(self, name: str, h: Array) -> Array:
        """The state whose output is h; the memory of an LSTM starts at 0."""
        return np.concatenate([h, np.zeros(len(h))]) if self.is_lstm(name) else h

    def gated_unit(self, name: str, x: Array, h: Array, c: Array | None = None) -> Array:
        """A step of any cell; h is its whole state."""
        return self.lstm(name, x, h, c) if self.is_lstm(name) else super().gated_unit(name, x, h, c)

    def lstm(self, name: str, x: Array, state: Array, c: Array | None) -> Array:
        h, m = np.split(state, 2)
        sums = (
            self.matrix(f"{name}.W") @ x + self.matrix(f"{name}.U") @ h + self.weights[f"{name}.b"]
        )
        if c is not None:
            sums = sums + self.matrix(f"{name}.C") @ c
        i, f, g, o = np.split(sums, 4)
        m = sigmoid(f) * m + sigmoid(i) * np.tanh(g)
        return np.concatenate([sigmoid(o) * np.tanh(m), m])

    def run(self, name: str, xs: Sequence[Array], n: int) -> list[Array]:
        """The outputs of a cell along inputs."""
        state, outputs = self.begin(name, np.zeros(n)), []
        for x in xs:
            state = self.gated_unit(name, x, state)
            outputs.append(state[:n])
        return outputs

    def annotate(self, src: Sequence[int]) -> list[Array]:
        xs, n = [self.embed("encoder", word) for word in src], self.size
        forward = self.run("encoder.forward_unit", xs, n)
        backward = self.run("encoder.backward_unit", xs[::-1], n)[::-1]
        self.summary = backward[0]
        return [np.concatenate(both) for both in zip(forward, backward, strict=True)]

    @property
    def size(self) -> int:
        """n, which the decoder's first state has, too."""
        return len(self.matrix("decoder.W_s"))

    def start(self, h: Sequence[Array]) -> Array:
        s = np.tanh(self.matrix("decoder.W_s") @ self.summary + self.bias("decoder.W_s"))
        return self.begin("decoder.unit", s)

    def predict(
        self, s: Array, y_prev: int | None, h: Sequence[Array]
    ) -> tuple[Array, Array, Array]:
        return super().predict(s[: self.size], y_prev, h)
