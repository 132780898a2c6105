"""One line of a table: its English and its French side. tables/rules.txt explains the notation."""

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
    """One place on either side of a rule."""

    forms: tuple[str, ...]  # the written forms of a word; none for a constituent
    child: int  # which constituent; -1 for a word
    part: slice  # which words of an English constituent stand here
    label: str  # words with the same label translate each other; 0 is for no translation
    marks: str
    head: bool
    tense: str


class Rule:
    """How a constituent is made of words and other constituents, or, in the lexicon, of words.

    Args:
        english: The English side.
        french: The French side.
        weight: How often it is drawn, in relation to others for the same constituent.
        like: The pronoun that others agree with as with this: elle for `une table`.
        tense: The tense of the clause, if these are auxiliaries.

    Raises:
        ValueError: something French has no counterpart on the English side.
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

        # Both sides as places; the constituents in English order, AUX[1:] being AUX[0] once more.
        tokens = _tokens(english)
        self.children = tuple([t[1] for t in tokens if is_constituent(t[1]) and t[2] != "[1:]"])
        names = [child.partition(".")[0] for child in self.children]
        self.english = list(_slots(tokens, names))
        self.french = list(_slots(_tokens(french), names))
        self._links = {slot.label: self._linked(slot) for slot in self.french if slot.forms}
        # English words besides those of the children, as `str.split` counts them.
        self.words = sum([slot.forms[0][-1] not in ",.?'" for slot in self.english if slot.forms])

        # Made first: what others agree with, then the auxiliary; last the verb, which has to know
        # what stands around it.
        self._head = next((slot.child for slot in self.english if slot.head), -1)
        tenses = {slot.child: NON_FINITE[slot.tense] for slot in self.english if slot.tense}
        order = sorted(range(len(names)), key=lambda i: (i != self._head, _VERBAL.get(names[i], 0)))
        self._order = [(child, tenses.get(child)) for child in order]
        self._clause = "AUX" in names
        self._antecedent = any(slot.marks for slot in self.english)

        # Short cuts: words that all translate each other; constituents alone; one constituent.
        slots = self.english + self.french
        self._marked = bool(tense) or any(slot.marks for slot in self.french)
        self._block = not names and not self._marked and not any(slot.label for slot in slots)
        self._bare = bool(names) and not any(s.forms or s.part != slice(None) for s in slots)
        self.passes = self._bare and len(slots) == 2

    def _linked(self, slot: Slot) -> list[int]:
        """Find the English places with a label; a constituent has one only if it is written."""
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
        """Make the children and lay out the words in both languages.

        Args:
            children: What `grow` needs to make each of them.
            grow: Makes a child that agrees with something, in a clause.
            outer: What the whole agrees with.
            clause: The clause around it.
        """
        if self._block:
            en = tuple([Word(outer.english(slot.forms)) for slot in self.english])
            fr = tuple([Word(outer.french(slot.forms), en) for slot in self.french])
            return Phrase(en, fr, self._agreement)

        # The children; what they say about the clause is known to those that follow.
        agreement, like = outer, self._agreement
        if self._clause:
            clause = Clause(object_in_front=outer if self._antecedent else None)
        parts: dict[int, Phrase] = {}
        for child, tense in self._order:
            around = Clause(tense) if tense else clause
            part = grow(children[child], agreement, around)
            if part.clause:
                # An object pronoun of the person of the subject (I see us) is drawn again.
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
        """Leave French words to the verb to place: <ne >pas, @<le_."""
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
    """Tell NP.pos.k from words: at least two letters, all of them capitals."""
    name = text.partition(".")[0]
    return len(name) > 1 and name.isupper()


def _flat(spans: list[Words]) -> Words:
    return tuple(chain.from_iterable(spans))


def _tokens(side: str) -> list[tuple[str, ...]]:
    """Cut a side into words, l'homme into two, and each into the groups of `_TOKEN`."""
    words = re.sub(r"'(?=[^\W\d])", "' ", side).split()
    return [token.groups("") for token in map(_TOKEN.fullmatch, words) if token]


def _slots(tokens: list[tuple[str, ...]], names: list[str]) -> Iterator[Slot]:
    mentioned: list[str] = []
    for marks, text, part, label, star, tense in tokens:
        forms, child = tuple(text.split("/")), -1
        if is_constituent(text):
            # Of two alike, the first mention is the first one.
            name = text.partition(".")[0]
            alike = [child for child, other in enumerate(names) if other == name]
            nth = 0 if part else mentioned.count(name)
            if nth >= len(alike):
                raise ValueError(f"{name} is not on the English side")
            forms, child = (), alike[nth]
            mentioned.append(name)
        yield Slot(forms, child, _PARTS[part], label, marks, bool(star), tense)
