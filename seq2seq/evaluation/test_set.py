"""What is measured on a test set, as `scores.json` holds it and as it is shown.

"No UNK" is the second column of the paper's Table 1: only the sentences without an unknown word
in source and reference, translated without emitting one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from seq2seq.config.schema import Config, DecodeConfig, Direction
from seq2seq.data.placeholders import tokens_of
from seq2seq.data.tags import rows_of
from seq2seq.data.tokenizer import UNK, Tokenizer
from seq2seq.evaluation.attention import AttentionScores
from seq2seq.evaluation.scoring import Score, Scores, score, score_bleu
from seq2seq.run.errors import RunDirError
from seq2seq.run.jsonable import from_json
from seq2seq.run.reading import expected, read_json, read_lines_of

LEAST_BLEU, MOST_REPEATING, FLAT = 2.0, 0.3, 0.9
"""Below, above and above: BLEU, share of translations that repeat, entropy of its greatest."""

_REPEATED = re.compile(r"(?:^|\s)(\S+(?:\s\S+){0,4}?)(?:\s\1){2,}(?=\s|$)|(\S{1,8}?)\2{4,}")
"""One to five words three times in a row, or, without spaces, a few characters five times."""

TRANSLATIONS = "decode/test.txt"
"""What the decode stage of a run writes: a line for each sentence of its test set."""


@dataclass(frozen=True, kw_only=True)
class Results(AttentionScores):
    """All scores of a test set; attention is that of runs with gold links, along the references."""

    sentences: int
    scores: Mapping[str, Score]
    no_unknown: Scores | None = None  # "No UNK"; without scores if that is no sentence
    note: str | None = None  # why a model is not worth reading yet

    def __str__(self) -> str:
        lines = [Scores(self.sentences, self.scores).as_table()]
        if self.no_unknown is not None:
            lines.append(f"No UNK     {self._describe(self.no_unknown)}")
        note = [f"note       {self.note}"] if self.note else []
        return "\n".join([*lines, *self.lines(), *note])

    def _describe(self, known: Scores) -> str:
        if known.sentences == self.sentences:
            return "no sentence has an unknown word, so the scores are the same"
        if not known.sentences:
            return "every sentence has an unknown word, so there is no score"
        text = "; ".join(
            f"{name} {s.value:.2f}{f' [{s.interval}]' if s.interval else ''}"
            for name, s in known.scores.items()
        )
        return f"{known.sentences:,} of {self.sentences:,} sentences: {text}"


def read_results(path: Path) -> Results:
    """Read the `scores.json` of a run.

    Raises:
        RunDirError: it is missing or damaged.
    """
    with expected(path):
        return from_json(Results, read_json(path))


def known_rows(
    tokenizers: tuple[Tokenizer, Tokenizer], sources: Sequence[str], references: Sequence[str]
) -> list[int]:
    """Return the rows without an unknown word in the source and in the reference."""
    sides = tokens_of(tokenizers, (list(sources), list(references)))
    pairs = zip(*sides, strict=True)
    return [i for i, pair in enumerate(pairs) if UNK not in {token.id for x in pair for token in x}]


def second_pass(rows: Sequence[int], num_lines: int, cfg: DecodeConfig) -> DecodeConfig | None:
    """Return how the sentences without unknown words are to be translated for "No UNK".

    None where the first translations serve: they had to do without the unknown symbol, too, or
    nothing in the test set is unknown, or everything is.
    """
    if cfg.forbid_unknown or len(rows) in (0, num_lines):
        return None
    return replace(cfg, forbid_unknown=True, replace_unknown=False)


def saved_lines(path: Path, count: int) -> list[str]:
    """Read translations that the decode stage wrote.

    Raises:
        RunDirError: they are missing, or not as many as the sentences are.
    """
    lines = list(read_lines_of(path))
    if len(lines) != count:
        what = f"has {len(lines)} lines, expected {count}"
        raise RunDirError(path, what, "Run the decode stage again.")
    return lines


def score_all(
    cfg: Config,
    tokenizers: tuple[Tokenizer, Tokenizer],
    text: tuple[Sequence[str], Sequence[str]],
    hypotheses: Sequence[str],
    again: Callable[[Sequence[int], DecodeConfig], Sequence[str]],
    attention: AttentionScores,
    directions: Sequence[Direction],
) -> Results:
    """Score all sentences, and those without unknown words; of several directions one by one.

    Args:
        cfg: Of the run.
        tokenizers: Its vocabularies.
        text: Sources and references.
        hypotheses: Translations of all sources.
        again: Translates those of some rows by other rules, where `second_pass` wants it.
        attention: Along the references.
        directions: Of each sentence.
    """
    sources, references = text
    scores = _by_direction(cfg, score, hypotheses, references, directions)
    rows, no_unknown = known_rows(tokenizers, sources, references), Scores(0, {})
    if rows:
        second = second_pass(rows, len(sources), cfg.decode)
        known = again(rows, second) if second else [hypotheses[row] for row in rows]
        own, of = [references[row] for row in rows], [directions[row] for row in rows]
        no_unknown = _by_direction(cfg, score_bleu, known, own, of)
    bleu = fmean(s.value for name, s in scores.scores.items() if name.split(" ")[-1] == "BLEU")
    note = not_learnt(bleu, hypotheses, attention)
    return Results(**vars(scores), no_unknown=no_unknown, note=note, **vars(attention))


def _by_direction(
    cfg: Config,
    by: Callable[..., Scores],
    hypotheses: Sequence[str],
    references: Sequence[str],
    directions: Sequence[Direction],
) -> Scores:
    """Score each direction with what suits its target language; `en-de BLEU` where several are."""
    scores: dict[str, Score] = {}
    rows_by_direction = rows_of(directions)
    for direction, rows in rows_by_direction.items():
        texts = ([column[row] for row in rows] for column in (hypotheses, references))
        found = by(*texts, cfg.evaluate.bleu_tokenizer, direction[1]).scores
        of = f"{'-'.join(direction)} " if len(rows_by_direction) > 1 else ""
        scores |= {f"{of}{name}": each for name, each in found.items()}
    return Scores(len(references), scores)


def not_learnt(bleu: float, hypotheses: Sequence[str], attention: AttentionScores) -> str | None:
    """Return a sentence about a model that has not learnt to translate yet; None of any other."""
    repeating = sum(_REPEATED.search(text) is not None for text in hypotheses) / len(hypotheses)
    signs = [f"BLEU is {bleu:.2f}"] if bleu < LEAST_BLEU else []
    signs += [f"{repeating:.0%} of its translations repeat words"] * (repeating > MOST_REPEATING)
    if not signs:
        return None
    if attention.attention and (attention.attention.relative_entropy or 0.0) > FLAT:
        signs.append("it attends to all words alike")
    return (
        f"The model has hardly learnt to translate yet ({', '.join(signs)}), so that its heatmaps "
        "show no alignment: train longer, or add data."
    )
