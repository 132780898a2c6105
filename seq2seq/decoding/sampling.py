"""Ancestral sampling, batched over sentences: each word is drawn from the model's distribution.

Depends on `Stepper` alone. Draws are keyed by seed, sentence, sample and step, so a sample depends
neither on its batch nor on the number of samples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from seq2seq.decoding.ranking import Floats
from seq2seq.decoding.search import Hypothesis, SearchRules
from seq2seq.model.draws import fold, stream
from seq2seq.model.protocols import Stepper


@dataclass(frozen=True)
class SamplingRules:
    """How words are drawn: from p^(1 / temperature), optionally truncated to the likeliest words.

    Lengths, forbidden words, scores and the number of samples are those of `search`.
    """

    search: SearchRules
    temperature: float = 1.0
    top_k: int | None = None  # number of words to draw from
    top_p: float | None = None
    """Draw from the fewest words with this total probability, after `top_k`."""
    seed: int = 1


@dataclass
class _Draft:
    """A sample in progress."""

    row: int  # of the model's last prediction
    uniform: Callable[[], float]
    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    alphas: list[Floats] = field(default_factory=list)  # (Tx,) each

    def is_done(self, eos: int, longest: int) -> bool:
        """Whether it ended, reached its length limit, or has a log-probability of -inf or NaN."""
        whole = self.ids[-1] == eos or len(self.ids) == longest
        return whole or not math.isfinite(self.log_probs[-1])


@torch.inference_mode()
def sample(
    model: Stepper, src: Tensor, mask: Tensor, keys: Sequence[int], rules: SamplingRules
) -> list[list[Hypothesis]]:
    """Draw translations of every sentence of ids (B, Tx); `mask` is True on real tokens.

    Each sentence has a number that keys its draws, and gets `n_best` samples, best score first,
    duplicates included, with the model's own log-probabilities; none if every word is impossible,
    as with NaN weights.
    """
    search, device = rules.search, mask.device
    lengths = mask.sum(dim=1).tolist()
    bounds = [search.bounds(length) for length in lengths]
    forbidden = torch.tensor(search.forbidden, dtype=torch.long, device=device)
    samples = [
        [_Draft(row, stream(fold(rules.seed, key, n))) for n in range(search.n_best)]
        for row, key in enumerate(keys)
    ]
    state, y = model.begin(src, mask), torch.full((len(keys),), search.start, device=device)
    living = list(zip(bounds, samples, strict=True))
    while living:
        prediction, state = model.step(y, state)

        # Draw a word for every sample; at the first step, those of a sentence share one row.
        drafts = [draft for _, own in living for draft in own]
        rows = torch.tensor([draft.row for draft in drafts], device=device)
        log_probs = prediction.log_probs()[rows]  # (N, K_y)
        early = [len(draft.ids) < first_end for (first_end, _), own in living for draft in own]
        log_probs[:, forbidden] = -torch.inf
        log_probs[torch.tensor(early, device=device), search.eos] = -torch.inf
        u = torch.tensor([draft.uniform() for draft in drafts])
        words = draw(log_probs, u.to(log_probs), rules)
        chosen = log_probs.gather(1, words[:, None]).squeeze(1)
        alphas = prediction.alpha[rows].float().cpu().numpy()
        for i, (word, log_prob) in enumerate(zip(words.tolist(), chosen.tolist(), strict=True)):
            drafts[i].ids.append(word)
            drafts[i].log_probs.append(log_prob)
            drafts[i].alphas.append(alphas[i])

        # Continue the unfinished samples; every sentence gets as many slots as the largest needs.
        left = [(b, [d for d in own if not d.is_done(search.eos, b[1])]) for b, own in living]
        sentences = [i for i, (_, own) in enumerate(left) if own]
        living = [left[i] for i in sentences]
        slots = max((len(own) for _, own in living), default=0)
        filled = [d for _, own in living for d in own + own[:1] * (slots - len(own))]
        before = [draft.row for draft in filled]
        y = torch.tensor([draft.ids[-1] for draft in filled], device=device)
        for i, (_, own) in enumerate(living):
            for slot, draft in enumerate(own):
                draft.row = i * slots + slot
        if living:
            kept, rows = (torch.tensor(x, device=device) for x in (sentences, before))
            state = state.select(kept, slots, rows)
    return [_hypotheses(own, length, search) for own, length in zip(samples, lengths, strict=True)]


def choices(log_probs: Tensor, rules: SamplingRules) -> tuple[Tensor, Tensor]:
    """Return words (R, k) and their unnormalised probabilities.

    Words are sorted by probability if top-k or top-p applies, by id otherwise.
    """
    scores, num_words = log_probs / rules.temperature, log_probs.shape[1]
    words = torch.arange(num_words, device=scores.device).expand_as(scores)
    if rules.top_k is not None or rules.top_p is not None:
        scores, words = scores.topk(min(rules.top_k or num_words, num_words))
    p = scores.softmax(dim=-1)
    if rules.top_p is not None:
        p = p.masked_fill(p.cumsum(dim=-1) - p >= rules.top_p, 0.0)
    return words, p


def draw(log_probs: Tensor, u: Tensor, rules: SamplingRules) -> Tensor:
    """Return a word for each row (R,), given uniform numbers u (R,) in [0, 1)."""
    words, p = choices(log_probs, rules)
    below = p.cumsum(dim=-1)
    total = below[:, -1:].contiguous()
    place = torch.searchsorted(below, u[:, None] * total, right=True)
    # If u was rounded to 1, take the last word with nonzero probability.
    last = torch.searchsorted(below, total).clamp_max(words.shape[1] - 1)
    return words.gather(1, torch.minimum(place, last)).squeeze(1)


def _hypotheses(samples: Sequence[_Draft], length: int, rules: SearchRules) -> list[Hypothesis]:
    """Return the samples of a sentence with `length` source tokens, best score first."""
    found = []
    for draft in samples:
        log_prob = sum(draft.log_probs)
        if math.isfinite(log_prob):
            alpha, own = np.stack(draft.alphas)[:, :length], (draft.ids, log_prob, draft.log_probs)
            found.append(Hypothesis.scored(*own, alpha, rules, rules.eos))
    return sorted(found, key=lambda h: -h.score)
