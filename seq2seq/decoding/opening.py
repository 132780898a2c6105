"""What a translation begins with: given text, whose pieces are forced.

The pieces are those into which the target vocabulary cuts the text, unknown ones too: in the
translation they are written as they were given. After them a word begins. Where the last word may
be completed its pieces are not forced, or the model could not go on with them as it would from
another cut (`hou` may be `ho`, `u`, and `house` one piece): any may come that spells it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seq2seq.data.tokenizer import SPACE, Tokenizer, surface
from seq2seq.data.words import Span, joins
from seq2seq.decoding.automaton import PieceTexts
from seq2seq.decoding.ruled import Mask, Rule


@dataclass(frozen=True)
class Opening:
    """The beginning of a translation."""

    text: str
    ids: Sequence[int]  # forced
    pieces: Sequence[str]  # of them, unknown ones as in the text
    spans: Sequence[Span]  # in the text
    spelt: str  # what pieces after those spell: the last word, a space in front; or nothing
    rule: Rule | None  # for what comes next

    def restored(self, pieces: Sequence[str]) -> list[str]:
        """Return pieces of a translation, those that were forced as they were given."""
        return [*self.pieces, *pieces[len(self.pieces) :]]

    def rewritten(self, text: str, spans: Sequence[Span]) -> tuple[str, list[Span]]:
        """Return the text that a vocabulary wrote, beginning as it was given; and its spans."""
        forced = len(self.ids)
        end = spans[forced - 1].end if forced else 0
        if self.spelt:
            start = spans[forced].start
            end = start + (text[start : start + 1] == " ") + len(self.spelt.lstrip())
        shift, floor = len(self.text) - end, self.spans[-1].end if forced else 0
        moved = [Span(*(max(at + shift, floor) for at in span)) for span in spans[forced:]]
        return self.text + text[end:], [*self.spans, *moved]


def opening_of(
    text: str, target: Tokenizer, texts: PieceTexts, *, complete: bool
) -> Opening | None:
    """Return how translations begin with a text; None if there is nothing to see in it.

    Args:
        text: Spaces at its ends do not matter, but that one at the end ends the last word.
        target: The vocabulary.
        texts: Of its pieces.
        complete: Whether the last word may be completed.
    """
    complete = complete and not text[-1:].isspace()
    text, _ = surface([text])
    [tokens] = target.tokens([text])
    if not tokens:
        return None
    forced, spelt = len(tokens), ""
    rule: Rule | None = WordEnd(texts) if joins(text[-1]) else None
    if complete:
        begin = max(
            (i for i, token in enumerate(tokens) if token.piece.startswith(SPACE)), default=0
        )
        rest = "".join(texts.of(token.piece) for token in tokens[begin:]).rstrip(" ")
        completion = Completion(rest, texts)
        if completion.next[0]:
            forced, spelt, rule = begin, rest, completion
    head = tokens[:forced]
    return Opening(
        text=text,
        ids=[token.id for token in head],
        pieces=[token.piece for token in head],
        spans=[token.span for token in head],
        spelt=spelt,
        rule=rule,
    )


class WordEnd:
    """`ruled.Rule`: no piece goes on with the word before the first. The state: whether it came."""

    gives_way = False
    start = False

    def __init__(self, texts: PieceTexts) -> None:
        self._mask: Mask = np.array([not joins(text[:1]) for text in texts.texts])

    def allowed(self, state: bool, left: int) -> Mask | None:
        """Return what does not begin inside of a word."""
        return None if state else self._mask

    def after(self, state: bool, token: int) -> bool:
        """Return that a piece came."""
        return True


class Completion:
    """`ruled.Rule`: pieces that spell the beginning of a word and go on with it as they like.

    The state is how many characters are spelt.
    """

    gives_way = False
    start = 0

    def __init__(self, spelt: str, texts: PieceTexts) -> None:
        self._texts = texts.texts
        self.next: list[list[int]] = [[] for _ in spelt]
        """Pieces by the number of characters before them, from which the word can be spelt."""
        longest = texts.codes.shape[1]
        ids: dict[str, list[int]] = {}
        for i, text in enumerate(texts.texts):
            if text:
                ids.setdefault(text, []).append(i)
        for at in reversed(range(len(spelt))):
            whole = [text for text in ids if text.startswith(spelt[at:])]
            part = (end for end in range(at + 1, min(len(spelt), at + longest)) if self.next[end])
            parts = [spelt[at:end] for end in part]
            self.next[at] = [i for text in whole + parts for i in ids.get(text, ())]

    def allowed(self, state: int, left: int) -> Mask | None:
        """Return what spells more of it."""
        if state >= len(self.next):
            return None
        mask = np.zeros(len(self._texts), np.bool_)
        mask[self.next[state]] = True
        return mask

    def after(self, state: int, token: int) -> int:
        """Count the characters of a piece."""
        return state + len(self._texts[token])
