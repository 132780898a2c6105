"""Makes a translation begin with a given text, by forcing its pieces.

The target vocabulary cuts the text into pieces; unknown ones are written as given. A new word
begins after them. If the last word may be completed, its pieces are not forced, since the model
might prefer another segmentation (`hou` may be `ho`, `u`, and `house` one piece): any pieces that
spell it are allowed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seq2seq.data.tokenizer import LINE_BREAKS, SPACE, Tokenizer, surface
from seq2seq.data.words import Span, joins
from seq2seq.decoding.automaton import PieceTexts
from seq2seq.decoding.constrained import Mask, Rule


@dataclass(frozen=True)
class Prefix:
    """The beginning of a translation."""

    text: str
    ids: Sequence[int]  # forced
    pieces: Sequence[str]  # of the ids, unknown ones as in the text
    spans: Sequence[Span]  # in the text
    partial: str  # the word to complete after the ids, with a space in front; may be empty
    rule: Rule | None  # for the pieces that follow


def write(
    target: Tokenizer, pieces: list[str], prefix: Prefix | None
) -> tuple[list[str], str, Sequence[Span]]:
    """Return the pieces of a translation, its text and their spans; a prefix stays as given."""
    if prefix is None:
        return pieces, *target.write(pieces)
    forced = len(prefix.ids)
    pieces = [*prefix.pieces, *pieces[forced:]]
    text, spans = target.write(pieces)
    # Where the vocabulary's own writing of the beginning ends
    end = spans[forced - 1].end if forced else 0
    if prefix.partial:
        start = spans[forced].start
        end = start + (text[start : start + 1] == " ") + len(prefix.partial.lstrip())
    shift, floor = len(prefix.text) - end, prefix.spans[-1].end if forced else 0
    moved = [Span(*(max(at + shift, floor) for at in span)) for span in spans[forced:]]
    return pieces, prefix.text + text[end:], [*prefix.spans, *moved]


def prefix_of(text: str, target: Tokenizer, texts: PieceTexts, *, complete: bool) -> Prefix | None:
    """Return the prefix that a text is; None if the text has no tokens.

    Spaces around it are ignored, except that one at the end ends the last word, which may else be
    completed if `complete`.
    """
    # The tokens of the text: all are forced unless its last word may go on.
    complete = complete and not text[-1:].isspace()
    text, _ = surface([text])
    [tokens] = target.tokens([text])
    if not tokens:
        return None
    forced, partial = len(tokens), ""
    rule: Rule | None = WordEnd(texts) if joins(text[-1]) else None
    if complete:
        # Of that word only the letters are certain, not how it is cut.
        begin = max(
            (i for i, token in enumerate(tokens) if token.piece.startswith(SPACE)), default=0
        )
        rest = "".join(texts.of(token.piece) for token in tokens[begin:]).rstrip(" ")
        completion = Completion(rest, texts)
        if completion.next[0]:
            forced, partial, rule = begin, rest, completion
    head = tokens[:forced]
    ids, pieces = [token.id for token in head], [token.piece for token in head]
    return Prefix(text, ids, pieces, [token.span for token in head], partial, rule)


def exactly(text: str, target: Tokenizer) -> Prefix | None:
    """Return the prefix that a text is, spaces included, after which anything may follow.

    For a vocabulary whose pieces spell a text in one way only, such as characters.
    """
    [tokens] = target.tokens([text.translate(LINE_BREAKS)])
    if not tokens:
        return None
    ids, pieces, spans = map(list, zip(*tokens, strict=True))
    return Prefix(text[: spans[-1].end].translate(LINE_BREAKS), ids, pieces, spans, "", None)


class WordEnd:
    """A `Rule`: the first piece begins a new word. Its state is whether that piece came."""

    soft = False
    start = False

    def __init__(self, texts: PieceTexts) -> None:
        self._mask: Mask = np.array([not joins(text[:1]) for text in texts.texts])

    def allowed(self, state: bool, left: int) -> Mask | None:
        """Return the pieces that do not continue a word."""
        return None if state else self._mask

    def after(self, state: bool, token: int) -> bool:
        """Return True: a piece came."""
        return True


class Completion:
    """A `constrained.Rule`: pieces spell the beginning of a word, then continue freely.

    Its state is the number of characters spelled.
    """

    soft = False
    start = 0

    def __init__(self, partial: str, texts: PieceTexts) -> None:
        self._texts = texts.texts
        self.next: list[list[int]] = [[] for _ in partial]
        """By number of characters spelled: the pieces from which the rest can still be spelled."""
        longest = texts.codes.shape[1]
        ids: dict[str, list[int]] = {}
        for i, text in enumerate(texts.texts):
            if text:
                ids.setdefault(text, []).append(i)
        for at in reversed(range(len(partial))):
            whole = [text for text in ids if text.startswith(partial[at:])]
            part = (end for end in range(at + 1, min(len(partial), at + longest)) if self.next[end])
            parts = [partial[at:end] for end in part]
            self.next[at] = [i for text in whole + parts for i in ids.get(text, ())]

    def allowed(self, state: int, left: int) -> Mask | None:
        """Return the pieces that spell more of the word."""
        if state >= len(self.next):
            return None
        mask = np.zeros(len(self._texts), np.bool_)
        mask[self.next[state]] = True
        return mask

    def after(self, state: int, token: int) -> int:
        """Add the characters of a piece."""
        return state + len(self._texts[token])
