"""Tests whether systems differ by more than chance, with sacreBLEU's two paired tests.

Both ask how often a difference as large arises by chance: among test sets resampled from this one
(paired bootstrap, Koehn 2004), and among systems that swap sentences at random (approximate
randomisation, Riezler & Maxwell 2005).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seq2seq.cli.console import table
from seq2seq.evaluation import scoring
from seq2seq.evaluation.error_rates import by_source, metrics
from seq2seq.run.errors import printable

TESTS = {"bootstrap": "bs", "randomisation": "ar"}
"""Names of the tests, here and in sacreBLEU, which sets their numbers of samples."""

LEGEND = """\
p: how often chance alone makes a difference as large from the first; below 0.05 is usually called
significant."""


@dataclass(frozen=True)
class Compared:
    """A system's score, and its difference from the first system."""

    name: str
    value: float
    low: float  # of the 95% bootstrap interval
    high: float
    p: Mapping[str, float]  # by test; empty for the first system, 1 if the scores are equal


@dataclass(frozen=True)
class Comparison:
    """All systems by one metric."""

    systems: tuple[Compared, ...]
    signatures: Mapping[str, str]  # by test


def compare(
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    tokenizer: str | None = None,
    language: str = "",
    sources: Sequence[str] = (),
) -> dict[str, Comparison]:
    """Compare systems with the first of them by BLEU, chrF and TER, on detokenised text.

    The same input gives the same numbers: sacreBLEU draws from seed 12345 or SACREBLEU_SEED, which
    its signatures record. The tokenizer and the language are those of `score`. If the source
    sentences are given, exact match and error rates are compared, too.

    Raises:
        DataError: different numbers of lines, or none.
        ConfigError: unknown tokenizer.
        PlatformError: the tokenizer needs a package that is missing.
    """
    for lines in systems.values():
        scoring.check_lines(lines, references)

    def of_words() -> dict[str, Any]:
        bleu = {"BLEU": scoring.bleu_metric(tokenizer, language, references)}
        return bleu | scoring.word_free_metrics(language, references)

    found = _compared(systems, [references], of_words)
    if not sources:
        return found
    grouped = {name: by_source(sources, lines, references) for name, lines in systems.items()}
    outputs = {name: lines for name, (lines, _) in grouped.items()}
    answers = next(iter(grouped.values()))[1]
    exact = _compared(outputs, answers, lambda: {m.name: m for m in metrics().values()})
    return exact | found


def _compared(
    systems: Mapping[str, Sequence[str]],
    references: scoring.References,
    make: Callable[[], dict[str, Any]],
) -> dict[str, Comparison]:
    # p-values and scores
    signatures, results = {}, {}
    for test, kind in TESTS.items():
        # New metrics for each test: sacreBLEU writes its settings into their signatures.
        own = make()
        signatures[test], results[test] = scoring.paired_test(systems, own, references, kind)
    # Intervals
    found = {}
    for kind, metric in own.items():
        compared = []
        for i, (name, lines) in enumerate(systems.items()):
            value = float(results["bootstrap"][kind][i].score)
            statistics = scoring.statistics_of(metric, lines, *references)
            _, low, high = scoring.interval(metric, statistics)
            p = {test: _p(results[test][kind], i) for test in TESTS if i}
            compared.append(Compared(name, value, low, high, p))
        by_test = {test: signatures[test][kind] for test in TESTS}
        found[kind] = Comparison(tuple(compared), by_test)
    return found


def _p(results: Sequence[Any], system: int) -> float:
    """Return p of a system; 1 for equal scores, where sacreBLEU would only count larger ones."""
    if results[system].score == results[0].score:
        return 1.0
    return float(results[system].p_value)


def as_table(comparisons: Mapping[str, Comparison]) -> str:
    """Return aligned tables, one per metric, and a legend."""
    blocks = []
    for metric, comparison in comparisons.items():
        first, *others = comparison.systems
        rows = [_cells(first)]
        for system in others:
            difference = f"{system.value - first.value:+.2f}"
            rows.append([*_cells(system), difference, *(f"{p:.4f}" for p in system.p.values())])
        tests = (f"p, {test}" for test in TESTS)
        blocks.append(table(rows, [metric, "score", "95% interval", "difference", *tests]))
        blocks += [f"{test}: {signature}" for test, signature in comparison.signatures.items()]
        blocks.append("")
    return "\n".join([*blocks, LEGEND])


def _cells(system: Compared) -> list[str]:
    return [printable(system.name), f"{system.value:.2f}", f"{system.low:.2f}-{system.high:.2f}"]
