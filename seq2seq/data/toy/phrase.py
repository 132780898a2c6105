"""Phrases in two languages at once: French words remember the English words they translate.

A rule lays out its English and its French words in whatever order each language wants; because a
French word holds references (`sources`), reordering needs no index arithmetic.
"""

from typing import NamedTuple


class Word:
    """One word of either language; identity matters, so a word belongs to one sentence only."""

    __slots__ = ("sources", "text")

    def __init__(self, text: str, sources: "Words" = ()) -> None:
        self.text = text  # as written, except for underscores, see spelling.txt
        self.sources = sources  # the English words that a French word translates


Words = tuple[Word, ...]


class Agreement(NamedTuple):
    """What verbs, determiners and adjectives take from a noun or pronoun."""

    person: int  # index into je, tu, il, nous, vous, ils
    feminine: bool = False

    def english(self, forms: tuple[str, ...]) -> str:
        """Pick of one form, or of three for I, he and we: am/is/are."""
        return forms[0] if len(forms) == 1 else forms[{0: 0, 2: 1}.get(self.person, 2)]

    def french(self, forms: tuple[str, ...]) -> str:
        """Pick of petit/petite/petits/petites, le/la/les, un/une or one form for all."""
        if self.person > 2 and len(forms) > 2:
            return forms[2 + (self.feminine and len(forms) > 3)]
        return forms[self.feminine and len(forms) > 1]

    def same_person(self, other: "Agreement") -> bool:
        """True for I and us, for you and you; he and him may be two."""
        return self.person % 3 == other.person % 3 < 2


# Named by the French pronoun for the noun.
LIKE = {name: Agreement(i) for i, name in enumerate(("je", "tu", "il", "nous", "vous", "ils"))}
LIKE |= {"elle": Agreement(2, feminine=True), "elles": Agreement(5, feminine=True)}


class Tense(NamedTuple):
    """How the verb of a clause is formed."""

    english: str  # form of the verb: base, s, ed, en or ing
    helper: str  # French auxiliary and its tense, `avoir:present`, if there is one
    french: str  # form of the verb: a tense, or behind an auxiliary infinitive or participle


class Clause(NamedTuple):
    """What a verb has to know of its clause."""

    tense: Tense | None = None
    helpers: Words = ()  # English auxiliaries; the French verb translates them as well
    before: Words = ()  # French words in front of the verb: ne and object pronouns
    after: Words = ()  # French words behind the finite verb: pas, jamais, rien, souvent
    object_in_front: Agreement | None = None  # la lettre qu'il a écrite, il l'a écrite


class Phrase(NamedTuple):
    """English words and the French words that translate them."""

    en: Words
    fr: Words
    agreement: Agreement | None = None  # what others agree with
    clause: Clause | None = None  # the clause with what this adds to it, if anything
