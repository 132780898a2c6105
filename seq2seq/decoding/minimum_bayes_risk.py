"""Minimum Bayes risk: chooses the translation with which the others agree most.

Kumar & Byrne 2004, Minimum Bayes-Risk Decoding for Statistical Machine Translation, choose from an
n-best list; Eikema & Aziz 2020 (arXiv:2005.10283) choose from samples.
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
    """Return candidates with their utilities, highest first; a single candidate has none.

    The utility of a candidate of a line is its mean score against each of the others as reference.
    If `uniform`, as for samples, the others have equal weights, else weights by probability.
    Candidates of equal utility stay in their order.
    """
    if len(candidates) < 2:
        return tuple(candidates)
    score = cache(sentence_score(kind, [candidate.text for candidate in candidates]))
    found = []
    for candidate in candidates:
        others = [other for other in candidates if other is not candidate]
        most = max(other.log_prob for other in others)
        weights = [1.0 if uniform else math.exp(other.log_prob - most) for other in others]
        scores = [score(candidate.text, other.text) for other in others]
        mean = sum(map(float.__mul__, weights, scores)) / sum(weights)
        # Rounded, or the last bit, which batch mates may change, would order equal ones.
        found.append(replace(candidate, utility=round(mean, 9)))
    return tuple(sorted(found, key=lambda candidate: -(candidate.utility or 0.0)))


def sentence_score(
    kind: Utility, texts: Sequence[str] = (), tokenizer: str | None = None, language: str = ""
) -> Callable[[str, str], float]:
    """Return sacreBLEU's score, 0-100, of a text against another.

    BLEU's tokenizer is the one given, that of the language or, without one, of the script of texts.
    """
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    if kind is Utility.bleu:
        metric = bleu_metric(tokenizer, language, texts)
        metric.effective_order = True  # a sentence may have no 4-grams
    return lambda text, other: float(metric.sentence_score(text, [other]).score)
