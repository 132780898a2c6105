"""A rule: the English and French side of a table line. tables/rules.txt explains the notation."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, TypeVar

from seq2seq.data.toy.phrase import LIKE, Agreement, Clause, Phrase, Tense, Word, Words
from seq2seq.data.toy.verbs import NON_FINITE

T = TypeVar("T")

# marks, text, [part], label, *, :tense
_TOKEN = re.compile(r"([<>@]*)([^\d*:[]+)(\[0\]|\[1:\])?(\d?)(\*?)(?::(\w+))?")
_PARTS = {"": slice(None), "[0]": slice(1), "[1:]": slice(1, None)}
_VERBAL = {"AUX": -1, "VERB": 1, "VP": 1, "BE": 1}


class Slot(NamedTuple):
    """One position on either side of a rule."""

    forms: tuple[str, ...]  # the written forms of a word; empty for a constituent
    child: int  # index of the constituent; -1 for a word
    part: slice  # the words of an English constituent to put here
    label: str  # words with the same label translate each other; 0 means no translation
    marks: str
    head: bool
    tense: str


class Rule:
    """Makes a constituent from words and other constituents or, in the lexicon, from words alone.

    Args:
        english: The English side.
        french: The French side.
        weight: Relative frequency among the rules for the same constituent.
        like: The pronoun with the same agreement: elle for `une table`.
        tense: The tense of the clause, if the words are auxiliaries.

    Raises:
        ValueError: a French part has no counterpart on the English side.
    """

    def __init__(
        self,
        english: str,
        french: str,
        weight: float = 1.0,
        like: str = "",
        tense: Tense | None = None,
    ) -> None:
        self.weight, self._agreement, self.tense = weight, LIKE.get(like), tense

        # Slots of both sides; constituents in English order (AUX[1:] is the same as AUX[0]).
        tokens = _tokens(english)
        self.children = tuple([t[1] for t in tokens if is_constituent(t[1]) and t[2] != "[1:]"])
        names = [child.partition(".")[0] for child in self.children]
        self.english = list(_slots(tokens, names))
        self.french = list(_slots(_tokens(french), names))
        self._links = {slot.label: self._linked(slot) for slot in self.french if slot.forms}
        # Number of English words without those of the children, as counted by `str.split`.
        self.words = sum([slot.forms[0][-1] not in ",.?'" for slot in self.english if slot.forms])

        # Order of making: what others agree with, then the auxiliary; last the verb, which needs
        # its context.
        self._head = next((slot.child for slot in self.english if slot.head), -1)
        tenses = {slot.child: NON_FINITE[slot.tense] for slot in self.english if slot.tense}
        order = sorted(range(len(names)), key=lambda i: (i != self._head, _VERBAL.get(names[i], 0)))
        self._order = [(child, tenses.get(child)) for child in order]
        self._clause = "AUX" in names
        self._antecedent = any(slot.marks for slot in self.english)

        # Fast paths: words that all translate each other; only constituents; one constituent.
        slots = self.english + self.french
        self._marked = bool(tense) or any(slot.marks for slot in self.french)
        self._block = not names and not self._marked and not any(slot.label for slot in slots)
        self._bare = bool(names) and not any(s.forms or s.part != slice(None) for s in slots)
        self.passes = self._bare and len(slots) == 2

    def _linked(self, slot: Slot) -> list[int]:
        """Find the English slots of a label; constituents need an explicit one."""
        alike = [i for i, s in enumerate(self.english) if s.label == slot.label]
        places = [i for i in alike if slot.label or self.english[i].forms]
        if not places:
            raise ValueError(f"{'/'.join(slot.forms)} translates nothing")
        return places

    def make(
        self,
        children: Sequence[T],
        grow: Callable[[T, Agreement, Clause], Phrase],
        outer: Agreement,
        clause: Clause,
    ) -> Phrase:
        """Make the children and arrange the words in both languages.

        Args:
            children: The argument of `grow` for each child.
            grow: Makes a child, given its agreement and clause.
            outer: The agreement of the whole.
            clause: The enclosing clause.
        """
        if self._block:
            en = tuple([Word(outer.english(slot.forms)) for slot in self.english])
            fr = tuple([Word(outer.french(slot.forms), en) for slot in self.french])
            return Phrase(en, fr, self._agreement)

        # The children; their additions to the clause are passed to later ones.
        agreement, like = outer, self._agreement
        if self._clause:
            clause = Clause(object_in_front=outer if self._antecedent else None)
        parts: dict[int, Phrase] = {}
        for child, tense in self._order:
            around = Clause(tense) if tense else clause
            part = grow(children[child], agreement, around)
            if part.clause:
                # Redraw an object pronoun in the person of the subject (I see us).
                while part.agreement and agreement.same_person(part.agreement):
                    part = grow(children[child], agreement, around)
                clause = part.clause or clause
            if child == self._head:
                agreement = like = part.agreement or agreement
            parts[child] = part
        if self._bare:
            spans = [parts[slot.child].en for slot in self.english]
            return Phrase(_flat(spans), _flat([parts[s.child].fr for s in self.french]), like)

        # The words between them.
        spans = [
            (Word(agreement.english(slot.forms)),)
            if slot.forms
            else parts[slot.child].en[slot.part]
            for slot in self.english
        ]
        laid = [
            (Word(agreement.french(slot.forms), self._sources(slot, spans)),)
            if slot.forms
            else parts[slot.child].fr
            for slot in self.french
        ]
        if self._marked:
            return self._for_verb(spans, laid, clause)
        return Phrase(_flat(spans), _flat(laid), like)

    def _sources(self, slot: Slot, spans: list[Words]) -> Words:
        return _flat([spans[place] for place in self._links[slot.label]])

    def _for_verb(self, spans: list[Words], laid: list[Words], clause: Clause) -> Phrase:
        """Hand French words to the verb, which places them: <ne >pas, @<le_."""
        places: dict[str, Words] = {"": (), "<": clause.before, ">": clause.after}
        for slot, words in zip(self.french, laid, strict=True):
            places[slot.marks.removeprefix("@")] += words
            if "@" in slot.marks:
                clause = clause._replace(object_in_front=self._agreement)
        if self.tense:
            slots = zip(spans, self.english, strict=True)
            helpers = _flat([span for span, slot in slots if not slot.label])
            clause = clause._replace(tense=self.tense, helpers=helpers)
        clause = clause._replace(before=places["<"], after=places[">"])
        return Phrase(_flat(spans), places[""], self._agreement, clause)


def is_constituent(text: str) -> bool:
    """Whether a text is a constituent (NP.pos.k), not a word: two or more letters, all capitals."""
    name = text.partition(".")[0]
    return len(name) > 1 and name.isupper()


def _flat(spans: list[Words]) -> Words:
    return tuple(chain.from_iterable(spans))


def _tokens(side: str) -> list[tuple[str, ...]]:
    """Split a side into words (l'homme into two), and each word into the groups of `_TOKEN`."""
    words = re.sub(r"'(?=[^\W\d])", "' ", side).split()
    return [token.groups("") for token in map(_TOKEN.fullmatch, words) if token]


def _slots(tokens: list[tuple[str, ...]], names: list[str]) -> Iterator[Slot]:
    mentioned: list[str] = []
    for marks, text, part, label, star, tense in tokens:
        forms, child = tuple(text.split("/")), -1
        if is_constituent(text):
            # Of two with the same name, the first mention is the first.
            name = text.partition(".")[0]
            alike = [child for child, other in enumerate(names) if other == name]
            nth = 0 if part else mentioned.count(name)
            if nth >= len(alike):
                raise ValueError(f"{name} is not on the English side")
            forms, child = (), alike[nth]
            mentioned.append(name)
        yield Slot(forms, child, _PARTS[part], label, marks, bool(star), tense)
