"""Deep transition: several cells in sequence within one time step."""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from seq2seq.model.initialization import Scheme
from seq2seq.model.protocols import Cell, CellState


class Transitions(nn.Module):
    """Deep transition, Miceli Barone et al. 2017, 3.1: k cells of one kind, L_s in the paper.

        s_{t,1} = cell_1(x_t, s_{t-1,k}, c_t)
        s_{t,l} = cell_l(s_{t,l-1})            l = 2..k

    Only the first cell takes an input and a context; the others see the state alone and have no
    other matrices. The state is that of a single cell; all k share its recurrent dropout mask.
    `gates` returns those of the first cell.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        super().__init__()
        self.hidden_size = cells[0].hidden_size
        self.cells = nn.ModuleList(cast("Sequence[nn.Module]", cells))

    @property
    def first(self) -> Cell:
        """The cell that takes the input."""
        return cast("Cell", self.cells[0])

    def initialize(self, scheme: Scheme) -> None:
        """Draw the cells in order."""
        for cell in self.cells:
            cast("Cell", cell).initialize(scheme)

    def begin(self, h: Tensor) -> CellState:
        """See `Cell.begin`."""
        return self.first.begin(h)

    def project(self, x: Tensor) -> Tensor:
        """See `Cell.project`."""
        return self.first.project(x)

    def step(self, x: Tensor, state: CellState, c: Tensor | None = None) -> CellState:
        """Take a step of each cell."""
        state = self.first.step(x, state, c)
        nothing = x[..., :0]  # (B, 0)
        for cell in self.cells[1:]:
            state = cast("Cell", cell).step(cast("Cell", cell).project(nothing), state)
        return state

    def output(self, state: CellState) -> Tensor:
        """See `Cell.output`."""
        return self.first.output(state)

    def gates(self, x: Tensor, h: Tensor, c: Tensor | None = None) -> Mapping[str, Tensor]:
        """See `Cell.gates`."""
        return self.first.gates(x, h, c)
