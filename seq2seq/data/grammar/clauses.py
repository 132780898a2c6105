"""Whole clauses: a subject and its predicate."""

from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.frames import FRAMES, Setting
from seq2seq.data.grammar.nouns import Nominal
from seq2seq.data.grammar.phrase import Phrase, english, french, linked
from seq2seq.data.grammar.predicates import intransitive, predicate
from seq2seq.data.grammar.relatives import draw_subject
from seq2seq.data.grammar.verbs import (
    CAN_DO,
    MUST_DO,
    PRESENT,
    Negation,
    Options,
    VerbGroup,
    fitting,
    verb_group,
)


def plain_clause(dice: Dice, room: int, setting: Setting) -> Phrase:
    """Draw a statement of about `room` words, without adverbials around it."""
    kinds = _subject_kinds(dice, room, setting)
    subject = draw_subject(dice, kinds, _subject_room(dice, room), setting.depth)
    if room >= 3 and dice.chance(0.02):
        subject = _nobody()
        group = _nobody_does(dice, subject, setting)
    else:
        group = predicate(dice, subject, max(1, room - len(subject.en)), setting)
    return Phrase(subject.en + group.aux + group.rest, subject.fr + group.fr)


def _nobody() -> Nominal:
    words = english("nobody")
    return Nominal(words, french("personne", words), 2, False, "person")


def _nobody_does(dice: Dice, subject: Nominal, setting: Setting) -> VerbGroup:
    """Nobody sleeps / personne ne dort: ne without pas."""
    verb = dice.common(dice.even([f for f in FRAMES if f.mode == "-"][:2]).verbs)
    options = Options(negation=Negation((), "", subject.en))
    return verb_group(verb, subject, fitting(verb, setting.tense), options)


SUBJECTS = (
    (("person",), 62),
    (("animal",), 12),
    (("group",), 5),
    (("text",), 4),
    (("place",), 3),
    (("object",), 3),
    (("idea",), 3),
    (("vehicle",), 2),
    (("furniture",), 2),
    (("clothing",), 2),
    (("food",), 2),
    (("nature",), 2),
)
AGENTS = SUBJECTS[:3]


def _subject_kinds(dice: Dice, room: int, setting: Setting) -> tuple[str, ...]:
    """Draw the kind of the subject; short clauses and those with adverbials need an agent."""
    if room < 3:
        return ("person",)
    return dice.weighted(AGENTS if setting.adverbial and room < 7 else SUBJECTS)


def _subject_room(dice: Dice, room: int) -> int:
    return 1 if room < 3 else dice.between(2, max(2, room // 2))


def weather(dice: Dice, room: int, setting: Setting) -> Phrase:
    """It is raining / il pleut."""
    it = linked("it", "il")
    subject = Nominal(it.en, it.fr, 2, False, "weather")
    tense = PRESENT if setting.tense in (CAN_DO, MUST_DO) else setting.tense
    [frame] = [f for f in FRAMES if "weather" in f.subjects]
    group = intransitive(dice, frame, subject, room - 1, setting._replace(tense=tense))
    return Phrase(it.en + group.aux + group.rest, it.fr + group.fr)
