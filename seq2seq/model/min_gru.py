"""A unit without recurrent weights, which processes whole sequences in parallel."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from seq2seq.model.initialization import Scheme, draw_gates
from seq2seq.model.protocols import CellState, Layer


class MinGRU(nn.Module):
    """Feng et al. 2024 (arXiv:2410.01201), 3.1.

        z_t     = sigmoid(W_z x_t + b_z)
        h_tilde = W_h x_t + b_h
        h_t     = (1 - z_t) . h_{t-1} + z_t . h_tilde

    Gate and candidate do not depend on h_{t-1}, so h is a scan: `run`. Unlike in the paper's
    appendix B it is not computed in log space, so the candidate may have any sign. W stacks W_z on
    W_h. The state is (h,). There is no context, because a context depends on the previous step.
    """

    def __init__(self, input_size: int, hidden_size: int, *, linear: Layer = nn.Linear) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.W = linear(input_size, 2 * hidden_size)

    def initialize(self, scheme: Scheme) -> None:
        """Draw W_z, W_h; biases start at 0."""
        draw_gates(scheme.matrix, self.W, 2)
        nn.init.zeros_(self.W.bias)

    def begin(self, h: Tensor) -> CellState:
        """Return the state h (B, n)."""
        return (h,)

    def project(self, x: Tensor) -> Tensor:
        """Return [z before its sigmoid; h_tilde], (..., 2n)."""
        projected: Tensor = self.W(x)
        return projected

    def step(self, x: Tensor, state: CellState, c: Tensor | None = None) -> CellState:
        """Return h_t (B, n) from `project`ed inputs (B, 2n) and h_{t-1} (B, n)."""
        assert c is None, "a MinGRU takes no context"
        z, h_tilde = x.chunk(2, dim=-1)
        z = torch.sigmoid(z)
        return ((1 - z) * state[0] + z * h_tilde,)

    def output(self, state: CellState) -> Tensor:
        """Return h (B, n)."""
        return state[0]

    def gates(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> Mapping[str, Tensor]:
        """Return z (..., n)."""
        return {"z": torch.sigmoid(x.chunk(2, dim=-1)[0])}

    def run(self, x: Tensor, mask: Tensor, start: Tensor | None, *, backward: bool) -> Tensor:
        """Return the outputs (B, T, n) of `recurrence.run_cell`, in log2 T steps."""
        # Under autocast, states keep the dtype of the weights, as in a loop.
        z, h_tilde = self.project(x).to(self.W.weight.dtype).chunk(2, dim=-1)
        z = torch.where(mask[..., None], torch.sigmoid(z), 0.0)  # padding copies the state
        keep, add = 1 - z, z * h_tilde
        if backward:
            keep, add = keep.flip(1), add.flip(1)
        if start is not None:
            add = torch.cat([add[:, :1] + keep[:, :1] * start[:, None], add[:, 1:]], dim=1)
        h = scan(keep, add)
        return h.flip(1) if backward else h


def scan(keep: Tensor, add: Tensor) -> Tensor:
    """Return all h_t = keep_t . h_{t-1} + add_t with h_0 = 0, for (B, T, n).

    Each pass doubles the number of steps that a pair (keep, add) spans (Hillis & Steele 1986). It
    is stable: there are no divisions, and products of gates stay below 1.
    """
    span = 1
    while span < add.shape[1]:
        before = functional.pad(add[:, :-span], (0, 0, span, 0))
        add = add + keep * before
        keep = keep * functional.pad(keep[:, :-span], (0, 0, span, 0))
        span *= 2
    return add
