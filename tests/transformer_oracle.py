"""The Transformer a second time: Vaswani et al. 2017 in NumPy, as loops over one sentence.

Shares nothing with `seq2seq` but the names of the weights. Analytic, so the complex step of
`oracles.py` gives its gradients, too; a maximum looks at real parts.
"""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from oracles import Array, Forced, softmax


class TransformerOracle:
    """The equations for given weights.

    Args:
        weights: Arrays by parameter name of the module. Matrices are (out, in): W x.
        heads: Of every attention.
        pre_norm: LayerNorm before each sub-layer; otherwise after the sum, as printed.
        gelu: In the feed-forward networks; otherwise the maximum with 0.
        shown: Index of the layer whose attention is returned, and of its head or None for the mean.
    """

    def __init__(
        self,
        weights: Mapping[str, Array],
        *,
        heads: int,
        pre_norm: bool,
        gelu: bool,
        shown: tuple[int, int | None],
    ) -> None:
        self.weights, self.heads, self.pre_norm, self.gelu = weights, heads, pre_norm, gelu
        self.shown = shown

    def linear(self, name: str, x: Array) -> Array:
        return self.weights[f"{name}.weight"] @ x + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: Array) -> Array:
        if f"{name}.weight" not in self.weights:
            return x
        centred = x - x.sum() / len(x)
        scale = np.sqrt((centred**2).sum() / len(x) + 1e-5)
        return centred / scale * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def embed(self, side: str, words: Sequence[int | None]) -> list[Array]:
        """E y sqrt(d) and the position; None is y_0."""
        E = self.weights[f"{side}.words.embedding.E.weight"]
        learned = self.weights.get(f"{side}.words.positions.learned")
        d, rows = E.shape[1], []
        for p, word in enumerate(words):
            bias = self.weights.get(f"{side}.words.embedding.bias", 0.0)
            row = np.zeros(d) if word is None else (E[word] + bias) * math.sqrt(d)
            if learned is not None:
                place = learned[min(p, len(learned) - 1)]
            else:
                place = np.zeros(d)
                for i in range(d):
                    angle = p / 10_000 ** (2 * (i // 2) / d)
                    place[i] = math.sin(angle) if i % 2 == 0 else math.cos(angle)
            rows.append(row + place)
        return rows

    def keys_and_values(self, name: str, past: Sequence[Array]) -> list[tuple[list, list]]:
        """Of each position: its keys and its values, a head each."""
        both = [np.split(self.linear(f"{name}.W_KV", y), 2) for y in past]
        return [(np.split(k, self.heads), np.split(v, self.heads)) for k, v in both]

    def attend(self, name: str, x: Array, past: Sequence) -> tuple[Array, Array]:
        """Return what x reads from `keys_and_values`, and the weights of each head (h, S)."""
        q = np.split(self.linear(f"{name}.W_Q", x), self.heads)
        contexts, weights = [], []
        for i in range(self.heads):
            alpha = softmax([q[i] @ keys[i] / math.sqrt(len(keys[i])) for keys, _ in past])
            weights.append(alpha)
            contexts.append(sum(a * v[i] for a, (_, v) in zip(alpha, past, strict=True)))
        return self.linear(f"{name}.W_O", np.concatenate(contexts)), np.array(weights)

    def network(self, name: str, x: Array) -> Array:
        inner = self.linear(f"{name}.W_1", x)
        if self.gelu:
            inner = np.array([v * (1 + erf(v / math.sqrt(2))) / 2 for v in inner])
        else:
            inner = np.array([v if v.real > 0 else 0 * v for v in inner])
        return self.linear(f"{name}.W_2", inner)

    def residual(self, name: str, x: Array, sub_layer) -> Array:
        if self.pre_norm:
            return x + sub_layer(self.norm(f"{name}.norm", x))
        return self.norm(f"{name}.norm", x + sub_layer(x))

    def within(self, name: str, xs: Sequence[Array]) -> list[tuple[list, list]]:
        """Keys and values of self-attention."""
        seen = [self.norm(f"{name}.residuals.0.norm", x) if self.pre_norm else x for x in xs]
        return self.keys_and_values(f"{name}.self_attention", seen)

    def encode(self, src: Sequence[int]) -> list[Array]:
        xs, layer = self.embed("encoder", src), 0
        while f"encoder.layers.{layer}.self_attention.W_Q.weight" in self.weights:
            xs, layer = self.encode_layer(f"encoder.layers.{layer}", xs), layer + 1
        return [self.norm("encoder.norm", x) for x in xs]

    def encode_layer(self, name: str, xs: Sequence[Array]) -> list[Array]:
        past, new = self.within(name, xs), []
        for x in xs:
            attend = lambda v: self.attend(f"{name}.self_attention", v, past)[0]  # noqa: E731
            x = self.residual(f"{name}.residuals.0", x, attend)
            network = functools.partial(self.network, f"{name}.feed_forward")
            new.append(self.residual(f"{name}.residuals.1", x, network))
        return new

    def decode(self, h: Sequence[Array], tgt: Sequence[int]) -> tuple[list[Array], list[Array]]:
        """Return the outputs at all target positions, and the attention shown."""
        xs, layer, shown = self.embed("decoder", [None, *tgt[:-1]]), 0, []
        while f"decoder.layers.{layer}.attention.W_Q.weight" in self.weights:
            xs, weights = self.decode_layer(f"decoder.layers.{layer}", xs, h)
            if layer == self.shown[0]:
                head = self.shown[1]
                shown = [w.mean(axis=0) if head is None else w[head] for w in weights]
            layer += 1
        return [self.norm("decoder.norm", x) for x in xs], shown

    def decode_layer(
        self, name: str, xs: Sequence[Array], h: Sequence[Array]
    ) -> tuple[list[Array], list[Array]]:
        past, source = self.within(name, xs), self.keys_and_values(f"{name}.attention", h)
        new, weights = [], []

        def of_source(v: Array) -> Array:
            read, alphas = self.attend(f"{name}.attention", v, source)
            weights.append(alphas)
            return read

        for i, x in enumerate(xs):
            before = past[: i + 1]
            attend = lambda v, p=before: self.attend(f"{name}.self_attention", v, p)[0]  # noqa: E731
            x = self.residual(f"{name}.residuals.0", x, attend)
            x = self.residual(f"{name}.residuals.1", x, of_source)
            network = functools.partial(self.network, f"{name}.feed_forward")
            new.append(self.residual(f"{name}.residuals.2", x, network))
        return new, weights

    def force(self, src: Sequence[int], tgt: Sequence[int]) -> Forced:
        outputs, shown = self.decode(self.encode(src), tgt)
        distributions = [softmax(self.linear("decoder.W_o", t)) for t in outputs]
        cost = -sum(np.log(p[y]) for p, y in zip(distributions, tgt, strict=True))
        return Forced(np.array(distributions), np.array(shown), cost)

    def cost(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> complex:
        return sum(self.force(src, tgt).cost for src, tgt in pairs)

    def derivative(self, pairs, name: str, direction: Array) -> float:
        """The derivative of the cost as one weight moves along a direction, by a complex step."""
        step, before = 1e-30, self.weights
        self.weights = {**before, name: before[name] + 1j * step * direction}
        try:
            return float(np.imag(self.cost(pairs)) / step)
        finally:
            self.weights = before


def erf(x: complex) -> complex:
    """To first order in the imaginary part, which is all that a complex step needs."""
    real = float(np.real(x))
    return math.erf(real) + 1j * np.imag(x) * 2 / math.sqrt(math.pi) * math.exp(-(real**2))
