"""Enforces required and forbidden phrases in a translation.

One automaton tracks both, whatever pieces spell them. A required phrase may have alternatives. A
translation cannot end before it has one of each, and pieces that leave too few steps for the rest
are forbidden. A plan gives the number of steps needed: a spelling of each missing phrase, with
separator pieces between them where a forbidden phrase would arise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from seq2seq.data.tokenizer import EOS, UNK
from seq2seq.decoding.automaton import Automaton, PieceTexts
from seq2seq.decoding.constrained import Mask

MOST = 30  # maximal number of required phrases: each is one bit of a 31-bit number
NEVER = 1 << 30  # number of missing pieces if the phrases cannot be completed

_FORBIDDEN = 1
_SEPARATORS = 100

State = tuple[int, int]
"""State of the automaton, and the required phrases found, as bits; bit 0 is not one of them."""


@dataclass(frozen=True)
class Phrase:
    """A phrase as the vocabulary writes it."""

    text: str  # the text of its pieces
    spelling: Sequence[int]  # its pieces, whatever precedes them


class Phrases:
    """The `constrained.Goal` of a sentence.

    `required` has the alternatives of each required phrase, `before` is the prefix of the
    translation, to which the rule does not apply, and `unknown` says whether the unknown symbol may
    be emitted.
    """

    soft = False

    def __init__(
        self,
        pieces: PieceTexts,
        required: Sequence[Sequence[Phrase]],
        forbidden: Iterable[str],
        before: str,
        unknown: bool,
    ) -> None:
        self._texts, self._unknown = pieces.texts, unknown
        marks = dict.fromkeys(forbidden, _FORBIDDEN)
        self._spellings = {}
        for number, alternatives in enumerate(required, start=1):
            for phrase in alternatives:
                marks[phrase.text] = marks.get(phrase.text, 0) | 1 << number
            self._spellings[1 << number] = [phrase.spelling for phrase in alternatives]
        self._all = sum(self._spellings)
        self._automaton = Automaton(marks, pieces)
        # Among the shortest pieces, some piece can separate any two phrases.
        self._separators = [[int(i)] for i in pieces.order[::-1][:_SEPARATORS] if i > EOS]
        longest = (max(map(len, each)) for each in self._spellings.values())
        self._enough = 2 * (sum(longest) + len(required)) + 3  # longer than any plan
        self._missing: dict[State, int] = {}
        self._masks: dict[tuple[State, int], Mask] = {}
        self._helpful: dict[State, Sequence[int]] = {}
        self._before = before
        self.start: State = self._automaton.step(0, before)

    def breaks(self, partial: str) -> bool:
        """Return whether the prefix of a translation contains a forbidden phrase.

        `partial` is the beginning of a last word to complete; if empty, the last word has ended.
        """
        now, mark = self._automaton.step(0, self._before + partial)
        at_end = 0 if partial else self._automaton.at_end[now]
        return bool((mark | at_end) & _FORBIDDEN)

    def allowed(self, state: State, left: int) -> Mask:
        """Return the pieces that may come next, with `left` steps after them."""
        key = state, min(left, self._enough)
        if (mask := self._masks.get(key)) is None:
            row = self._automaton.row(state[0])
            good = [
                not mark & _FORBIDDEN and self.missing((now, state[1] | mark)) <= left
                for now, mark in row.outcomes
            ]
            mask = self._masks[key] = np.array(good)[row.which]
            mask[EOS] = self._is_whole(state)
            mask[UNK] &= self._unknown
        return mask

    def after(self, state: State, token: int) -> State:
        """Return the state after an allowed piece."""
        now, mark = self._automaton.step(state[0], self._texts[token])
        return now, state[1] | mark

    def missing(self, state: State) -> int:
        """Return the number of pieces needed before the translation may end, or `NEVER`."""
        if state not in self._missing:
            plan = self._plan(state)
            self._missing[state] = NEVER if plan is None else len(plan)
            # Along the plan, the number missing never grows.
            then = state
            for left, token in zip(range(len(plan or ()))[::-1], plan or (), strict=True):
                then = self.after(then, token)
                self._missing[then] = min(left, self._missing.get(then, NEVER))
        return self._missing[state]

    def helpful(self, state: State) -> Sequence[int]:
        """Return the pieces that reduce the number missing."""
        if (known := self._helpful.get(state)) is None:
            tokens = dict.fromkeys(chain(*self._ways(state)))
            known = self._helpful[state] = [
                token
                for token in tokens
                if (then := self._run(state, [token])) is not None
                and self.missing(then) < self.missing(state)
            ]
        return known

    def _is_whole(self, state: State) -> bool:
        """Return whether the translation may end."""
        at_end = self._automaton.at_end[state[0]]
        return not at_end & _FORBIDDEN and (state[1] | at_end) == self._all

    def _ways(self, state: State) -> list[Sequence[int]]:
        """Return the spellings of all missing phrases, alternatives included, in one list."""
        there = state[1] | self._automaton.at_end[state[0]]
        return [s for bit, each in self._spellings.items() if not there & bit for s in each]

    def _run(self, state: State, tokens: Sequence[int]) -> State | None:
        """Return the state after pieces; None if a forbidden phrase is complete."""
        for token in tokens:
            state = self.after(state, token)
            if state[1] & _FORBIDDEN:
                return None
        return state

    def _plan(self, state: State) -> list[int] | None:
        """Return pieces after which the translation may end, phrase by phrase; None if none do."""
        plan: list[int] = []
        while not self._is_whole(state):
            ways = self._ways(state) or [()]
            apart = ([*between, *way] for between in self._separators for way in ways)
            for move in chain(ways, apart):
                then = self._run(state, move)
                if then is not None and self._is_nearer(then, state, ways):
                    break
            else:
                return None
            plan += move
            state = then
        return plan

    def _is_nearer(self, then: State, state: State, ways: Sequence[Sequence[int]]) -> bool:
        if self._automaton.at_end[then[0]] & _FORBIDDEN:
            return False
        return ways == [()] or len(self._ways(then)) < len(ways)
