"""Beam search as in the authors' code, batched over sentences. Depends on `Stepper` alone.

Each step keeps the best continuations of all hypotheses of a sentence. A hypothesis that ends
leaves the beam, which then has one slot fewer. A sentence is done when its beam is empty.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.decoding.ranking import Floats, Ranking
from seq2seq.model.protocols import Barred, Prediction, Stepper


@dataclass(frozen=True, kw_only=True)
class SearchRules(Ranking):
    """The limits of the search; `config.schema.DecodeConfig` explains them."""

    beam_size: int
    n_best: int
    min_ratio: float
    max_ratio: float
    extra_steps: int
    forbidden: tuple[int, ...]  # ids that are never emitted
    start: int  # id of y_0
    eos: int

    def bounds(self, source_length: int) -> tuple[int, int]:
        """Return (first step at which the end symbol is allowed, number of steps)."""
        most = int(self.max_ratio * source_length) + self.extra_steps
        return int(self.min_ratio * source_length), max(1, most)


@dataclass(frozen=True)
class Hypothesis:
    """One translation, token by token."""

    ids: tuple[int, ...]  # with the end symbol if it was reached
    log_prob: float  # nats, summed over ids
    score: float  # see `Ranking`
    token_log_probs: tuple[float, ...]
    alpha: Floats  # (len(ids), Tx)
    finished: bool  # False if the search hit its step limit
    maps: Mapping[str, Floats] = field(default_factory=dict)  # see `alignment.words.Maps`

    @classmethod
    def scored(
        cls,
        ids: Sequence[int],
        log_prob: float,
        token_log_probs: Sequence[float],
        alpha: Floats,
        ranking: Ranking,
        eos: int,
    ) -> "Hypothesis":
        """Make one with its score; it is finished if it ends with the end symbol."""
        score = ranking.score(log_prob, len(ids), alpha)
        ended = ids[-1] == eos
        return cls(tuple(ids), log_prob, score, tuple(token_log_probs), alpha, ended)


class Filling(Protocol):
    """Chooses the continuations that fill the beams of the B open sentences, step by step."""

    def steps(self, bounds: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Return how many steps each sentence may take, given its `SearchRules.bounds`."""

    def choose(
        self, prediction: Prediction, total: Tensor, width: Tensor, too_early: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return total, slot and token (B, K') of the continuations chosen from `total` (B, K).

        At most `width` (B,) are chosen per sentence; the total of an empty slot is -inf. The end
        symbol is not chosen where it is `too_early` (B,).
        """

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these sentences and, of their chosen continuations, those that have not ended."""


class BestWords:
    """A `Filling` that takes the best continuations of all hypotheses of a sentence."""

    def __init__(self, rules: SearchRules, device: torch.device) -> None:
        self.rules = rules
        self.forbidden = torch.tensor(rules.forbidden, dtype=torch.long, device=device)

    def steps(self, bounds: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Return the upper bounds unchanged."""
        return [high for _, high in bounds]

    def choose(
        self, prediction: Prediction, total: Tensor, width: Tensor, too_early: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best `width` continuations of each sentence."""
        beam, slots = self.rules.beam_size, total.shape[1]
        too_early = too_early.repeat_interleave(slots)
        best = prediction.best(beam, Barred(self.forbidden, self.rules.eos, too_early))
        candidates = total[:, :, None] + best.log_probs.unflatten(0, (-1, slots))
        candidates = candidates.flatten(1)
        total, index = candidates.topk(min(beam, candidates.shape[1]), dim=-1)
        parent = index // best.words.shape[-1]
        allowed = torch.arange(total.shape[1], device=total.device) < width[:, None]
        token = best.words.view(len(candidates), -1).gather(1, index)
        return total.masked_fill(~allowed, -torch.inf), parent, token

    def keep(self, rows: Sequence[int]) -> None:
        """Keep no state."""


@dataclass
class _Step:
    """The record of one step, for tracing hypotheses back; slots are those of that step's batch."""

    row: npt.NDArray[np.int64]  # (sentences,)  batch row of each sentence, -1 once it is done
    parent: npt.NDArray[np.int64]  # (B, K')  slot before the step that each candidate extends
    before: npt.NDArray[np.int64]  # (B, K')  the same, as a candidate index of the previous step
    token: npt.NDArray[np.int64]  # (B, K')
    total: Floats  # (B, K')  summed log-probability; -inf in unused slots
    alpha: Floats  # (B, K, Tx)  by slot before the step


@torch.inference_mode()
def beam_search(
    model: Stepper, src: Tensor, mask: Tensor, rules: SearchRules, filling: Filling | None = None
) -> list[list[Hypothesis]]:
    """Translate every sentence of ids (B, Tx); `mask` is True on real tokens.

    `filling` is used once; the default takes the best words.

    Returns:
        For each sentence at most `rules.n_best` hypotheses, best score first: the finished ones,
        or the unfinished ones if none ended within the limit. The list is empty if every word is
        impossible, as with NaN weights.
    """
    search = _Search(model, src, mask, rules, filling or BestWords(rules, mask.device))
    while search.step():
        pass
    return [search.hypotheses(sentence) for sentence in range(len(src))]


class _Search:
    """The state of a search. Rows of the tensors are (open sentence, slot), sentence first."""

    def __init__(
        self, model: Stepper, src: Tensor, mask: Tensor, rules: SearchRules, filling: Filling
    ) -> None:
        self.model, self.rules, self.filling = model, rules, filling
        # What each sentence may be: its length, and when it may end
        device = mask.device
        self.lengths = lengths = mask.sum(dim=1).tolist()
        bounds = [rules.bounds(length) for length in lengths]
        self.first_end = torch.tensor([low for low, _ in bounds], device=device)
        self.last_step = filling.steps(bounds)
        # The open sentences and their hypotheses, each an empty one
        self.open = list(range(len(lengths)))
        self.slots = 1  # per sentence: there is only one way to begin
        self.width = torch.full((len(lengths),), rules.beam_size, device=device)
        self.state = model.begin(src, mask)
        self.y = torch.full((len(lengths),), rules.start, device=device)
        self.total = torch.zeros(len(lengths), 1, device=device)
        self.order = torch.zeros(len(lengths), 1, dtype=torch.long, device=device)
        # What has happened so far
        self.steps: list[_Step] = []
        self.ended: list[list[tuple[int, int]]] = [[] for _ in lengths]  # step, slot

    def step(self) -> bool:
        """Take one step; return whether any sentence is still open."""
        prediction, self.state = self.model.step(self.y, self.state)
        too_early = len(self.steps) < self.first_end
        total, parent, token = self.filling.choose(prediction, self.total, self.width, too_early)
        self._record(prediction.alpha, total, parent, token)
        ends = (token == self.rules.eos) & (total > -torch.inf)
        for row, slot in ends.nonzero().tolist():
            self.ended[self.open[row]].append((len(self.steps) - 1, slot))
        self.width = self.width - ends.sum(dim=1)
        return self._go_on(total.masked_fill(ends, -torch.inf), parent, token)

    def _record(self, alpha: Tensor, total: Tensor, parent: Tensor, token: Tensor) -> None:
        row = np.full(len(self.lengths), -1)
        row[self.open] = np.arange(len(self.open))
        self.steps.append(
            _Step(
                row=row,
                parent=parent.cpu().numpy(),
                before=self.order.gather(1, parent).cpu().numpy(),
                token=token.cpu().numpy(),
                total=total.cpu().numpy(),
                alpha=alpha.float().view(len(total), self.slots, -1).cpu().numpy(),
            )
        )

    def _go_on(self, total: Tensor, parent: Tensor, token: Tensor) -> bool:
        """Continue with the live hypotheses of the open sentences."""
        alive = (total > -torch.inf).sum(dim=1).tolist()
        may_go_on = [len(self.steps) < self.last_step[sentence] for sentence in self.open]
        alive_rows = [row for row, going in enumerate(may_go_on) if going and alive[row]]
        if not alive_rows:
            return False
        slots = max(alive[row] for row in alive_rows)
        rows = torch.tensor(alive_rows, dtype=torch.long, device=total.device)
        # Live slots first, in order; the rest are dropped.
        order = (total == -torch.inf).to(torch.int8).argsort(dim=1, stable=True)[rows, :slots]
        self.order = order
        self.total = total[rows].gather(1, order)
        before = (rows[:, None] * self.slots + parent[rows].gather(1, order)).flatten()
        self.y = token[rows].gather(1, order).flatten()
        self.filling.keep(alive_rows)
        self.state = self.state.select(rows, slots, before)
        if len(alive_rows) < len(self.open):
            self.first_end, self.width = self.first_end[rows], self.width[rows]
            self.open = [self.open[row] for row in alive_rows]
        self.slots = slots
        return True

    def hypotheses(self, sentence: int) -> list[Hypothesis]:
        """Return the ended hypotheses of a sentence, or its last candidates if none ended."""
        ends = self.ended[sentence]
        if not ends:
            last = max(i for i, step in enumerate(self.steps) if step.row[sentence] >= 0)
            total = self.steps[last].total[self.steps[last].row[sentence]]
            ends = [(last, slot) for slot in np.flatnonzero(total > -np.inf).tolist()]
        ranked = sorted(ends, key=lambda end: -self._score(sentence, *end))
        return [self._walk_back(sentence, *end) for end in ranked[: self.rules.n_best]]

    def _score(self, sentence: int, last: int, slot: int) -> float:
        step = self.steps[last]
        log_prob = float(step.total[step.row[sentence], slot])
        # Without a coverage penalty, weights are collected for the best hypotheses only.
        alpha = self._alpha(sentence, last, slot) if self.rules.coverage_penalty else None
        return self.rules.score(log_prob, last + 1, alpha)

    def _path(self, sentence: int, last: int, slot: int) -> Iterator[tuple[_Step, int, int]]:
        """Yield the steps of a hypothesis, last first, with its row and slot at each."""
        for step in reversed(self.steps[: last + 1]):
            row = int(step.row[sentence])
            yield step, row, slot
            slot = int(step.before[row, slot])

    def _alpha(self, sentence: int, last: int, slot: int) -> Floats:
        weights = [
            step.alpha[row, step.parent[row, slot], : self.lengths[sentence]]
            for step, row, slot in self._path(sentence, last, slot)
        ]
        return np.stack(weights[::-1])

    def _walk_back(self, sentence: int, last: int, slot: int) -> Hypothesis:
        path, alpha = [*self._path(sentence, last, slot)][::-1], self._alpha(sentence, last, slot)
        ids = [int(step.token[row, slot]) for step, row, slot in path]
        totals = [float(step.total[row, slot]) for step, row, slot in path]
        each, rules = np.diff(totals, prepend=0.0).tolist(), self.rules
        return Hypothesis.scored(ids, totals[-1], each, alpha, rules, rules.eos)
