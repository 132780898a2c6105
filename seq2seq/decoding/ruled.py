"""Beams of sentences with rules of their own, or with groups: masks, states, and who gets a place.

A rule has a state for each hypothesis, says which pieces may come next, and is told which came.
Sentences are independent, and so are their rules.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.decoding.search import SearchRules
from seq2seq.model.output import largest
from seq2seq.model.protocols import Prediction

Mask = npt.NDArray[np.bool_]
"""(K_y,) True where a piece, or the end symbol, may come next."""


class Rule(Protocol):
    """What a hypothesis must keep to."""

    @property
    def gives_way(self) -> bool:
        """Return whether it is not heard where it would leave nothing."""

    @property
    def start(self) -> Any:
        """State of the hypothesis with the pieces that all begin with."""

    def allowed(self, state: Any, left: int) -> Mask | None:
        """Return what may come next, with so many steps left after it; None: anything."""

    def after(self, state: Any, token: int) -> Any:
        """Return the state after a piece."""


class Goal(Rule, Protocol):
    """A rule that some pieces bring nearer to its end, where hypotheses are to come."""

    def missing(self, state: Any) -> int:
        """Return how many pieces it takes."""

    def helpful(self, state: Any) -> Iterable[int]:
        """Return pieces of which less is missing after them."""


@dataclass(frozen=True)
class Demands:
    """What is asked of the translations of a sentence."""

    first: Sequence[int] = ()  # pieces that all begin with; rules do not apply to them
    rules: Sequence[Rule] = ()
    goal: Goal | None = None  # the first of the rules, if it is one
    steps: int = 0  # that it takes at least

    def allowed(self, states: Sequence[Any], base: Mask, left: int) -> Mask:
        """Return what may come next of what the base allows."""
        mask = base
        for rule, state in zip(self.rules, states, strict=True):
            if (own := rule.allowed(state, left)) is not None:
                both = mask & own
                mask = both if both.any() or not rule.gives_way else mask
        return mask


class Option(NamedTuple):
    """A continuation that may get a place in the beam."""

    total: float
    slot: int
    token: int
    missing: int = 0  # pieces to the goal
    late: bool = False  # the model would end here, and it comes no nearer to the goal


def share_out(
    options: Iterable[Option], width: int, taken: Mapping[int, int], price: float
) -> list[Option]:
    """Share places out by turns to options of which as much is missing; the best of each first.

    So do Post & Vilar 2018 (arXiv:1804.06609): hypotheses with more of the constraints, which are
    less likely, live on. Where nothing is missing the best options are chosen.

    Args:
        options: All that there are.
        width: Number of places.
        taken: How often words have been taken.
        price: What an option loses for each time.
    """
    turns: Counter[int] = Counter()
    ranked = []
    costs = ((price * taken.get(option.token, 0) - option.total, option) for option in options)
    for cost, option in sorted(costs, key=lambda each: (each[1].late, each[0])):
        ranked.append((option.late, turns[option.missing], cost, option))
        turns[option.missing] += 1
    return [option for *_, option in sorted(ranked)[:width]]


@dataclass
class _Held:
    """A hypothesis that lives."""

    states: Sequence[Any]  # of the rules
    groups: Sequence[int]  # it belongs to; the first one to all


@dataclass
class _Beam:
    """Those of a sentence."""

    demands: Demands
    last_step: int
    widths: list[int]  # of each group
    held: list[_Held]


class RuledBeams:
    """`search.Filling` by demands, or by groups (Vijayakumar et al. 2016, arXiv:1610.02424).

    Args:
        rules: Of all sentences.
        demands: Of each.
        groups: Of the beam; several have no goals.
        diversity: What a word costs a group for each time that earlier ones have chosen it.
    """

    def __init__(
        self, rules: SearchRules, demands: Sequence[Demands], groups: int, diversity: float
    ) -> None:
        self.rules, self.demands, self.groups, self.diversity = rules, demands, groups, diversity
        self.beams: list[_Beam] = []
        self.step = 0

    def steps(self, bounds: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Return the bounds, or what the demands take."""
        beam, groups = self.rules.beam_size, range(self.groups)
        for demands, (_, high) in zip(self.demands, bounds, strict=True):
            widths = [beam // len(groups) + (i < beam % len(groups)) for i in groups]
            held = [_Held([rule.start for rule in demands.rules], groups)]
            self.beams.append(_Beam(demands, max(high, demands.steps), widths, held))
        return [beam.last_step for beam in self.beams]

    def choose(
        self, prediction: Prediction, total: Tensor, width: Tensor, too_early: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what each sentence goes on with."""
        log_probs, slots = prediction.log_probs(), total.shape[1]
        would_end = (log_probs.argmax(dim=-1) == self.rules.eos).tolist()
        mask = self._mask(slots, log_probs.shape[1], too_early.tolist())
        totals = log_probs.masked_fill(~torch.from_numpy(mask).to(total.device), -torch.inf)
        totals = totals + total.flatten()[:, None]

        # What each hypothesis may go on with: its best words, and those that help it to its goal.
        best, words = largest(totals, min(self.rules.beam_size, totals.shape[1]))
        found = [
            dict(zip(*row, strict=True)) for row in zip(words.tolist(), best.tolist(), strict=True)
        ]
        helpful = [
            (i * slots + slot, token)
            for i, beam in enumerate(self.beams)
            if (goal := beam.demands.goal) is not None
            for slot, held in enumerate(beam.held)
            for token in goal.helpful(held.states[0])
        ]
        if helpful:
            at = torch.tensor(helpful, device=total.device)
            values = totals[at[:, 0], at[:, 1]].tolist()
            for (row, token), value in zip(helpful, values, strict=True):
                found[row][token] = value

        # Who gets a place.
        chosen = []
        for i, beam in enumerate(self.beams):
            own = slice(i * slots, i * slots + len(beam.held))
            chosen.append(self._share_out(beam, found[own], would_end[own]))
        self.step += 1
        size = max(1, *map(len, chosen))
        filled = [[*own, *[Option(-np.inf, 0, 0)] * (size - len(own))] for own in chosen]
        each = ([[option[field] for option in own] for own in filled] for field in range(3))
        dtypes = (totals.dtype, torch.long, torch.long)
        new, parent, word = (
            torch.tensor(values, dtype=dtype, device=total.device)
            for values, dtype in zip(each, dtypes, strict=True)
        )
        return new, parent, word

    def _mask(self, slots: int, num_words: int, too_early: Sequence[bool]) -> Mask:
        """Return what may come next (R, K_y)."""
        mask = np.zeros((len(self.beams) * slots, num_words), np.bool_)
        base = np.ones(num_words, np.bool_)
        base[list(self.rules.forbidden)] = False
        for i, (beam, early) in enumerate(zip(self.beams, too_early, strict=True)):
            base[self.rules.eos] = not early
            for row, held in enumerate(beam.held, start=i * slots):
                if self.step < len(beam.demands.first):
                    mask[row, beam.demands.first[self.step]] = True
                else:
                    left = beam.last_step - self.step - 1
                    mask[row] = beam.demands.allowed(held.states, base, left)
        return mask

    def _share_out(
        self, beam: _Beam, found: Sequence[dict[int, float]], would_end: Sequence[bool]
    ) -> list[Option]:
        """Return what a sentence goes on with, and hold what does not end."""
        options = [
            self._option(beam, slot, would_end[slot], token, total)
            for slot, totals in enumerate(found)
            for token, total in totals.items()
            if total > -np.inf
        ]
        taken: Counter[int] = Counter()
        chosen, held = [], []
        for group, width in enumerate(beam.widths):
            own = [option for option in options if group in beam.held[option.slot].groups]
            own = share_out(own, width, taken, self.diversity)
            taken.update(option.token for option in own)
            for option in own:
                if option.token == self.rules.eos:
                    beam.widths[group] -= 1
                else:
                    states = beam.held[option.slot].states
                    if self.step >= len(beam.demands.first):
                        pairs = zip(beam.demands.rules, states, strict=True)
                        states = [rule.after(state, option.token) for rule, state in pairs]
                    held.append(_Held(states, [group]))
            chosen += own
        beam.held = held
        return chosen

    def _option(self, beam: _Beam, slot: int, would_end: bool, token: int, total: float) -> Option:
        goal = beam.demands.goal
        if goal is None or self.step < len(beam.demands.first):
            return Option(total, slot, token)
        state = beam.held[slot].states[0]
        missing, before = goal.missing(goal.after(state, token)), goal.missing(state)
        return Option(total, slot, token, missing, late=would_end and 0 < before <= missing)

    def go_on(self, rows: Sequence[int]) -> None:
        """Go on with some of the sentences."""
        self.beams = [self.beams[row] for row in rows]
