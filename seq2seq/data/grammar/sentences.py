"""Sentences: clauses with adverbials, joined into questions, conditions and long periods."""

from seq2seq.data.grammar.calendar import time_adverbial
from seq2seq.data.grammar.clauses import plain_clause, weather
from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.frames import Setting, draw_period, draw_tense
from seq2seq.data.grammar.nouns import SOME, SOME_MASS, UNCOUNTED, A, Nominal, build, draw_parts
from seq2seq.data.grammar.phrase import Phrase, english, french, join, linked
from seq2seq.data.grammar.places import city_or_country, place_adverbial
from seq2seq.data.grammar.predicates import predicate
from seq2seq.data.grammar.relatives import draw_subject
from seq2seq.data.grammar.verbs import (
    FUTURE,
    IF_PAST,
    PAST,
    PERFECT,
    PLUPERFECT,
    PRESENT,
    PROGRESSIVE,
    USED_TO,
    WAS_DOING,
    WHEN_FUTURE,
    WOULD,
    Tense,
)

CONDITIONS: tuple[tuple[str, str, tuple[tuple[Tense, Tense], ...]], ...] = (
    ("when", "quand", ((PRESENT, PRESENT), (WHEN_FUTURE, FUTURE), (PAST, PAST), (PAST, WAS_DOING))),
    ("if", "si", ((PRESENT, FUTURE), (IF_PAST, WOULD))),
    ("while", "pendant que", ((PROGRESSIVE, PROGRESSIVE), (WAS_DOING, WAS_DOING))),
    ("as soon as", "dès que", ((PRESENT, PRESENT), (WHEN_FUTURE, FUTURE), (PAST, PAST))),
)
"""Conjunctions with the tenses of their clause and of the main clause."""

LINKS = (("and", "et"), ("but", "mais"), ("and", "et"), ("so", "donc"))
QUESTION_WORDS = (("why", "pourquoi"), ("when", "quand"), ("where", "où"), ("how", "comment"))
TIMELESS = frozenset({PERFECT, PLUPERFECT, USED_TO, WOULD})
"""Tenses that go badly with `yesterday` or `on the third of May`."""
LONGEST_UNIT = 14
"""English words up to which a sentence stays one unit; longer ones are coordinated."""


def sentence(dice: Dice, room: int) -> tuple[Phrase, str]:
    """Draw a sentence of about `room` English words and its final mark."""
    if room <= 12 and dice.chance(0.12):
        return _question(dice, room), "?"
    if room <= LONGEST_UNIT:
        return _unit(dice, room), "."
    units = -(-room // LONGEST_UNIT)
    phrase = _unit(dice, room // units)
    for left in range(units - 1, 0, -1):
        words = max(3, (room - count_words(phrase)) // left - 1)
        unit = _unit(dice, words) if left > 1 else _last_unit(dice, words)
        phrase = join(phrase, comma(), linked(*dice.even(LINKS)), unit)
    return phrase, "."


def count_words(phrase: Phrase) -> int:
    """Count the English words as `str.split` will: no commas, and o'clock is one."""
    return sum([word.text[-1] not in ",'" for word in phrase.en])


def _last_unit(dice: Dice, room: int) -> Phrase:
    """Draw up to four times, for a unit that fills the room to a word."""
    unit = _unit(dice, room)
    for _ in range(3):
        if abs(count_words(unit) - room) <= 1:
            break
        unit = _unit(dice, room)
    return unit


def comma() -> Phrase:
    """Make a comma; its own words each time, since a word belongs to one sentence."""
    return linked(",", ",")


def _unit(dice: Dice, room: int) -> Phrase:
    """Draw a stretch between coordinating conjunctions.

    `when` and its like join exactly two clauses and never stand inside another, so that the
    tense of the main clause, which decides between `arrive` and `arrivera`, is never in doubt.
    """
    if room >= 7 and dice.chance(0.35):
        return _because(dice, room) if dice.chance(0.3) else _condition(dice, room)
    if room >= 3 and dice.chance(0.04):
        return _with_adverbials(dice, room, draw_period(dice), impersonal=True)
    if room >= 4 and dice.chance(0.05):
        return _there_is(dice, room)
    return _with_adverbials(dice, room, draw_period(dice))


def _with_adverbials(dice: Dice, room: int, period: str, *, impersonal: bool = False) -> Phrase:
    """Draw a clause with an adverbial of time or place or both, the time perhaps in front."""
    tense = draw_tense(dice, period)
    time = place = Phrase()
    if tense not in TIMELESS and room >= 4 and dice.chance(0.35):
        time = time_adverbial(dice, period)
        time = time if len(time.en) <= room - 3 else Phrase()
    room -= len(time.en)
    if impersonal:
        place = city_or_country(dice, "in") if room >= 6 else place
    elif room >= 6 and dice.chance(0.3):
        place = place_adverbial(dice, min(room - 4, 6))
    room -= len(place.en)
    adverbial = "place" if place.en else "time" if time.en else ""
    setting = Setting(tense, that=not adverbial, adverbial=adverbial)
    clause = weather(dice, room, setting) if impersonal else plain_clause(dice, room, setting)
    if time.en and dice.chance(0.35):
        return join(time, comma(), clause, place)
    return join(clause, place, time)


def _because(dice: Dice, room: int) -> Phrase:
    period = draw_period(dice)
    main, reason = (Setting(draw_tense(dice, period), that=False) for _ in range(2))
    first = plain_clause(dice, max(3, room // 2), main)
    because = linked("because", "parce que")
    return join(first, because, plain_clause(dice, max(2, room - len(first.en) - 1), reason))


def _condition(dice: Dice, room: int) -> Phrase:
    """Draw two clauses joined by when, if, while or as soon as, in either order."""
    en, fr, tenses = dice.weighted(tuple(zip(CONDITIONS, (4, 3, 2, 2), strict=True)))
    sub_tense, main_tense = dice.even(tenses)
    conjunction = linked(en, fr)
    room -= len(conjunction.en)
    sub = plain_clause(dice, max(2, room // 2), Setting(sub_tense, that=False))
    main = plain_clause(dice, max(2, room - len(sub.en)), Setting(main_tense, that=False))
    if dice.chance(0.5):
        return join(conjunction, sub, comma(), main)
    return join(main, conjunction, sub)


def _there_is(dice: Dice, room: int) -> Phrase:
    """There are some cats in the garden / il y a des chats dans le jardin."""
    kind = dice.even(("person", "animal", "furniture", "object", "vehicle", "mass"))
    parts = draw_parts(dice, (kind,), min(room - 2, 4))
    indefinite = SOME if parts.plural else SOME_MASS if kind in UNCOUNTED else A
    thing = build(parts._replace(determiner=indefinite))
    there = english("there")
    is_ = ("is", "a"), ("was", "avait"), ("will be", "aura")
    en, fr = dice.even(is_)
    if thing.plural:
        en = {"is": "are", "was": "were"}.get(en, en)
    verb = linked(en, fr)
    there_is = Phrase(there + verb.en, french("il y", there) + verb.fr)
    where = place_adverbial(dice, max(2, min(6, room - len(there_is.en) - len(thing.en))))
    return join(there_is, Phrase(thing.en, thing.fr), where)


def _question(dice: Dice, room: int) -> Phrase:
    """Draw a question: does he sleep / est-ce qu'il dort; who sleeps / qui dort.

    `est-ce que` is linked to the English auxiliary in front of the subject.
    """
    setting = Setting(draw_tense(dice, draw_period(dice), question=True), question=True, that=False)
    if dice.chance(0.2):
        who = linked("who", "qui")
        subject = Nominal(who.en, who.fr, 2, False, "person")
        group = predicate(dice, subject, room - 1, setting._replace(question=False))
        return Phrase(who.en + group.aux + group.rest, who.fr + group.fr)
    asked = Phrase()
    if room >= 4 and dice.chance(0.4):
        asked = linked(*dice.even(QUESTION_WORDS))
    room -= len(asked.en) + 1
    subject = draw_subject(dice, ("person",), 1 if room < 3 else dice.between(2, max(2, room // 2)))
    group = predicate(dice, subject, max(1, room + 1 - len(subject.en)), setting)
    est_ce = french("est-ce que", group.aux)
    inverted = Phrase(group.aux + subject.en + group.rest, est_ce + subject.fr + group.fr)
    return join(asked, inverted)
