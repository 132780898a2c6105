"""Typed entries, read once from the tables of `lexicon.py`."""

from typing import NamedTuple

from seq2seq.data.grammar.lexicon import (
    ADJECTIVES_AFTER,
    ADJECTIVES_BEFORE,
    ADJECTIVES_RELATIONAL,
    CITIES,
    COMPARED,
    COUNTRIES,
    MODIFIERS,
    NATIONALITIES,
    NOUNS,
    VERBS,
)
from seq2seq.data.grammar.morphology import (
    EnglishVerb,
    FrenchVerb,
    conjugate,
    english_plural,
    english_verb,
    french_feminine,
    french_plural,
)


class Noun(NamedTuple):
    """A noun; `kind` is its row in `NOUNS`."""

    en: str
    en_plural: str
    fr: str
    fr_plural: str
    feminine: bool
    kind: str


class Adjective(NamedTuple):
    """An adjective; `forms` are masculine, feminine, masculine plural, feminine plural."""

    en: str
    forms: tuple[str, str, str, str]
    before_vowel: str


class Verb(NamedTuple):
    """A verb with its frame.

    `particle` is the English word after it (look at); `link` the French preposition before an
    infinitive (essayer de); a `state` has no progressive.
    """

    en: EnglishVerb
    particle: str
    fr: FrenchVerb
    reflexive: bool
    link: str
    state: bool


def _entries(table: str) -> list[tuple[str, str]]:
    pairs = [" ".join(entry.split()).split(" = ") for entry in table.split(",")]
    return [(en, fr) for en, fr in pairs]


def _noun(en: str, fr: str, kind: str) -> Noun:
    singular, _, plural = en.partition("/")
    article, _, french = fr.partition(" ")
    fr_singular, _, fr_plural = french.partition("/")
    return Noun(
        singular,
        plural or english_plural(singular),
        fr_singular,
        fr_plural or french_plural(fr_singular),
        article == "une",
        kind,
    )


def _adjective(en: str, fr: str) -> Adjective:
    masculine, feminine, vowel = [*fr.split("/"), "", ""][:3]
    feminine = feminine or french_feminine(masculine)
    forms = (masculine, feminine, french_plural(masculine), french_plural(feminine))
    return Adjective(en, forms, vowel or masculine)


def _verb(en: str, fr: str) -> Verb:
    head, *principal = en.split()
    base, _, particle = head.rstrip("!").partition("+")
    infinitive, _, link = fr.removeprefix("se ").removeprefix("s'").partition(" ")
    reflexive = fr.startswith(("se ", "s'"))
    forms = english_verb(base, *principal)
    return Verb(forms, particle, conjugate(infinitive), reflexive, link, head.endswith("!"))


def _adjectives(table: dict[str, str]) -> dict[str, tuple[Adjective, ...]]:
    by_kind: dict[str, tuple[Adjective, ...]] = {kind: () for kind in NOUNS}
    for kinds, row in table.items():
        adjectives = tuple(_adjective(*entry) for entry in _entries(row))
        for kind in kinds.split():
            by_kind[kind] += adjectives
    return by_kind


def _modifiers() -> dict[str, tuple[tuple[str, str], ...]]:
    by_head: dict[str, tuple[tuple[str, str], ...]] = {}
    for line in MODIFIERS.strip().splitlines():
        modifier, _, heads = line.partition(":")
        en, fr = (part.strip() for part in modifier.split("="))
        # Uncontracted, one word each; `render` writes du, de l', d' where they belong.
        whole = fr.replace("du ", "de le ").replace("l'", "le ").replace("d'", "de ")
        for head in heads.split():
            by_head[head] = (*by_head.get(head, ()), (en, whole))
    return by_head


NOUNS_BY_KIND = {
    kind: tuple(_noun(*entry, kind) for entry in _entries(row)) for kind, row in NOUNS.items()
}
NOUN = {noun.en: noun for nouns in NOUNS_BY_KIND.values() for noun in nouns}
BEFORE = _adjectives(ADJECTIVES_BEFORE)
AFTER = _adjectives(ADJECTIVES_AFTER)
RELATIONAL = _adjectives(ADJECTIVES_RELATIONAL)
NATIONALITY = _adjectives(NATIONALITIES)
ADJECTIVE = {
    adjective.en: adjective
    for table in (BEFORE, AFTER, RELATIONAL, NATIONALITY)
    for row in table.values()
    for adjective in row
}
MODIFIERS_OF = _modifiers()
VERBS_BY_FRAME = {
    frame: tuple(_verb(*entry) for entry in _entries(row)) for frame, row in VERBS.items()
}
BE = Verb(
    english_verb("be", "was", "been")._replace(third="is"), "", conjugate("être"), False, "", True
)
GO = conjugate("aller")
CAN = conjugate("pouvoir")
MUST = conjugate("devoir")
HAVE = conjugate("avoir")
CITY = tuple(_entries(CITIES))
COUNTRY = tuple(_entries(COUNTRIES))
COMPARATIVE = dict(_entries(COMPARED))
