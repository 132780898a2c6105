"""Reranking: more models score the translations of a search; the weights are tuned for BLEU.

The score of a translation is a weighted sum of features: the score of the search, the length in
words, and log-probabilities from forced decoding with other models. These may write right to left
(Liu et al. 2016), translate in the opposite direction, or be a language model, which is a model
whose source is always the same. Minimum error rate training (Och 2003) tunes the weights by exact
line search over every point where one translation overtakes another.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2seq.data.lengths import Length
from seq2seq.data.text import read_lines
from seq2seq.data.words import count_words, is_blank
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.evaluation.scoring import check_lines
from seq2seq.run.errors import DataError, UsageError
from seq2seq.run.reading import expected, read_json

Floats = NDArray[np.float64]

SCORE, WORDS = "score", "words"
NOTHING = "."  # the source of every sentence of a language model

Scorer = StrEnum("Scorer", "forward reverse language_model")
STARTS, SEED = 10, 1  # number of random starts of the weight search, and their seed


@dataclass
class NBest:
    """The translations of a line, in the order of the search, and the features of each."""

    source: str
    texts: list[str] = field(default_factory=list)
    features: dict[str, list[float]] = field(default_factory=lambda: {SCORE: [], WORDS: []})

    def add(self, text: str, score: float) -> None:
        """Add a translation; blank ones cannot be scored and are left out.

        Raises:
            ValueError: it is a translation of a blank sentence, which no model can score.
        """
        if not is_blank(text):
            if is_blank(self.source):
                raise ValueError(text)
            self.texts.append(text)
            self.features[SCORE].append(score)
            self.features[WORDS].append(Length("", count_words).in_words(text))

    def order(self, weights: Mapping[str, float]) -> list[tuple[float, int]]:
        """Return score and index of each translation, best first; ties keep their order."""
        totals = np.zeros(len(self.texts))
        for name, weight in weights.items():  # in this order, on which the last digit depends
            totals += weight * np.array(self.features[name])
        return [(float(totals[i]), int(i)) for i in np.argsort(-totals, kind="stable")]

    def best(self, weights: Mapping[str, float]) -> str:
        """Return the best translation; the empty string if there is none."""
        return self.texts[self.order(weights)[0][1]] if self.texts else ""

    def as_dict(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Return plain values for JSON."""
        hypotheses = [
            {"text": self.texts[i], "score": total}
            | {"features": {name: values[i] for name, values in self.features.items()}}
            for total, i in self.order(weights)
        ]
        return {"source": self.source, "text": self.best(weights), "hypotheses": hypotheses}


def read_nbest(path: Path, source: Path | None = None) -> list[NBest]:
    """Read n-best lists written by `decode.py`: JSON lines or, with the source text, `nbest`.

    Raises:
        DataError: the file has another format.
    """
    texts = [] if source is None else read_lines(source)
    lists = {number: NBest(text) for number, text in enumerate(texts, start=1)}
    for number, line in enumerate(read_lines(path), start=1):
        try:
            # A line of JSON has a sentence and its list; one of `nbest`, an entry of a list.
            if source is None:
                row = json.loads(line)
                own = lists[number] = NBest(row["source"])
                for h in row["hypotheses"]:
                    own.add(h["text"], float(h["score"]))
            elif line:
                place, score, text = line.split("\t")
                lists[int(place)].add(text, float(score))
        except (ValueError, LookupError, TypeError):
            fix = (
                "Write it with decode.py --format jsonl, or with --format nbest and give --source."
            )
            raise DataError(f"{path}:{number}", "is not part of an n-best list", fix) from None
    return list(lists.values())


def add_scores(
    lists: Sequence[NBest], scorer: Scorer, model: Pretrained, target_language: str | None = None
) -> None:
    """Add a feature: a model's log-probability (nats) of each translation.

    `target_language` is required if the model has several.
    """
    each = ((own.source, text) for own in lists for text in own.texts)
    pairs = {
        Scorer.forward: each,
        Scorer.reverse: ((text, source) for source, text in each),
        Scorer.language_model: ((NOTHING, text) for _, text in each),
    }
    found = model.force(pairs[scorer], target_language=target_language)
    for own in lists:
        names = [name for name in own.features if name.startswith(scorer)]
        name = f"{scorer}{len(names) + 1}" if names else str(scorer)
        own.features[name] = [next(found).candidates[0].log_prob for _ in own.texts]


# Weights ------------------------------------------------------------------------------------------


def read_weights(path: Path, lists: Sequence[NBest]) -> dict[str, float]:
    """Return the weights of a file that `tune` made; its features must be those of the lists."""
    with expected(path):
        weights = {name: float(w) for name, w in read_json(path)["weights"].items()}
    names = lists[0].features if lists else weights
    if weights.keys() != names.keys():
        what = f"has weights of {', '.join(weights)}; the features are {', '.join(names)}"
        raise UsageError(path, what, "Name the models that it was tuned with.")
    return weights


def tune(lists: Sequence[NBest], references: Sequence[str], metric: Any) -> dict[str, float]:
    """Return the weights with the highest BLEU found; their absolute values sum to 1.

    Starts from the search's own order and from `STARTS` random weights, and line-searches along
    each feature and random directions while BLEU improves. Deterministic. The lists are those of
    validation sentences, the metric is sacreBLEU's BLEU.
    """
    check_lines([own.source for own in lists], references)
    # Features are scaled to vary by 1, so that no direction is steeper than another.
    names = [*lists[0].features]
    surface = _Surface(lists, references, metric)
    size = surface.features.std(axis=(0, 1))
    surface.features /= (size := np.where(size > 0, size, 1.0))
    rng = np.random.default_rng(SEED)
    unit = np.eye(len(names))
    best, most = unit[names.index(SCORE)], -math.inf
    for start in (best, *rng.normal(size=(STARTS, len(names)))):
        w, value = start, surface.bleu(start)
        while True:
            directions = (*unit, *rng.normal(size=unit.shape))
            found = [surface.along(w, d) for d in directions]
            top = max(range(len(found)), key=lambda i: found[i][0])
            moved = w + found[top][1] * directions[top]
            moved /= np.abs(moved).max()
            if (reached := surface.bleu(moved)) <= value + 1e-9:
                break
            w, value = moved, reached
        if value > most:
            best, most = w, value
    weights = best / size
    return dict(zip(names, (weights / np.abs(weights).sum()).tolist(), strict=True))


class _Surface:
    """BLEU of the best translations, as a function of the weights.

    Attributes:
        features: (S, K, F); shorter lists are padded with their first translation.
        statistics: (S, K, 10); BLEU's counts: lengths of both sides, matching n-grams, n-grams.
    """

    def __init__(self, lists: Sequence[NBest], references: Sequence[str], metric: Any) -> None:
        longest = max(1, *(len(own.texts) for own in lists))
        texts, rows = [], []
        for own in lists:
            fill = [*range(len(own.texts)), *[0] * (longest - len(own.texts))]
            texts += [own.texts[i] if own.texts else "" for i in fill]
            rows.append([[x[i] if x else 0.0 for x in own.features.values()] for i in fill])
        repeated = [reference for reference in references for _ in range(longest)]
        counts = np.array(metric._extract_corpus_statistics(texts, [repeated]))
        self.features: Floats = np.array(rows, np.float64)
        self.statistics = counts.reshape(len(lists), longest, -1)
        self._lines = np.arange(len(lists))

    def bleu(self, w: Floats) -> float:
        """Return BLEU at the weights w (F,)."""
        chosen = (self.features @ w).argmax(axis=1)  # the first of equals
        return float(bleu_of(self.statistics[self._lines, chosen].sum(axis=0)[None])[0])

    def along(self, w: Floats, direction: Floats) -> tuple[float, float]:
        """Return the highest BLEU over weights w + t d, and t at the middle of its interval."""
        a, b, lines = self.features @ w, self.features @ direction, self._lines  # a + t b
        # At t = -inf the smallest slope leads; ties go to the highest intercept, then to the first.
        now = np.lexsort((-a, b), axis=-1)[:, 0]
        moments, changes = [np.empty(0)], [self.statistics[lines, now].sum(axis=0)[None]]
        # All lists at once: the first translation to overtake the leader becomes the leader.
        while True:
            gap = b - b[lines, now, None]
            with np.errstate(divide="ignore", invalid="ignore"):
                cross = np.where(gap > 0, (a[lines, now, None] - a) / gap, np.inf)
            at = cross.min(axis=1)
            then = np.where(cross == at[:, None], b, -np.inf).argmax(axis=1)
            goes_on = np.isfinite(at)
            if not goes_on.any():
                break
            difference = self.statistics[lines, then] - self.statistics[lines, now]
            moments.append(at[goes_on])
            changes.append(difference[goes_on])
            now = np.where(goes_on, then, now)
        t = np.concatenate(moments)
        if not len(t):
            return self.bleu(w), 0.0
        # Counts between two moments, in their order; the widest choice is the middle of the best.
        order = t.argsort(kind="stable")
        t = t[order]
        every = np.concatenate([changes[0], np.concatenate(changes[1:])[order]]).cumsum(axis=0)
        ends = np.array([t[0] - 2.0, *t, t[-1] + 2.0])
        wide = np.diff(ends) > 1e-9 * (1.0 + np.abs(ends[1:]))
        values = np.where(wide, bleu_of(every), -1.0)
        best = int(values.argmax())
        return float(values[best]), float(ends[best : best + 2].mean())


def bleu_of(sums: NDArray[Any]) -> Floats:
    """Return BLEU (N,) from summed counts (N, 10), with sacreBLEU's default smoothing."""
    length, expected_length = sums[:, 0], sums[:, 1]
    matches, total = sums[:, 2:6], sums[:, 6:]
    zeros = (matches == 0).cumsum(axis=1)  # the n-th order without a match counts as 2^-n
    precision = np.where(matches > 0, matches, 0.5**zeros) / np.maximum(total, 1)
    brevity = np.exp(np.minimum(0.0, 1.0 - expected_length / np.maximum(length, 1)))
    found = 100.0 * brevity * np.exp(np.log(precision).mean(axis=1))
    return np.where(matches.any(axis=1) & (total > 0).all(axis=1), found, 0.0)
