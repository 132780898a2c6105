"""Noun phrases with what may follow the noun: relative clauses and `of` phrases."""

from collections.abc import Callable

from seq2seq.data.grammar import predicates, states
from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.entries import NOUN, Verb
from seq2seq.data.grammar.frames import FRAMES, Frame, Setting, draw_period, draw_tense
from seq2seq.data.grammar.nouns import (
    OWNERS,
    UNCOUNTED,
    Nominal,
    build,
    draw_parts,
    name,
    pronoun,
    with_owner,
)
from seq2seq.data.grammar.phrase import Phrase, each, english, french, join, linked
from seq2seq.data.grammar.verbs import Options, fitting, verb_group

MAX_DEPTH = 2


def nominal(
    dice: Dice, kinds: tuple[str, ...], room: int, *, depth: int = 0, negated: bool = False
) -> Nominal:
    """Draw a noun phrase or name of at most `room` words (1 only for a person).

    A relative clause always belongs to the noun right in front of it, so that the French
    agreement inside it can be told from the English: `of` phrases and relatives exclude
    each other.
    """
    if "person" in kinds and (room < 2 or dice.chance(0.15)):
        return name(dice)
    relative_room = 0
    if room >= 5 and depth < MAX_DEPTH and dice.chance(0.8 if room > 7 else 0.6):
        relative_room = room - dice.between(2, max(2, min(4, room - 4)))
    elif room >= 5 and dice.chance(0.4):
        relative_room = -3
    parts = draw_parts(dice, kinds, max(2, min(6, room - abs(relative_room))), negated=negated)
    head = build(parts)
    left = room - len(head.en)
    if relative_room > 0 and left >= 3 and head.kind not in UNCOUNTED:
        return _with_relative(dice, head, left, depth + 1)
    plain = parts.determiner.en in ("the", "a", "some") and not parts.number
    if relative_room < 0 and left >= 3 and head.kind in OWNERS and plain:
        return with_owner(dice, head, min(left - 1, 4))
    return head


def _with_relative(dice: Dice, head: Nominal, room: int, depth: int) -> Nominal:
    clause = relative_clause(dice, head, room, depth)
    return head._replace(en=head.en + clause.en, fr=head.fr + clause.fr)


def relative_clause(dice: Dice, head: Nominal, room: int, depth: int) -> Phrase:
    """Draw a relative clause of about `room` words (3 or more) after its antecedent.

    who, which -> qui; whom, which -> que; whose, about which -> dont; where -> où;
    to whom -> à qui.
    """
    setting = Setting(draw_tense(dice, draw_period(dice)), depth=depth, that=False)
    makers: list[tuple[Callable[[Dice, Nominal, int, Setting], Phrase | None], int]]
    makers = [(_qui, 4), (_que, 4), (_dont, 2), (_whose, 2)]
    if head.kind == "person":
        makers.append((_a_qui, 6))
    if head.kind == "place":
        makers.append((_where, 8))
    return dice.weighted(makers)(dice, head, room, setting) or _qui(dice, head, room, setting)


def _qui(dice: Dice, head: Nominal, room: int, setting: Setting) -> Phrase:
    subject = head._replace(en=(), fr=())
    group = predicates.predicate(dice, subject, room - 1, setting)
    who = linked("who" if head.kind == "person" else "which", "qui")
    return Phrase(who.en + group.aux + group.rest, who.fr + group.fr)


def _que(dice: Dice, head: Nominal, room: int, setting: Setting) -> Phrase | None:
    """The letter which he has written / la lettre qu'il a écrite: the participle agrees."""
    frames = [f for f in FRAMES if f.mode == "direct" and head.kind in f.objects]
    if not frames:
        return None
    frame = dice.even(frames)
    verb = dice.common(frame.verbs)
    whom = linked("whom" if head.kind == "person" else "which", "que")
    options = Options(antecedent=(head.feminine, head.plural))
    return join(whom, _short_clause(dice, frame, verb, room - 1, setting, options))


def _dont(dice: Dice, head: Nominal, room: int, setting: Setting) -> Phrase | None:
    """The film about which he talks / le film dont il parle."""
    [frame] = [f for f in FRAMES if f.mode == "de"]
    if head.kind not in frame.objects or room < 4:
        return None
    verb = dice.even([verb for verb in frame.verbs if verb.particle])
    which = "whom" if head.kind == "person" else "which"
    dont = linked(f"{verb.particle} {which}", "dont")
    bare = verb._replace(particle="")
    return join(dont, _short_clause(dice, frame, bare, room - 2, setting, Options()))


def _a_qui(dice: Dice, head: Nominal, room: int, setting: Setting) -> Phrase | None:
    """The man to whom he speaks / l'homme à qui il parle."""
    [frame] = [f for f in FRAMES if f.mode == "à"]
    if room < 4:
        return None
    verb = dice.even([verb for verb in frame.verbs if verb.particle])
    a_qui = each((verb.particle, "à"), ("whom", "qui"))
    bare = verb._replace(particle="")
    return join(a_qui, _short_clause(dice, frame, bare, room - 2, setting, Options()))


def _short_clause(
    dice: Dice, frame: Frame, verb: Verb, room: int, setting: Setting, options: Options
) -> Phrase:
    """Draw a subject and put the verb behind it, object left out."""
    subject = draw_subject(dice, frame.subjects, max(1, min(room - 2, 4)), setting.depth)
    group = verb_group(verb, subject, fitting(verb, setting.tense), options)
    return Phrase(subject.en + group.aux + group.rest, subject.fr + group.fr)


def _whose(dice: Dice, head: Nominal, room: int, setting: Setting) -> Phrase | None:
    """The man whose car is red / l'homme dont la voiture est rouge; `la` belongs to `whose`."""
    owned = {
        "person": ("vehicle", "animal", "clothing"),
        "place": ("furniture",),
        "group": ("idea",),
    }
    if head.kind not in owned or room < 4:
        return None
    noun = build(draw_parts(dice, OWNED[head.kind], 2))
    whose = english("whose")
    thing = NOUN_BY_FORM[noun.en[-1].text]
    article = "les" if noun.plural else "la" if noun.feminine else "le"
    words = english(noun.en[-1].text)
    fr = french(thing.fr_plural if noun.plural else thing.fr, words)
    subject = noun._replace(en=(), fr=())
    group = states.copula(dice, subject, min(room - 2, 3), setting)
    return Phrase(
        whose + words + group.aux + group.rest,
        french("dont", whose) + french(article, whose) + fr + group.fr,
    )


OWNED = {
    "person": ("vehicle", "animal", "clothing"),
    "place": ("furniture",),
    "group": ("idea",),
}
NOUN_BY_FORM = {form: noun for noun in NOUN.values() for form in (noun.en, noun.en_plural)}


def _where(dice: Dice, head: Nominal, room: int, setting: Setting) -> Phrase:
    subject = draw_subject(dice, ("person",), max(1, min(room - 2, 3)), setting.depth)
    group = predicates.predicate(dice, subject, room - 1 - len(subject.en), setting)
    return join(
        linked("where", "où"),
        Phrase(subject.en + group.aux + group.rest, subject.fr + group.fr),
    )


def draw_subject(dice: Dice, kinds: tuple[str, ...], room: int, depth: int = 0) -> Nominal:
    """Draw a subject of at most `room` words; one word is a pronoun or a name."""
    personal = "person" in kinds
    if personal and (room < 2 or dice.chance(0.3)):
        return pronoun(dice) if dice.chance(0.7) else name(dice)
    return nominal(dice, kinds, max(room, 2), depth=depth)
