"""Noun phrases: determiners, adjectives on both sides of the noun, compounds, pronouns.

French decides three things from the noun: gender (la table), number (les tables), and the forms
before a vowel (cet homme, mon amie, un vieil ami). Most adjectives and all noun modifiers stand
behind the noun, in mirrored order: European economic area / zone économique européenne.
"""

from typing import NamedTuple

from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.entries import (
    AFTER,
    BEFORE,
    MODIFIERS_OF,
    NATIONALITY,
    NOUNS_BY_KIND,
    RELATIONAL,
    Adjective,
    Noun,
)
from seq2seq.data.grammar.lexicon import NAMES_F, NAMES_M
from seq2seq.data.grammar.numbers import hundreds, number
from seq2seq.data.grammar.phrase import (
    Phrase,
    Words,
    english,
    french,
    linked,
    vowel_follows,
)


class Nominal(NamedTuple):
    """A noun phrase or pronoun with what others agree with.

    `person` indexes `morphology.PERSONS`; `kind` is the noun's row in the lexicon.
    """

    en: Words
    fr: Words
    person: int
    feminine: bool
    kind: str

    @property
    def plural(self) -> bool:
        """True for we, you and they; `you` is always the plural vous."""
        return self.person > 2


class Determiner(NamedTuple):
    """A determiner: English, then French masculine, feminine, plural; "" where there is none."""

    en: str
    masculine: str
    feminine: str
    plural: str


SINGULAR = (
    (Determiner("the", "le", "la", ""), 40),
    (Determiner("a", "un", "une", ""), 20),
    (Determiner("this", "ce", "cette", ""), 6),
    (Determiner("that", "ce", "cette", ""), 4),
    (Determiner("my", "mon", "ma", ""), 6),
    (Determiner("your", "votre", "votre", ""), 3),
    (Determiner("his", "son", "sa", ""), 5),
    (Determiner("her", "son", "sa", ""), 5),
    (Determiner("our", "notre", "notre", ""), 3),
    (Determiner("their", "leur", "leur", ""), 3),
    (Determiner("every", "chaque", "chaque", ""), 3),
)
PLURAL = (
    (Determiner("the", "", "", "les"), 40),
    (Determiner("some", "", "", "des"), 14),
    (Determiner("these", "", "", "ces"), 6),
    (Determiner("those", "", "", "ces"), 4),
    (Determiner("my", "", "", "mes"), 5),
    (Determiner("your", "", "", "vos"), 3),
    (Determiner("his", "", "", "ses"), 4),
    (Determiner("her", "", "", "ses"), 4),
    (Determiner("our", "", "", "nos"), 3),
    (Determiner("their", "", "", "leurs"), 3),
    (Determiner("several", "", "", "plusieurs"), 3),
    (Determiner("many", "", "", "beaucoup de"), 4),
)
MASS = (
    (Determiner("the", "le", "la", ""), 40),
    (Determiner("some", "de le", "de la", ""), 30),
    (Determiner("this", "ce", "cette", ""), 6),
    (Determiner("my", "mon", "ma", ""), 6),
    (Determiner("his", "son", "sa", ""), 6),
    (Determiner("her", "son", "sa", ""), 6),
)
INDEFINITE = frozenset({"a", "some"})
THE, A, SOME = SINGULAR[0][0], SINGULAR[1][0], PLURAL[1][0]
THE_PLURAL, SOME_MASS = PLURAL[0][0], MASS[1][0]
UNCOUNTED = frozenset({"mass", "drink"})
NO_DE_BEFORE = frozenset({"every", "several", "many"})
"""Left out of negated objects, where their reach would be unclear."""

PRONOUNS = tuple(
    (entry, person, feminine)
    for entry, person, feminine in (
        (("I", "je"), 0, False),
        (("he", "il"), 2, False),
        (("she", "elle"), 2, True),
        (("we", "nous"), 3, False),
        (("you", "vous"), 4, False),
        (("they", "ils"), 5, False),
    )
)


def pronoun(dice: Dice) -> Nominal:
    """Draw a subject pronoun. English `they` is always `ils`, `you` always `vous` (plural)."""
    (en, fr), person, feminine = dice.even(PRONOUNS)
    phrase = linked(en, fr)
    return Nominal(phrase.en, phrase.fr, person, feminine, "person")


def name(dice: Dice) -> Nominal:
    """Draw a first name, the same in both languages."""
    feminine = dice.chance(0.5)
    text = dice.even(NAMES_F if feminine else NAMES_M)
    phrase = linked(text, text)
    return Nominal(phrase.en, phrase.fr, 2, feminine, "person")


class Parts(NamedTuple):
    """What a noun phrase is made of, before it is put in either order."""

    determiner: Determiner
    noun: Noun
    plural: bool = False
    number: int = 0
    """2 to 999, instead of the determiner; 0 for none."""
    before: tuple[Adjective, ...] = ()
    after: tuple[Adjective, ...] = ()
    """In English order; French mirrors it."""
    modifiers: tuple[tuple[str, str], ...] = ()
    """English nouns in front with their French complements, in English order."""
    negated: bool = False
    """A direct object under negation: a, some -> de."""


def build(parts: Parts) -> Nominal:
    """Order and inflect a noun phrase in both languages.

    the small red car / la petite voiture rouge; the city museum director / le directeur du
    musée de la ville; some small cars / de petites voitures.
    """
    noun, plural = parts.noun, parts.plural
    head = english(noun.en_plural if plural else noun.en)
    fr = french(noun.fr_plural if plural else noun.fr, head)
    modifiers = [linked(*modifier) for modifier in parts.modifiers]
    for modifier in reversed(modifiers):
        fr += modifier.fr
    form = 2 * plural + noun.feminine
    after = [linked(adjective.en, adjective.forms[form]) for adjective in parts.after]
    for phrase in reversed(after):
        fr += phrase.fr
    before = []
    for adjective in reversed(parts.before):
        text = adjective.forms[form]
        if form == 0 and vowel_follows(fr):
            text = adjective.before_vowel
        before.append(linked(adjective.en, text))
        fr = before[-1].fr + fr
    determiner = _determiner(parts)
    en = determiner.en
    for phrase in [*reversed(before), *after, *modifiers]:
        en += phrase.en
    person = 5 if plural else 2
    return Nominal(en + head, determiner.fr + fr, person, noun.feminine, noun.kind)


def _determiner(parts: Parts) -> Phrase:
    if parts.number:
        feminine = parts.noun.feminine
        counted = hundreds if parts.number > 99 else number
        return counted(parts.number, feminine=feminine)
    determiner = parts.determiner
    if parts.negated and determiner.en in INDEFINITE:
        return linked("any" if determiner.en == "some" else "a", "de")
    if determiner.en == "some" and parts.plural and parts.before:
        return linked("some", "de")  # des becomes de before an adjective: de petites voitures
    if parts.plural:
        return linked(determiner.en, determiner.plural)
    return linked(
        determiner.en, determiner.feminine if parts.noun.feminine else determiner.masculine
    )


def draw_parts(dice: Dice, kinds: tuple[str, ...], room: int, *, negated: bool = False) -> Parts:
    """Draw a noun phrase of at most `room` words (2 or more)."""
    noun = dice.common(NOUNS_BY_KIND[dice.even(kinds)])
    plural = noun.kind not in UNCOUNTED and dice.chance(0.35)
    table = PLURAL if plural else MASS if noun.kind in UNCOUNTED else SINGULAR
    determiner = dice.weighted(table)
    if negated and determiner.en in NO_DE_BEFORE:
        determiner = table[0][0]
    count = 0
    if plural and not negated and dice.chance(0.15):
        count = _count(dice, room)
        room -= 3 if count > 99 else 0
    before, after = _adjectives(dice, noun.kind, room - 2)
    room -= 2 + len(before) + len(after)
    modifiers = _modifiers(dice, noun, room)
    return Parts(determiner, noun, plural, count, before, after, modifiers, negated)


def _count(dice: Dice, room: int) -> int:
    if room >= 6 and dice.chance(0.15):
        return dice.between(1, 9) * 100 + dice.between(0, 99)
    return dice.between(2, 99) if dice.chance(0.5) else dice.between(2, 12)


def _adjectives(
    dice: Dice, kind: str, room: int
) -> tuple[tuple[Adjective, ...], tuple[Adjective, ...]]:
    before: tuple[Adjective, ...] = ()
    after: tuple[Adjective, ...] = ()
    if room > 0 and BEFORE[kind] and dice.chance(0.3):
        before = (dice.common(BEFORE[kind]),)
        room -= 1
    if room > 0 and AFTER[kind] and dice.chance(0.35):
        after = (dice.common(AFTER[kind]),)
        room -= 1
    if room > 0 and NATIONALITY[kind] and dice.chance(0.12):
        after += (dice.even(NATIONALITY[kind]),)
        room -= 1
    if room > 0 and RELATIONAL[kind] and dice.chance(0.35):
        after += (dice.common(RELATIONAL[kind]),)
    return before, after


def _modifiers(dice: Dice, noun: Noun, room: int) -> tuple[tuple[str, str], ...]:
    """Draw up to two nouns in front: museum director, city museum director."""
    known = MODIFIERS_OF.get(noun.en)
    if room < 1 or not known or dice.chance(0.4):
        return ()
    modifier = dice.even(known)
    outer = MODIFIERS_OF.get(modifier[0], ())
    places = [pair for pair in outer if pair[1].startswith("de l")]
    if room > 1 and places and modifier[1].startswith("de l") and dice.chance(0.5):
        return (dice.even(places), modifier)
    return (modifier,)


OWNERS = {
    "person": ("group",),
    "object": ("person",),
    "clothing": ("person",),
    "vehicle": ("person",),
    "animal": ("person",),
    "place": ("person",),
    "text": ("person",),
    "idea": ("person", "group"),
    "group": ("place",),
    "furniture": ("place",),
    "nature": ("place",),
}
"""What may follow `of`: the key of the doctor, the idea of the committee."""


def with_owner(dice: Dice, head: Nominal, room: int) -> Nominal:
    """Append `of` and a definite noun phrase of at most `room` words: la clé du médecin."""
    kinds = OWNERS[head.kind]
    if kinds[0] == "person" and dice.chance(0.25):
        owner = name(dice)
    else:
        parts = draw_parts(dice, kinds, room)
        if parts.determiner.en in INDEFINITE | NO_DE_BEFORE or parts.number:
            # de + des is not French, and a counted owner reads oddly.
            parts = parts._replace(determiner=THE_PLURAL if parts.plural else THE, number=0)
        owner = build(parts)
    of = linked("of", "de")
    return head._replace(en=head.en + of.en + owner.en, fr=head.fr + of.fr + owner.fr)


def definite(dice: Dice, kinds: tuple[str, ...], room: int) -> Nominal:
    """Draw a noun phrase that may follow `de`: neither indefinite nor counted."""
    parts = draw_parts(dice, kinds, room)
    if parts.determiner.en in INDEFINITE | NO_DE_BEFORE:
        parts = parts._replace(determiner=THE_PLURAL if parts.plural else THE)
    return build(parts._replace(number=0))
