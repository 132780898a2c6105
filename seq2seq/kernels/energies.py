"""Energies v_a' tanh(q + k_j) without a tanh for each of them.

    tanh(x) = 1 - 2 R,   R = 1 / (1 + exp(2 q) exp(2 k))

exp(2 k) is computed once a sentence and exp(2 q) once a word, so that one of Tx n' elements costs a
product and a division. The sum of v_a is the same for all positions: softmax does not see it.
"""

from copy import copy

import torch
from torch import Tensor

_LIMIT = 40.0
"""exp(2 x) of float32 is finite and not 0 up to here; their product may be neither."""


class Energies:
    """Energies of one batch, and their gradients, summed over steps.

    Args:
        keys: (B, Tx, n'), the longest target first.
        v_a: (n').
    """

    def __init__(self, keys: Tensor, v_a: Tensor) -> None:
        self.keys, self.v_a = keys, v_a
        # On a GPU tanh costs nothing beside the memory it reads, and looking for large values would
        # have the processor wait.
        self.factored = keys.device.type == "cpu" and is_small(keys)
        self.exp_keys = keys.mul(2).exp_() if self.factored else keys
        self.one = keys.new_ones(())
        self._buffer: Tensor | None = None
        self.d_v = torch.zeros_like(v_a)
        self._d_keys: Tensor | None = None

    def __call__(self, query: Tensor) -> Tensor:
        """Return energies (b, Tx), less a constant, of queries (b, n') of the first sentences."""
        return torch.matmul(self._complements(query), self.v_a).mul_(-2)

    def of_hypotheses(self, query: Tensor) -> Tensor:
        """Return energies (B, K, Tx) of K queries a sentence (B, K, n')."""
        if self.factored and is_small(query):
            exp_query = query.mul(2).exp_()[:, :, None]
            R = torch.addcmul(self.one, exp_query, self.exp_keys[:, None]).reciprocal_()
        else:
            R = (query[:, :, None] + self.keys[:, None]).mul_(-2).sigmoid_()
        return torch.matmul(R, self.v_a).mul_(-2)

    def select(self, rows: Tensor) -> "Energies":
        """Go on with some of the sentences."""
        chosen = copy(self)
        chosen.keys = chosen.exp_keys = self.keys[rows]
        if self.factored:
            chosen.exp_keys = self.exp_keys[rows]
        return chosen

    def backward(self, query: Tensor, d_energy: Tensor) -> Tensor:
        """Return the gradient of a query (b, n') from that of its energies (b, Tx)."""
        if self._d_keys is None:
            self._d_keys = torch.zeros_like(self.keys)
        R = self._complements(query)
        self.d_v.addmv_(R.flatten(0, 1).T, d_energy.flatten(), alpha=-2)
        slope = R.addcmul_(R, R, value=-1)  # a quarter of tanh'
        self._d_keys[: len(query)].addcmul_(slope, d_energy[..., None], value=4)
        return torch.bmm(d_energy[:, None], slope)[:, 0] * (4 * self.v_a)

    def d_keys(self) -> Tensor:
        """Return the gradient of the keys (B, Tx, n') over all steps."""
        assert self._d_keys is not None
        return self._d_keys.mul_(self.v_a)

    def _complements(self, query: Tensor) -> Tensor:
        """Return R (b, Tx, n') in a buffer that the next call overwrites."""
        size = len(query)
        if self._buffer is None:
            self._buffer = torch.empty_like(self.keys)
        out = self._buffer[:size]
        if self.factored and is_small(query):
            exp_query = query.mul(2).exp_()[:, None]
            torch.addcmul(self.one, exp_query, self.exp_keys[:size], out=out)
            return out.reciprocal_()
        torch.add(query[:, None], self.keys[:size], out=out)
        return out.mul_(-2).sigmoid_()


def is_small(x: Tensor) -> bool:
    """Return whether exponentials of sums with these can be taken apart; no NaN is small."""
    return bool(x.abs().amax() <= _LIMIT)
