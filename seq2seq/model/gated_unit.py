"""The gated hidden unit of A.1.1."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seq2seq.model.initialization import Scheme, draw_layers
from seq2seq.model.protocols import CellState, Layer


class GatedUnit(nn.Module):
    """One step of the recurrence, A.1.1 and A.2.2; the encoder has no context c.

        z       = sigmoid(W_z e + U_z s_{i-1} + C_z c)
        r       = sigmoid(W_r e + U_r s_{i-1} + C_r c)
        s_tilde = tanh(W e + U (r . s_{i-1}) + C c + b)
        s_i     = (1 - z) . s_{i-1} + z . s_tilde

    z = 1 takes the new state, the reverse of torch's GRU. With `reset_before` false the gate acts
    on the product, r . (U s_{i-1}), as in torch's GRU. Gates have no bias; the candidate has one
    in the authors' code, none in print. Its state is (s_i,).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        context_size: int = 0,
        *,
        reset_before: bool,
        bias: bool,
        linear: Layer = nn.Linear,
    ) -> None:
        super().__init__()
        self.hidden_size, self.reset_before = hidden_size, reset_before
        self.W = linear(input_size, hidden_size, bias=bias)
        self.W_z = linear(input_size, hidden_size, bias=False)
        self.W_r = linear(input_size, hidden_size, bias=False)
        self.U = linear(hidden_size, hidden_size, bias=False)
        self.U_z = linear(hidden_size, hidden_size, bias=False)
        self.U_r = linear(hidden_size, hidden_size, bias=False)
        self.has_context = context_size > 0
        if self.has_context:
            self.C = linear(context_size, hidden_size, bias=False)
            self.C_z = linear(context_size, hidden_size, bias=False)
            self.C_r = linear(context_size, hidden_size, bias=False)

    def initialize(self, scheme: Scheme) -> None:
        """Draw W, W_z, W_r, U, U_z, U_r, C, C_z, C_r in this order."""
        draw_layers(scheme, self.W, self.W_z, self.W_r)
        for layer in (self.U, self.U_z, self.U_r):
            scheme.recurrent(layer.weight)
        if self.has_context:
            draw_layers(scheme, self.C, self.C_z, self.C_r)

    def begin(self, h: Tensor) -> CellState:
        """Return the state s = h (B, n)."""
        return (h,)

    def project(self, x: Tensor) -> Tensor:
        """Return W e, W_z e, W_r e side by side, (..., 3n), for words known before the loop."""
        return torch.cat([self.W(x), self.W_z(x), self.W_r(x)], dim=-1)

    def step(self, x: Tensor, state: CellState, c: Tensor | None = None) -> CellState:
        """Return s_i (B, n) from `project`ed words (B, 3n), s_{i-1} (B, n) and c (B, 2n)."""
        [s_prev] = state
        We, We_z, We_r = x.chunk(3, dim=-1)
        if c is not None:
            We = We + self.C(c)
        z, r = self._z_and_r(We_z, We_r, s_prev, c)
        Us = self.U(r * s_prev) if self.reset_before else r * self.U(s_prev)
        s_tilde = torch.tanh(We + Us)
        return ((1 - z) * s_prev + z * s_tilde,)

    def output(self, state: CellState) -> Tensor:
        """Return s (B, n)."""
        return state[0]

    def gates(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> Mapping[str, Tensor]:
        """Return z and r (..., n)."""
        _, We_z, We_r = x.chunk(3, dim=-1)
        return dict(zip("zr", self._z_and_r(We_z, We_r, h, c), strict=True))

    def _z_and_r(
        self, We_z: Tensor, We_r: Tensor, s_prev: Tensor, c: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if c is not None:
            We_z, We_r = We_z + self.C_z(c), We_r + self.C_r(c)
        z = torch.sigmoid(We_z + self.U_z(s_prev))
        r = torch.sigmoid(We_r + self.U_r(s_prev))
        return z, r
