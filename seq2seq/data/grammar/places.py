"""Where: prepositions with places, cities and countries."""

from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.entries import CITY, COUNTRY
from seq2seq.data.grammar.nouns import definite
from seq2seq.data.grammar.phrase import Phrase, Word, english, french, linked


def city_or_country(dice: Dice, relation: str) -> Phrase:
    """Translate in, to or from a city or country.

    in Paris / à Paris; to Japan / au Japon; in France / en France; from the United States /
    des États-Unis. Feminine countries drop their article after en and de.
    """
    preposition = Word(relation)
    if dice.chance(0.5):
        en, fr = dice.even(CITY)
        city = linked(en, fr)
        before = french("de" if relation == "from" else "à", (preposition,))
        return Phrase((preposition, *city.en), before + city.fr)
    country, full = dice.even(COUNTRY)
    words = english(country)
    article, _, bare = full.partition(" ")
    fr_words = bare if article == "la" else full
    within = "en" if article == "la" else "à"
    fr_preposition = "de" if relation == "from" else within
    return Phrase(
        (preposition, *words), french(fr_preposition, (preposition,)) + french(fr_words, words)
    )


PREPOSITIONS = (
    ("in", "dans"),
    ("near", "près de"),
    ("behind", "derrière"),
    ("in front of", "devant"),
)


def place_adverbial(dice: Dice, room: int) -> Phrase:
    """Translate where something happens, in at most `room` words (2 or more)."""
    if room < 3 or dice.chance(0.2):
        return city_or_country(dice, "in")
    en, fr = PREPOSITIONS[0] if room < 5 or dice.chance(0.5) else dice.even(PREPOSITIONS)
    preposition = linked(en, fr)
    place = definite(dice, ("place",), room - len(preposition.en))
    return Phrase(preposition.en + place.en, preposition.fr + place.fr)
