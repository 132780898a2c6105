"""What a model answers: translations with their attention, and other words at a place.

Translations come from the search of `decode`, so they are its translations. Only the quick ones,
which a page shows first, are those of greedy search.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from seq2seq.config.schema import DecodePrecision
from seq2seq.data.batching import pad_ids
from seq2seq.data.placeholders import CarryingTokenizer
from seq2seq.data.prepare import splitter_of
from seq2seq.data.tags import direction_to
from seq2seq.data.tokenizer import EOS, PAD, RightToLeft
from seq2seq.decoding.chunks import Feed
from seq2seq.decoding.constrained import Constraints
from seq2seq.decoding.constraints import ConstraintBuilder
from seq2seq.decoding.forced import has_maps
from seq2seq.decoding.prefix import Prefix
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.decoding.request import Request
from seq2seq.decoding.search import beam_search
from seq2seq.decoding.translate import for_search, search_rules, translate
from seq2seq.decoding.translation import Translation
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.ensemble import Decodable
from seq2seq.model.intervention import intervened
from seq2seq.model.protocols import Prediction, State, Stepper
from seq2seq.play.alternatives import Fan, next_word
from seq2seq.play.changes import change_at, pieces_of_word
from seq2seq.play.engine import AbandonedError, Answer, Wanted
from seq2seq.play.neighbours import Neighbours
from seq2seq.report.build import html_languages
from seq2seq.report.sentence import describe
from seq2seq.run.errors import ConfigError, DataError
from seq2seq.training.precision import autocast

NUM_ALTERNATIVES = 5


@dataclass(frozen=True)
class Question:
    """A sentence and what is asked of its translation."""

    source: str
    prefix: str = ""
    language: str | None = None
    change: str | None = None  # of the attention of the next word, one of `changes.CHANGES`
    to: int = 0  # for `move`: the source word, from 0


@dataclass(frozen=True)
class _Beginning:
    """A sentence and the beginning of its translation, in ids."""

    src: list[int]  # with the end symbol, after `tag` ids that select the language
    tag: int
    forbidden: Sequence[int]
    prefix: Prefix | None
    rules: Constraints  # what the translation must obey; `rules.first` is its beginning


class Watched:
    """A `Stepper` that stops when nobody waits for its result."""

    def __init__(self, stepper: Stepper, wanted: Wanted) -> None:
        self._stepper, self._wanted = stepper, wanted

    def begin(self, src: Tensor, mask: Tensor) -> State:
        """See `Stepper.begin`."""
        return self._stepper.begin(src, mask)

    def step(self, y: Tensor, state: Any) -> tuple[Prediction, State]:
        """See `Stepper.step`."""
        if not self._wanted():
            raise AbandonedError
        return self._stepper.step(y, state)


class Answers:
    """The answers of a model, with the settings of its search.

    `language` is the target language of questions that name none, `neighbours` the training text of
    the model, if it is known.
    """

    def __init__(
        self, model: Pretrained, language: str | None, neighbours: Neighbours | None = None
    ) -> None:
        self.model, self.language, self.neighbours = model, language, neighbours
        self.cfg = model.config.decode
        # Only what greedy search lacks is reset: it has one hypothesis, and draws nothing.
        self.quick_cfg = replace(
            self.cfg, beam_size=1, n_best=1, beam_groups=1, diversity=0.0, mbr=None,
            sample=False, temperature=1.0, top_k=None, top_p=None,
        )  # fmt: skip
        self.maps = has_maps(model.model)
        self._searcher = for_search(model.model, self.cfg)  # the weights do not change

    def translations(
        self, questions: Sequence[Question], wanted: Wanted, *, quick: bool = False
    ) -> list[Answer]:
        """Translate as `decode` does; if `quick`, by greedy search."""
        model, languages = self.model, [self._language(q) for q in questions]
        given = [language for language in languages if language is not None]
        named = given if len(given) == len(languages) else None  # else the model has one
        translations = translate(
            model.model,
            model.tokenizers,
            map(self._request, questions),
            self.quick_cfg if quick else self.cfg,
            Feed(model.tagging(named)),
            maps=self.maps,
            searcher=Watched(self._searcher, wanted),
        )
        label = "Greedy" if quick else "Sample" if self.cfg.sample else "Beam"
        return [
            self._described(translation, language, label)
            for translation, language in zip(translations, languages, strict=True)
        ]

    def _described(self, translation: Translation, language: str | None, label: str) -> Answer:
        """Return a translation as the pictures of the report take it."""
        split = splitter_of(self.model.config)
        found = []
        for i, candidate in enumerate(translation.candidates):
            name = label if label == "Greedy" else f"{label} {i + 1}"
            pieces, flags = translation.soft_alignment(i), self.model.flags(translation, i)
            found.append(describe(name, pieces, candidate.score, split=split, flags=flags))
        direction = direction_to(self.model.config.data, language)
        return {"text": translation.text, "found": found, "languages": html_languages(direction)}

    def _language(self, question: Question) -> str | None:
        return question.language or self.language

    def _request(self, question: Question) -> Request:
        """Return what decoding is asked; characters are forced one by one, also inside words."""
        exact = splitter_of(self.model.config) is None
        return Request(question.source, question.prefix, where="sentence", exact=exact)

    def nearest(self, questions: Sequence[Question], _wanted: Wanted) -> list[Answer]:
        """Return the places in the training text that are most like that after the beginning."""
        if self.neighbours is None:
            return [{"nearest": []}] * len(questions)
        asked = [self._beginning(question) for question in questions]
        found = [self.neighbours.nearest(each.src, each.rules.first) for each in asked]
        return [{"nearest": nearest} for nearest in found]

    def _beginning(self, question: Question) -> "_Beginning":
        """Return the beginning of a translation as decoding takes it."""
        model, (source, target) = self.model, self.model.tokenizers
        tags = model.tagging(self._language(question))
        [ids] = source.encode([question.source])
        own = ConstraintBuilder(target, self.cfg).build(self._request(question), 1)
        prefix, rules = (own.prefix, own.constraints) if own else (None, Constraints())
        src = [*tags.of_line(1), *ids[: self.cfg.max_source_tokens], EOS]
        return _Beginning(src, len(tags.of_line(1)), tags.forbidden, prefix, rules)

    def alternatives(self, questions: Sequence[Question], wanted: Wanted) -> list[Answer]:
        """Return the most probable words after the beginning of a translation."""
        return [{"alternatives": self._alternatives(question, wanted)} for question in questions]

    def _alternatives(self, question: Question, wanted: Wanted) -> list[dict[str, Any]]:
        model, cfg, begun = self.model, self.cfg, self._beginning(question)
        if len(begun.src) == begun.tag + 1:
            return []
        # Search as many ways on.
        device, at = next(model.model.parameters()).device, len(begun.rules.first)
        rules = replace(search_rules(cfg), beam_size=NUM_ALTERNATIVES, n_best=NUM_ALTERNATIVES)
        rules = replace(rules, forbidden=(*rules.forbidden, *begun.forbidden))
        src, mask = (tensor.to(device) for tensor in pad_ids([begun.src], PAD))
        searcher = self._searcher
        if question.change is not None:
            searcher = self._changed(question, question.change, at, begun.tag)
        filling = Fan(rules, begun.rules, device)
        with autocast(device, cfg.precision):
            [found] = beam_search(Watched(searcher, wanted), src, mask, rules, filling)
        # Of the ways that begin with the same word, the most probable counts.
        split, target = splitter_of(model.config), model.tokenizers[1]
        every = [next_word(h, at, begun.prefix, target, split) for h in found]
        words: dict[str, dict[str, Any]] = {}
        for word in sorted(every, key=lambda word: -word["probability"]):
            words.setdefault(word["word"], word)
        return [*words.values()]

    def _changed(self, question: Question, change: str, at: int, tag: int) -> Stepper:
        """Return a stepper that attends as asked at a step; `tag` ids come before the source."""
        model, cfg, places = self.model, self.cfg, []
        if not isinstance(model.model, EncoderDecoder):
            what = "is an ensemble, whose members attend each in their own way"
            raise DataError("run", what, "Ask one of them.")
        if change == "move":
            split, source = splitter_of(model.config), model.tokenizers[0]
            most = cfg.max_source_tokens
            pieces = pieces_of_word(question.source, source, question.to, split, most)
            places = [tag + piece for piece in pieces]
        if cfg.precision is DecodePrecision.int8:  # a changed model searches step by step
            cfg = replace(cfg, precision=DecodePrecision.fp32)
        return for_search(intervened(model.model, change_at(at, change, places)), cfg)


def can_force(model: Pretrained) -> bool:
    """Return whether translations can be made to begin with a text; see `ConstraintBuilder`."""
    source, target = model.tokenizers
    unable = isinstance(source, CarryingTokenizer) or isinstance(target, RightToLeft)
    decode = model.config.decode
    return not unable and not decode.sample and decode.shortlist is None


def can_change(model: Decodable) -> bool:
    """Return whether a model has one attention, with weights to change."""
    try:
        return isinstance(model, EncoderDecoder) and bool(intervened(model, change_at(0, "", [])))
    except ConfigError:
        return False
