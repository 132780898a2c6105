"""Spelling at word boundaries: elision, contraction, and the English a or an."""


def row(words: str) -> tuple[str, ...]:
    """Read a row of words: easier on the eye than a list of quoted ones."""
    return tuple(words.split())


ELISIONS = {
    "le": "l'",
    "la": "l'",
    "de": "d'",
    "que": "qu'",
    "ne": "n'",
    "je": "j'",
    "me": "m'",
    "te": "t'",
    "se": "s'",
    # No elision, but the same place: these avoid two vowels in a row by another form.
    "ce": "cet",
    "ma": "mon",
    "ta": "ton",
    "sa": "son",
}

CONTRACTIONS = {
    ("de", "le"): "du",
    ("de", "les"): "des",
    ("à", "le"): "au",
    ("à", "les"): "aux",
}

VOWELS = frozenset("aeiouàâéèêëîïôùûœæh")
"""First letters that elide. An h does unless the word is listed below; a y only as `il n'y a`."""

ASPIRATED = row("""
    hach hall hamster hangar haricot harp hasard haut hibou hérisson hongr hors huit onze
    onzième oui
""")
"""Beginnings of words that never elide: `le hibou`, and by custom `le huit mai`, `le onze mai`."""

ASPIRATED_WORDS = frozenset({"héros", "Hongrie"})
"""Whole words: the h of `le heros` is aspirated, that of `l'heroine` is not."""

SOUNDED_AS_CONSONANT = ("uni", "use", "euro")
"""English beginnings that take `a`: a university, a useful book, a European law."""


def starts_with_vowel(word: str) -> bool:
    """Tell whether French words elide before this one."""
    first = word[:1].lower()
    if first not in VOWELS:
        return word == "y"
    if first in "ho":
        return word not in ASPIRATED_WORDS and not word.startswith(ASPIRATED)
    return True


def before_vowel(word: str, following: str) -> str | None:
    """Return the form that a word takes before the next one, None if it does not change."""
    if word == "si":
        return "s'" if following in ("il", "ils") else None
    changed = ELISIONS.get(word)
    return changed if changed and starts_with_vowel(following) else None


def english_article(following: str) -> str:
    """Return `a` or `an` before a word: a car, an apple, an honest man, a university."""
    lower = following.lower()
    if lower.startswith(SOUNDED_AS_CONSONANT):
        return "a"
    silent_h = lower.startswith(("hon", "heir")) and not lower.startswith("honey")
    return "an" if lower[0] in "aeiou" or silent_h else "a"
