"""Frames (which verbs go with which subjects and objects), tenses to draw from, and small tools."""

from typing import NamedTuple

from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.entries import VERBS_BY_FRAME, Verb
from seq2seq.data.grammar.nouns import Nominal
from seq2seq.data.grammar.phrase import Phrase, linked
from seq2seq.data.grammar.verbs import (
    CAN_DO,
    FUTURE,
    GOING,
    IF_PAST,
    MUST_DO,
    PAST,
    PERFECT,
    PLUPERFECT,
    PRESENT,
    PROGRESSIVE,
    USED_TO,
    WAS_DOING,
    WHEN_FUTURE,
    WOULD,
    Options,
    Tense,
    VerbGroup,
    negate,
)


class Frame(NamedTuple):
    """A row of the verb table: who does it, how the object is attached, to what, the verbs."""

    subjects: tuple[str, ...]
    mode: str
    objects: tuple[str, ...]
    verbs: tuple[Verb, ...]


class Setting(NamedTuple):
    """What surrounds a clause."""

    tense: Tense
    question: bool = False
    depth: int = 0
    """How many relative clauses we are inside of."""
    that: bool = True
    """Whether the clause may end in a that-clause."""
    adverbial: str = ""
    """`time` or `place` where the sentence will add one: then something must happen."""


MODES = ("-", "à", "de", "give", "motion", "origin", "that", "to")


def _frames() -> tuple[Frame, ...]:
    frames = []
    for key, verbs in VERBS_BY_FRAME.items():
        subjects, objects = (part.split() for part in key.split("|"))
        mode = objects[0] if objects[0] in MODES else "direct"
        kinds = objects if mode == "direct" else objects[1:]
        frames.append(Frame(tuple(subjects), mode, tuple(kinds), verbs))
    return tuple(frames)


FRAMES = _frames()


ACTIVE_KINDS = ("person", "animal", "group")


FREE_TENSES = {
    "present": ((PRESENT, 50), (PROGRESSIVE, 35), (CAN_DO, 8), (MUST_DO, 8)),
    "past": ((PAST, 50), (PERFECT, 15), (WAS_DOING, 14), (USED_TO, 6), (PLUPERFECT, 8), (WOULD, 7)),
    "future": ((FUTURE, 70), (GOING, 30)),
}


QUESTION_TENSES = {
    "present": ((PRESENT, 50), (PROGRESSIVE, 35), (CAN_DO, 8)),
    "past": ((PAST, 60), (PERFECT, 20), (WAS_DOING, 15)),
    "future": ((FUTURE, 80), (GOING, 20)),
}


NOT_ADVERBS = frozenset({USED_TO, GOING, PROGRESSIVE, WAS_DOING, IF_PAST, WHEN_FUTURE})


OFTEN = (
    ("often", "souvent"),
    ("always", "toujours"),
    ("already", "déjà"),
    ("rarely", "rarement"),
    ("sometimes", "parfois"),
)


MANNER = (
    ("slowly", "lentement"),
    ("quickly", "rapidement"),
    ("quietly", "silencieusement"),
    ("carefully", "soigneusement"),
    ("patiently", "patiemment"),
    ("together", "ensemble"),
    ("happily", "joyeusement"),
    ("suddenly", "soudainement"),
    ("secretly", "secrètement"),
    ("calmly", "calmement"),
    ("bravely", "courageusement"),
    ("easily", "facilement"),
)


def draw_tense(dice: Dice, period: str, *, question: bool = False) -> Tense:
    """Draw a tense of a period: present, past or future."""
    return dice.weighted((QUESTION_TENSES if question else FREE_TENSES)[period])


def draw_period(dice: Dice) -> str:
    """Draw when something happens."""
    return dice.weighted((("present", 45), ("past", 37), ("future", 18)))


def draw_options(dice: Dice, verb: Verb, room: int, setting: Setting) -> Options:
    """Draw negation or an adverb where there is room for them."""
    question = setting.question
    tense = setting.tense
    if room >= 3 and tense not in (USED_TO, CAN_DO) and dice.chance(0.22):
        plain = tense in (PRESENT, PAST, PERFECT, FUTURE) and not question
        words = dice.weighted((("not", 70), ("never", 18), ("no longer", 12))) if plain else "not"
        return Options(negation=negate(words), question=question)
    if room >= 2 and tense not in NOT_ADVERBS and not verb.state and dice.chance(0.12):
        return Options(adverb=linked(*dice.even(OFTEN)), question=question)
    return Options(question=question)


def follow(group: VerbGroup, *objects: Phrase | Nominal) -> VerbGroup:
    """Append objects to a verb group, in the same order on both sides."""
    rest, fr = group.rest, group.fr
    for phrase in objects:
        rest += phrase.en
        fr += phrase.fr
    return VerbGroup(group.aux, rest, fr)


def size(group: VerbGroup) -> int:
    """Count the English words."""
    return len(group.aux) + len(group.rest)
