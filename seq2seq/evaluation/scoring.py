"""Scores of translations by sacreBLEU, each with the signature that says how it was made."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from seq2seq.cli.console import table
from seq2seq.data.word_vocabulary import Moses
from seq2seq.run.errors import ConfigError, DataError, PlatformError

TOKENISED = "BLEU, tokenised"

_DOWNLOADED = {"spm", "flores101", "flores200"}
"""Tokenizers that sacreBLEU fetches from the network when they are named."""

SAMPLES = 1000
"""Bootstrap samples of an interval."""

MAX_SENTENCES = 5000
"""sacreBLEU holds all samples at once: half a GB for this many sentences."""


@dataclass(frozen=True)
class Score:
    """A number and how it was made."""

    value: float
    signature: str
    low: float | None = None  # of the 95% bootstrap interval; none above `MAX_SENTENCES`
    high: float | None = None

    @property
    def interval(self) -> str:
        """`20.10-22.30`; nothing if there is none."""
        return "" if self.low is None or self.high is None else f"{self.low:.2f}-{self.high:.2f}"


@dataclass(frozen=True)
class Scores:
    """All scores of one set of translations."""

    sentences: int
    scores: Mapping[str, Score]  # by metric

    def as_table(self) -> str:
        """Return an aligned table: metric, value, interval where there is one, signature."""
        rows = (
            [name, f"{score.value:.2f}", score.interval, score.signature]
            for name, score in self.scores.items()
        )
        return table(rows, ["metric", "score", "95% interval", "signature"], "lrl")


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenizer: str,
    language: str | None = None,
) -> Scores:
    """Score detokenised text with BLEU, chrF and TER, and the BLEU of its Moses tokens.

    Args:
        hypotheses: One a line.
        references: One a line.
        tokenizer: sacreBLEU's for BLEU, 13a for most languages.
        language: Of the text, for the tokenised BLEU; None leaves that out.

    Raises:
        DataError: different numbers of lines, or none. sacreBLEU's Python interface would score
            what it gets.
        ConfigError: unknown tokenizer.
        PlatformError: the tokenizer needs a package that is missing.
    """
    from sacrebleu.metrics import CHRF, TER

    scores = dict(score_bleu(hypotheses, references, tokenizer, language).scores)
    for name, metric in (("chrF", CHRF()), ("TER", TER())):
        scores[name] = _score(metric, hypotheses, references)
    return Scores(len(references), scores)


def score_bleu(
    hypotheses: Sequence[str], references: Sequence[str], tokenizer: str, language: str | None
) -> Scores:
    """Score with BLEU alone, both kinds; arguments and errors are those of `score`."""
    check_lines(hypotheses, references)
    scores = {"BLEU": _score(bleu_metric(tokenizer), hypotheses, references)}
    if language is not None:
        scores[TOKENISED] = tokenised_bleu(hypotheses, references, language)
    return Scores(len(references), scores)


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
    found = _score(metric, next(tokens), next(tokens))
    rules = f"tokens:moses-{language}.{version('sacremoses')}"
    return replace(found, signature=f"{rules}|{found.signature}")


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> float:
    """Return BLEU alone, for validation while training; the same as `score` gives."""
    found = bleu_metric(tokenizer).corpus_score(list(hypotheses), [list(references)])
    return float(found.score)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Return chrF alone, as `bleu` does."""
    from sacrebleu.metrics import CHRF

    return float(CHRF().corpus_score(list(hypotheses), [list(references)]).score)


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


def _score(metric: Any, hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Score as `bootstrap` does, with the signature of the score alone."""
    found = bootstrap(metric, hypotheses, references)
    return replace(found, signature=str(metric.get_signature()))


def bootstrap(metric: Any, hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Score with a metric of sacreBLEU and a 95% interval, of which the signature tells, too.

    The interval is the mean of the samples -/+ half of their central 95%, as sacreBLEU gives it,
    which draws from seed 12345, or from what SACREBLEU_SEED says. It comes from the paired test of
    a single system: `corpus_score(n_bootstrap=...)` fails where some samples score 0.
    """
    if len(references) > MAX_SENTENCES:
        found = metric.corpus_score(list(hypotheses), [list(references)])
        return Score(float(found.score), str(metric.get_signature()))
    signatures, results = paired_test({"": hypotheses}, {"": metric}, references, "bs", SAMPLES)
    [signature], [[one]] = signatures.values(), results.values()
    return Score(float(one.score), signature, float(one.mean - one.ci), float(one.mean + one.ci))


def paired_test(
    systems: Mapping[str, Sequence[str]],
    metrics: Mapping[str, Any],
    references: Sequence[str],
    kind: str,
    samples: int = 0,  # as many as sacreBLEU finds right
) -> tuple[dict[str, str], dict[str, Any]]:
    """Run a paired test of sacreBLEU, `bs` or `ar`, without what it says on the root logger.

    Returns:
        By metric its signature, and a result for each system.
    """
    from sacrebleu.significance import PairedTest

    # It announces itself on the root logger at each call.
    named = [(name, list(lines)) for name, lines in systems.items()]
    logger = logging.getLogger("sacrebleu")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        test = PairedTest(named, metrics, [list(references)], test_type=kind, n_samples=samples)
        signatures, results = test()
    finally:
        logger.setLevel(before)
    # sacreBLEU calls chrF "chrF2" after its beta, which its signature has, too.
    names = {key: key.rstrip("0123456789+") for key in signatures}
    return (
        {name: str(signatures[key]) for key, name in names.items()},
        {name: results[key] for key, name in names.items()},
    )
