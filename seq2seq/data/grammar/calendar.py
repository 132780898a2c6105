"""Adverbials of time: dates, hours, days, and when they fit which tense."""

from collections.abc import Callable

from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.numbers import english_ordinal, number, year
from seq2seq.data.grammar.orthography import row
from seq2seq.data.grammar.phrase import Phrase, Word, each, english, french, join, linked

MONTHS = tuple(
    zip(
        row("""
    January February March April May June July August September October November December
"""),
        row("""
    janvier février mars avril mai juin juillet août septembre octobre novembre décembre
"""),
        strict=True,
    )
)
DAYS = tuple(
    zip(
        row("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
        row("lundi mardi mercredi jeudi vendredi samedi dimanche"),
        strict=True,
    )
)
SEASONS = (
    ("summer", "en été"),
    ("winter", "en hiver"),
    ("autumn", "en automne"),
    ("spring", "au printemps"),
)
DAYTIMES = (("morning", "le matin"), ("evening", "le soir"), ("afternoon", "le après-midi"))

FIXED = {
    "present": (
        ("today", "aujourd' hui"),
        ("now", "maintenant"),
        ("every day", "tous les jours"),
        ("every morning", "tous les matins"),
        ("every week", "toutes les semaines"),
        ("every year", "tous les ans"),
        ("at the moment", "en ce moment"),
    ),
    "past": (
        ("yesterday", "hier"),
        ("last week", "la semaine dernière"),
        ("last year", "la année dernière"),
        ("last month", "le mois dernier"),
        ("yesterday evening", "hier soir"),
        ("last summer", "le été dernier"),
        ("a long time ago", "il y a longtemps"),
    ),
    "future": (
        ("tomorrow", "demain"),
        ("next week", "la semaine prochaine"),
        ("next year", "la année prochaine"),
        ("next month", "le mois prochain"),
        ("tomorrow morning", "demain matin"),
        ("soon", "bientôt"),
        ("this evening", "ce soir"),
    ),
}
HABITUAL = frozenset({"every day", "every morning", "every week", "every year"})


def date(day: int, month: tuple[str, str], in_year: int | None = None) -> Phrase:
    """Translate a date: on the third of May / le trois mai, but on the first / le premier.

    French counts days and needs no `on` and no `of`; `on the` is linked to `le`.
    """
    on_the, ordinal, of = english("on the"), english(english_ordinal(day)), english("of")
    counted = "premier" if day == 1 else number(day).fr
    french_day = (
        french(counted, ordinal)
        if isinstance(counted, str)
        else tuple(Word(word.text, ordinal) for word in counted)
    )
    phrase = join(
        Phrase(on_the + ordinal, french("le", on_the) + french_day), Phrase(of), linked(*month)
    )
    return phrase if in_year is None else join(phrase, year(in_year))


def clock(hour: int, minutes: int) -> Phrase:
    """Translate a time of day in steps of five minutes.

    at three o'clock / à trois heures; at half past three / à trois heures et demie;
    at a quarter to four / à quatre heures moins le quart; at ten past three / à trois heures dix.
    Without `o'clock`, `heures` is linked to the hour.
    """
    at = english("at")
    shown = hour if minutes <= 30 else hour % 12 + 1
    hour_name = number(shown, feminine=True)
    hours = "heure" if shown == 1 else "heures"
    a = french("à", at)
    if minutes == 0:
        oclock = english("o' clock")
        return Phrase(at + hour_name.en + oclock, a + hour_name.fr + french(hours, oclock))
    relation = english("past" if minutes <= 30 else "to")
    away = minutes if minutes <= 30 else 60 - minutes
    names = {15: ("a quarter", "quart"), 30: ("half", "demie")}
    part = linked(*names[away]) if away in names else number(away)
    links = {(15, True): "et", (30, True): "et", (15, False): "moins le"}
    between = links.get((away, minutes <= 30), "" if minutes <= 30 else "moins")
    after = french(hours, hour_name.en) + french(between, relation) + part.fr
    return Phrase(at + part.en + relation + hour_name.en, a + hour_name.fr + after)


def _date(dice: Dice) -> Phrase:
    return date(dice.between(1, 30), dice.even(MONTHS[:1] + MONTHS[2:]))


def _dated_year(dice: Dice) -> Phrase:
    return date(dice.between(1, 30), dice.even(MONTHS[:1] + MONTHS[2:]), _some_year(dice))


def _some_year(dice: Dice) -> int:
    if dice.chance(0.7):
        return 100 * dice.between(17, 19) + dice.between(10, 99)  # seventeen oh three is left out
    return dice.between(2000, 2030)


def _in_year(dice: Dice) -> Phrase:
    return join(linked("in", "en"), year(_some_year(dice)))


def _clock(dice: Dice) -> Phrase:
    if dice.chance(0.15):
        return each(("at", "à"), dice.even((("noon", "midi"), ("midnight", "minuit"))))
    return clock(dice.between(1, 12), 5 * dice.between(0, 11) if dice.chance(0.6) else 0)


def _weekday(dice: Dice) -> Phrase:
    day = dice.even(DAYS)
    words = english(f"on {day[0]}")
    return Phrase(words, french(day[1], words[1:]))  # French says plain lundi


def _month(dice: Dice) -> Phrase:
    return each(("in", "en"), dice.even(MONTHS))


def _season(dice: Dice) -> Phrase:
    en, fr = dice.even(SEASONS)
    preposition, name = fr.split()
    return each(("in", preposition), (en, name))


def _daytime(dice: Dice) -> Phrase:
    en, fr = dice.even(DAYTIMES)
    words = english(f"in the {en}")
    article, name = fr.split()
    return Phrase(words, french(article, words[:2]) + french(name, words[2:]))


def _ago(dice: Dice) -> Phrase:
    """Two days ago / il y a deux jours."""
    count = number(dice.between(2, 20))
    unit = linked(*dice.even((("days", "jours"), ("months", "mois"), ("weeks", "semaines"))))
    ago = english("ago")
    return Phrase(count.en + unit.en + ago, french("il y a", ago) + count.fr + unit.fr)


def _ahead(dice: Dice) -> Phrase:
    """In three days / dans trois jours."""
    return join(linked("in", "dans"), number(dice.between(2, 20)), linked("days", "jours"))


MAKERS: dict[str, tuple[tuple[Callable[[Dice], Phrase], int], ...]] = {
    "present": ((_weekday, 2), (_daytime, 3), (_season, 2), (_clock, 3), (_month, 1)),
    "past": (
        (_date, 4),
        (_dated_year, 1),
        (_in_year, 2),
        (_weekday, 1),
        (_clock, 3),
        (_ago, 2),
        (_month, 1),
    ),
    "future": ((_date, 3), (_weekday, 2), (_clock, 3), (_ahead, 3), (_month, 1)),
}


def time_adverbial(dice: Dice, period: str) -> Phrase:
    """Draw an adverbial of time that fits a period: present, past or future."""
    if dice.chance(0.45):
        return linked(*dice.common(FIXED[period]))
    return dice.weighted(MAKERS[period])(dice)
