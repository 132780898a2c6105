"""Predicates: what a subject does, one function for each way of attaching objects.

A predicate is a `VerbGroup` whose `rest` and `fr` include the objects, so that a question can
still put its subject between `aux` and `rest`.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from seq2seq.data.grammar import clauses, pronouns, relatives
from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.entries import COUNTRY, Verb
from seq2seq.data.grammar.frames import (
    ACTIVE_KINDS,
    FRAMES,
    MANNER,
    Frame,
    Setting,
    draw_options,
    draw_period,
    draw_tense,
    follow,
    size,
)
from seq2seq.data.grammar.nouns import Nominal, build, definite, draw_parts, name
from seq2seq.data.grammar.phrase import Phrase, english, french, linked
from seq2seq.data.grammar.places import city_or_country
from seq2seq.data.grammar.states import state
from seq2seq.data.grammar.verbs import (
    Clitic,
    Negation,
    Options,
    Tense,
    VerbGroup,
    fitting,
    infinitive,
    verb_group,
)


def predicate(dice: Dice, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    """Draw what is said of a subject, in about `room` words."""
    restful = not setting.adverbial and dice.chance(0.15)
    if subject.kind not in ACTIVE_KINDS or restful:
        return state(dice, subject, room, setting)
    frames = _possible(subject.kind, min(room, 5), setting.that, setting.adverbial)
    frame = dice.weighted(frames)
    return MAKERS[frame.mode].make(dice, frame, subject, room, setting)


@cache
def _possible(kind: str, room: int, that: bool, adverbial: str) -> tuple[tuple[Frame, int], ...]:
    """List the frames, with weights, that a subject and the room allow."""
    frames = [frame for frame in FRAMES if kind in frame.subjects]
    # No going to Rome in a garden.
    without = {"motion", "origin"} if adverbial == "place" else set()
    without |= set() if that else {"that"}
    chosen = [f for f in frames if MAKERS[f.mode].needed <= room and f.mode not in without]
    return tuple((frame, MAKERS[frame.mode].weight) for frame in chosen or frames[:1])


def intransitive(
    dice: Dice, frame: Frame, subject: Nominal, room: int, setting: Setting
) -> VerbGroup:
    """Sleeps quietly / dort silencieusement."""
    verb = dice.common(frame.verbs)
    options = draw_options(dice, verb, room, setting)
    group = verb_group(verb, subject, fitting(verb, setting.tense), options)
    left = room - size(group)
    if left >= 1 and frame.subjects == ("person",) and not options.negation and dice.chance(0.3):
        return follow(group, linked(*dice.common(MANNER)))
    return group


def _direct(dice: Dice, frame: Frame, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    verb = dice.common(frame.verbs)
    tense = fitting(verb, setting.tense)
    options = draw_options(dice, verb, room - 2, setting)
    if (room < 5 and dice.chance(0.5)) or dice.chance(0.12):
        form = pronouns.draw(dice, subject.person, of_thing="person" not in frame.objects)
        clitic = pronouns.direct(form)
        group = verb_group(verb, subject, tense, options._replace(clitics=(clitic,)))
        return follow(group, Phrase(clitic.en))
    if options.negation is None and not setting.question and dice.chance(0.05):
        return _nothing(verb, subject, tense, "nobody" if "person" in frame.objects else "nothing")
    group = verb_group(verb, subject, tense, options)
    negated = options.negation is not None
    if frame.objects == ("place",) and dice.chance(0.2):
        return follow(group, _country(dice))
    room -= size(group)
    thing = relatives.nominal(
        dice, frame.objects, max(room, 2), depth=setting.depth, negated=negated
    )
    return follow(group, thing)


def _country(dice: Dice) -> Phrase:
    """Visit Italy / visiter l'Italie: with the article."""
    return linked(*dice.even(COUNTRY))


def _nothing(verb: Verb, subject: Nominal, tense: Tense, word: str) -> VerbGroup:
    """Sees nothing / ne voit rien, n'a rien vu; but nobody: n'a vu personne."""
    words = english(word)
    if word == "nothing":
        group = verb_group(verb, subject, tense, Options(negation=Negation((), "rien", words)))
        return follow(group, Phrase(words))
    group = verb_group(verb, subject, tense, Options(negation=Negation((), "", words)))
    return follow(group, Phrase(words, french("personne", words)))


def _indirect(dice: Dice, frame: Frame, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    """Speaks to him / lui parle; speaks to the man / parle à l'homme."""
    verb = dice.common(frame.verbs)
    tense = fitting(verb, setting.tense)
    options = draw_options(dice, verb, room - 2, setting)
    if room < 4 or dice.chance(0.25):
        clitic = pronouns.indirect(pronouns.draw(dice, subject.person), verb.particle)
        bare = verb._replace(particle="")
        group = verb_group(bare, subject, tense, options._replace(clitics=(clitic,)))
        return follow(group, Phrase(clitic.en))
    return _prepositional(dice, frame, verb, "à", subject, room, (tense, options))


def _about(dice: Dice, frame: Frame, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    """Talks about the film / parle du film."""
    verb = dice.common(frame.verbs)
    tense = fitting(verb, setting.tense)
    options = draw_options(dice, verb, room - 3, setting)
    return _prepositional(dice, frame, verb, "de", subject, room, (tense, options))


def _prepositional(
    dice: Dice,
    frame: Frame,
    verb: Verb,
    preposition: str,
    subject: Nominal,
    room: int,
    how: tuple[Tense, Options],
) -> VerbGroup:
    particle = linked(verb.particle, preposition)
    group = verb_group(verb._replace(particle=""), subject, *how)
    if not particle.en:  # answer, remember: the French preposition comes from the verb
        particle = Phrase((), french(preposition, group.rest[-1:]))
    left = room - size(group) - len(particle.en)
    person = frame.objects[0] == "person" and dice.chance(0.2)
    thing = name(dice) if person else definite(dice, frame.objects, max(2, min(left, 5)))
    return follow(group, particle, thing)


def _give(dice: Dice, frame: Frame, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    """Gives it to him / le lui donne, with either object a noun or a pronoun."""
    verb = dice.common(frame.verbs)
    tense = fitting(verb, setting.tense)
    options = draw_options(dice, verb, room - 3, setting)
    to_pronoun = room < 6 or dice.chance(0.4)
    object_pronoun = room < 5 or dice.chance(0.3)
    clitics: tuple[Clitic, ...] = ()
    if object_pronoun:
        clitics += (pronouns.direct(pronouns.draw(dice, subject.person, of_thing=True)),)
    if to_pronoun:
        clitics += (pronouns.indirect(pronouns.draw(dice, subject.person), "to"),)
    group = verb_group(verb, subject, tense, options._replace(clitics=clitics))
    left = room - size(group) - 3
    if object_pronoun:
        thing = Phrase(clitics[0].en)
    else:
        negated = options.negation is not None
        parts = draw_parts(dice, frame.objects, max(2, min(left, 4)), negated=negated)
        thing = Phrase(*build(parts)[:2])
    if to_pronoun:
        return follow(group, thing, Phrase(clitics[-1].en))
    receiver = definite(dice, ("person",), max(2, min(left - len(thing.en) + 2, 4)))
    return follow(group, thing, linked("to", "à"), receiver)


def _motion(dice: Dice, frame: Frame, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    """Goes to the market / va au marché; comes from Japan / vient du Japon."""
    verb = dice.common(frame.verbs)
    options = draw_options(dice, verb, room - 3, setting)
    group = verb_group(verb, subject, fitting(verb, setting.tense), options)
    relation, preposition = ("to", "à") if frame.mode == "motion" else ("from", "de")
    left = room - size(group) - 1
    if left < 2 or dice.chance(0.35):
        return follow(group, city_or_country(dice, relation))
    place = definite(dice, ("place",), min(left, 5))
    return follow(group, linked(relation, preposition), place)


def _that(dice: Dice, frame: Frame, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    """Says that she is sleeping / dit qu'elle dort."""
    verb = dice.common(frame.verbs)
    tense = fitting(verb, setting.tense)
    group = verb_group(verb, subject, tense, draw_options(dice, verb, room - 5, setting))
    inner = Setting(draw_tense(dice, draw_period(dice)), depth=setting.depth + 1, that=False)
    left = room - size(group) - 1
    return follow(group, linked("that", "que"), clauses.plain_clause(dice, max(left, 2), inner))


def _chain(dice: Dice, frame: Frame, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    """Wants to see him / veut le voir; tries to find them / essaie de les trouver."""
    verb = dice.common(frame.verbs)
    options = draw_options(dice, verb, room - 3, setting)
    group = verb_group(verb._replace(particle=""), subject, fitting(verb, setting.tense), options)
    to = english("to")
    group = VerbGroup(group.aux, group.rest + to, group.fr + french(verb.link, to))
    left = room - size(group)
    modes = ("-",) if left < 2 else ("-", "direct", "direct")
    mode = dice.even(modes)
    frames = [f for f in FRAMES if f.mode == mode and "person" in f.subjects]
    inner = dice.even(frames)
    doing = dice.common([verb for verb in inner.verbs if not verb.state])
    if mode == "-":
        return follow(group, infinitive(doing, subject, ()))
    if left < 3 or dice.chance(0.3):
        form = pronouns.draw(dice, subject.person, of_thing="person" not in inner.objects)
        clitic = pronouns.direct(form)
        return follow(group, infinitive(doing, subject, (clitic,)), Phrase(clitic.en))
    left -= 1 + bool(doing.particle)
    # No indefinite object: under a negated main verb its French article would be unclear.
    thing = definite(dice, inner.objects, max(2, min(left, 5)))
    return follow(group, infinitive(doing, subject, ()), thing)


class Maker(NamedTuple):
    """How a frame is made, how often, and how many words it needs."""

    make: Callable[[Dice, Frame, Nominal, int, Setting], VerbGroup]
    weight: int
    needed: int


MAKERS = {
    "-": Maker(intransitive, 9, 1),
    "direct": Maker(_direct, 5, 2),
    "à": Maker(_indirect, 6, 2),
    "de": Maker(_about, 5, 4),
    "give": Maker(_give, 10, 4),
    "motion": Maker(_motion, 6, 3),
    "origin": Maker(_motion, 3, 3),
    "that": Maker(_that, 8, 5),
    "to": Maker(_chain, 9, 3),
}
