"""Phrases in two languages at once: French words reference the English words they translate.

A rule orders its English and its French words independently; since a French word holds references
(`sources`), reordering needs no index arithmetic.
"""

from typing import NamedTuple


class Word:
    """A word of either language; compared by identity, so it belongs to a single sentence."""

    __slots__ = ("sources", "text")

    def __init__(self, text: str, sources: "Words" = ()) -> None:
        self.text = text  # as written, except for underscores (see spelling.txt)
        self.sources = sources  # the English words that a French word translates


Words = tuple[Word, ...]


class Agreement(NamedTuple):
    """The features that verbs, determiners and adjectives agree with."""

    person: int  # index into je, tu, il, nous, vous, ils
    feminine: bool = False

    def english(self, forms: tuple[str, ...]) -> str:
        """Choose the form: one for all, or three for I, he and we (am/is/are)."""
        return forms[0] if len(forms) == 1 else forms[{0: 0, 2: 1}.get(self.person, 2)]

    def french(self, forms: tuple[str, ...]) -> str:
        """Choose from petit/petite/petits/petites, le/la/les, un/une or one form for all."""
        if self.person > 2 and len(forms) > 2:
            return forms[2 + (self.feminine and len(forms) > 3)]
        return forms[self.feminine and len(forms) > 1]

    def same_person(self, other: "Agreement") -> bool:
        """True for I and us, for you and you; not for he and him, who may be two people."""
        return self.person % 3 == other.person % 3 < 2


# By the French pronoun that would replace the noun.
LIKE = {name: Agreement(i) for i, name in enumerate(("je", "tu", "il", "nous", "vous", "ils"))}
LIKE |= {"elle": Agreement(2, feminine=True), "elles": Agreement(5, feminine=True)}


class Tense(NamedTuple):
    """The form of the verb of a clause."""

    english: str  # form of the verb: base, s, ed, en or ing
    helper: str  # French auxiliary and its tense, `avoir:present`; may be empty
    french: str  # form of the verb: a tense, or infinitive or participle after an auxiliary


class Clause(NamedTuple):
    """The context of a verb in its clause."""

    tense: Tense | None = None
    helpers: Words = ()  # English auxiliaries; the French verb also translates them
    before: Words = ()  # French words before the verb: ne and object pronouns
    after: Words = ()  # French words after the finite verb: pas, jamais, rien, souvent
    object_in_front: Agreement | None = None  # la lettre qu'il a écrite, il l'a écrite


class Phrase(NamedTuple):
    """English words and the French words that translate them."""

    en: Words
    fr: Words
    agreement: Agreement | None = None  # what other words agree with
    clause: Clause | None = None  # the clause with the additions of this phrase, if any
