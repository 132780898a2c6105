"""Words that must appear in a translation, and words that must not.

Both are followed by one automaton, whatever pieces spell them. A required phrase is one of several
alternatives; a translation that has not all of them does not end, and pieces are forbidden that
leave too few steps for what is missing. How many pieces that takes is known from a plan: a spelling
of each missing phrase, and between them pieces that keep them from being part of a forbidden one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from seq2seq.data.tokenizer import EOS, UNK
from seq2seq.decoding.automaton import Automaton, PieceTexts
from seq2seq.decoding.ruled import Mask

MOST = 30
"""Required phrases, which are bits of a number of 31."""

NEVER = 1 << 30
"""Pieces that are missing where there is no way."""

_FORBIDDEN = 1
_SEPARATORS = 100

State = tuple[int, int]
"""Of the automaton, and the required phrases that are there, as bits; bit 0 is none."""


@dataclass(frozen=True)
class Phrase:
    """A phrase as the vocabulary has it."""

    text: str  # of its pieces
    spelling: Sequence[int]  # pieces, after whatever stands before it


class Phrases:
    """`ruled.Goal` of a sentence.

    Args:
        pieces: Of the vocabulary.
        required: Alternatives of each phrase.
        forbidden: Texts.
        before: What a translation begins with before the rule applies.
        unknown: Whether the unknown symbol may be emitted.
    """

    gives_way = False

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
        # Of the shortest pieces one or other parts any two phrases.
        self._separators = [[int(i)] for i in pieces.order[::-1][:_SEPARATORS] if i > EOS]
        longest = (max(map(len, each)) for each in self._spellings.values())
        self._enough = 2 * (sum(longest) + len(required)) + 3  # more than any plan
        self._missing: dict[State, int] = {}
        self._masks: dict[tuple[State, int], Mask] = {}
        self._helpful: dict[State, Sequence[int]] = {}
        self._before = before
        self.start: State = self._automaton.step(0, before)

    def breaks(self, spelt: str) -> bool:
        """Return whether a forbidden phrase stands in what a translation begins with.

        Args:
            spelt: Of a last word that goes on; where it is empty the word ends.
        """
        now, mark = self._automaton.step(0, self._before + spelt)
        at_end = 0 if spelt else self._automaton.at_end[now]
        return bool((mark | at_end) & _FORBIDDEN)

    def allowed(self, state: State, left: int) -> Mask:
        """Return what may come next, with so many steps left after it."""
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
        """Return the state after a piece, which is an allowed one."""
        now, mark = self._automaton.step(state[0], self._texts[token])
        return now, state[1] | mark

    def missing(self, state: State) -> int:
        """Return how many pieces it takes until the translation may end, or `NEVER`."""
        if state not in self._missing:
            plan = self._plan(state)
            self._missing[state] = NEVER if plan is None else len(plan)
            # Whoever follows the plan finds it no longer than it was.
            then = state
            for left, token in zip(range(len(plan or ()))[::-1], plan or (), strict=True):
                then = self.after(then, token)
                self._missing[then] = min(left, self._missing.get(then, NEVER))
        return self._missing[state]

    def helpful(self, state: State) -> Sequence[int]:
        """Return pieces of which less is missing after them."""
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
        """Return spellings of all that is missing, alternatives beside each other."""
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
        """Return pieces after which the translation may end, one phrase after the other."""
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
