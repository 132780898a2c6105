"""RNNsearch a second time: the equations of Appendix A in NumPy, as loops over one sentence.

Shares nothing with `seq2seq` but the names of the weights. Slow on purpose.

Everything here is analytic, so it also runs on complex weights: the imaginary part of
`cost(theta + i h d) / h` is the derivative of the cost along d, without the cancellation that
limits finite differences (Squire and Trapp 1998, the complex step).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.inexact]


@dataclass(frozen=True)
class Forced:
    """What the model says along one known target."""

    distributions: Array  # (Ty, K)   p(. | y_<i, x)
    alignments: Array  # (Ty, Tx)     alpha_ij
    cost: complex  # nats, -sum_i log p(y_i)


class Oracle:
    """The equations for given weights and a given reading of the paper.

    Args:
        weights: Arrays by parameter name of the module. Matrices are (out, in), as in print: W x.
        state_word: "emitted" or "previous", the word that moves s_{i-1} to s_i.
        reset: "before" or "after" U.
        readout: "maxout" as printed, or "tanh".
    """

    def __init__(
        self, weights: Mapping[str, Array], *, state_word: str, reset: str, readout: str
    ) -> None:
        assert state_word in ("emitted", "previous")
        assert reset in ("before", "after")
        assert readout in ("maxout", "tanh")
        self.weights = weights
        self.state_word = state_word
        self.reset = reset
        self.readout = readout

    def matrix(self, name: str) -> Array:
        return self.weights[f"{name}.weight"]

    def bias(self, name: str) -> Array | float:
        return self.weights.get(f"{name}.bias", 0.0)

    def embed(self, side: str, word: int | None) -> Array:
        """E x, plus the bias where there is one. No word, y_0: zero, without any bias."""
        E = self.matrix(f"{side}.embedding.E")
        if word is None:
            return np.zeros(E.shape[1])
        return E[word] + self.bias(f"{side}.embedding")

    def gated_unit(self, name: str, x: Array, h: Array, c: Array | None = None) -> Array:
        """A.1.1: z = 1 takes the new value; the reset gate acts before U (or after it)."""

        def gate(letter: str) -> Array:
            net = self.matrix(f"{name}.W_{letter}") @ x + self.matrix(f"{name}.U_{letter}") @ h
            if c is not None:
                net = net + self.matrix(f"{name}.C_{letter}") @ c
            return 1 / (1 + np.exp(-net))

        z, r = gate("z"), gate("r")
        U = self.matrix(f"{name}.U")
        from_state = U @ (r * h) if self.reset == "before" else r * (U @ h)
        net = self.matrix(f"{name}.W") @ x + from_state + self.bias(f"{name}.W")
        if c is not None:
            net = net + self.matrix(f"{name}.C") @ c
        return z * np.tanh(net) + (1 - z) * h

    def annotate(self, src: Sequence[int]) -> list[Array]:
        """Eq. (7): h_j = [forward; backward], each direction starting at zero."""
        Tx = len(src)
        n = len(self.matrix("encoder.forward_unit.U"))
        fwd = {0: np.zeros(n)}
        for j in range(1, Tx + 1):
            x = self.embed("encoder", src[j - 1])
            fwd[j] = self.gated_unit("encoder.forward_unit", x, fwd[j - 1])
        bwd = {Tx + 1: np.zeros(n)}
        for j in range(Tx, 0, -1):
            x = self.embed("encoder", src[j - 1])
            bwd[j] = self.gated_unit("encoder.backward_unit", x, bwd[j + 1])
        return [np.concatenate([fwd[j], bwd[j]]) for j in range(1, Tx + 1)]

    def start(self, h: Sequence[Array]) -> Array:
        """s_0 = tanh(W_s h_bwd_1 + b_s): the backward state of the first word."""
        n = len(self.matrix("decoder.W_s"))
        return np.tanh(self.matrix("decoder.W_s") @ h[0][n:] + self.bias("decoder.W_s"))

    def attend(self, s: Array, h: Sequence[Array]) -> tuple[Array, Array]:
        """A.1.2, Eqs. (5), (6): return alpha (Tx,) and c (2n,)."""
        W_a, U_a = self.matrix("decoder.attention.W_a"), self.matrix("decoder.attention.U_a")
        v_a = self.matrix("decoder.attention.v_a")[0]
        weight = [np.exp(v_a @ np.tanh(W_a @ s + U_a @ h_j)) for h_j in h]
        alpha = np.array([w / sum(weight) for w in weight])
        c = sum(alpha_j * h_j for alpha_j, h_j in zip(alpha, h, strict=True))
        return alpha, np.asarray(c)

    def predict(
        self, s: Array, y_prev: int | None, h: Sequence[Array]
    ) -> tuple[Array, Array, Array]:
        """Return p(y_i) (K,), alpha_i and c_i from s_{i-1} and y_{i-1}."""
        alpha, c = self.attend(s, h)
        t_tilde = (
            self.matrix("decoder.U_o") @ s
            + self.matrix("decoder.V_o") @ self.embed("decoder", y_prev)
            + self.matrix("decoder.C_o") @ c
            + self.bias("decoder.U_o")
        )
        if self.readout == "maxout":
            pairs = [(t_tilde[2 * k], t_tilde[2 * k + 1]) for k in range(len(t_tilde) // 2)]
            t = np.array([max(pair, key=np.real) for pair in pairs])
        else:
            t = np.tanh(t_tilde)
        if "decoder.W_o.weight" in self.weights:  # as printed
            logits = self.matrix("decoder.W_o") @ t + self.bias("decoder.W_o")
        else:  # two factors, as in the authors' code
            through = self.matrix("decoder.W_o.0") @ t
            logits = self.matrix("decoder.W_o.1") @ through + self.bias("decoder.W_o.1")
        p = np.exp(logits)
        return p / p.sum(), alpha, c

    def advance(self, s: Array, c: Array, *, y_prev: int | None, y: int) -> Array:
        """s_i from s_{i-1}, c_i and one of two words."""
        word = y if self.state_word == "emitted" else y_prev
        return self.gated_unit("decoder.unit", self.embed("decoder", word), s, c)

    def force(self, src: Sequence[int], tgt: Sequence[int]) -> Forced:
        """Run along a known target."""
        h = self.annotate(src)
        s, y_prev, cost = self.start(h), None, 0.0
        distributions, alignments = [], []
        for y in tgt:
            p, alpha, c = self.predict(s, y_prev, h)
            distributions.append(p)
            alignments.append(alpha)
            cost = cost - np.log(p[y])
            s = self.advance(s, c, y_prev=y_prev, y=y)
            y_prev = y
        return Forced(np.array(distributions), np.array(alignments), cost)

    def cost(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> complex:
        """The training cost: the sum over all words of all sentences."""
        return sum(self.force(src, tgt).cost for src, tgt in pairs)

    def derivative(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], name: str, direction: Array
    ) -> float:
        """The derivative of the cost as one weight moves along a direction."""
        step = 1e-30
        moved = {**self.weights, name: self.weights[name] + 1j * step * direction}
        oracle = Oracle(moved, state_word=self.state_word, reset=self.reset, readout=self.readout)
        return float(np.imag(oracle.cost(pairs)) / step)
