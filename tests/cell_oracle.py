"""Other cells than the paper's a second time, in NumPy: loops over one sentence.

Shares nothing with `seq2seq` but the names of the weights, which also tell the kind of a cell.
Analytic, for the complex step of `oracles.py`.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from oracles import Array, Oracle


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class CellOracle(Oracle):
    """`Oracle` whose units have a state of several vectors, side by side; the output is first."""

    residual = False  # between the layers of a stack

    def cells(self, name: str) -> list[str]:
        """The cells behind each other in a step; one, unless there are more."""
        names = (f"{name}.cells.{i}" for i in itertools.count())
        held = itertools.takewhile(lambda cell: f"{cell}.U.weight" in self.weights, names)
        return [*held] or [name]

    def is_lstm(self, name: str) -> bool:
        return len(self.weights.get(f"{self.cells(name)[0]}.b", ())) > self.width(name)

    def begin(self, name: str, h: Array) -> Array:
        """The state whose output is h; the memory of an LSTM starts at 0."""
        return np.concatenate([h, np.zeros(len(h))]) if self.is_lstm(name) else h

    def gated_unit(self, name: str, x: Array, h: Array, c: Array | None = None) -> Array:
        """A step of any cell; h is its whole state."""
        for cell in self.cells(name):
            h, x, c = self.step(cell, x, h, c), None, None
        return h

    def step(self, name: str, x: Array | None, h: Array, c: Array | None) -> Array:
        if self.is_lstm(name):
            return self.lstm(name, x, h, c)
        if f"{name}.U.weight" not in self.weights:
            return self.min_gru(name, x, h)
        return self.gru(name, x, h, c)

    def min_gru(self, name: str, x: Array, h: Array) -> Array:
        z, candidate = np.split(self.matrix(f"{name}.W") @ x + self.bias(f"{name}.W"), 2)
        return (1 - sigmoid(z)) * h + sigmoid(z) * candidate

    def norm(self, name: str, x: Array) -> Array:
        """LayerNorm with a gain, and a bias if it has one; x where there is none."""
        if f"{name}.weight" not in self.weights:
            return x
        centred = x - x.sum() / len(x)
        return centred / np.sqrt((centred**2).sum() / len(x) + 1e-5) * self.matrix(
            name
        ) + self.bias(name)

    def added(
        self, name: str, x: Array, h: Array, c: Array | None, letters: Sequence[str]
    ) -> Array:
        """What x, h and c add to some gates, each normalised if at all: Ba et al. 2016."""
        sums = 0.0
        of_gates = ".gates" if letters != [""] else ".candidate"
        for layer, given in (("W", x), ("U", h), ("C", c)):
            if given is not None:
                parts = [self.matrix(f"{name}.{layer}{letter}") @ given for letter in letters]
                sums = sums + self.norm(f"{name}.norm_{layer}{of_gates}", np.concatenate(parts))
        return sums

    def gru(self, name: str, x: Array, h: Array, c: Array | None) -> Array:
        z, r = np.split(sigmoid(self.added(name, x, h, c, ["_z", "_r"])), 2)
        if self.reset == "before":
            net = self.added(name, x, r * h, c, [""])
        else:
            net = self.added(name, x, None, c, [""]) + r * self.added(name, None, h, None, [""])
        net = net + self.bias(f"{name}.W") + self.weights.get(f"{name}.b", 0.0)
        return (1 - z) * h + z * np.tanh(net)

    def lstm(self, name: str, x: Array, state: Array, c: Array | None) -> Array:
        h, m = np.split(state, 2)
        sums = self.weights[f"{name}.b"]
        for layer, given in (("W", x), ("U", h), ("C", c)):
            if given is not None:
                product = self.matrix(f"{name}.{layer}") @ given
                sums = sums + self.norm(f"{name}.norm_{layer}", product)
        i, f, g, o = np.split(sums, 4)
        m = sigmoid(f) * m + sigmoid(i) * np.tanh(g)
        return np.concatenate([sigmoid(o) * np.tanh(self.norm(f"{name}.norm_m", m)), m])

    def width(self, name: str) -> int:
        """n of a cell."""
        [name, *_] = self.cells(name)
        if f"{name}.U.weight" in self.weights:
            return self.matrix(f"{name}.U").shape[1]
        return len(self.matrix(f"{name}.W")) // 2

    def run(self, name: str, xs: Sequence[Array]) -> list[Array]:
        """The outputs of a cell along inputs."""
        n, outputs = self.width(name), []
        state = self.begin(name, np.zeros(n))
        for x in xs:
            state = self.gated_unit(name, x, state)
            outputs.append(state[:n])
        return outputs

    def annotate(self, src: Sequence[int]) -> list[Array]:
        """States of the last layer; `summary` is where it ends."""
        xs, stack = [self.embed("encoder", word) for word in src], self.layers()
        for depth, layer in enumerate(stack):
            forward = self.run(f"{layer}forward_unit", xs)
            new, self.summary = forward, forward[-1]
            if f"{self.cells(f'{layer}backward_unit')[0]}.W.weight" in self.weights:
                backward = self.run(f"{layer}backward_unit", xs[::-1])[::-1]
                new = [np.concatenate(both) for both in zip(forward, backward, strict=True)]
                self.summary = backward[0]
            add = self.residual and depth > 0
            xs = [x + h for x, h in zip(xs, new, strict=True)] if add else new
        return xs

    def layers(self) -> list[str]:
        """What the names of the weights of each layer begin with."""
        names = (f"encoder.layers.{i}." for i in itertools.count())
        held = itertools.takewhile(lambda n: any(k.startswith(n) for k in self.weights), names)
        return [*held] or ["encoder."]

    def start(self, h: Sequence[Array]) -> Array:
        s = np.tanh(self.matrix("decoder.W_s") @ self.summary + self.bias("decoder.W_s"))
        return self.begin("decoder.unit", s)

    def predict(
        self, s: Array, y_prev: int | None, h: Sequence[Array], past: Sequence[Array] = ()
    ) -> tuple[Array, Array, Array]:
        return super().predict(s[: len(self.matrix("decoder.W_s"))], y_prev, h, past)
