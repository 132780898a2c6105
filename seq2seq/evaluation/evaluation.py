"""What is measured on a test set, as `scores.json` holds it and as it is shown.

"No UNK" is the second column of the paper's Table 1: only the sentences without an unknown word
in source and reference, translated without emitting one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from seq2seq.alignment.gold import AttentionScores, GoldAlignment
from seq2seq.alignment.measures import NOT_MEASURED, Measures
from seq2seq.config.schema import Config, DecodeConfig
from seq2seq.data.tokenizer import UNK, Tokenizer
from seq2seq.evaluation.scoring import Scores, score, score_bleu

TRANSLATIONS = "decode/test.txt"
"""What the decode stage of a run writes: a line for each sentence of its test set."""


@dataclass(frozen=True)
class Results:
    """All scores of a test set."""

    scores: Scores
    no_unknown: Scores | None = None  # "No UNK"; without scores if that is no sentence
    attention: AttentionScores | None = None  # of runs with gold links

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = self.scores.as_dict()
        if self.no_unknown is not None:
            values["no_unknown"] = self.no_unknown.as_dict()
        if self.attention is not None:
            values["attention"] = asdict(self.attention.measures)
            if self.attention.gold is not None:
                values["alignment"] = asdict(self.attention.gold)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Results":
        """Read what `as_dict` gave."""
        known, measures, gold = (values.get(k) for k in ("no_unknown", "attention", "alignment"))
        attention = None
        if measures is not None or gold is not None:
            attention = AttentionScores(
                Measures(**measures) if measures is not None else NOT_MEASURED,
                GoldAlignment(**gold) if gold is not None else None,
            )
        return cls(
            Scores.from_dict(values),
            None if known is None else Scores.from_dict(known),
            attention,
        )

    def __str__(self) -> str:
        lines = [self.scores.as_table()]
        if self.no_unknown is not None:
            lines.append(f"No UNK     {self._describe(self.no_unknown)}")
        if self.attention is not None:
            if (gold := self.attention.gold) is not None:
                lines += [f"alignment  {gold}", f"           {gold.advice}"]
            if self.attention.measures != NOT_MEASURED:
                lines.append(f"attention  {self.attention.measures}")
        return "\n".join(lines)

    def _describe(self, known: Scores) -> str:
        total = self.scores.num_sentences
        if known.num_sentences == total:
            return "no sentence has an unknown word, so the scores are the same"
        if not known.num_sentences:
            return "every sentence has an unknown word, so there is no score"
        shown = "; ".join(
            f"{s.name} {s.value:.2f}{f' [{s.interval}]' if s.interval else ''}"
            for s in known.scores
        )
        return f"{known.num_sentences:,} of {total:,} sentences: {shown}"


def known_rows(
    tokenizers: tuple[Tokenizer, Tokenizer], sources: Sequence[str], references: Sequence[str]
) -> list[int]:
    """Return the rows without an unknown word in the source and in the reference."""
    sides = [t.encode(list(x)) for t, x in zip(tokenizers, (sources, references), strict=True)]
    pairs = zip(*sides, strict=True)
    return [i for i, (src, tgt) in enumerate(pairs) if UNK not in src and UNK not in tgt]


def second_pass(rows: Sequence[int], num_lines: int, cfg: DecodeConfig) -> DecodeConfig | None:
    """Say how the sentences without unknown words are to be translated for "No UNK".

    Returns:
        Settings; None where the first translations serve: they had to do without the unknown
        symbol, too, or nothing in the test set is unknown, or everything is.
    """
    if cfg.forbid_unknown or len(rows) in (0, num_lines):
        return None
    return replace(cfg, forbid_unknown=True, replace_unknown=False)


def score_all(
    cfg: Config, hypotheses: Sequence[str], references: Sequence[str], known: dict[int, str]
) -> tuple[Scores, Scores]:
    """Score all sentences, and those without unknown words.

    Args:
        cfg: Of the run.
        hypotheses: Translations of all.
        references: Their references.
        known: Translations by row, for "No UNK".
    """
    tokenizer, language = cfg.evaluate.bleu_tokenizer, cfg.data.target_language
    scores = score(hypotheses, references, tokenizer, language)
    if not known:
        return scores, Scores(0, ())
    chosen = [references[row] for row in known]
    return scores, score_bleu(list(known.values()), chosen, tokenizer, language)
