"""Energies v_a' tanh(q + k_j), without computing a tanh for each element.

    tanh(x) = 1 - 2 R,   R = 1 / (1 + exp(2 q) exp(2 k))

exp(2 k) is computed once per sentence and exp(2 q) once per word, so each of the Tx n' elements
costs a product and a division. The sum of v_a, the same for all positions, cancels in the softmax.
"""

from copy import copy

import torch
from torch import Tensor

_LIMIT = 40.0
"""Up to this |x|, exp(2 x) in float32 is finite and not 0; a product of two may be either."""


class Energies:
    """Energies of one batch, and their gradients, summed over steps.

    Of keys (B, Tx, n'), sentences with the longest targets first, and v_a (n').
    """

    def __init__(self, keys: Tensor, v_a: Tensor) -> None:
        self.keys, self.v_a = keys, v_a
        # On a GPU tanh is free compared with its memory access, and checking for large values would
        # make the CPU wait.
        self.factored = keys.device.type == "cpu" and is_small(keys)
        self.exp_keys = keys.mul(2).exp_() if self.factored else keys
        self.one = keys.new_ones(())
        self._buffer: Tensor | None = None
        self.d_v = torch.zeros_like(v_a)
        self._d_keys: Tensor | None = None

    def __call__(self, query: Tensor) -> Tensor:
        """Return energies (b, Tx), up to a constant, for queries (b, n') of the first sentences."""
        return torch.matmul(self._of_step(query), self.v_a).mul_(-2)

    def of_hypotheses(self, query: Tensor) -> Tensor:
        """Return energies (B, K, Tx) for K queries per sentence (B, K, n')."""
        R = self._complements(query[:, :, None], self.keys[:, None], self.exp_keys[:, None])
        return torch.matmul(R, self.v_a).mul_(-2)

    def select(self, rows: Tensor) -> "Energies":
        """Return a subset of the sentences."""
        chosen = copy(self)
        chosen.keys = chosen.exp_keys = self.keys[rows]
        if self.factored:
            chosen.exp_keys = self.exp_keys[rows]
        return chosen

    def backward(self, query: Tensor, d_energy: Tensor) -> Tensor:
        """Return the gradient of queries (b, n') from that of their energies (b, Tx)."""
        if self._d_keys is None:
            self._d_keys = torch.zeros_like(self.keys)
        R = self._of_step(query)
        self.d_v.addmv_(R.flatten(0, 1).T, d_energy.flatten(), alpha=-2)
        slope = R.addcmul_(R, R, value=-1)  # R - R^2, a quarter of tanh'
        self._d_keys[: len(query)].addcmul_(slope, d_energy[..., None], value=4)
        return torch.bmm(d_energy[:, None], slope)[:, 0] * (4 * self.v_a)

    def d_keys(self) -> Tensor:
        """Return the gradient of the keys (B, Tx, n') over all steps."""
        assert self._d_keys is not None
        return self._d_keys.mul_(self.v_a)

    def _of_step(self, query: Tensor) -> Tensor:
        """Return R (b, Tx, n') in a buffer that the next call overwrites."""
        if self._buffer is None:
            self._buffer = torch.empty_like(self.keys)
        given = (x[: len(query)] for x in (self.keys, self.exp_keys, self._buffer))
        return self._complements(query[:, None], *given)

    def _complements(
        self, query: Tensor, keys: Tensor, exp_keys: Tensor, out: Tensor | None = None
    ) -> Tensor:
        """Return R, factored into exponentials where safe, else by a sigmoid per element."""
        if self.factored and is_small(query):
            return torch.addcmul(self.one, query.mul(2).exp_(), exp_keys, out=out).reciprocal_()
        return torch.add(query, keys, out=out).mul_(-2).sigmoid_()


def is_small(x: Tensor) -> bool:
    """Return whether exp(2 (x + y)) may be computed as exp(2 x) exp(2 y); False for NaN."""
    return bool(x.abs().amax() <= _LIMIT)
