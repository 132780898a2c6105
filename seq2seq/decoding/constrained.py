"""Beams under per-sentence rules, or in diverse groups: masks, rule states, beam allocation.

A rule has a state per hypothesis, returns which pieces may come next, and is updated with the piece
chosen. Sentences are independent, and so are their rules.
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

Mask = npt.NDArray[np.bool_]  # (K_y,) True where a piece, or the end symbol, may come next


class Rule(Protocol):
    """A constraint on hypotheses."""

    @property
    def soft(self) -> bool:
        """Whether the rule is ignored where it would leave no piece."""

    @property
    def start(self) -> Any:
        """The state after the pieces that every hypothesis begins with."""

    def allowed(self, state: Any, left: int) -> Mask | None:
        """Return what may come next, with `left` steps after it; None means anything."""

    def after(self, state: Any, token: int) -> Any:
        """Return the state after a piece."""


class Goal(Rule, Protocol):
    """A rule with a goal that hypotheses must reach, to which some pieces bring them nearer."""

    def missing(self, state: Any) -> int:
        """Return the number of pieces needed to reach the goal."""

    def helpful(self, state: Any) -> Iterable[int]:
        """Return the pieces that reduce the number missing."""


@dataclass(frozen=True)
class Constraints:
    """The constraints on the translations of a sentence."""

    first: Sequence[int] = ()  # forced first pieces; rules do not apply to them
    rules: Sequence[Rule] = ()
    goal: Goal | None = None  # the first rule, if it is a goal
    steps: int = 0  # minimal number of steps needed

    def allowed(self, states: Sequence[Any], base: Mask, left: int) -> Mask:
        """Return the pieces allowed by both the base and the rules."""
        mask = base
        for rule, state in zip(self.rules, states, strict=True):
            if (own := rule.allowed(state, left)) is not None:
                both = mask & own
                mask = both if both.any() or not rule.soft else mask
        return mask


class Option(NamedTuple):
    """A candidate continuation for the beam."""

    total: float
    slot: int
    token: int
    missing: int = 0  # pieces missing to the goal
    late: bool = False  # the model would end here, but this comes no nearer to the goal


def allocate(
    options: Iterable[Option], width: int, taken: Mapping[int, int], price: float
) -> list[Option]:
    """Allocate beam slots round-robin over banks of options with equally many missing pieces.

    As in Post & Vilar 2018 (arXiv:1804.06609), this keeps hypotheses that meet more constraints,
    which are less likely. The best options of a bank come first; each pays `price` for each time
    that earlier groups have taken its word.
    """
    turns: Counter[int] = Counter()
    ranked = []
    costs = ((price * taken.get(option.token, 0) - option.total, option) for option in options)
    for cost, option in sorted(costs, key=lambda each: (each[1].late, each[0])):
        ranked.append((option.late, turns[option.missing], cost, option))
        turns[option.missing] += 1
    return [option for *_, option in sorted(ranked)[:width]]


@dataclass
class _Live:
    """A live hypothesis."""

    states: Sequence[Any]  # the states of the rules
    groups: Sequence[int]  # its groups; the initial hypothesis belongs to all


@dataclass
class _Beam:
    """The live hypotheses of a sentence."""

    constraints: Constraints
    last_step: int
    widths: list[int]  # open slots of each group
    live: list[_Live]


class ConstrainedBeams:
    """A `search.Filling` with constraints, or with diverse groups.

    Groups are those of Vijayakumar et al. 2016, Diverse Beam Search (arXiv:1610.02424), where each
    time that an earlier group has chosen a word costs `diversity`; several groups have no goals.
    """

    def __init__(
        self, rules: SearchRules, constraints: Sequence[Constraints], groups: int, diversity: float
    ) -> None:
        self.rules, self.constraints = rules, constraints
        self.groups, self.diversity = groups, diversity
        self.beams: list[_Beam] = []
        self.step = 0

    def steps(self, bounds: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Return the upper bounds, raised to what the constraints need."""
        beam, groups = self.rules.beam_size, range(self.groups)
        for constraints, (_, high) in zip(self.constraints, bounds, strict=True):
            widths = [beam // len(groups) + (i < beam % len(groups)) for i in groups]
            live = [_Live([rule.start for rule in constraints.rules], groups)]
            self.beams.append(_Beam(constraints, max(high, constraints.steps), widths, live))
        return [beam.last_step for beam in self.beams]

    def choose(
        self, prediction: Prediction, total: Tensor, width: Tensor, too_early: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the continuations of each sentence."""
        log_probs, slots = prediction.log_probs(), total.shape[1]
        would_end = (log_probs.argmax(dim=-1) == self.rules.eos).tolist()
        mask = self._mask(slots, log_probs.shape[1], too_early.tolist())
        totals = log_probs.masked_fill(~torch.from_numpy(mask).to(total.device), -torch.inf)
        totals = totals + total.flatten()[:, None]

        # Candidates of each hypothesis: its best words, and those that help it to its goal.
        best, words = largest(totals, min(self.rules.beam_size, totals.shape[1]))
        found = [
            dict(zip(*row, strict=True)) for row in zip(words.tolist(), best.tolist(), strict=True)
        ]
        helpful = [
            (i * slots + slot, token)
            for i, beam in enumerate(self.beams)
            if (goal := beam.constraints.goal) is not None
            for slot, live in enumerate(beam.live)
            for token in goal.helpful(live.states[0])
        ]
        if helpful:
            at = torch.tensor(helpful, device=total.device)
            values = totals[at[:, 0], at[:, 1]].tolist()
            for (row, token), value in zip(helpful, values, strict=True):
                found[row][token] = value

        # Allocate the slots.
        chosen = []
        for i, beam in enumerate(self.beams):
            own = slice(i * slots, i * slots + len(beam.live))
            chosen.append(self._allocate(beam, found[own], would_end[own]))
        self.step += 1
        # As tensors, with empty slots where a sentence has fewer than others.
        size = max(1, *map(len, chosen))
        filled = [[*own, *[Option(-np.inf, 0, 0)] * (size - len(own))] for own in chosen]

        def column(field: int, dtype: torch.dtype) -> Tensor:
            values = [[option[field] for option in own] for own in filled]
            return torch.tensor(values, dtype=dtype, device=total.device)

        return column(0, totals.dtype), column(1, torch.long), column(2, torch.long)

    def _mask(self, slots: int, num_words: int, too_early: Sequence[bool]) -> Mask:
        """Return the mask (R, K_y) of the pieces that may come next."""
        mask = np.zeros((len(self.beams) * slots, num_words), np.bool_)
        base = np.ones(num_words, np.bool_)
        base[list(self.rules.forbidden)] = False
        for i, (beam, early) in enumerate(zip(self.beams, too_early, strict=True)):
            base[self.rules.eos] = not early
            for row, live in enumerate(beam.live, start=i * slots):
                if self.step < len(beam.constraints.first):
                    mask[row, beam.constraints.first[self.step]] = True
                else:
                    left = beam.last_step - self.step - 1
                    mask[row] = beam.constraints.allowed(live.states, base, left)
        return mask

    def _allocate(
        self, beam: _Beam, found: Sequence[dict[int, float]], would_end: Sequence[bool]
    ) -> list[Option]:
        """Choose the continuations of a sentence, and hold those that do not end."""
        options = [
            self._option(beam, slot, would_end[slot], token, total)
            for slot, totals in enumerate(found)
            for token, total in totals.items()
            if total > -np.inf
        ]
        # Group by group: what earlier ones have taken costs more. An end frees no slot for others.
        taken: Counter[int] = Counter()
        chosen, live = [], []
        for group, width in enumerate(beam.widths):
            own = [option for option in options if group in beam.live[option.slot].groups]
            own = allocate(own, width, taken, self.diversity)
            taken.update(option.token for option in own)
            for option in own:
                if option.token == self.rules.eos:
                    beam.widths[group] -= 1
                else:
                    states = beam.live[option.slot].states
                    if self.step >= len(beam.constraints.first):
                        pairs = zip(beam.constraints.rules, states, strict=True)
                        states = [rule.after(state, option.token) for rule, state in pairs]
                    live.append(_Live(states, [group]))
            chosen += own
        beam.live = live
        return chosen

    def _option(self, beam: _Beam, slot: int, would_end: bool, token: int, total: float) -> Option:
        goal = beam.constraints.goal
        if goal is None or self.step < len(beam.constraints.first):
            return Option(total, slot, token)
        state = beam.live[slot].states[0]
        missing, before = goal.missing(goal.after(state, token)), goal.missing(state)
        return Option(total, slot, token, missing, late=would_end and 0 < before <= missing)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these sentences."""
        self.beams = [self.beams[row] for row in rows]
