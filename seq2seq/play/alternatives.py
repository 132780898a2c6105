"""The words that a model finds most probable after the beginning of a translation.

The most probable pieces there, each continued by greedy search to the end of the translation.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seq2seq.alignment.heatmap import printable, printable_line
from seq2seq.alignment.words import group_pieces
from seq2seq.data.tokenizer import SPACE, Tokenizer
from seq2seq.data.words import Splitter
from seq2seq.decoding.constrained import Constraints
from seq2seq.decoding.prefix import Prefix, write
from seq2seq.decoding.search import Hypothesis, SearchRules
from seq2seq.model.protocols import Prediction


class Fan:
    """A `search.Filling` for one sentence: a forced beginning, then as many ways on as the beam."""

    def __init__(self, rules: SearchRules, constraints: Constraints, device: torch.device) -> None:
        self.beam_size, self.eos, self.constraints = rules.beam_size, rules.eos, constraints
        self.forbidden = torch.tensor(rules.forbidden, dtype=torch.long, device=device)
        self.step = self.last_step = 0

    def steps(self, bounds: Sequence[tuple[int, int]]) -> Sequence[int]:
        """Return the upper bound, or what a long beginning needs; and a step that ends all ways.

        Else those that have not ended would be dropped in favour of those that have.
        """
        [self.last_step] = [max(high, self.constraints.steps) for _, high in bounds]
        return [self.last_step + 1]

    def choose(
        self, prediction: Prediction, total: Tensor, width: Tensor, too_early: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the forced piece, the best pieces, the best one of each slot; at last the end."""
        step, first = self.step, self.constraints.first
        self.step += 1
        log_probs = prediction.log_probs()  # (K, K_y)
        slots = torch.arange(total.shape[1], device=total.device)[None]
        if step < len(first):
            token = torch.full_like(slots, first[step])
            return total + log_probs[:, first[step]], slots, token
        if step == self.last_step:
            return total + log_probs[:, self.eos], slots, torch.full_like(slots, self.eos)
        log_probs = log_probs.index_fill(1, self.forbidden, -torch.inf)
        if step > len(first):
            log_probs[:, self.eos].masked_fill_(too_early, -torch.inf)
            best, token = log_probs.max(dim=-1)
            return total + best, slots, token[None]
        # An end is not a word; the rules say whether a word may go on.
        log_probs[:, self.eos] = -torch.inf
        allowed = np.ones(log_probs.shape[1], np.bool_)
        starts = [rule.start for rule in self.constraints.rules]
        mask = self.constraints.allowed(starts, allowed, 0)
        log_probs = log_probs.masked_fill(~torch.from_numpy(mask).to(total.device), -torch.inf)
        best, token = log_probs.topk(min(self.beam_size, log_probs.shape[1]))
        return total + best, torch.zeros_like(token), token

    def keep(self, rows: Sequence[int]) -> None:
        """Keep the one sentence."""


def next_word(
    h: Hypothesis, at: int, prefix: Prefix | None, target: Tokenizer, split: Splitter | None
) -> dict[str, Any]:
    """Return the word of which piece `at` is the first, and the translation up to its end.

    A piece is a word if `split` is None. The probability is that of the word's pieces.
    """
    pieces = target.pieces(h.ids[:-1] if h.finished else h.ids)
    _, text, spans = write(target, pieces, prefix)
    last = at
    if split is not None:
        _, groups = group_pieces(text, spans, split)
        last = next(group[-1] for group in groups if at in group)
    end = spans[last].end
    written = text[spans[at].start : end]
    return {
        "word": printable_line(written.strip()) or printable(written.replace(" ", SPACE)),
        "probability": round(math.exp(sum(h.token_log_probs[at : last + 1])), 6),
        "prefix": text[:end],
        "text": printable_line(text),
    }
