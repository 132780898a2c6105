"""What is measured on a test set, as `scores.json` holds it and as it is shown.

"No UNK" is the second column of the paper's Table 1: only the sentences without an unknown word
in source and reference, translated without emitting one. "Unseen" are the sentences whose source is
not in the training data.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from seq2seq.config.schema import Config, DecodeConfig, Direction, SelectBy
from seq2seq.data.pair import Pair
from seq2seq.data.placeholders import placeholders_of, tokens_of
from seq2seq.data.tags import rows_of
from seq2seq.data.tokenizer import UNK, Tokenizer
from seq2seq.decoding.flags import Flags
from seq2seq.evaluation.attention import AttentionScores
from seq2seq.evaluation.error_rates import NAMES, are_shown, by_source, score_exactness
from seq2seq.evaluation.scoring import Score, Scores, check_lines, score, score_bleu
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import RunDirError
from seq2seq.run.jsonable import from_json, to_json
from seq2seq.run.reading import expected, read_json, read_lines_of

LEAST_BLEU, MOST_ERRORS, MOST_REPEATING, FLAT = 2.0, 75.0, 0.3, 0.9
"""BLEU below, and above: character error rate, share of translations that repeat, entropy of its
greatest."""

_REPEATED = re.compile(r"(?:^|\s)(\S+(?:\s\S+){0,4}?)(?:\s\1){2,}(?=\s|$)|(\S{1,8}?)\2{4,}")
"""One to five words three times in a row, or, without spaces, a few characters five times."""

TRANSLATIONS = "decode/test.txt"
"""What the decode stage of a run writes: a line for each sentence of its test set."""

SCORES = "scores.json"
"""What the evaluate stage writes: the `Results` of these translations."""

IRRELEVANT = ("batch_sentences",)
"""Settings of `decode` that do not change a translation."""

TRAINING = "corpus/train.source"
"""The source side of the training data of a run; an exported model has none."""


@dataclass(frozen=True, kw_only=True)
class Results(AttentionScores):
    """All scores of a test set; attention is that of runs with gold links, along the references."""

    sentences: int
    scores: Mapping[str, Score]
    no_unknown: Scores | None = None  # "No UNK"; without scores if that is no sentence
    unseen: Scores | None = None  # without scores if that is no sentence, or every one
    flags: Flags | None = None  # lines to look at
    note: str | None = None  # why a model is not worth reading yet

    @property
    def shown(self) -> Mapping[str, Score]:
        """The scores; exact match and error rates, which only some tasks have, come first."""
        extra = {k: s for k, s in self.scores.items() if k.endswith((*NAMES.values(),))}
        others = {k: s for k, s in self.scores.items() if k not in extra}
        return extra | others

    @property
    def subsets(self) -> Mapping[str, str]:
        """The scores of some of the sentences, in words, by the name of the subset."""
        found = {}
        if self.no_unknown is not None:
            found["No UNK"] = self._describe(self.no_unknown, "has an unknown word")
        if self.unseen is not None:
            found["Unseen"] = self._describe(self.unseen, "is in the training data")
        return found

    def __str__(self) -> str:
        lines = [Scores(self.sentences, self.shown).as_table()]
        lines += [f"{name:<10} {text}" for name, text in self.subsets.items()]
        if self.flags is not None:
            lines.append(f"Flags      {self.flags.summary(self.sentences)}")
        note = [f"note       {self.note}"] if self.note else []
        return "\n".join([*lines, *self.lines(), *note])

    def _describe(self, some: Scores, others: str) -> str:
        if some.sentences == self.sentences:
            return f"no sentence {others}, so the scores are the same"
        if not some.sentences:
            return f"every sentence {others}, so there is no score"
        text = "; ".join(
            f"{name} {s.value:.2f}{f' [{s.interval}]' if s.interval else ''}"
            for name, s in some.scores.items()
        )
        return f"{some.sentences:,} of {self.sentences:,} sentences: {text}"


def read_results(path: Path) -> Results:
    """Read the `scores.json` of a run.

    Raises:
        RunDirError: it is missing or damaged.
    """
    with expected(path):
        return from_json(Results, read_json(path))


def other_settings(flags: Flags | None, cfg: DecodeConfig) -> list[str]:
    """Return the settings of saved translations that differ from a config: `decode.beam_size=12`.

    There are none if the run has no record of them.
    """
    if flags is None or flags.decode is None:
        return []
    wanted, made = to_json(cfg), to_json(DecodeConfig()) | dict(flags.decode)
    keys = (key for key in made if key not in IRRELEVANT and made[key] != wanted.get(key))
    values = ((key, made[key]) for key in keys)
    return [f"decode.{key}={x if isinstance(x, str) else json.dumps(x)}" for key, x in values]


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

    `text` are sources and references, `hypotheses` translations of all sources, and `again`
    translates some rows by other rules, where `second_pass` wants it.

    Raises:
        DataError: there are none.
    """
    check_lines(hypotheses, text[1])
    # All sentences
    sources, references = text
    tokenizer = cfg.evaluate.bleu_tokenizer
    scores = _by_direction(
        lambda language, ours, theirs: score(ours, theirs, tokenizer, language),
        directions,
        (hypotheses, references),
    )
    if are_shown(cfg):
        scores |= _by_direction(
            lambda _, *texts: score_exactness(*by_source(*texts)),
            directions,
            (sources, hypotheses, references),
        )
    # Those without unknown words
    rows, known_scores = known_rows(tokenizers, sources, references), {}
    if rows:
        second = second_pass(rows, len(sources), cfg.decode)
        known = again(rows, second) if second else [hypotheses[row] for row in rows]
        known_scores = _bleu_of_rows(cfg, rows, known, references, directions)
    # Whether all this is worth reading
    metric = NAMES[SelectBy.character_error_rate] if are_shown(cfg) else "BLEU"
    values = [s.value for name, s in scores.items() if f" {name}".endswith(f" {metric}")]
    note = not_learnt(fmean(values), hypotheses, attention, metric)
    return Results(
        sentences=len(references),
        scores=scores,
        no_unknown=Scores(len(rows), known_scores),
        note=note,
        **vars(attention),
    )


def score_unseen(
    cfg: Config,
    run: RunDir,
    text: tuple[Sequence[str], Sequence[str]],
    hypotheses: Sequence[str],
    directions: Sequence[Direction],
) -> Scores | None:
    """Score the sentences whose source is not in the training data of a run, if it has its data."""
    if not run.path(TRAINING).exists():
        return None
    sources, references = text
    if (placeholders := placeholders_of(cfg)) is not None:  # the training data has symbols
        sources = [placeholders.pair(Pair(*pair)).src for pair in zip(*text, strict=True)]
    seen = {*sources}.intersection(read_lines_of(run.checked(TRAINING)))
    rows = [i for i, source in enumerate(sources) if source not in seen]
    if len(rows) in (0, len(sources)):
        return Scores(len(rows), {})
    ours = [hypotheses[row] for row in rows]
    return Scores(len(rows), _bleu_of_rows(cfg, rows, ours, references, directions))


def _bleu_of_rows(
    cfg: Config,
    rows: Sequence[int],
    hypotheses: Sequence[str],
    references: Sequence[str],
    directions: Sequence[Direction],
) -> dict[str, Score]:
    """Score the translations of some rows by BLEU only."""
    tokenizer = cfg.evaluate.bleu_tokenizer
    return _by_direction(
        lambda language, ours, theirs: score_bleu(ours, theirs, tokenizer, language),
        [directions[row] for row in rows],
        (hypotheses, [references[row] for row in rows]),
    )


def _by_direction(
    by: Callable[..., Scores], directions: Sequence[Direction], columns: Sequence[Sequence[str]]
) -> dict[str, Score]:
    """Score each direction, given its target language and texts; `en-de BLEU` if there are more."""
    scores: dict[str, Score] = {}
    rows_by_direction = rows_of(directions)
    for direction, rows in rows_by_direction.items():
        found = by(direction[1], *([column[row] for row in rows] for column in columns)).scores
        of = f"{'-'.join(direction)} " if len(rows_by_direction) > 1 else ""
        scores |= {f"{of}{name}": each for name, each in found.items()}
    return scores


def not_learnt(
    value: float, hypotheses: Sequence[str], attention: AttentionScores, metric: str = "BLEU"
) -> str | None:
    """Return a sentence about a model that has not learnt to translate yet; None of any other.

    `value` is its BLEU or its error rate.
    """
    poor = value < LEAST_BLEU if metric == "BLEU" else value > MOST_ERRORS
    repeating = sum(_REPEATED.search(text) is not None for text in hypotheses) / len(hypotheses)
    signs = [f"{metric} is {value:.2f}"] if poor else []
    signs += [f"{repeating:.0%} of its translations repeat words"] * (repeating > MOST_REPEATING)
    if not signs:
        return None
    if attention.attention and (attention.attention.relative_entropy or 0.0) > FLAT:
        signs.append("it attends to all words alike")
    return (
        f"The model has hardly learnt to translate yet ({', '.join(signs)}), so that its heatmaps "
        "show no alignment: train longer, or add data."
    )
