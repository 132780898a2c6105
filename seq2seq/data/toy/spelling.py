"""Writes a phrase as a sentence pair: elision, contraction, a or an, punctuation."""

from seq2seq.data.pair import Pair
from seq2seq.data.toy.phrase import Phrase, Word
from seq2seq.data.toy.tables import lists

_TABLE = {key: dict(entries) for key, entries in lists("spelling")}
ELISIONS, CONTRACTIONS = _TABLE["before a vowel"], _TABLE["contraction"]
CHANGING = frozenset(["si", "des", *ELISIONS])
PREPOSITIONS = frozenset([pair.split()[0] for pair in CONTRACTIONS])
ASPIRATED, ASPIRATED_WORDS = tuple(_TABLE["no vowel"]), _TABLE["no vowel, whole words"]
VOWELS = frozenset("aeiouàâéèêëîïôùûœæh")


def render(phrase: Phrase) -> Pair:
    """Write a sentence pair with its links.

    No space before `?`: French typography puts a thin one, but then it would be the only mark that
    does not attach, and a tokenizer would have to undo it.
    """
    fr = _contract(_elide(list(phrase.fr)))
    position = {word: i for i, word in enumerate(phrase.en)}
    links = sorted({(position[source], j) for j, word in enumerate(fr) for source in word.sources})
    texts = [word.text for word in phrase.en]
    for i, text in enumerate(texts):
        if text == "a" and english_vowel(texts[i + 1].lower()):
            texts[i] = "an"
    return Pair(_write(texts), _write([word.text for word in fr]), tuple(links))


def _elide(words: list[Word]) -> list[Word]:
    """Adapt words to the following one: `le homme` -> `l' homme`, `ma amie` -> `mon amie`."""
    for i, word in enumerate(words[:-1]):
        if word.text in CHANGING:
            words[i] = Word(before(word.text, words[i + 1].text), word.sources)
    return words


def before(word: str, following: str) -> str:
    """Return the form of a French word before the following one."""
    if word == "si":
        return "s'" if following in ("il", "ils") else word
    if word == "des":
        return "de" if following.endswith("_") else word  # des voitures, but de petites voitures
    return ELISIONS[word] if french_vowel(following) else word


def french_vowel(word: str) -> bool:
    """Return whether words elide before this one; an h is mute unless listed as aspirated."""
    aspirated = word in ASPIRATED_WORDS or word.startswith(ASPIRATED)
    return word[0].lower() in VOWELS and not aspirated


def english_vowel(word: str) -> bool:
    """Return whether `an` comes before a word: an apple, an honest man; a car, a university."""
    vowel = word[0] in "aeiou" and not word.startswith(tuple(_TABLE["a"]))
    return vowel or word.startswith(tuple(_TABLE["an"]))


def _contract(words: list[Word]) -> list[Word]:
    """Merge a preposition with a full article: `de le roi` -> `du roi`, links of both kept.

    Runs after elision, so that `de l' homme` stays.
    """
    done = words[:1]
    for word in words[1:]:
        last = done[-1]
        merged = last.text in PREPOSITIONS and CONTRACTIONS.get(f"{last.text} {word.text}")
        if merged:
            done[-1] = Word(merged, last.sources + word.sources)
        else:
            done.append(word)
    return done


def _write(texts: list[str]) -> str:
    text = " ".join(texts).replace("' ", "'").replace("_", "")
    for mark in ",.?":
        text = text.replace(f" {mark}", mark)
    return text[0].upper() + text[1:]
