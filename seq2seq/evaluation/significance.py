"""Whether a difference between systems is more than chance: sacreBLEU's two paired tests.

Both ask how often a difference as large would come about by itself: among test sets drawn again
from this one (paired bootstrap, Koehn 2004), and among pairs of systems that swap sentences at
random (approximate randomisation, Riezler & Maxwell 2005).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from seq2seq.evaluation.scoring import bleu_metric, check_lines, paired_test
from seq2seq.run.errors import printable

TESTS = {"bootstrap": "bs", "randomisation": "ar"}
"""What the tests are called here and by sacreBLEU, which sets their numbers of samples."""


@dataclass(frozen=True)
class Compared:
    """A system's score, and how it differs from the first system's."""

    name: str
    value: float
    low: float  # of the 95% bootstrap interval
    high: float
    p: Mapping[str, float]  # by test; none for the first system, 1 where the scores are equal


@dataclass(frozen=True)
class Comparison:
    """Systems by one metric."""

    metric: str
    systems: tuple[Compared, ...]
    signatures: Mapping[str, str]  # by test

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "systems": [asdict(system) for system in self.systems],
            "signatures": dict(self.signatures),
        }


def compare(
    systems: Mapping[str, Sequence[str]], references: Sequence[str], tokenizer: str
) -> list[Comparison]:
    """Compare systems with the first of them by BLEU, chrF and TER, on detokenised text.

    The same input gives the same numbers: sacreBLEU draws from seed 12345, or from what
    SACREBLEU_SEED says, and its signatures tell.

    Args:
        systems: Translations by the name of who made them, two or more.
        references: Of the sentences that all of them translated.
        tokenizer: sacreBLEU's tokenizer for BLEU.

    Raises:
        DataError: different numbers of lines, or none.
        ConfigError: unknown tokenizer.
        PlatformError: the tokenizer needs a package that is missing.
    """
    from sacrebleu.metrics import CHRF, TER

    for lines in systems.values():
        check_lines(lines, references)
    named = [(name, list(lines)) for name, lines in systems.items()]
    ran = {}
    for test, kind in TESTS.items():
        metrics = {"BLEU": bleu_metric(tokenizer), "chrF": CHRF(), "TER": TER()}
        ran[test] = paired_test(named, metrics, references, kind)
    signatures, found = ran["bootstrap"]
    return [
        Comparison(
            metric=key.rstrip("0123456789+"),
            systems=tuple(
                Compared(
                    name=name,
                    value=float(result.score),
                    low=float(result.mean - result.ci),
                    high=float(result.mean + result.ci),
                    p={t: _p(rows[key], i) for t, (_, rows) in ran.items() if i},
                )
                for i, (name, result) in enumerate(zip(systems, found[key], strict=True))
            ),
            signatures={test: str(signed[key]) for test, (signed, _) in ran.items()},
        )
        for key in signatures
    ]


def as_table(found: Sequence[Comparison]) -> str:
    """Return aligned tables, one a metric, with what the numbers mean below."""
    blocks = []
    for comparison in found:
        first = comparison.systems[0]
        rows = [
            [
                comparison.metric,
                "score",
                "95% interval",
                "difference",
                *(f"p, {test}" for test in TESTS),
            ]
        ]
        for system in comparison.systems:
            row = [system.name, f"{system.value:.2f}", f"{system.low:.2f}-{system.high:.2f}"]
            if system is not first:
                row += [f"{system.value - first.value:+.2f}"]
                row += [f"{system.p[test]:.4f}" for test in TESTS]
            rows.append([*row, *[""] * (len(rows[0]) - len(row))])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        blocks += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        blocks += [f"{test}: {s}" for test, s in comparison.signatures.items()]
        blocks.append("")
    blocks.append(
        "p: how often chance alone makes a difference as large from the first; below 0.05 is "
        "usually called significant."
    )
    return "\n".join(map(printable, blocks))


def _p(results: Sequence[Any], system: int) -> float:
    """Return p of a system; 1 without a difference, where sacreBLEU counts only larger ones."""
    if results[system].score == results[0].score:
        return 1.0
    return float(results[system].p_value)
