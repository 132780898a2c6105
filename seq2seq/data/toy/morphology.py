"""Inflection by rules; irregular forms are in conjugation.txt or next to the word in its table."""

import re
from typing import NamedTuple

from seq2seq.data.toy.tables import lists

_TABLE = {key: [entry for entry, _ in entries] for key, entries in lists("conjugation")}
WITH_ETRE = _TABLE.pop("être in the perfect")
DOUBLED = _TABLE.pop("doubled")

IMPERFECT = ("ais", "ais", "ait", "ions", "iez", "aient")
FUTURE = ("ai", "as", "a", "ons", "ez", "ont")
FEMININE = {
    "eux": "euse",
    "er": "ère",
    "en": "enne",
    "el": "elle",
    "on": "onne",
    "f": "ve",
    "e": "e",
}


class FrenchVerb(NamedTuple):
    """The forms of a verb."""

    infinitive: str
    finite: dict[str, tuple[str, ...]]  # by tense; je, tu, il, nous, vous, ils
    participle: tuple[str, ...]  # masculine, feminine, and their plurals
    takes_etre: bool


def conjugate(infinitive: str) -> FrenchVerb:
    """Conjugate a verb, given without its reflexive pronoun."""
    end = max([end for end in _TABLE if infinitive.endswith(end)], key=len)
    stem = infinitive.removesuffix(end)
    forms, future, participle = _TABLE[end][0].split(" / ")
    present = [_soften(stem, form.strip("-")) for form in forms.split()]
    imperfect = "ét" if infinitive == "être" else present[3].removesuffix("ons")
    finite = {
        "present": tuple(present),
        "imperfect": tuple([_soften(imperfect, ending) for ending in IMPERFECT]),
        "future": tuple([stem + future + ending for ending in FUTURE]),
        "conditional": tuple([stem + future + ending for ending in IMPERFECT]),
    }
    feminine = stem + participle.replace("û", "u") + "e"
    return FrenchVerb(
        infinitive, finite, french_forms(stem + participle, feminine), infinitive in WITH_ETRE
    )


def _soften(stem: str, ending: str) -> str:
    """Keep the sound of c and g: mangeons, mangions; commençons, commencions."""
    if ending.startswith(("a", "o")):
        stem = re.sub("g$", "ge", re.sub("c$", "ç", stem))
    elif ending.startswith("i"):
        stem = re.sub("ge$", "g", re.sub("ç$", "c", stem))
    return stem + ending


def french_forms(masculine: str, feminine: str = "") -> tuple[str, str, str, str]:
    """Form feminine and plurals: heureux heureuse heureux heureuses; petit petite petits ..."""
    if not feminine:
        ending = next((end for end in FEMININE if masculine.endswith(end)), "")
        feminine = masculine.removesuffix(ending) + FEMININE.get(ending, "e")
    return masculine, feminine, french_plural(masculine), french_plural(feminine)


def french_plural(word: str) -> str:
    """Form the regular plural: chats, prix, bateaux, chevaux."""
    if word[-1] in "sxz":
        return word
    if word.endswith(("eau", "eu", "au")) and word not in ("bleu", "eu"):
        return word + "x"
    return word[:-2] + "aux" if word.endswith("al") else word + "s"


def english_plural(word: str) -> str:
    """Form the regular plural, or the third person: cats, boxes, cities, boys, goes."""
    if re.search(r"(s|x|z|ch|sh|go)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


def english_verb(base: str, past: str = "", participle: str = "") -> dict[str, str]:
    """Inflect a verb: eat, eats, ate, eaten, eating; past and participle if irregular."""
    stem = base + base[-1] if base in DOUBLED else base
    regular = stem + "d" if base.endswith("e") else re.sub(r"([^aeiou])yed$", r"\1ied", stem + "ed")
    past = past or regular
    third = "has" if base == "have" else english_plural(base)
    progressive = re.sub("([^e])e$", r"\1", re.sub("ie$", "y", stem)) + "ing"
    return {"base": base, "s": third, "ed": past, "en": participle or past, "ing": progressive}
