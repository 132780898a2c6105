"""Scores of translations, each with the signature that says how it was made."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from seq2seq.data.word_vocabulary import Moses
from seq2seq.errors import ConfigError, DataError, PlatformError

TOKENISED = "BLEU, tokenised"

_DOWNLOADED = {"spm", "flores101", "flores200"}
"""Tokenizers that sacreBLEU fetches from the network when they are named."""


@dataclass(frozen=True)
class Score:
    """A number that cannot be shown without how it was made."""

    name: str
    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f} ({self.signature})"


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
            "scores": {s.name: {"value": s.value, "signature": s.signature} for s in self.scores},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Scores":
        """Read what `as_dict` gave."""
        scores = values["scores"].items()
        return cls(
            values["sentences"],
            tuple(Score(name, s["value"], s["signature"]) for name, s in scores),
        )

    def as_table(self) -> str:
        """Return an aligned table: metric, value, signature."""
        rows = [("metric", "score", "signature")]
        rows += [(s.name, f"{s.value:.2f}", s.signature) for s in self.scores]
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c}" for a, b, c in rows)


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
    found = metric.corpus_score(list(hypotheses), [list(references)])
    name = found.name.rstrip("0123456789+")  # chrF2 says its beta; the signature has it too
    return Score(name, float(found.score), str(metric.get_signature()))


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
    found = metric.corpus_score(next(tokens), [next(tokens)])
    rules = f"tokens:moses-{language}.{version('sacremoses')}"
    return Score(TOKENISED, float(found.score), f"{rules}|{metric.get_signature()}")


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
