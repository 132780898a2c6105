"""The long short-term memory cell (LSTM)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seq2seq.model.dropout import Dropout
from seq2seq.model.initialization import Scheme, draw_gates
from seq2seq.model.protocols import CellState, Layer


class LSTMCell(nn.Module):
    """Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000; no peepholes.

        i, f, o = sigmoid(W x + U h_{t-1} + C c + b)    each with its own rows of W, U, C, b
        g       = tanh(W x + U h_{t-1} + C c + b)
        m_t     = f . m_{t-1} + i . g
        h_t     = o . tanh(m_t)

    The encoder has no context c. The rows of W, U, C and b are in torch's order: i, f, g, o.
    All four have biases, whatever `model.bias` says of the paper's equations; that of f starts at
    `forget_bias` (Jozefowicz et al. 2015), the others at 0. The state is (h, m), the output h.

    With `layer_norm` (Ba et al. 2016, supplementary material) all four pre-activations become
    LN(W x) + LN(U h_{t-1}) + LN(C c) + b, each LN over 4n numbers with its own gain, and
    h_t = o . tanh(LN(m_t)), where LN also has a bias. With `recurrent_dropout`, U is applied to
    d . h_{t-1}; the mask d (B, n) is part of the state in training.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        context_size: int = 0,
        *,
        forget_bias: float,
        layer_norm: bool = False,
        recurrent_dropout: float = 0.0,
        linear: Layer = nn.Linear,
    ) -> None:
        super().__init__()
        self.hidden_size, self.forget_bias = hidden_size, forget_bias
        rows = 4 * hidden_size
        self.W = linear(input_size, rows, bias=False) if input_size else None
        self.U = linear(hidden_size, rows, bias=False)
        self.C = linear(context_size, rows, bias=False) if context_size else None
        self.b = nn.Parameter(torch.empty(rows))
        self.norm_W, self.norm_U, self.norm_C = (
            nn.LayerNorm(rows, bias=False) if layer_norm and layer is not None else nn.Identity()
            for layer in (self.W, self.U, self.C)
        )
        self.norm_m = nn.LayerNorm(hidden_size) if layer_norm else nn.Identity()
        self.recurrent_dropout = Dropout(recurrent_dropout)

    def initialize(self, scheme: Scheme) -> None:
        """Draw W, U, C in this order, gate by gate."""
        if self.W is not None:
            draw_gates(scheme.matrix, self.W, 4)
        draw_gates(scheme.recurrent, self.U, 4)
        if self.C is not None:
            draw_gates(scheme.matrix, self.C, 4)
        nn.init.zeros_(self.b)
        nn.init.constant_(self.b.detach().chunk(4)[1], self.forget_bias)

    def begin(self, h: Tensor) -> CellState:
        """Return the state (h, 0) and, in training, the mask of recurrent dropout."""
        return h, torch.zeros_like(h), *self.recurrent_dropout.of_state(h)

    def project(self, x: Tensor) -> Tensor:
        """Return W x + b (..., 4n); only b if there is no input (`transitions.py`)."""
        if self.W is None:
            return self.b.expand(*x.shape[:-1], -1)
        projected: Tensor = self.norm_W(self.W(x))
        return projected + self.b

    def step(self, x: Tensor, state: CellState, c: Tensor | None = None) -> CellState:
        """Return (h_t, m_t) from `project`ed inputs (B, 4n), (h_{t-1}, m_{t-1}) and c (B, d)."""
        h, m, *mask = state
        i, f, g, o = self._sums(x, h * mask[0] if mask else h, c).chunk(4, dim=-1)
        m = torch.sigmoid(f) * m + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.norm_m(m)), m, *mask

    def output(self, state: CellState) -> Tensor:
        """Return h (B, n)."""
        return state[0]

    def gates(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> Mapping[str, Tensor]:
        """Return i, f and o (..., n)."""
        i, f, _, o = torch.sigmoid(self._sums(x, h, c)).chunk(4, dim=-1)
        return {"i": i, "f": f, "o": o}

    def _sums(self, x: Tensor, h: Tensor, c: Tensor | None) -> Tensor:
        """Return the pre-activations of gates and candidate, (..., 4n)."""
        sums: Tensor = x + self.norm_U(self.U(h))
        if c is not None:
            assert self.C is not None
            sums = sums + self.norm_C(self.C(c))
        return sums
