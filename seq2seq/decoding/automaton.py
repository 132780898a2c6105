"""Finds given phrases as whole words in a text that grows piece by piece.

A phrase matches if its characters occur between two word boundaries. There is a boundary between
two characters unless a word continues across them (`data.words.joins`): `house` occurs in
`house-bound`, not in `houses`; Chinese phrases may occur anywhere. The state of the automaton is
the set of partial matches (the subset construction over characters); it advances along all pieces
of a vocabulary at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seq2seq.data.tokenizer import EOS, PAD, SPACE, UNK, Tokenizer
from seq2seq.data.word_vocabulary import plain
from seq2seq.data.words import joins

Ints = npt.NDArray[np.int64]

_NO_TEXT = {PAD: "", EOS: "", UNK: " \0 "}  # no phrase contains the unknown word


class PieceTexts:
    """The text that each piece of a vocabulary adds, spaces included.

    If all pieces are words, a space also follows each: no piece can continue the word of another.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = tokenizer.pieces(range(len(tokenizer)))
        words = (piece for i, piece in enumerate(pieces) if i not in _NO_TEXT)
        self.of_words = all(piece.startswith(SPACE) for piece in words)
        self.texts = [_NO_TEXT.get(i, self.of(piece)) for i, piece in enumerate(pieces)]
        self.ids = {text: i for i, text in reversed([*enumerate(self.texts)])}
        # Characters as integers (K_y, longest), longest pieces first.
        self.alphabet = {char: i for i, char in enumerate(sorted({*"".join(self.texts)}))}
        lengths = np.array([len(text) for text in self.texts])
        self.order = np.argsort(-lengths, kind="stable")
        self.codes = np.zeros((len(lengths), lengths.max()), np.int32)
        for row, i in enumerate(self.order):
            self.codes[row, : lengths[i]] = [self.alphabet[char] for char in self.texts[i]]
        self.longer = [int((lengths > place).sum()) for place in range(lengths.max())]

    def of(self, piece: str) -> str:
        """Return the text of a piece: one of this vocabulary or an unknown one of a given text."""
        if self.of_words:
            return f" {plain(piece.removeprefix(SPACE))} "
        return piece.replace(SPACE, " ")


@dataclass(frozen=True)
class Row:
    """The transitions of all pieces from a state."""

    outcomes: Sequence[tuple[int, int]]  # next state, marks of the phrases completed
    which: Ints  # (K_y,) index of each piece's outcome


class Automaton:
    """Tracks phrases; each has a mark (a bit) that is set when the phrase is complete.

    Several may share a mark. State 0 is the beginning of a text. Repeated spaces count as one.
    """

    def __init__(self, phrases: Mapping[str, int], pieces: PieceTexts) -> None:
        self._phrases, self._pieces = list(phrases.items()), pieces
        # The characters of the phrases; all others form two classes: word characters and the rest.
        known = sorted({" ", *"".join(phrases)})
        chars = [*((char, joins(char)) for char in known), ("", False), ("", True)]
        self._class = {char: i for i, char in enumerate(known)}
        # Follow them from every state that can be reached.
        states, numbers = [_START], {_START: 0}
        after, marks = [], []
        for state in states:  # grows during the loop
            steps = [self._advance(state, char, inner) for char, inner in chars]
            for then, _ in steps:
                if then not in numbers:
                    numbers[then] = len(states)
                    states.append(then)
            after.append([numbers[then] for then, _ in steps])
            marks.append([mark for _, mark in steps])
        self._after, self._marks = np.array(after), np.array(marks)
        self._class_of = np.array([self._classify(char) for char in pieces.alphabet])
        self.at_end = [self._ending(state) for state in states]
        """By state, the marks of phrases that are complete if the text or the word ends there."""
        self._rows: dict[int, Row] = {}
        self._steps: dict[tuple[int, str], tuple[int, int]] = {}

    def _advance(self, state: "_State", char: str, inner: bool) -> tuple["_State", int]:
        """Read a character; `inner` says whether it is a word character. Return completed marks."""
        if state.last == char == " ":
            return state, 0
        boundary, mark, places = not (inner and state.inside), 0, set()
        for number, (phrase, own) in enumerate(self._phrases):
            for place in (0, *(at for which, at in state.places if which == number)):
                if place == len(phrase):
                    mark |= own * boundary
                elif (place or boundary) and phrase[place] == char:
                    if place + 1 == len(phrase) and not inner:
                        mark |= own  # a boundary, whatever follows
                    else:
                        places.add((number, place + 1))
        return _State(frozenset(places), " " if char == " " else "", inner), mark

    def _classify(self, char: str) -> int:
        return self._class.get(char, len(self._class) + joins(char))

    def _ending(self, state: "_State") -> int:
        whole = (number for number, at in state.places if at == len(self._phrases[number][0]))
        return reduce(or_, (self._phrases[number][1] for number in whole), 0)

    def step(self, state: int, text: str) -> tuple[int, int]:
        """Read a text; return the state and the marks of the phrases completed."""
        if (known := self._steps.get((state, text))) is None:
            now, mark = state, 0
            for char in text:
                of = self._classify(char)
                now, mark = int(self._after[now, of]), mark | int(self._marks[now, of])
            known = self._steps[state, text] = now, mark
        return known

    def row(self, state: int) -> Row:
        """Return the transitions of every piece of the vocabulary from a state."""
        if (row := self._rows.get(state)) is None:
            pieces = self._pieces
            now = np.full(len(pieces.order), state)
            mark = np.zeros_like(now)
            for place, count in enumerate(pieces.longer):
                of = self._class_of[pieces.codes[:count, place]]
                mark[:count] |= self._marks[now[:count], of]
                now[:count] = self._after[now[:count], of]
            codes, which = np.unique(now << 32 | mark, return_inverse=True)
            row = Row([divmod(int(code), 1 << 32) for code in codes], np.empty_like(now))
            row.which[pieces.order] = which
            self._rows[state] = row
        return row


class _State(NamedTuple):
    places: frozenset[tuple[int, int]]  # (phrase number, number of its characters matched so far)
    last: str  # " " after a space, else empty
    inside: bool  # whether the last character is a word character


_START = _State(frozenset(), " ", False)
