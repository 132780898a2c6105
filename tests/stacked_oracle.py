"""Stacked decoders a second time, in NumPy loops: Sennrich et al. 2017, Wu et al. 2016, Luong 2015.

Everything but the order in which a step happens is that of `oracles.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from oracles import Array, Forced, Oracle


class StackedOracle(Oracle):
    """The equations for given weights.

    Args:
        attend: "between" the two cells of a step, at the "bottom", or at the "top".
        input_feeding: The bottom cell reads t_{i-1}, too.
        residual: Cells above the first add what they read.
        reading: As of `Oracle`.
    """

    def __init__(
        self, weights, *, attend: str, input_feeding: bool, residual: bool, **reading: Any
    ) -> None:
        super().__init__(weights, **reading)
        self.attend_at, self.input_feeding, self.residual = attend, input_feeding, residual
        self.num_layers = 1
        while f"decoder.upper.{self.num_layers - 1}.U.weight" in weights:
            self.num_layers += 1

    def force(self, src: Sequence[int], tgt: Sequence[int]) -> Forced:
        h = self.annotate(src)
        states, y_prev, cost = [self.start(h)] * self.num_layers, None, 0.0
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
        s = self.gated_unit("decoder.unit", self.embed("decoder", y_prev), states[0], fed)
        if self.attend_at == "between":
            alpha, c = self.attend(s, h, past)
            s = self.gated_unit("decoder.conditional", c, s)
        if self.attend_at == "bottom":
            alpha, c = self.attend(s, h, past)
        new, output = [s], s
        for layer in range(1, self.num_layers):
            context = None if self.attend_at == "top" else c
            name = f"decoder.upper.{layer - 1}"
            new.append(self.gated_unit(name, output, states[layer], context))
            output = new[-1] + output if self.residual else new[-1]
        if self.attend_at == "top":
            alpha, c = self.attend(output, h, past)
        return new, output, alpha, c
