"""To be something or somewhere, and the passive."""

from seq2seq.data.grammar import relatives
from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.entries import AFTER, BE, BEFORE, COMPARATIVE, NOUN, Adjective
from seq2seq.data.grammar.frames import FRAMES, Frame, Setting, draw_options, follow, size
from seq2seq.data.grammar.lexicon import PROFESSIONS
from seq2seq.data.grammar.morphology import participle_form
from seq2seq.data.grammar.nouns import Nominal
from seq2seq.data.grammar.phrase import EMPTY, Phrase, english, french, join, linked
from seq2seq.data.grammar.places import place_adverbial
from seq2seq.data.grammar.verbs import (
    CAN_DO,
    MUST_DO,
    PAST,
    PRESENT,
    USED_TO,
    Tense,
    VerbGroup,
    fitting,
    verb_group,
)


def state(dice: Dice, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    """Draw a passive where there is room and the subject allows it, else to be something."""
    passive = [
        frame
        for frame in FRAMES
        if frame.mode == "direct" and subject.kind in frame.objects and subject.kind != "person"
    ]
    if room >= 4 and passive and (setting.adverbial or dice.chance(0.4)):
        return _passive(dice, dice.even(passive), subject, room, setting)
    return copula(dice, subject, room, setting)


def _be_tense(tense: Tense) -> Tense:
    return PRESENT if tense in (CAN_DO, MUST_DO) else fitting(BE, tense)


def copula(dice: Dice, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    """Is red / est rouge; is bigger than / est plus grand que; is a doctor / est médecin."""
    setting = setting._replace(tense=_be_tense(setting.tense))
    options = draw_options(dice, BE, room - 1, setting)
    group = verb_group(BE, subject, setting.tense, options)
    left = room - size(group)
    if left >= 3 and dice.chance(0.25):
        return follow(group, place_adverbial(dice, min(left, 6)))
    if subject.kind == "person" and subject.person in (0, 2) and left >= 2 and dice.chance(0.15):
        profession = dice.even(sorted(PROFESSIONS))
        words = english(profession)
        # French has no article here; `a` stays without a link.
        return follow(group, Phrase(english("a") + words, french(NOUN[profession].fr, words)))
    early = dice.chance(0.15) or not AFTER[subject.kind]
    adjective = dice.common((BEFORE if early else AFTER)[subject.kind])
    if left >= 4 and adjective.en not in ("good", "bad") and dice.chance(0.35):
        other = relatives.nominal(
            dice, (subject.kind,), min(left - 2, 4), depth=relatives.MAX_DEPTH
        )
        return follow(group, compare(dice, adjective, subject), linked("than", "que"), other)
    described = linked(adjective.en, _agreeing(adjective, subject))
    if left >= 2 and dice.chance(0.3):
        return follow(group, linked(*dice.even((("very", "très"), ("too", "trop")))), described)
    return follow(group, described)


def _agreeing(adjective: Adjective, subject: Nominal) -> str:
    return adjective.forms[2 * subject.plural + subject.feminine]


def compare(dice: Dice, adjective: Adjective, subject: Nominal) -> Phrase:
    """Bigger / plus grand, one word to two; more intelligent, less big, word by word."""
    form = _agreeing(adjective, subject)
    if dice.chance(0.3):
        return join(linked("less", "moins"), linked(adjective.en, form))
    if adjective.en in COMPARATIVE:
        return linked(COMPARATIVE[adjective.en], f"plus {form}")
    return join(linked("more", "plus"), linked(adjective.en, form))


def _passive(dice: Dice, frame: Frame, subject: Nominal, room: int, setting: Setting) -> VerbGroup:
    """Was written by Paul / a été écrite par Paul; not a state, so the past is composed."""
    tense = _be_tense(setting.tense)
    tense = PAST if tense == USED_TO else tense
    doing = BE._replace(state=False)
    verb = dice.common([verb for verb in frame.verbs if not (verb.state or verb.particle)])
    options = draw_options(dice, verb, room - 3, setting._replace(tense=tense))
    group = verb_group(doing, subject, tense, options._replace(adverb=EMPTY))
    form = participle_form(verb.fr.participle, feminine=subject.feminine, plural=subject.plural)
    done = linked(verb.en.participle, form)
    left = room - size(group) - 2
    agent = relatives.nominal(dice, frame.subjects, max(2, min(left, 5)), depth=relatives.MAX_DEPTH)
    return follow(group, done, linked("by", "par"), agent)
