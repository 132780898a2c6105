"""Beam search as in the authors' code, batched over sentences. Knows the Decoder protocol alone.

Each step keeps the best continuations of all hypotheses of a sentence; one that ends leaves the
beam, and the beam of that sentence loses its slot. A sentence is done when its beam is empty.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seq2seq.model.attention import Annotations
from seq2seq.model.decoder import Decoder

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SearchRules:
    """What the search may do; `settings.DecodeConfig` says the same in words."""

    beam_size: int
    length_penalty: float
    min_ratio: float
    max_ratio: float
    extra_steps: int
    forbidden: tuple[int, ...]
    """Ids that are never emitted."""
    start: int
    """Id of y_0."""
    eos: int

    def bounds(self, source_length: int) -> tuple[int, int]:
        """Return (first step at which the end symbol is allowed, number of steps)."""
        most = int(self.max_ratio * source_length) + self.extra_steps
        return int(self.min_ratio * source_length), max(1, most)


@dataclass(frozen=True)
class Hypothesis:
    """One translation, token by token."""

    ids: tuple[int, ...]  # the end symbol included where it was reached
    log_prob: float  # nats, summed over ids
    score: float  # log_prob / len(ids) ** length_penalty
    token_log_probs: tuple[float, ...]
    alpha: Floats  # (len(ids), Tx)
    finished: bool  # False where the search ran into its bound


@dataclass
class _Step:
    """What one step leaves behind for the walk back; slots as in the batch at that step."""

    sentences: list[int]  # sentence of each batch row
    parent: npt.NDArray[np.int64]  # (B, K)  slot that each candidate extends
    token: npt.NDArray[np.int64]  # (B, K)
    total: Floats  # (B, K)  summed log-probability
    alpha: Floats  # (B, K, Tx)  by slot before the step


@torch.inference_mode()
def beam_search(
    decoder: Decoder, source: Annotations, rules: SearchRules
) -> list[list[Hypothesis]]:
    """Translate every sentence of `source`.

    Returns:
        For each sentence its hypotheses, best score first: the finished ones, or, where none
        ended within the bound, the unfinished ones. None at all if every word is impossible,
        as with weights that are not numbers.
    """
    search = _Search(decoder, source, rules)
    while search.step():
        pass
    return search.hypotheses()


class _Search:
    """State of a search. Rows of the tensors are (sentence still open, slot), sentence first."""

    def __init__(self, decoder: Decoder, source: Annotations, rules: SearchRules) -> None:
        self.decoder, self.rules = decoder, rules
        lengths = source.mask.sum(dim=1).tolist()
        bounds = [rules.bounds(length) for length in lengths]
        self.lengths = lengths
        self.first_end = torch.tensor([low for low, _ in bounds], device=source.mask.device)
        self.last_step = [high for _, high in bounds]
        self.open = list(range(len(lengths)))
        self.width = torch.full((len(lengths),), rules.beam_size, device=source.mask.device)
        self.source = source.select(_repeat(torch.arange(len(lengths)), rules.beam_size))
        self.state = decoder.initial_state(self.source)
        self.y = torch.full((len(self.source.mask),), rules.start, device=source.mask.device)
        # One live slot a sentence: the others would only repeat it.
        self.total = torch.full((len(lengths), rules.beam_size), -torch.inf)
        self.total[:, 0] = 0.0
        self.total = self.total.to(source.mask.device)
        self.steps: list[_Step] = []
        self.ended: list[list[tuple[int, int, int]]] = [[] for _ in lengths]  # step, row, slot

    def step(self) -> bool:
        """Take one step; return whether any sentence is still open."""
        prediction = self.decoder.predict(self.y, self.state, self.source)
        total, parent, token = self._best(prediction.logits)
        self._keep(prediction.alpha, total, parent, token)
        allowed = torch.arange(self.rules.beam_size, device=total.device) < self.width[:, None]
        allowed &= total > -torch.inf
        ends = allowed & (token == self.rules.eos)
        for row, slot in ends.nonzero().tolist():
            self.ended[self.open[row]].append((len(self.steps) - 1, row, slot))
        self.width = self.width - ends.sum(dim=1)
        self.total = total.masked_fill(~allowed | ends, -torch.inf)
        rows = (parent + self._first_slots(len(parent))).flatten()
        y_prev, self.y = self.y[rows], token.flatten()
        self.state = self.decoder.advance(
            self.state.select(rows), prediction.c[rows], y_prev=y_prev, y=self.y
        )
        return self._close()

    def _best(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best `beam_size` continuations of each sentence: total, slot, token."""
        beam, num_words = self.rules.beam_size, logits.shape[-1]
        log_p = torch.log_softmax(logits.float(), dim=-1)
        log_p[:, list(self.rules.forbidden)] = -torch.inf
        log_p = log_p.view(-1, beam, num_words)
        too_early = len(self.steps) < self.first_end
        log_p[:, :, self.rules.eos].masked_fill_(too_early[:, None], -torch.inf)
        # Each slot's best words are enough, and cheaper to sort than all of them.
        per_slot, words = log_p.topk(min(beam, num_words), dim=-1)
        candidates = (self.total[:, :, None] + per_slot).flatten(1)
        total, index = candidates.topk(beam, dim=-1)
        parent = index // per_slot.shape[-1]
        return total, parent, words.flatten(1).gather(1, index)

    def _keep(self, alpha: Tensor, total: Tensor, parent: Tensor, token: Tensor) -> None:
        by_slot = alpha.float().view(len(total), self.rules.beam_size, -1)
        self.steps.append(
            _Step(
                sentences=list(self.open),
                parent=parent.cpu().numpy(),
                token=token.cpu().numpy(),
                total=total.cpu().numpy(),
                alpha=by_slot.cpu().numpy(),
            )
        )

    def _first_slots(self, num_rows: int) -> Tensor:
        """Return, for each batch row, the index of its slot 0, as a column."""
        return torch.arange(num_rows, device=self.y.device)[:, None] * self.rules.beam_size

    def _close(self) -> bool:
        """Drop the sentences that are done; return whether any is left."""
        alive = (self.total > -torch.inf).any(dim=1).tolist()
        keep = [
            row
            for row, sentence in enumerate(self.open)
            if alive[row] and len(self.steps) < self.last_step[sentence]
        ]
        if len(keep) == len(self.open):
            return True
        self.open = [self.open[row] for row in keep]
        rows = torch.tensor(keep, dtype=torch.long, device=self.y.device)
        slots = (
            (rows[:, None] * self.rules.beam_size)
            .add(torch.arange(self.rules.beam_size, device=self.y.device))
            .flatten()
        )
        self.first_end, self.width, self.total = (
            tensor[rows] for tensor in (self.first_end, self.width, self.total)
        )
        self.y = self.y[slots]
        self.source, self.state = self.source.select(slots), self.state.select(slots)
        return bool(keep)

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Collect what ended, or the last candidates of a sentence where nothing did."""
        return [
            sorted(self._of_sentence(i), key=lambda h: -h.score) for i in range(len(self.ended))
        ]

    def _of_sentence(self, sentence: int) -> list[Hypothesis]:
        if self.ended[sentence]:
            return [self._walk_back(*end, finished=True) for end in self.ended[sentence]]
        last = max(i for i, step in enumerate(self.steps) if sentence in step.sentences)
        row = self.steps[last].sentences.index(sentence)
        slots = [k for k, total in enumerate(self.steps[last].total[row]) if total > -np.inf]
        return [self._walk_back(last, row, slot, finished=False) for slot in slots]

    def _walk_back(self, last: int, row: int, slot: int, *, finished: bool) -> Hypothesis:
        sentence = self.steps[last].sentences[row]
        log_prob = float(self.steps[last].total[row, slot])
        ids, totals, weights = [], [], []
        for step in reversed(self.steps[: last + 1]):
            row = step.sentences.index(sentence)
            ids.append(int(step.token[row, slot]))
            totals.append(float(step.total[row, slot]))
            slot = int(step.parent[row, slot])
            weights.append(step.alpha[row, slot, : self.lengths[sentence]])
        return Hypothesis(
            ids=tuple(reversed(ids)),
            log_prob=log_prob,
            score=log_prob / len(ids) ** self.rules.length_penalty,
            token_log_probs=tuple(np.diff(totals[::-1], prepend=0.0).tolist()),
            alpha=np.stack(weights[::-1]),
            finished=finished,
        )


def _repeat(rows: Tensor, times: int) -> Tensor:
    return rows.repeat_interleave(times)
