"""Verb groups: tense, negation, object pronouns, reflexives, auxiliaries, agreement.

French order, with everything optional but the verb:

    ne  me te se nous vous  le la les  lui leur  VERB  pas jamais plus rien  adverb  participle

Before an infinitive the pronouns stand in front of the infinitive: il ne veut pas le voir.

Links: `ne` and `pas` both to `not`; every English auxiliary (do, will, have, be) to the French
verb that is finite; a simple past that becomes two words links to both (ate -> a, mangé);
the particle of a verb like the verb (look at -> regarde).
"""

from typing import NamedTuple

from seq2seq.data.grammar.entries import BE, CAN, GO, HAVE, MUST, Verb
from seq2seq.data.grammar.morphology import FrenchVerb, participle_form
from seq2seq.data.grammar.nouns import Nominal
from seq2seq.data.grammar.phrase import EMPTY, Phrase, Word, Words, english, french


class Tense(NamedTuple):
    """An English tense and the French one that translates it."""

    english: str
    french: str
    period: str


PRESENT = Tense("present", "present", "present")
PROGRESSIVE = Tense("progressive", "present", "present")
CAN_DO = Tense("can", "can", "present")
MUST_DO = Tense("must", "must", "present")
FUTURE = Tense("will", "future", "future")
GOING = Tense("going", "going", "future")
PAST = Tense("past", "perfect", "past")
PERFECT = Tense("perfect", "perfect", "past")
WAS_DOING = Tense("was doing", "imperfect", "past")
USED_TO = Tense("used to", "imperfect", "past")
PLUPERFECT = Tense("had", "pluperfect", "past")
WOULD = Tense("would", "conditional", "past")
WHEN_FUTURE = Tense("present", "future", "future")
"""When he arrives, ... will / quand il arrivera: French keeps the future in the clause."""
IF_PAST = Tense("past", "imperfect", "past")
"""If he worked, he would succeed / s'il travaillait, il réussirait."""

INFINITIVE_OF = {"going": GO, "can": CAN, "must": MUST}
AUXILIARY_TENSE = {"perfect": "present", "pluperfect": "imperfect"}


class Negation(NamedTuple):
    """A negative word: English in the verb group, second French half; `ne` is implied.

    The French halves are linked to `sources`, which for nobody and nothing is that word.
    """

    en: Words
    second: str
    sources: Words


class Clitic(NamedTuple):
    """An object pronoun: rank 0 me nous vous, 1 le la les, 2 lui leur."""

    en: Words
    fr: str
    rank: int
    direct: bool
    """A participle agrees with a direct object in front of it, never with an indirect one."""
    feminine: bool = False
    plural: bool = False


class VerbGroup(NamedTuple):
    """English split at the place where a question puts its subject; French in one piece."""

    aux: Words
    rest: Words
    fr: Words


class Options(NamedTuple):
    """What may be added to a verb group."""

    negation: Negation | None = None
    adverb: Phrase = EMPTY
    """Often, always: after the finite verb in French, before the main verb in English."""
    clitics: tuple[Clitic, ...] = ()
    question: bool = False
    antecedent: tuple[bool, bool] | None = None
    """Feminine and plural of the object that `que` puts first: la lettre que j'ai écrite."""


def negate(words: str) -> Negation:
    """Make not, never or no longer."""
    en = english(words)
    return Negation(en, {"not": "pas", "never": "jamais", "no longer": "plus"}[words], en)


def verb_group(verb: Verb, subject: Nominal, tense: Tense, options: Options) -> VerbGroup:
    """Build the verb of a clause in both languages.

    does not see her / ne la voit pas; has never left / n'est jamais partie;
    is going to give it to him / va le lui donner.
    """
    negation = options.negation
    negative = negation.en if negation else ()
    support = options.question or [word.text for word in negative] == ["not"]
    aux_texts, main_texts = english_forms(verb, tense, subject.person, support=support)
    aux, main = english(" ".join(aux_texts)), english(" ".join(main_texts))
    particle = english(verb.particle)
    heads = main[-1:] + particle if main else aux
    helpers = aux + main[:-1] if main else aux
    fr = _french(verb, subject, tense, options, (helpers, heads))
    before = negative + options.adverb.en
    return VerbGroup(aux[:1], before + aux[1:] + main + particle, fr)


def english_forms(
    verb: Verb, tense: Tense, person: int, *, support: bool
) -> tuple[list[str], list[str]]:
    """Return auxiliaries and main verb; `support` asks for do where there is no auxiliary."""
    en = verb.en
    third = person == 2
    is_, was = _be(person)
    compound = {
        "progressive": ([is_], [en.progressive]),
        "was doing": ([was], [en.progressive]),
        "perfect": (["has" if third else "have"], [en.participle]),
        "had": (["had"], [en.participle]),
        "used to": ([], ["used", "to", en.base]),
        "going": ([is_], ["going", "to", en.base]),
    }
    if tense.english in compound:
        return compound[tense.english]
    if tense.english not in ("present", "past"):
        return [tense.english], [en.base]  # will, would, can, must
    past = tense.english == "past"
    if en.base == "be":
        return [was if past else is_], []
    if support:
        return ["did" if past else "does" if third else "do"], [en.base]
    return [], [en.past if past else en.third if third else en.base]


def _be(person: int) -> tuple[str, str]:
    return {0: ("am", "was"), 2: ("is", "was")}.get(person, ("are", "were"))


def french_tense(verb: Verb, tense: Tense) -> str:
    """Return the French tense; states are described in the imperfect: il savait, il était."""
    return "imperfect" if verb.state and tense == PAST else tense.french


def _french(
    verb: Verb, subject: Nominal, tense: Tense, options: Options, sources: tuple[Words, Words]
) -> Words:
    helpers, heads = sources
    name = french_tense(verb, tense)
    clitics = _clitics(verb, subject, options.clitics, heads)
    after = options.adverb.fr
    ne: Words = ()
    if options.negation:
        ne = french("ne", options.negation.sources)
        after = french(options.negation.second, options.negation.sources) + after
    if name in INFINITIVE_OF:
        finite = french(INFINITIVE_OF[name].present[subject.person], helpers)
        return ne + finite + after + clitics + french(verb.fr.infinitive, heads)
    if name not in AUXILIARY_TENSE:
        finite = french(finite_form(verb.fr, name, subject.person), helpers + heads)
        return ne + clitics + finite + after
    with_etre = verb.fr.takes_etre or verb.reflexive
    auxiliary = BE.fr if with_etre else HAVE
    form = finite_form(auxiliary, AUXILIARY_TENSE[name], subject.person)
    feminine, plural = _agreement(subject, options, with_etre=with_etre)
    participle = participle_form(verb.fr.participle, feminine=feminine, plural=plural)
    finite = french(form, helpers or heads)
    return ne + clitics + finite + after + french(participle, heads)


def finite_form(verb: FrenchVerb, tense: str, person: int) -> str:
    """Pick a one-word form."""
    forms = {
        "present": verb.present,
        "imperfect": verb.imperfect,
        "future": verb.future,
        "conditional": verb.conditional,
    }
    return forms[tense][person]


def _agreement(subject: Nominal, options: Options, *, with_etre: bool) -> tuple[bool, bool]:
    """Find what a participle agrees with: the subject, an object in front of it, or nothing."""
    if with_etre:
        return subject.feminine, subject.plural
    for clitic in options.clitics:
        if clitic.direct:
            return clitic.feminine, clitic.plural
    return options.antecedent or (False, False)


def fitting(verb: Verb, tense: Tense) -> Tense:
    """Replace the progressive of a state: no `is knowing`."""
    if not (verb.state or verb.en.base == "be"):
        return tense
    return {PROGRESSIVE: PRESENT, WAS_DOING: PAST}.get(tense, tense)


REFLEXIVE = ("me", "te", "se", "nous", "vous", "se")


def _clitics(verb: Verb, subject: Nominal, clitics: tuple[Clitic, ...], heads: Words) -> Words:
    words: Words = french(REFLEXIVE[subject.person], heads) if verb.reflexive else ()
    for clitic in sorted(clitics, key=lambda clitic: clitic.rank):
        words += (Word(clitic.fr, clitic.en, pronoun=True),)
    return words


def infinitive(verb: Verb, subject: Nominal, clitics: tuple[Clitic, ...]) -> Phrase:
    """Build the bare infinitive that follows want to: le voir, me reposer."""
    head, particle = english(verb.en.base), english(verb.particle)
    heads = head + particle
    fr = _clitics(verb, subject, clitics, heads) + french(verb.fr.infinitive, heads)
    return Phrase(heads, fr)
