"""Exact match and error rates, for tasks where each source has one right answer, or a few.

Such tasks are spelling, pronunciation, transliteration, inflection, dates. An error rate is the
number of edits (insertions, deletions, substitutions) that turn outputs into their references, as a
percentage of the length of the references; symbols are what stands between spaces, such as
phonemes. The nearest of several references counts. So, with one word per line and its
pronunciations as references, 100 - exact match is the word error rate of the literature, and the
symbol error rate its phoneme error rate.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import regex

from seq2seq.config.schema import CharactersConfig, Config, SelectBy
from seq2seq.data.tokenizer import composed
from seq2seq.evaluation.scoring import References, Scores, score_by

RATES = (SelectBy.character_error_rate, SelectBy.symbol_error_rate)  # lower is better
NAMES = {by: by.name.replace("_", " ") for by in (SelectBy.exact_match, *RATES)}
"""Names of the metrics."""


def _characters(text: str) -> list[str]:
    found: list[str] = regex.findall(r"\X", composed(" ".join(text.split())))
    return found


class EditRate:
    """Edits per 100 units of the nearest reference: a metric as sacreBLEU's machinery knows it.

    `cut` splits a text into units, whose name goes into the signature.
    """

    def __init__(self, name: str, unit: str, cut: Callable[[str], list[str]]) -> None:
        self.name, self.unit, self.cut = name, unit, cut
        self._counts = {0}

    def get_signature(self) -> Any:
        """Return sacreBLEU's signature, with the unit."""
        from sacrebleu.metrics.base import Signature

        [*counts] = self._counts
        signature = Signature({"num_refs": counts[0] if len(counts) == 1 else -1})
        signature.update("unit", self.unit)
        return signature

    def corpus_score(self, hypotheses: Sequence[str], references: References) -> Any:
        """Return sacreBLEU's score of a text; references as in `References`."""
        return self._aggregate_and_compute(self._extract_corpus_statistics(hypotheses, references))

    def statistics(self, output: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
        """Return the edits to the nearest reference, of several the longest, and its length."""
        edits = ([edit_distance(output, reference), len(reference)] for reference in references)
        return min(edits, key=lambda both: (both[0], -both[1]))

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], references: References) -> Any:
        answers = [
            [text for text in row if text is not None] for row in zip(*references, strict=True)
        ]
        self._counts = {*map(len, answers)}
        lines = zip(hypotheses, answers, strict=True)
        return [self.statistics(self.cut(text), [*map(self.cut, row)]) for text, row in lines]

    def _aggregate_and_compute(self, stats: Any) -> Any:
        return self._compute_score_from_stats(np.sum(stats, axis=0))

    def _compute_score_from_stats(self, stats: Any) -> Any:
        from sacrebleu.metrics.base import Score

        count, total = map(float, stats)
        return Score(self.name, 100 * count / max(1.0, total))


class ExactMatch(EditRate):
    """The percentage of lines that equal a reference; runs of white space count as one space."""

    def statistics(self, output: Sequence[str], references: Sequence[Sequence[str]]) -> list[int]:
        """Return 1 if a reference is matched, else 0; and 1."""
        return [int(output in references), 1]


def metrics() -> dict[SelectBy, EditRate]:
    """Return the three metrics, by setting of `trainer.select_by`."""
    match, characters, symbols = NAMES
    return {
        match: ExactMatch(NAMES[match], "line", _characters),
        characters: EditRate(NAMES[characters], "character", _characters),
        symbols: EditRate(NAMES[symbols], "symbol", str.split),
    }


def score_exactness(hypotheses: Sequence[str], references: References) -> Scores:
    """Score with all three metrics."""
    scores = {m.name: score_by(m, hypotheses, *references) for m in metrics().values()}
    return Scores(len(hypotheses), scores)


def edit_distance(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Return the Levenshtein distance, exactly; sacreBLEU's own is a beam search."""
    ids: dict[str, int] = {}
    a, b = (np.array([ids.setdefault(x, len(ids)) for x in side]) for side in (ours, theirs))
    row = places = np.arange(len(b) + 1)
    for i, x in enumerate(a, start=1):
        best = np.minimum(row[1:] + 1, row[:-1] + (b != x))  # deletion; substitution or match
        # Insertions: each costs 1 from the cheapest place to the left.
        row = np.minimum.accumulate(np.concatenate(([i], best)) - places) + places
    return int(row[-1])


def by_source(
    sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
) -> tuple[list[str], References]:
    """Return each distinct source's output, and lists of all its references.

    A source that is given on several lines, each with one of its right answers, counts once.
    """
    answers: dict[str, dict[str, None]] = {}
    outputs: dict[str, str] = {}
    for source, output, reference in zip(sources, hypotheses, references, strict=True):
        answers.setdefault(source, {})[reference] = None
        outputs.setdefault(source, output)
    most = max(map(len, answers.values()))
    rows = [[*found, *[None] * (most - len(found))] for found in answers.values()]
    return list(outputs.values()), list(zip(*rows, strict=True))


def measure(
    sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
) -> dict[str, float]:
    """Return the values alone, by setting of `trainer.select_by`, for validation."""
    outputs, answers = by_source(sources, hypotheses, references)
    found = metrics().items()
    return {by.name: float(m.corpus_score(outputs, answers).score) for by, m in found}


def higher_better(by: SelectBy, value: float) -> float:
    """Return 100 minus an error rate, or the error rate of that; other metrics unchanged."""
    return 100 - value if by in RATES else value


def are_shown(cfg: Config) -> bool:
    """Whether these metrics suit the task of a run, as far as its settings say."""
    return isinstance(cfg.tokenizer, CharactersConfig) or cfg.trainer.select_by in NAMES
