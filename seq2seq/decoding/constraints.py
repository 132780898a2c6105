"""Converts requests to search rules over the pieces of the target vocabulary."""

import re
from dataclasses import dataclass
from functools import cached_property

from seq2seq.config.schema import DecodeConfig
from seq2seq.data.tokenizer import UNK, RightToLeft, Tokenizer
from seq2seq.data.words import joins
from seq2seq.decoding.automaton import PieceTexts
from seq2seq.decoding.constrained import Constraints, Rule
from seq2seq.decoding.phrases import MOST, NEVER, Phrase, Phrases
from seq2seq.decoding.prefix import Prefix, exactly, prefix_of
from seq2seq.decoding.repeats import Repeats
from seq2seq.decoding.request import Request
from seq2seq.run.errors import DataError
from seq2seq.run.naming import command


@dataclass(frozen=True)
class LineConstraints:
    """The constraints on the translations of a line."""

    constraints: Constraints
    prefix: Prefix | None
    where: str  # for errors


class ConstraintBuilder:
    """Converts requests to rules; if `carrying`, placeholders may be inserted anywhere."""

    def __init__(self, target: Tokenizer, cfg: DecodeConfig, *, carrying: bool = False) -> None:
        self._target, self._cfg, self._carrying = target, cfg, carrying

    @cached_property
    def _texts(self) -> PieceTexts:
        return PieceTexts(self._target)

    def build(self, request: Request, number: int) -> LineConstraints | None:
        """Return the constraints on the line with this number; None if plain search suffices.

        Raises:
            DataError: the request cannot be met, or not with these settings.
        """
        cfg, where = self._cfg, request.where or f"line {number}"
        self._check(request, where)
        # The prefix, then words and their goal, then rules of lower rank
        rules: list[Rule] = []
        prefix, goal, steps = None, None, 0
        if request.prefix:
            given, complete = request.prefix, request.complete_last_word
            if request.exact:
                prefix = exactly(given, self._target)
            else:
                prefix = prefix_of(given, self._target, self._texts, complete=complete)
        if prefix is not None:
            steps = len(prefix.ids) + len(prefix.partial)
            if len(prefix.ids) > cfg.max_source_tokens:
                what = f"a prefix of {len(prefix.ids)} tokens is above decode.max_source_tokens"
                raise DataError(where, f"{what}={cfg.max_source_tokens}", "Shorten it.")
        if request.required or request.forbidden:
            phrases = self._phrases(request, prefix, where)
            rules, goal = [phrases], phrases if request.required else None
            steps += phrases.missing(phrases.start)
        if prefix is not None and prefix.rule is not None:
            rules.append(prefix.rule)
        first = prefix.ids if prefix is not None else ()
        if cfg.no_repeat_ngram is not None:
            rules.append(Repeats(cfg.no_repeat_ngram, len(self._target), first))
        if prefix is None and not rules and cfg.beam_groups == 1:
            return None
        return LineConstraints(Constraints(first, rules, goal, steps + 1), prefix, where)

    def _check(self, request: Request, where: str) -> None:
        """Refuse requests that these settings do not support."""
        none = "supports no prefix and no word constraints"
        asks = request.prefix or request.required or request.forbidden
        if asks and isinstance(self._target, RightToLeft):
            fix = f"Use it to rescore: {command('rerank')}."
            raise DataError(where, f"a right-to-left model {none}", fix)
        if asks and self._carrying:
            raise DataError(where, f"a model with data.placeholders {none}", "Leave them out.")
        if asks and self._cfg.sample:
            raise DataError(where, f"sampling {none}", "Leave decode.sample out.")
        if asks and self._cfg.shortlist is not None:
            raise DataError(where, f"decode.shortlist {none}", "Leave decode.shortlist out.")
        if self._cfg.beam_groups > 1 and request.required:
            both = "required words and decode.beam_groups cannot be combined"
            raise DataError(where, both, "Leave one of them out.")

    def _phrases(self, request: Request, prefix: Prefix | None, where: str) -> Phrases:
        """Encode the phrases of a request and check that a text can satisfy all of them."""
        # A required phrase needs a form that can be spelled; a forbidden one without such a form
        # cannot arise.
        required = []
        for alternatives in request.required:
            known = [self._phrase(text, where) for text in alternatives]
            required.append([phrase for phrase in known if phrase is not None])
            if not required[-1]:
                forms = " or ".join(map(repr, alternatives))
                strange = f"the target vocabulary cannot spell {forms}"
                raise DataError(where, strange, "Require another form.")
        if len(required) > MOST:
            raise DataError(where, f"more than {MOST} words are required", "Leave some out.")
        forbidden = [self._phrase(text, where) for text in request.forbidden]
        phrases = Phrases(
            self._texts,
            required,
            [phrase.text for phrase in forbidden if phrase is not None],
            before="".join(map(self._texts.of, prefix.pieces if prefix else ())),
            unknown=not self._cfg.replace_unknown,
        )
        # Whether any text will do
        if prefix is not None and phrases.breaks(prefix.partial):
            raise DataError(where, "the prefix has a forbidden word", "Change one of them.")
        if phrases.missing(phrases.start) == NEVER:
            what = "no text has all required words and no forbidden one"
            raise DataError(where, what, "Change one of them.")
        return phrases

    def _phrase(self, text: str, where: str) -> Phrase | None:
        """Return a phrase as the vocabulary writes it; None if it has unknown pieces."""
        [tokens] = self._target.tokens([text])
        if not tokens:
            raise DataError(where, "an empty word is required or forbidden", "Leave it out.")
        if any(token.id == UNK for token in tokens):
            return None
        ids, texts = [token.id for token in tokens], [self._texts.of(t.piece) for t in tokens]
        joined = re.sub(" +", " ", "".join(texts)).strip(" ")
        # If no space is needed after the word before, spell the phrase without one.
        first = texts[0].lstrip(" ")
        if not joins(joined[0]) and first in self._texts.ids:
            ids[0] = self._texts.ids[first]
        return Phrase(joined, ids)
