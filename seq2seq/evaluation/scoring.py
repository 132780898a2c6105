"""Scores translations with sacreBLEU; each score carries its signature.

What counts as a word depends on the language, by `data/languages.py`; for a language without a
known code it depends on the script of the references.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import regex

from seq2seq.cli.console import table
from seq2seq.data.languages import bleu_tokenizers, is_spaced, unspaced_script
from seq2seq.data.word_vocabulary import Moses
from seq2seq.run.errors import ConfigError, DataError, PlatformError

TOKENISED = "BLEU, tokenised"
LOWER_CASED = "BLEU, lower-cased tokenised"

_FETCHED = ("flores200", "flores101", "spm", "spBLEU-1K")
"""Tokenizers whose models sacreBLEU downloads: never downloaded here, but used if present."""

_SAMPLE = 100  # number of references that determine the script of a language without a known code

log = logging.getLogger(__name__)

References = Sequence[Sequence[str | None]]
"""Lists of references, one per line each; None where a line has fewer than others."""

SAMPLES = 1000  # bootstrap samples for an interval
MAX_SENTENCES = 5000
"""Limit for intervals. sacreBLEU holds all samples at once: half a GB for this many sentences."""


@dataclass(frozen=True)
class Score:
    """A score and its sacreBLEU signature."""

    value: float
    signature: str
    low: float | None = None  # of the 95% bootstrap interval; None above `MAX_SENTENCES`
    high: float | None = None

    @property
    def interval(self) -> str:
        """`20.10-22.30`; empty if there is no interval."""
        return "" if self.low is None or self.high is None else f"{self.low:.2f}-{self.high:.2f}"


@dataclass(frozen=True)
class Scores:
    """All scores of one set of translations."""

    sentences: int
    scores: Mapping[str, Score]  # by metric

    def as_table(self) -> str:
        """Return an aligned table: metric, value, interval if there is one, signature."""
        rows = (
            [name, f"{score.value:.2f}", score.interval, score.signature]
            for name, score in self.scores.items()
        )
        return table(rows, ["metric", "score", "95% interval", "signature"], "lrl")


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenizer: str | None = None,
    language: str = "",
    more_references: Sequence[Sequence[str]] = (),
) -> Scores:
    """Score detokenised text with BLEU, chrF and TER, and if possible with word-based metrics.

    The tokenizer is sacreBLEU's for BLEU, by default that of the language. Without the code of a
    language, or if Moses cannot split it into words, there is no tokenised BLEU and no chrF++.

    Raises:
        DataError: different numbers of lines, or none. sacreBLEU's Python interface would score
            them anyway.
        ConfigError: unknown tokenizer.
        PlatformError: the tokenizer needs a package that is missing.
    """
    from sacrebleu.metrics import CHRF

    more = more_references
    scores = dict(score_bleu(hypotheses, references, tokenizer, language, more).scores)
    metrics = word_free_metrics(language, references)
    if TOKENISED in scores:
        lower = tokenised_bleu(hypotheses, references, language, *more, lowercase=True)
        scores[LOWER_CASED] = lower
        metrics["chrF++"] = CHRF(word_order=2)
    for name, metric in metrics.items():
        scores[name] = score_by(metric, hypotheses, references, *more)
    return Scores(len(references), scores)


def word_free_metrics(language: str, references: Sequence[str]) -> dict[str, Any]:
    """Return sacreBLEU's chrF, and its TER with the segmentation that the script needs.

    TER counts words. sacreBLEU's Asian support splits Chinese and Japanese into characters; in
    other scripts without spaces TER here counts characters, too, as its signature says.
    """
    from sacrebleu.metrics import CHRF, TER

    script = unspaced_script(language, sample_of(references))
    asian = script in ("Han", "Bopomofo", "Hiragana", "Katakana")
    ter = TER(normalized=asian, asian_support=asian)
    if script and not asian:
        cut = ter.tokenizer
        ter.tokenizer = lambda line: cut(" ".join(regex.findall(r"\X", line)))
        ter.tokenizer_signature = "char"
    return {"chrF": CHRF(), "TER": ter}


def score_bleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenizer: str | None,
    language: str,
    more_references: Sequence[Sequence[str]] = (),
) -> Scores:
    """Score with both kinds of BLEU only; arguments and errors are those of `score`."""
    for each in (references, *more_references):
        check_lines(hypotheses, each)
    metric = bleu_metric(tokenizer, language, references)
    scores = {"BLEU": score_by(metric, hypotheses, references, *more_references)}
    if language and is_spaced(language, sample_of(references)):
        scores[TOKENISED] = tokenised_bleu(hypotheses, references, language, *more_references)
    return Scores(len(references), scores)


def tokenised_bleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    language: str,
    *more_references: Sequence[str],
    lowercase: bool = False,
) -> Score:
    """Return BLEU on Moses tokens, without smoothing, as multi-bleu.perl computes it.

    Cased is the usual assumption about Table 1, which names no script; publications on Multi30k
    report lower-cased. Translations and references are detokenised text, tokenised here without
    escaping.
    """
    from sacrebleu.metrics import BLEU

    texts = (hypotheses, references, *more_references)
    tokens = [[_moses_tokens(language, line) for line in lines] for lines in texts]
    # force: otherwise sacreBLEU warns that the text looks tokenised.
    metric = BLEU(tokenize="none", smooth_method="none", force=True, lowercase=lowercase)
    found = score_by(metric, *tokens)
    rules = f"tokens:moses-{language}.{version('sacremoses')}"
    return replace(found, signature=f"{rules}|{found.signature}")


@lru_cache(maxsize=2 * MAX_SENTENCES)  # each line is tokenised for several scores
def _moses_tokens(language: str, line: str) -> str:
    return " ".join(_moses(language).words(line))


@cache
def _moses(language: str) -> Moses:
    return Moses(language)


class Against:
    """BLEU and chrF alone against references that stay the same, as in validation.

    What is counted in the references, half of the work, is kept: 400 bytes per character. Values
    equal those of `score`, whose arguments these are.
    """

    def __init__(
        self, references: Sequence[str], tokenizer: str | None = None, language: str = ""
    ) -> None:
        from sacrebleu.metrics import CHRF

        self._bleu, self._chrf = bleu_metric(tokenizer, language, references), CHRF()
        for metric in (self._bleu, self._chrf):
            metric._ref_cache = metric._cache_references([list(references)])

    def bleu(self, hypotheses: Sequence[str]) -> float:
        """Return BLEU."""
        return float(self._bleu.corpus_score(list(hypotheses), None).score)

    def chrf(self, hypotheses: Sequence[str]) -> float:
        """Return chrF."""
        return float(self._chrf.corpus_score(list(hypotheses), None).score)


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenizer: str | None = None,
    language: str = "",
) -> float:
    """Return BLEU alone; equal to the BLEU of `score`."""
    metric = bleu_metric(tokenizer, language, references)
    return float(metric.corpus_score(list(hypotheses), [list(references)]).score)


def bleu_metric(
    tokenizer: str | None = None, language: str = "", references: Sequence[str] = ()
) -> Any:
    """Return sacreBLEU's BLEU metric; arguments and errors are those of `score`."""
    from sacrebleu.metrics import BLEU

    # The first tokenizer for the language that is installed
    if tokenizer is None:
        names = bleu_tokenizers(language, sample_of(references))
        tokenizer = next(filter(_is_there, names))
        if tokenizer != names[0]:
            _say_missing(names[0], tokenizer)
    # A tokenizer that can be used
    known = {name for name in BLEU.TOKENIZERS if name not in _FETCHED or _is_there(name)}
    if tokenizer not in known:
        what = f"evaluate.bleu_tokenizer={tokenizer!r} is unknown"
        raise ConfigError("config", what, f"Choose one of: {', '.join(sorted(known))}.")
    try:
        return BLEU(tokenize=tokenizer)
    except (ImportError, RuntimeError):  # from the tokenizers for Japanese and Korean
        what = f"a package for evaluate.bleu_tokenizer={tokenizer!r} is missing"
        fix = f"pip install 'sacrebleu[{tokenizer[:2]}]'"
        raise PlatformError("sacrebleu", what, fix) from None


@cache
def _say_missing(wanted: str, taken: str) -> None:
    fix = f" (pip install 'sacrebleu[{wanted[:2]}]')" if "mecab" in wanted else ""
    log.warning("BLEU by the tokenizer %s, as %s is missing%s", taken, wanted, fix)


def _is_there(name: str) -> bool:
    from sacrebleu.metrics import BLEU
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
    from sacrebleu.utils import SACREBLEU_DIR

    if name in _FETCHED:
        return (Path(SACREBLEU_DIR) / "models" / Path(SPM_MODELS[name]["url"]).name).exists()
    with suppress(ImportError, RuntimeError):
        return bool(BLEU(tokenize=name))
    return False


def sample_of(references: Sequence[str]) -> str:
    """Return enough of a text to determine its script."""
    return " ".join(references[:_SAMPLE])


def check_lines(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Check that the numbers of lines can be scored; see `score`."""
    if len(hypotheses) != len(references):
        what = f"{len(hypotheses)} translations, {len(references)} references"
        raise DataError("scoring", what, "Give one reference for each translation.")
    if not references:
        raise DataError("scoring", "no sentences", "Give at least one.")


def score_by(metric: Any, hypotheses: Sequence[str], *references: Sequence[str | None]) -> Score:
    """Score like `bootstrap`, but with a signature that leaves out the interval."""
    found = bootstrap(metric, hypotheses, *references)
    return replace(found, signature=str(metric.get_signature()))


def bootstrap(metric: Any, hypotheses: Sequence[str], *references: Sequence[str | None]) -> Score:
    """Score with a sacreBLEU metric and a 95% interval, both described by the signature."""
    statistics = statistics_of(metric, hypotheses, *references)
    found = metric._aggregate_and_compute(statistics)
    signature = metric.get_signature()
    if len(hypotheses) > MAX_SENTENCES:
        return Score(float(found.score), str(signature))
    seed, low, high = interval(metric, statistics)
    signature.update("seed", seed)
    signature.update("bs", SAMPLES)
    return Score(float(found.score), str(signature), low, high)


def statistics_of(
    metric: Any, hypotheses: Sequence[str], *references: Sequence[str | None]
) -> list[Any]:
    """Return what a sacreBLEU metric counts in each line: nearly all the time that scoring takes.

    The score and all samples of a bootstrap follow from it.
    """
    lists = [list(lines) for lines in references]
    found: list[Any] = metric._extract_corpus_statistics(list(hypotheses), lists)
    return found


def interval(metric: Any, statistics: Sequence[Any]) -> tuple[str, float, float]:
    """Return the seed of the bootstrap samples and the bounds of a 95% interval.

    sacreBLEU draws the samples, from seed 12345 or SACREBLEU_SEED. Its own interval is their mean
    -/+ half the width of their central 95%, which can leave the range of a score; this is the
    central 95% itself. Its `corpus_score(n_bootstrap=...)` fails if some samples score 0.
    """
    from sacrebleu.significance import _bootstrap_resample

    seed, samples = _bootstrap_resample(list(statistics), metric, SAMPLES)
    scores = sorted(sample.score for sample in samples)
    cut = len(scores) // 40
    # Rounded, because sums of logarithms turn a perfect score into 100.00000000000004.
    return seed, round(float(scores[cut]), 10), round(float(scores[-1 - cut]), 10)


def paired_test(
    systems: Mapping[str, Sequence[str]],
    metrics: Mapping[str, Any],
    references: References,
    kind: str,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Run a paired test of sacreBLEU, `bs` or `ar`, without its log messages.

    Returns:
        By metric, the signature, and the results of all systems.
    """
    from sacrebleu.significance import PairedTest

    named = [(name, list(lines)) for name, lines in systems.items()]
    lists, logger = [*map(list, references)], logging.getLogger("sacrebleu")
    before = logger.level
    logger.setLevel(logging.WARNING)  # it logs a message at each call
    try:
        signatures, results = PairedTest(named, metrics, lists, kind)()
    finally:
        logger.setLevel(before)
    # sacreBLEU calls chrF "chrF2" by its beta; the signature has it, too.
    names = {key: key.rstrip("0123456789+") for key in signatures}
    return (
        {name: str(signatures[key]) for key, name in names.items()},
        {name: results[key] for key, name in names.items()},
    )
