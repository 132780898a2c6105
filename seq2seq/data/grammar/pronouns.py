"""Object pronouns and words for nothing and nobody.

French puts them in front of the verb, by rank: elle me le donne, elle le lui donne.
`it` is always `le`, `them` always `les`; a participle then agrees with a masculine.
"""

from typing import NamedTuple

from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.phrase import english
from seq2seq.data.grammar.verbs import Clitic


class Form(NamedTuple):
    """An English object pronoun and its two French ones."""

    en: str
    direct: str
    indirect: str
    feminine: bool = False
    plural: bool = False
    not_with: tuple[int, ...] = ()
    """Subjects that would make it reflexive: I see me."""


FORMS = (
    Form("him", "le", "lui"),
    Form("her", "la", "lui", feminine=True),
    Form("them", "les", "leur", plural=True, not_with=(5,)),
    Form("me", "me", "me", not_with=(0, 3)),
    Form("us", "nous", "nous", plural=True, not_with=(0, 3)),
    Form("you", "vous", "vous", plural=True, not_with=(4,)),
)
THINGS = (Form("it", "le", ""), Form("them", "les", "", plural=True))
FORM = {form.en: form for form in (*FORMS, *THINGS[:1])}


def direct(form: Form) -> Clitic:
    """Make a direct object: him -> le."""
    rank = 0 if form.direct == form.indirect else 1
    return Clitic(english(form.en), form.direct, rank, True, form.feminine, form.plural)


def indirect(form: Form, preposition: str) -> Clitic:
    """Make an indirect object with its English preposition, if any: to him -> lui."""
    rank = 0 if form.direct == form.indirect else 2
    return Clitic(english(f"{preposition} {form.en}".strip()), form.indirect, rank, False)


def draw(dice: Dice, person: int, *, of_thing: bool = False) -> Form:
    """Draw a pronoun that may be an object of this subject."""
    if of_thing:
        return dice.even(THINGS)
    return dice.even([form for form in FORMS if person not in form.not_with])
