"""Scores of translations, each with the signature that says how it was made."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from seq2seq.data.word_vocabulary import Moses
from seq2seq.run.errors import ConfigError, DataError, PlatformError

TOKENISED = "BLEU, tokenised"

_DOWNLOADED = {"spm", "flores101", "flores200"}
"""Tokenizers that sacreBLEU fetches from the network when they are named."""

SAMPLES = 1000
"""Bootstrap samples of an interval."""

MOST_SENTENCES = 5000
"""sacreBLEU holds all samples at once; with so many sentences that is half a GB."""


@dataclass(frozen=True)
class Score:
    """A number that cannot be shown without how it was made."""

    name: str
    value: float
    signature: str
    low: float | None = None  # of the 95% bootstrap interval; None in scores of before
    high: float | None = None

    @property
    def interval(self) -> str:
        """`20.1-22.3`; nothing if there is none."""
        return "" if self.low is None or self.high is None else f"{self.low:.2f}-{self.high:.2f}"

    def __str__(self) -> str:
        shown = f" [{self.interval}]" if self.interval else ""
        return f"{self.name} {self.value:.2f}{shown} ({self.signature})"


@dataclass(frozen=True)
class Scores:
    """All scores of one set of translations."""

    num_sentences: int
    scores: tuple[Score, ...]

    def __getitem__(self, name: str) -> Score:
        return next(score for score in self.scores if score.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "sentences": self.num_sentences,
            "scores": {
                s.name: {"value": s.value, "signature": s.signature, "low": s.low, "high": s.high}
                for s in self.scores
            },
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Scores":
        """Read what `as_dict` gave."""
        scores = values["scores"].items()
        return cls(
            values["sentences"],
            tuple(
                Score(name, s["value"], s["signature"], s.get("low"), s.get("high"))
                for name, s in scores
            ),
        )

    def as_table(self) -> str:
        """Return an aligned table: metric, value, interval where there is one, signature."""
        rows = [("metric", "score", "95% interval", "signature")]
        rows += [(s.name, f"{s.value:.2f}", s.interval, s.signature) for s in self.scores]
        if not any(s.interval for s in self.scores):
            rows = [(name, value, "", signature) for name, value, _, signature in rows]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(
            f"{a:<{widths[0]}}  {b:>{widths[1]}}  {f'{c:<{widths[2]}}  ' if widths[2] else ''}{d}"
            for a, b, c, d in rows
        )


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenizer: str,
    language: str | None = None,
) -> Scores:
    """Score detokenised text with sacreBLEU: BLEU, chrF, TER; and BLEU of its Moses tokens.

    Args:
        hypotheses: One translation a line.
        references: One reference a line.
        tokenizer: sacreBLEU's tokenizer for BLEU, 13a for most languages.
        language: Of the text, for the tokenised BLEU; None leaves that out.

    Raises:
        DataError: different numbers of lines, or none. sacreBLEU's Python interface would score
            what it gets.
        ConfigError: unknown tokenizer.
        PlatformError: the tokenizer needs a package that is missing.
    """
    from sacrebleu.metrics import CHRF, TER

    bleus = score_bleu(hypotheses, references, tokenizer, language)
    others = (_measure(metric, hypotheses, references) for metric in (CHRF(), TER()))
    return Scores(len(references), (*bleus.scores, *others))


def score_bleu(
    hypotheses: Sequence[str], references: Sequence[str], tokenizer: str, language: str | None
) -> Scores:
    """Score with BLEU alone, both kinds; arguments and errors are those of `score`."""
    check_lines(hypotheses, references)
    detokenised = _measure(bleu_metric(tokenizer), hypotheses, references)
    if language is None:
        return Scores(len(references), (detokenised,))
    tokenised = tokenised_bleu(hypotheses, references, language)
    return Scores(len(references), (detokenised, tokenised))


def _measure(metric: Any, hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Score with a 95% bootstrap interval; the signature is that of the score alone.

    The interval is the mean of the samples -/+ half of their central 95%, as sacreBLEU gives it,
    which draws from seed 12345, or from what SACREBLEU_SEED says. It comes from the paired test of
    a single system: `corpus_score(n_bootstrap=...)` fails where some samples score 0.
    """
    if len(references) > MOST_SENTENCES:
        found = metric.corpus_score(list(hypotheses), [list(references)])
        return Score(_plain(found.name), float(found.score), str(metric.get_signature()))
    system = ("", list(hypotheses))
    _, rows = paired_test([system], {"": metric}, references, "bs", SAMPLES)
    [(name, [one])] = [(key, row) for key, row in rows.items() if key != "System"]
    low, high = float(one.mean - one.ci), float(one.mean + one.ci)
    return Score(_plain(name), float(one.score), str(metric.get_signature()), low, high)


def paired_test(
    systems: list[tuple[str, list[str]]],
    metrics: dict[str, Any],
    references: Sequence[str],
    kind: str,
    samples: int = 0,
) -> Any:
    """Run sacreBLEU's paired test, which would tell on the root logger that it has begun.

    Args:
        systems: Names and translations.
        metrics: By any name.
        references: One a line.
        kind: `bs` or `ar`.
        samples: How many; 0 leaves it to sacreBLEU.
    """
    from sacrebleu.significance import PairedTest

    logger = logging.getLogger("sacrebleu")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        test = PairedTest(systems, metrics, [list(references)], test_type=kind, n_samples=samples)
        return test()
    finally:
        logger.setLevel(before)


def _plain(name: str) -> str:
    """Return the name of a metric: chrF2 says its beta, and the signature has it too."""
    return name.rstrip("0123456789+")


def check_lines(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Refuse what cannot be scored; see `score`."""
    if len(hypotheses) != len(references):
        raise DataError(
            "scoring",
            f"{len(hypotheses)} translations, {len(references)} references",
            "Give one reference for each translation.",
        )
    if not references:
        raise DataError("scoring", "no sentences", "Give at least one.")


def tokenised_bleu(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Score:
    """Return BLEU between Moses tokens, cased, without smoothing: what multi-bleu.perl computes.

    The usual assumption about Table 1, which names no script. Translations are detokenised text
    and are tokenised anew, as the references are; nothing is escaped.
    """
    from sacrebleu.metrics import BLEU

    moses = Moses(language)
    tokens = ([" ".join(moses.words(t)) for t in texts] for texts in (hypotheses, references))
    # force: or sacreBLEU would warn that this looks tokenised.
    metric = BLEU(tokenize="none", smooth_method="none", force=True)
    found = _measure(metric, next(tokens), next(tokens))
    rules = f"tokens:moses-{language}.{version('sacremoses')}"
    return replace(found, name=TOKENISED, signature=f"{rules}|{found.signature}")


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> float:
    """Return BLEU alone, for validation while training; the same as `score` gives."""
    found = bleu_metric(tokenizer).corpus_score(list(hypotheses), [list(references)])
    return float(found.score)


def bleu_metric(tokenizer: str) -> Any:
    """Return sacreBLEU's BLEU; raises what `score` raises for a tokenizer."""
    from sacrebleu.metrics import BLEU

    known = set(BLEU.TOKENIZERS) - _DOWNLOADED
    if tokenizer not in known:
        raise ConfigError(
            "config",
            f"evaluate.bleu_tokenizer={tokenizer!r} is unknown",
            f"Choose one of: {', '.join(sorted(known))}.",
        )
    try:
        return BLEU(tokenize=tokenizer)
    except (ImportError, RuntimeError):  # of the tokenizers for Japanese and Korean
        raise PlatformError(
            "sacrebleu",
            f"a package for evaluate.bleu_tokenizer={tokenizer!r} is missing",
            f"pip install 'sacrebleu[{tokenizer[:2]}]'",
        ) from None
