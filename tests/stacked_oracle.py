"""Stacked decoders a second time, in NumPy loops: Sennrich et al. 2017, Wu et al. 2016, Luong 2015.

Everything but the order in which a step happens is that of the other oracles.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from cell_oracle import CellOracle
from oracles import Array, Forced


class StackedOracle(CellOracle):
    """The equations for given weights.

    Args:
        layers: How many; the two cells of a conditional GRU are one.
        attend: "between" the two cells of a step, at the "bottom", or at the "top".
        input_feeding: The bottom cell reads t_{i-1}, too.
        add_below: Cells above the first add what they read: residual connections.
        reading: As of `Oracle`.
    """

    def __init__(
        self,
        weights,
        *,
        layers: int,
        attend: str,
        input_feeding: bool,
        add_below: bool,
        **reading: Any,
    ) -> None:
        super().__init__(weights, **reading)
        self.attend_at, self.input_feeding, self.add_below = attend, input_feeding, add_below
        self.names = ["decoder.unit", *(f"decoder.upper.{i}" for i in range(layers - 1))]

    def force(self, src: Sequence[int], tgt: Sequence[int]) -> Forced:
        h = self.annotate(src)
        n, y_prev, cost = len(self.matrix("decoder.W_s")), None, 0.0
        states = [self.begin(name, self.start(h)[:n]) for name in self.names]
        c = np.zeros(len(h[0]))
        t = np.zeros(len(self.matrix("decoder.U_o")) // (2 if self.readout == "maxout" else 1))
        distributions, alignments = [], []
        for y in tgt:
            fed = {"bottom": c, "top": t if self.input_feeding else None}.get(self.attend_at)
            states, s, alpha, c = self.move(states, y_prev, fed, h, alignments)
            t = self.last_hidden(s, y_prev, c)
            distributions.append(self.words(t))
            alignments.append(alpha)
            cost = cost - np.log(distributions[-1][y])
            y_prev = y
        return Forced(np.array(distributions), np.array(alignments), cost)

    def move(
        self,
        states: Sequence[Array],
        y_prev: int | None,
        fed: Array | None,
        h: Sequence[Array],
        past: Sequence[Array],
    ) -> tuple[list[Array], Array, Array, Array]:
        """Return s_i of every layer, the output of the top, alpha_i and c_i."""
        n = len(self.matrix("decoder.W_s"))  # of a state, which may hold more, the output
        state = self.gated_unit("decoder.unit", self.embed("decoder", y_prev), states[0], fed)
        if self.attend_at == "between":
            alpha, c = self.attend(state[:n], h, past)
            state = self.gated_unit("decoder.conditional", c, state)
        if self.attend_at == "bottom":
            alpha, c = self.attend(state[:n], h, past)
        new, output = [state], state[:n]
        for name, before in zip(self.names[1:], states[1:], strict=True):
            context = None if self.attend_at == "top" else c
            new.append(self.gated_unit(name, output, before, context))
            output = new[-1][:n] + output if self.add_below else new[-1][:n]
        if self.attend_at == "top":
            alpha, c = self.attend(output, h, past)
        return new, output, alpha, c
