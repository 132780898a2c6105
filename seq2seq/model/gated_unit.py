"""The gated hidden unit of A.1.1, and a variant with LayerNorm and recurrent dropout."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from seq2seq.model.dropout import Dropout
from seq2seq.model.initialization import Scheme, draw_layers
from seq2seq.model.protocols import CellState, Layer


class GatedUnit(nn.Module):
    """One step of the recurrence, A.1.1 and A.2.2; the encoder has no context c.

        z       = sigmoid(W_z e + U_z s_{i-1} + C_z c)
        r       = sigmoid(W_r e + U_r s_{i-1} + C_r c)
        s_tilde = tanh(W e + U (r . s_{i-1}) + C c + b)
        s_i     = (1 - z) . s_{i-1} + z . s_tilde

    z = 1 takes the new state, the reverse of torch's GRU. With `reset_before` false the reset gate
    acts on the product, r . (U s_{i-1}), as in torch's GRU. The gates have no bias; the candidate
    has one in the authors' code, none in print. The state is (s_i,). A unit without input
    (`transitions.py`) has only the candidate's bias in place of W, W_z and W_r.
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
        self.has_input = input_size > 0
        if self.has_input:
            self.W = linear(input_size, hidden_size, bias=bias)
            self.W_z = linear(input_size, hidden_size, bias=False)
            self.W_r = linear(input_size, hidden_size, bias=False)
        else:
            self.b = nn.Parameter(torch.zeros(hidden_size)) if bias else None
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
        if self.has_input:
            draw_layers(scheme, self.W, self.W_z, self.W_r)
        for layer in (self.U, self.U_z, self.U_r):
            scheme.recurrent(layer.weight)
        if self.has_context:
            draw_layers(scheme, self.C, self.C_z, self.C_r)

    def begin(self, h: Tensor) -> CellState:
        """Return the state s = h (B, n)."""
        return (h,)

    def project(self, x: Tensor) -> Tensor:
        """Return [W e; W_z e; W_r e] (..., 3n), which needs no state, so it precedes the loop."""
        if not self.has_input:
            n = self.hidden_size
            b = x.new_zeros(n) if self.b is None else self.b
            return functional.pad(b, (0, 2 * n)).expand(*x.shape[:-1], -1)
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


class RegularizedUnit(GatedUnit):
    """A gated unit with LayerNorm (Ba et al. 2016), recurrent dropout, or both.

        z, r    = sigmoid(LN(W_zr e) + LN(U_zr h) + LN(C_zr c))
        s_tilde = tanh(LN(W e) + b + LN(U (r . h)) + LN(C c))     or r . LN(U h)
        s_i     = (1 - z) . s_{i-1} + z . s_tilde
        h       = d . s_{i-1}

    W_zr stacks W_z on W_r: both gates are normalised as one vector, as in the supplementary
    material of Ba et al. Each LN has its own gain; biases are those of `GatedUnit`. d (B, n) is the
    dropout mask of a sentence, the same at all steps (Gal & Ghahramani 2016). The state is (s_i, d)
    in training with dropout, else (s_i,).
    """

    def __init__(  # noqa: PLR0913 - three sizes, four switches, a backend
        self,
        input_size: int,
        hidden_size: int,
        context_size: int = 0,
        *,
        reset_before: bool,
        bias: bool,
        layer_norm: bool,
        recurrent_dropout: float,
        linear: Layer = nn.Linear,
    ) -> None:
        sizes = input_size, hidden_size, context_size
        given = layer_norm and input_size > 0
        outside = given and bias  # b is added after the normalisation
        kind = {"reset_before": reset_before, "bias": bias and not outside}
        super().__init__(*sizes, **kind, linear=linear)
        self.norm_W = _Norms(hidden_size, layer_norm=given, bias=outside)
        self.norm_U = _Norms(hidden_size, layer_norm=layer_norm)
        self.norm_C = _Norms(hidden_size, layer_norm=layer_norm and self.has_context)
        self.recurrent_dropout = Dropout(recurrent_dropout)

    def begin(self, h: Tensor) -> CellState:
        """Return the state h (B, n) and, in training, the mask of recurrent dropout."""
        return h, *self.recurrent_dropout.of_state(h)

    def project(self, x: Tensor) -> Tensor:
        """See `GatedUnit.project`."""
        return torch.cat(self.norm_W(super().project(x)), dim=-1)

    def step(self, x: Tensor, state: CellState, c: Tensor | None = None) -> CellState:
        """See `GatedUnit.step`; the state may hold a mask."""
        s_prev, *mask = state
        h = s_prev * mask[0] if mask else s_prev
        given, z, r = self._given_z_and_r(x, h, c)
        norm = self.norm_U.candidate
        Us = norm(self.U(r * h)) if self.reset_before else r * norm(self.U(h))
        s_tilde = torch.tanh(given + Us)
        return (1 - z) * s_prev + z * s_tilde, *mask

    def gates(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> Mapping[str, Tensor]:
        """Return z and r (..., n)."""
        _, z, r = self._given_z_and_r(x, h, c)
        return {"z": z, "r": r}

    def _given_z_and_r(
        self, x: Tensor, h: Tensor, c: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the candidate's terms from input and context, and both gates, (..., n) each."""
        if c is not None:
            Cc = torch.cat([self.C(c), self.C_z(c), self.C_r(c)], dim=-1)
            x = x + torch.cat(self.norm_C(Cc), dim=-1)
        given, gates = x.split([self.hidden_size, 2 * self.hidden_size], dim=-1)
        U_zr = torch.cat([self.U_z(h), self.U_r(h)], dim=-1)
        z, r = torch.sigmoid(gates + self.norm_U.gates(U_zr)).chunk(2, dim=-1)
        return given, z, r


class _Norms(nn.Module):
    """LayerNorm of the candidate's term and of both gates' terms; identities without LayerNorm."""

    def __init__(self, hidden_size: int, *, layer_norm: bool, bias: bool = False) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.candidate = nn.LayerNorm(hidden_size, bias=bias) if layer_norm else nn.Identity()
        self.gates = nn.LayerNorm(2 * hidden_size, bias=False) if layer_norm else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split (..., 3n) into candidate (..., n) and gates (..., 2n), and normalise each."""
        candidate, gates = x.split([self.hidden_size, 2 * self.hidden_size], dim=-1)
        return self.candidate(candidate), self.gates(gates)
