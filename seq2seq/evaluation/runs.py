"""Results of trained runs for `scripts/evaluate.py`: saved ones if valid, else computed anew."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from seq2seq.config.compose import load_run_config
from seq2seq.config.schema import Config, DecodeConfig, Direction
from seq2seq.data.batching import spread
from seq2seq.data.prepare import SIDES, directions_of, load_text, splitter_of
from seq2seq.data.tags import direction_to
from seq2seq.data.tokenizer import composed
from seq2seq.data.words import is_blank
from seq2seq.decoding.flags import Flags, by_flag, saved_flags
from seq2seq.decoding.pretrained import Pretrained, load
from seq2seq.decoding.translation import Translation
from seq2seq.evaluation import by_length, faithfulness_of_run, test_set
from seq2seq.evaluation.attention import GOLD, AttentionScores, Tally, align_test_set
from seq2seq.evaluation.error_rates import are_shown
from seq2seq.evaluation.faithfulness import Faithfulness, Retrained
from seq2seq.evaluation.scoring import score
from seq2seq.evaluation.significance import Comparison, compare
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import DataError, UsageError
from seq2seq.run.jsonable import to_json
from seq2seq.run.models import NamedRun, named_runs

Columns = tuple[list[str], list[str]]  # source sentences and their references


@dataclass(frozen=True)
class TestedRun:
    """A run, or an ensemble, and the text that it is tested on.

    Results that the run has saved for its test set are used, unless settings, a checkpoint or
    another text are given.
    """

    name: str  # as typed: RUN, RUN@last, RUN_A+RUN_B
    overrides: Sequence[str]
    given: Columns | None  # None: its own test set
    target_language: str | None = None  # of `given`; of its own test set no other sentence counts
    processes: int | None = None  # that translate

    @cached_property
    def is_plain(self) -> bool:
        """Whether it is a single run without a choice of checkpoints."""
        return named_runs(self.name) == [NamedRun(Path(self.name))]

    @cached_property
    def run(self) -> RunDir:
        """Its directory; for an ensemble, that of the first member."""
        return RunDir.open(named_runs(self.name)[0].path)

    @cached_property
    def config(self) -> Config:
        """Its config with the overrides."""
        return load_run_config(self.run.checked("config.yaml"), self.overrides)

    @cached_property
    def model(self) -> Pretrained:
        """Its weights."""
        return load(self.name, self.overrides)

    @cached_property
    def text(self) -> Columns:
        """The text that it is tested on."""
        if self.given is not None:  # normalise references as `prepare` does
            sources, references = self.given
            return sources, [composed(text) for text in references]
        texts = (load_text(self.run, "test", side) for side in SIDES)
        sources, references = ([text[row] for row in self._rows] for text in texts)
        return sources, references

    @cached_property
    def _rows(self) -> list[int]:
        """Of its own test set."""
        if self.target_language is not None:
            direction_to(self.config.data, self.target_language)
        directions = directions_of(self.run, self.config, "test")
        return [i for i, (_, d) in enumerate(directions) if self.target_language in (None, d)]

    @cached_property
    def directions(self) -> list[Direction]:
        """Of each sentence."""
        if self.given is not None:
            return [direction_to(self.config.data, self.target_language)] * len(self.given[0])
        directions = directions_of(self.run, self.config, "test")
        return [directions[row] for row in self._rows]

    @property
    def languages(self) -> list[str]:
        """What each sentence is translated to."""
        return [target for _, target in self.directions]

    def saved(self, name: str) -> Path | None:
        """Return a saved file of the run, if it exists and applies to this request."""
        if self.given is not None or self.overrides or not self.is_plain:
            return None
        path = self.run.checked(name)  # a recorded file that is missing is an error
        return path if path.exists() and not self._other_settings(name) else None

    def _other_settings(self, name: str) -> list[str]:
        """Return the settings of the translations behind a saved file, unlike those of the run.

        A resumed run may decode with others, without a change to its config.
        """
        if name == test_set.TRANSLATIONS:
            flags = saved_flags(self.run)
        else:
            scores = self.run.checked(test_set.SCORES)
            flags = test_set.read_results(scores).flags if scores.exists() else None
        return test_set.other_settings(flags, self.config.decode)

    def translate(self) -> Iterator[Translation]:
        """Translate the sources."""
        sources, languages = self.text[0], self.languages
        return self.model.stream(sources, target_language=languages, processes=self.processes)

    def translations(self) -> list[str]:
        """Return the translations of the sources, saved ones if there are any."""
        if (path := self.saved(test_set.TRANSLATIONS)) is None:
            return [translation.text for translation in self.translate()]
        lines = test_set.saved_lines(path, len(load_text(self.run, "test", SIDES[0])))
        return [lines[row] for row in self._rows]

    def results(self) -> test_set.Results:
        """Translate and score, as the stages decode and evaluate do."""

        def again(rows: Sequence[int], cfg: DecodeConfig) -> list[str]:
            lines, languages = ([of[i] for i in rows] for of in (self.text[0], self.languages))
            found = self.model.stream(lines, target_language=languages, rules=cfg)
            return [translation.text for translation in found]

        # Attention is scored along the references, all else by translations.
        attention = AttentionScores()
        if self.given is None and self.run.checked(GOLD).exists():
            attention = align_test_set(self.run, self.model)
        found = [(t.text, self.model.flags(t)) for t in self.translate()]
        texts, flags = (self.text, [text for text, _ in found]), by_flag(own for _, own in found)
        cfg, directions = self.config, self.directions
        parts = cfg, self.model.tokenizers
        results = test_set.score_all(*parts, *texts, again, attention, directions)
        own = Flags(self.model.limits, flags, to_json(cfg.decode))
        unseen = test_set.score_unseen(cfg, self.run, *texts, directions)
        return replace(results, unseen=unseen, flags=own)

    def by_length(self) -> by_length.LengthBleu:
        """Return BLEU by source length."""
        if self.target_language is None and self.saved(by_length.LENGTH_BLEU):
            return by_length.read_length_bleu(self.run)
        direction = direction_to(self.config.data, self.target_language)
        (sources, references), found = self.text, self.translations()
        return by_length.score_by_length(self.config, sources, found, references, direction)

    def attention(self) -> AttentionScores:
        """Return the measures of attention along the references."""
        own = self.given is None and self.target_language is None
        path = self.saved(test_set.SCORES) if own else None
        if path and (results := test_set.read_results(path)).attention:
            return AttentionScores(attention=results.attention, alignment=results.alignment)
        if own:
            return align_test_set(self.run, self.model)
        tally = Tally(splitter_of(self.config))
        pairs = zip(*self.text, strict=True)
        for translation in self.model.force(pairs, target_language=self.languages):
            tally.add(translation)
        return tally.attention()

    def faithfulness(
        self, sentences: int, uniform: "TestedRun | None" = None, seeds: Sequence[str] = ()
    ) -> Faithfulness:
        """Return the sheet of some sentences, evenly spread; a saved one if it is the same.

        It is compared with a run that was retrained with `uniform` weights, and with runs of other
        `seeds`, by their names.

        Raises:
            UsageError: the name is that of an ensemble, or `uniform` is not such a run.
        """
        # The sentences
        [named, *others] = named_runs(self.name)
        if others:
            raise UsageError(self.name, "is an ensemble", "Name its runs one by one.")
        rows = spread([i for i, text in enumerate(self.text[0]) if not is_blank(text)], sentences)
        lines, references, languages = (
            [column[i] for i in rows] for column in (*self.text, self.languages)
        )
        # What other runs add to it: they may be refused, and the sheet takes minutes.
        more: dict[str, Any] = {}
        if uniform is not None:
            more["uniform"] = self._retrained(uniform)
        if seeds:
            pairs, runs = list(zip(lines, references, strict=True)), [self.name, *seeds]
            apart = faithfulness_of_run.distance_between(runs, pairs, languages, self.overrides)
            more["seeds"] = apart
        # The sheet
        settings = faithfulness_of_run.settings_of(named, self.model, lines, languages)
        own = self.run if self.given is None else None
        sheet = faithfulness_of_run.saved(own) if own is not None else None
        if sheet is None or sheet.settings != settings:
            sheet = faithfulness_of_run.measure(self.model, lines, languages, settings, own)
        sheet = replace(sheet, **more)
        if own is not None:
            faithfulness_of_run.keep(own, sheet)
        return sheet

    def check_text_of(self, other: "TestedRun") -> None:
        """Check that another run is tested on the same text.

        Raises:
            DataError: it is not.
        """
        if other.text != self.text:
            what = f"its test set is not that of {self.name}"
            raise DataError(other.name, what, "Give --source and --reference, the same for all.")

    def _retrained(self, other: "TestedRun") -> Retrained:
        """Return what a run with uniform weights has lost."""
        if (kind := other.config.attention.name) != "uniform":
            what = f"has attention={kind}, not uniform"
            raise UsageError(other.name, what, "Train it with attention=uniform init.run=RUN.")
        self.check_text_of(other)
        _, language = direction_to(self.config.data, self.target_language)
        tokenizer = self.config.evaluate.bleu_tokenizer
        own, its = (
            score(run.translations(), self.text[1], tokenizer, language).scores["BLEU"].value
            for run in (self, other)
        )
        return Retrained(other.run.root.resolve().name, its, own - its)


def named(runs: Sequence[TestedRun]) -> Mapping[str, TestedRun]:
    """Return runs by names that distinguish them: as typed if any is more than a run."""
    names = [run.name for run in runs]
    if all(run.is_plain for run in runs):
        names = by_length.run_names([run.run.root for run in runs])
    return dict(zip(names, runs, strict=True))


def compare_runs(runs: Mapping[str, TestedRun]) -> Mapping[str, Comparison]:
    """Compare runs with the first one.

    Raises:
        DataError: the runs are not tested on the same text.
    """
    first, *others = runs.values()
    for run in others:
        first.check_text_of(run)
    systems = {name: run.translations() for name, run in runs.items()}
    cfg = first.config
    _, language = direction_to(cfg.data, first.target_language)
    sources = first.text[0] if are_shown(cfg) else ()
    return compare(systems, first.text[1], cfg.evaluate.bleu_tokenizer, language, sources)
