"""Later recurrent decoders: several layers, with attention where each paper places it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from seq2seq.model.decoder import ReadoutDecoder
from seq2seq.model.dropout import Dropout
from seq2seq.model.initialization import Scheme
from seq2seq.model.protocols import (
    Attended,
    Cell,
    CellState,
    Followed,
    Memory,
    Probes,
    Source,
)
from seq2seq.model.recurrence import Unrolled, losses_of, side_by_side, step_cell
from seq2seq.model.word_output import WordPrediction


@dataclass(frozen=True)
class StackedState:
    """Hypotheses before step i: all layers at s_{i-1}, and the extra input of the bottom one."""

    source: Source  # once per sentence
    layers: tuple[CellState, ...]  # (R, any) each
    fed: Tensor | None = None  # (R, any)  c_{i-1} or t_{i-1}, if the bottom layer reads one of them
    attention: Tensor | None = None  # (R, any)

    def select(self, sentences: Tensor, slots: int, rows: Tensor) -> "StackedState":
        """See `State.select`."""
        layers = tuple(tuple(x[rows] for x in layer) for layer in self.layers)
        fed, attention = (x if x is None else x[rows] for x in (self.fed, self.attention))
        return StackedState(self.source.select(sentences), layers, fed, attention)


@dataclass(frozen=True)
class Along(Unrolled):
    """A stack run along known targets."""

    t: Tensor | None = None  # (B, Ty, l)  if the recurrence needs it
    before: Sequence[StackedState] = ()  # the state before each step


class StackedDecoder(ReadoutDecoder):
    """A stack of cells that is updated before it predicts; s_i is the output of the top layer.

        s_0 = tanh(W_s summary + b_s)                                of every layer
        t_i = readout(s_i, E y_{i-1}, c_i),   p(y_i) = softmax(W_o t_i + b)

    `attend` places the attention:

        between   s'_i = unit(E y_{i-1}, s_{i-1})      conditional GRU, Sennrich et al. 2017
                  c_i  = attention(s'_i)
                  s_i  = conditional(c_i, s'_i)        upper layers read the layer below and c_i
        bottom    s_i  = unit(E y_{i-1}, s_{i-1}, c_{i-1})                GNMT, Wu et al. 2016
                  c_i  = attention(s_i)                upper layers read the layer below and c_i;
                                                       in their paper c_{i-1}, as at the bottom
        top       s_i  = unit(E y_{i-1}, s_{i-1})                         Luong et al. 2015
                  c_i  = attention(s_i of the top)     upper layers read the layer below

    With input feeding (Luong et al. 2015, 3.3) the bottom unit reads [E y_{i-1}; t_{i-1}]: t_{i-1}
    is its context, with matrices of its own beside those of the word. c_0 and t_0 are 0. With
    `residual`, layers from the second on add their input to their output.
    """

    def __init__(
        self,
        *args: Any,
        conditional: Cell | None,
        upper: nn.ModuleList,
        attend: str,
        fed_size: int,
        residual: bool,
        dropout: float,
        **kwargs: Any,
    ) -> None:
        """Take the cells above `unit`; `fed_size` is the width of its extra input, or 0."""
        super().__init__(*args, **kwargs)
        self.conditional = conditional
        self.upper = cast("Sequence[Cell]", upper)
        self.dropouts = cast("Sequence[Dropout]", nn.ModuleList(Dropout(dropout) for _ in upper))
        self.attend, self.fed_size, self.residual = attend, fed_size, residual
        self.input_feeding = attend == "top" and fed_size > 0

    @property
    def cells(self) -> list[Cell]:
        """All cells, from the bottom up."""
        conditional = [] if self.conditional is None else [self.conditional]
        return [self.unit, *conditional, *self.upper]

    @property
    def at_once(self) -> bool:
        """Whether no layer depends on the attention: known targets can then all attend at once."""
        return self.attend == "top" and not self.input_feeding and not self.attention.sequential

    def initialize(self, scheme: Scheme) -> None:
        """Draw the weights of the base class, then the other cells from the bottom up."""
        super().initialize(scheme)
        for cell in self.cells[1:]:
            cell.initialize(scheme)

    # Word by word

    def begin(self, memory: Memory) -> StackedState:
        """Return s_0 of each sentence and layer, with one hypothesis each."""
        s_0 = self.start(memory)
        layers = tuple(cell.begin(s_0) for cell in (self.unit, *self.upper))
        fed = s_0.new_zeros(s_0.shape[0], self.fed_size) if self.fed_size else None
        return StackedState(self.attention.prepare(memory), layers, fed)

    def step(self, y: Tensor, state: StackedState) -> tuple[WordPrediction, StackedState]:
        """Predict the words after y_{i-1} (R,)."""
        Ey = self.embed(y)
        s, attended, layers = self._move(self.unit.project(Ey), state)
        t = self.readout(s, Ey, attended.c)
        after = StackedState(state.source, layers, self._fed(attended.c, t), attended.state)
        return self.prediction(t, attended.alpha), after

    def _move(
        self, word: Tensor, state: StackedState, masks: Tensor | None = None
    ) -> tuple[Tensor, Attended, tuple[CellState, ...]]:
        """Return s_i (R, n), the result of the attention, and the layers at s_i.

        y_{i-1} (R, any) is `project`ed by the bottom unit; dropout masks are (layers - 1, R, n).
        """

        def attend(query: Tensor) -> Attended:
            return self.attention(query, state.source, state.attention)

        # The bottom layer
        cell, attended = step_cell(self.unit, word, state.layers[0], state.fed), None
        s = self.unit.output(cell)
        if self.attend != "top":
            attended = attend(s)
        if self.conditional is not None:
            assert attended is not None
            cell = step_cell(self.conditional, self.conditional.project(attended.c), cell, None)
            s = self.conditional.output(cell)
        # The layers above it
        layers, c = [cell], None if attended is None else attended.c
        for number, unit in enumerate(self.upper):
            x = s if masks is None else s * masks[number]
            layers.append(step_cell(unit, unit.project(x), state.layers[number + 1], c))
            h = unit.output(layers[-1])
            s = h + s if self.residual else h
        return s, attended or attend(s), tuple(layers)

    def _fed(self, c: Tensor, t: Tensor | None) -> Tensor | None:
        """Return the extra input of the bottom layer at the next step."""
        return c if self.attend == "bottom" else t if self.input_feeding else None

    # Along known targets

    def follow(self, memory: Memory, y: Tensor, mask: Tensor) -> Followed:
        """Run along targets (B, Ty); `mask` is True on real words."""
        _, Ey_prev = self.embed_targets(y)
        run = self._all_at_once if self.at_once else self._step_by_step
        along = run(memory, Ey_prev, mask)
        return self.followed(along, Ey_prev, mask, along.t)

    def probes(self, memory: Memory, y: Tensor, mask: Tensor) -> Probes:
        """Return the gates of the bottom layer and the weights of the attention along targets."""
        _, Ey_prev = self.embed_targets(y)
        along = self._step_by_step(memory, Ey_prev, mask)
        s_prev = torch.stack([self.unit.output(state.layers[0]) for state in along.before], dim=1)
        fed = [state.fed for state in along.before if state.fed is not None]
        c = torch.stack(fed, dim=1) if fed else None
        return self.probed(self.unit.gates(self.unit.project(Ey_prev), s_prev, c), along, mask)

    def _all_at_once(self, memory: Memory, Ey_prev: Tensor, mask: Tensor) -> Along:
        """Run the layers one after the other, then attend from all words of a sentence at once."""
        s_0, s = self.start(memory), Ey_prev
        for number, cell in enumerate(self.cells):
            x = self.dropouts[number - 1](s) if number else s
            [h] = self.backend.read([cell], x, mask, s_0)
            s = h + s if number and self.residual else h
        attended = self.attention(s.flatten(0, 1), self.attention.prepare(memory))
        c, alpha = (x.unflatten(0, mask.shape) for x in (attended.c, attended.alpha))
        heads = attended.heads
        if heads is not None:
            heads = heads.unflatten(0, mask.shape).transpose(1, 2)
        return Along(s, c, alpha, heads=heads)

    def _step_by_step(self, memory: Memory, Ey_prev: Tensor, mask: Tensor) -> Along:
        """Run all layers step by step; state-independent projections are computed before."""
        state, masks = self.begin(memory), self._masks(mask.shape, memory.summary)
        # What depends on the words alone, of all steps at once.
        words = self.unit.project(Ey_prev).unbind(dim=1)
        from_words = self.V_o(Ey_prev).unbind(dim=1) if self.input_feeding else ()
        before, outputs, steps, hidden = [], [], [], []
        # The steps, each of all layers.
        for i, word in enumerate(words):
            before.append(state)
            s, attended, layers = self._move(
                word, state, masks if masks is None else masks[:, :, i]
            )
            outputs.append(s)
            steps.append(attended)
            if self.input_feeding:
                hidden.append(self.activate(self.U_o(s) + from_words[i] + self.C_o(attended.c)))
            fed = self._fed(attended.c, hidden[-1] if hidden else None)
            state = StackedState(state.source, layers, fed, attended.state)
        s, t = torch.stack(outputs, dim=1), torch.stack(hidden, dim=1) if hidden else None
        c, alpha, heads = side_by_side(steps)
        return Along(s, c, alpha, losses_of(steps, mask), heads, t, before)

    def _masks(self, shape: Sequence[int], like: Tensor) -> Tensor | None:
        """Return the dropout masks between layers (layers - 1, B, Ty, n), drawn at once."""
        if not (self.training and any(dropout.p for dropout in self.dropouts)):
            return None
        ones = like.new_ones(*shape, self.unit.hidden_size)
        return torch.stack([dropout(ones) for dropout in self.dropouts])
