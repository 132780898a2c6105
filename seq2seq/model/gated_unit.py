"""The gated hidden unit of A.1.1."""

import torch
from torch import Tensor, nn


class GatedUnit(nn.Module):
    """One step of the recurrence, A.1.1 and A.2.2; the encoder has no context c.

        z       = sigmoid(W_z e + U_z s_{i-1} + C_z c)
        r       = sigmoid(W_r e + U_r s_{i-1} + C_r c)
        s_tilde = tanh(W e + U (r . s_{i-1}) + C c + b)
        s_i     = (1 - z) . s_{i-1} + z . s_tilde

    z = 1 takes the new state, the reverse of torch's GRU. With `reset_before` false the gate acts
    on the product, r . (U s_{i-1}), as in torch's GRU. Gates have no bias; the candidate has one
    in the authors' code, none in print.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        context_size: int = 0,
        *,
        reset_before: bool,
        bias: bool,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.reset_before = reset_before
        self.W = nn.Linear(input_size, hidden_size, bias=bias)
        self.W_z = nn.Linear(input_size, hidden_size, bias=False)
        self.W_r = nn.Linear(input_size, hidden_size, bias=False)
        self.U = nn.Linear(hidden_size, hidden_size, bias=False)
        self.U_z = nn.Linear(hidden_size, hidden_size, bias=False)
        self.U_r = nn.Linear(hidden_size, hidden_size, bias=False)
        if context_size:
            self.C = nn.Linear(context_size, hidden_size, bias=False)
            self.C_z = nn.Linear(context_size, hidden_size, bias=False)
            self.C_r = nn.Linear(context_size, hidden_size, bias=False)

    def project(self, Ex: Tensor) -> Tensor:
        """Return W e, W_z e, W_r e side by side, (..., 3n), for words known before the loop."""
        return torch.cat([self.W(Ex), self.W_z(Ex), self.W_r(Ex)], dim=-1)

    def gates(
        self, We_z: Tensor, We_r: Tensor, s_prev: Tensor, c: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return z and r (..., n) from `project`ed words and s_{i-1} (..., n), and c (..., 2n)."""
        if c is not None:
            We_z, We_r = We_z + self.C_z(c), We_r + self.C_r(c)
        z = torch.sigmoid(We_z + self.U_z(s_prev))
        r = torch.sigmoid(We_r + self.U_r(s_prev))
        return z, r

    def forward(self, projected: Tensor, s_prev: Tensor, c: Tensor | None = None) -> Tensor:
        """Return s_i (B, n) from `project`ed words (B, 3n), s_{i-1} (B, n) and c (B, 2n)."""
        We, We_z, We_r = projected.chunk(3, dim=-1)
        if c is not None:
            We = We + self.C(c)
        z, r = self.gates(We_z, We_r, s_prev, c)
        Us = self.U(r * s_prev) if self.reset_before else r * self.U(s_prev)
        s_tilde = torch.tanh(We + Us)
        return (1 - z) * s_prev + z * s_tilde
