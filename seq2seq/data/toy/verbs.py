"""The French verb group: tense, negation, object pronouns, reflexives, agreement.

    ne  me te se nous vous  le la les  lui leur  VERB  pas jamais plus rien  adverb  participle

With an infinitive, the pronouns come before the infinitive: il ne veut pas le voir.

Links: every English auxiliary (do, will, have, be) links to the finite French verb; a simple past
that becomes two words links to both (ate -> a, mangé); a particle links like its verb (look at).
"""

from typing import NamedTuple

from seq2seq.data.toy.morphology import FrenchVerb, conjugate
from seq2seq.data.toy.phrase import Agreement, Clause, Phrase, Tense, Word, Words

NON_FINITE = {t.french: t for t in (Tense("base", "", "infinitive"), Tense("en", "", "participle"))}
HELPERS = {verb: conjugate(verb) for verb in ("avoir", "être", "aller", "pouvoir", "devoir")}
REFLEXIVE = ("me", "te", "se", "nous", "vous", "se")
RANKS = {"ne": 0, "le_": 2, "la_": 2, "les_": 2, "lui": 3, "leur": 3}  # 1 for other pronouns


class Verb(NamedTuple):
    """A verb of the lexicon."""

    english: dict[str, str]  # by form; empty for `be`, which is an auxiliary in English
    particle: str  # the English word after it, as in look at
    french: FrenchVerb
    reflexive: bool = False

    def make(self, _: object, __: object, agreement: Agreement, clause: Clause) -> Phrase:
        """Write the English main verb and the whole French verb group."""
        assert clause.tense
        en: Words = ()
        if self.english:
            form = clause.tense.english
            plain = form == "s" and agreement.person != 2
            en = (Word(self.english["base" if plain else form]),)
            en += (Word(self.particle),) if self.particle else ()
        return Phrase(en, self._group(agreement, clause, en))

    def _group(self, agreement: Agreement, clause: Clause, heads: Words) -> Words:
        tense, helpers, before, after, object_in_front = clause
        assert tense
        if not heads:  # the last word of `has been` serves as the verb
            helpers, heads = helpers[:-1], helpers[-1:]
        if self.reflexive:
            before += (Word(REFLEXIVE[agreement.person], heads),)
        before = tuple(sorted(before, key=lambda word: RANKS.get(word.text, 1)))
        with_etre = self.reflexive or self.french.takes_etre

        # The verb itself; a participle agrees with the subject or with an object before it.
        if tense.french == "infinitive":
            text = self.french.infinitive
        elif tense.french == "participle":
            with_subject = with_etre or not tense.helper
            other = agreement if with_subject else object_in_front
            text = (other or Agreement(2)).french(self.french.participle)
        else:
            text = self.french.finite[tense.french][agreement.person]
        if not tense.helper:
            return (*before, Word(text, helpers + heads), *after)

        # With an auxiliary: n'a pas vu, but ne va pas le voir.
        name, _, time = tense.helper.partition(":")
        auxiliary = HELPERS["être" if name == "avoir" and with_etre else name]
        finite = Word(auxiliary.finite[time][agreement.person], helpers or heads)
        main = Word(text, heads)
        if tense.french == "participle":
            return (*before, finite, *after, main)
        ne = tuple([word for word in before if word.text == "ne"])
        return (*ne, finite, *after, *before[len(ne) :], main)
