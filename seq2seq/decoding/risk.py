"""Minimum Bayes risk: of several translations the one with which the others agree most.

Kumar & Byrne 2004, Minimum Bayes-Risk Decoding for Statistical Machine Translation, among the best
of a search; Eikema & Aziz 2020 (arXiv:2005.10283) among samples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

from seq2seq.config.schema import Utility
from seq2seq.decoding.translation import Candidate
from seq2seq.evaluation.scoring import bleu_metric


def by_utility(
    candidates: Sequence[Candidate], kind: Utility, *, uniform: bool
) -> tuple[Candidate, ...]:
    """Return candidates with their utilities, the greatest first; a single one has none.

    The utility is the mean of the scores that a candidate has with each other one as reference.

    Args:
        candidates: Of one line.
        kind: The score.
        uniform: Whether all others count alike, as samples do, or by their probabilities.
    """
    if len(candidates) < 2:
        return tuple(candidates)
    score = sentence_score(kind, [candidate.text for candidate in candidates])
    found = []
    for candidate in candidates:
        others = [other for other in candidates if other is not candidate]
        most = max(other.log_prob for other in others)
        weights = [1.0 if uniform else math.exp(other.log_prob - most) for other in others]
        scores = [score(candidate.text, other.text) for other in others]
        mean = sum(map(float.__mul__, weights, scores)) / sum(weights)
        found.append(replace(candidate, utility=mean))
    return tuple(sorted(found, key=lambda candidate: -(candidate.utility or 0.0)))


def sentence_score(kind: Utility, texts: Sequence[str]) -> Callable[[str, str], float]:
    """Return sacreBLEU's score of a text against another, 0-100; BLEU is cut as these texts ask."""
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    if kind is Utility.bleu:
        metric = bleu_metric(references=texts)
        metric.effective_order = True  # of one sentence: no longer n-grams than it has
    return cache(lambda text, other: float(metric.sentence_score(text, [other]).score))
