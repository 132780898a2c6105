"""RNNsearch a second time: the equations of Appendix A in NumPy, as loops over one sentence.

Shares nothing with `seq2seq` but the names of the weights. Slow on purpose.

Everything here is analytic, so it also runs on complex weights: the imaginary part of
`cost(theta + i h d) / h` is the derivative of the cost along d, without the cancellation that
limits finite differences (Squire and Trapp 1998, the complex step).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.inexact]


@dataclass(frozen=True)
class Forced:
    """What the model says along one known target."""

    distributions: Array  # (Ty, K)   p(. | y_<i, x)
    alignments: Array  # (Ty, Tx)     alpha_ij
    cost: complex  # nats, -sum_i log p(y_i)


def softmax(energies: Sequence[Array]) -> Array:
    weights = np.exp(np.array(energies))
    return weights / weights.sum()


def average(weights: Array, rows: Sequence[Array]) -> Array:
    return sum(weight * row for weight, row in zip(weights, rows, strict=True))


class Oracle:
    """The equations for given weights and a given reading of the paper.

    Args:
        weights: Arrays by parameter name of the module. Matrices are (out, in), as in print: W x.
        state_word: "emitted" or "previous", the word that moves s_{i-1} to s_i.
        reset: "before" or "after" U.
        readout: "maxout" as printed, or "tanh".
        attention: A kind of `attend`, "additive" as printed.
        option: Number of heads, half width of the window, or most words of a source word.
        encoder: Another oracle whose `encode` reads the source; None for that of the paper.
    """

    def __init__(
        self,
        weights: Mapping[str, Array],
        *,
        state_word: str,
        reset: str,
        readout: str,
        attention: str = "additive",
        option: float | None = None,
        encoder: Any = None,
    ) -> None:
        assert state_word in ("emitted", "previous")
        assert reset in ("before", "after")
        assert readout in ("maxout", "tanh")
        self.weights = weights
        self.state_word = state_word
        self.reset = reset
        self.readout = readout
        self.attention = attention
        self.option = option
        self.encoder = encoder

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
        if self.encoder is not None:
            self.encoder.weights = self.weights
            return self.encoder.encode(src)
        Tx = len(src)
        n = len(self.matrix("encoder.forward_unit.U"))
        fwd = {0: np.zeros(n)}
        for j in range(1, Tx + 1):
            x = self.embed("encoder", src[j - 1])
            fwd[j] = self.gated_unit("encoder.forward_unit", x, fwd[j - 1])
        if self.attention == "fixed":  # the RNNencdec has no backward unit
            return [fwd[j] for j in range(1, Tx + 1)]
        bwd = {Tx + 1: np.zeros(n)}
        for j in range(Tx, 0, -1):
            x = self.embed("encoder", src[j - 1])
            bwd[j] = self.gated_unit("encoder.backward_unit", x, bwd[j + 1])
        return [np.concatenate([fwd[j], bwd[j]]) for j in range(1, Tx + 1)]

    def start(self, h: Sequence[Array]) -> Array:
        """s_0 = tanh(W_s h_bwd_1 + b_s): the backward state of the first word.

        The RNNencdec has none and takes the forward state of the last word.
        """
        n = len(self.matrix("decoder.W_s"))
        of = h[-1] if self.attention == "fixed" else h[0][n:]
        if self.encoder is not None:  # a summary of its own: the mean
            of = sum(h) / len(h)
        return np.tanh(self.matrix("decoder.W_s") @ of + self.bias("decoder.W_s"))

    def attend(
        self, s: Array, h: Sequence[Array], past: Sequence[Array] = ()
    ) -> tuple[Array, Array]:
        """Return alpha (Tx,) and c: A.1.2, Eqs. (5), (6), or another kind; `past` is alpha_k<i."""
        if self.attention == "fixed":
            return np.array([0.0] * (len(h) - 1) + [1.0]), h[-1]
        if self.attention == "uniform":
            return np.ones(len(h)) / len(h), sum(h) / len(h)
        if self.attention == "multi_head":
            return self.attend_with_heads(s, h)
        if self.attention == "local":
            return self.attend_near(s, h)
        if self.attention == "coverage":
            alpha = softmax([self.covered_energy(s, h_j, j, past) for j, h_j in enumerate(h)])
            return alpha, average(alpha, h)
        alpha = softmax([self.energy(s, h_j) for h_j in h])
        if self.attention == "hard":  # at test time: the most likely position
            return alpha, h[int(np.argmax(alpha.real))]
        return alpha, average(alpha, h)

    def energy(self, s: Array, h_j: Array) -> Array:
        n = len(s)
        match self.attention:
            case "additive" | "hard":
                W_a = self.matrix("decoder.attention.W_a")
                U_a = self.matrix("decoder.attention.U_a")
                return self.matrix("decoder.attention.v_a")[0] @ np.tanh(W_a @ s + U_a @ h_j)
            case "dot":
                return s @ (h_j[:n] + h_j[n:])
            case "scaled_dot":
                return s @ (h_j[:n] + h_j[n:]) / np.sqrt(n)
            case "general" | "local":
                return s @ (self.matrix("decoder.attention.U_a") @ h_j)
        raise AssertionError(self.attention)

    def covered_energy(self, s: Array, h_j: Array, j: int, past: Sequence[Array]) -> Array:
        """Tu et al. 2016, 3.1.1, as a sum over all words before."""
        W_a, U_a, V_a, v_a, U_f = (
            self.matrix(f"decoder.attention.{name}") for name in ("W_a", "U_a", "V_a", "v_a", "U_f")
        )
        fertility = self.option / (1 + np.exp(-(U_f[0] @ h_j)))
        covered = sum(alpha[j] for alpha in past) / fertility
        return v_a[0] @ np.tanh(W_a @ s + U_a @ h_j + V_a[:, 0] * covered)

    def attend_near(self, s: Array, h: Sequence[Array]) -> tuple[Array, Array]:
        """Luong et al. 2015, 3.2, Eqs. (9), (10): a Gaussian around a predicted position."""
        D = self.option
        W_p, v_p = self.matrix("decoder.attention.W_p"), self.matrix("decoder.attention.v_p")[0]
        p = len(h) / (1 + np.exp(-(v_p @ np.tanh(W_p @ s))))
        inside = [j for j in range(len(h)) if abs(j - p.real) <= D]
        weights = softmax([self.energy(s, h[j]) for j in inside])
        alpha = np.zeros(len(h), dtype=np.result_type(weights, p))
        for j, weight in zip(inside, weights, strict=True):
            alpha[j] = weight * np.exp(-((j - p) ** 2) / (2 * (D / 2) ** 2))
        return alpha, average(alpha, h)

    def attend_with_heads(self, s: Array, h: Sequence[Array]) -> tuple[Array, Array]:
        """Vaswani et al. 2017, 3.2.2; alpha is the mean over heads."""
        query = np.split(self.matrix("decoder.attention.W_Q") @ s, self.option)
        alphas, heads = [], []
        for k in range(self.option):
            keys = [
                np.split(self.matrix("decoder.attention.W_K") @ h_j, self.option)[k] for h_j in h
            ]
            values = [
                np.split(self.matrix("decoder.attention.W_V") @ h_j, self.option)[k] for h_j in h
            ]
            alphas.append(softmax([query[k] @ key / np.sqrt(len(key)) for key in keys]))
            heads.append(average(alphas[-1], values))
        return sum(alphas) / self.option, self.matrix("decoder.attention.W_O") @ np.concatenate(
            heads
        )

    def predict(
        self, s: Array, y_prev: int | None, h: Sequence[Array], past: Sequence[Array] = ()
    ) -> tuple[Array, Array, Array]:
        """Return p(y_i) (K,), alpha_i and c_i from s_{i-1} and y_{i-1}."""
        alpha, c = self.attend(s, h, past)
        return self.words(self.last_hidden(s, y_prev, c)), alpha, c

    def last_hidden(self, s: Array, y_prev: int | None, c: Array) -> Array:
        """t_i of A.2.2."""
        t_tilde = (
            self.matrix("decoder.U_o") @ s
            + self.matrix("decoder.V_o") @ self.embed("decoder", y_prev)
            + self.matrix("decoder.C_o") @ c
            + self.bias("decoder.U_o")
        )
        if self.readout == "maxout":
            pairs = [(t_tilde[2 * k], t_tilde[2 * k + 1]) for k in range(len(t_tilde) // 2)]
            return np.array([max(pair, key=np.real) for pair in pairs])
        return np.tanh(t_tilde)

    def words(self, t: Array) -> Array:
        """p(y_i) (K,) of t_i."""
        if "decoder.W_o.weight" in self.weights:  # as printed
            logits = self.matrix("decoder.W_o") @ t + self.bias("decoder.W_o")
        else:  # two factors, as in the authors' code
            through = self.matrix("decoder.W_o.0") @ t
            logits = self.matrix("decoder.W_o.1") @ through + self.bias("decoder.W_o.1")
        return softmax(logits)

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
            p, alpha, c = self.predict(s, y_prev, h, alignments)
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
        oracle = copy.copy(self)
        oracle.weights = moved
        return float(np.imag(oracle.cost(pairs)) / step)
