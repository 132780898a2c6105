"""How words inflect: French plurals, feminines and conjugations, English plurals and verb forms.

Regular forms follow from rules; what no rule gives is written out in the tables here (families
of irregular verbs) or beside the word in `lexicon.py`.
"""

import re
from typing import NamedTuple

from seq2seq.data.grammar.orthography import row

PERSONS = ("je", "tu", "il", "nous", "vous", "ils")

PRESENT_ER = ("e", "es", "e", "ons", "ez", "ent")
PRESENT_IR = ("is", "is", "it", "issons", "issez", "issent")
PRESENT_RE = ("s", "s", "", "ons", "ez", "ent")
IMPERFECT = ("ais", "ais", "ait", "ions", "iez", "aient")
FUTURE = ("ai", "as", "a", "ons", "ez", "ont")

IRREGULAR = {
    "être": "suis es est sommes êtes sont | ser | été",
    "avoir": "ai as a avons avez ont | aur | eu",
    "aller": "vais vas va allons allez vont | ir | allé",
    "venir": "viens viens vient venons venez viennent | viendr | venu",
    "tenir": "tiens tiens tient tenons tenez tiennent | tiendr | tenu",
    "voir": "vois vois voit voyons voyez voient | verr | vu",
    "savoir": "sais sais sait savons savez savent | saur | su",
    "pleuvoir": "pleus pleus pleut pleuvons pleuvez pleuvent | pleuvr | plu",
    "devoir": "dois dois doit devons devez doivent | devr | dû",
    "pouvoir": "peux peux peut pouvons pouvez peuvent | pourr | pu",
    "vouloir": "veux veux veut voulons voulez veulent | voudr | voulu",
    "recevoir": "reçois reçois reçoit recevons recevez reçoivent | recevr | reçu",
    "boire": "bois bois boit buvons buvez boivent | boir | bu",
    "croire": "crois crois croit croyons croyez croient | croir | cru",
    "crire": "cris cris crit crivons crivez crivent | crir | crit",
    "dire": "dis dis dit disons dites disent | dir | dit",
    "rire": "ris ris rit rions riez rient | rir | ri",
    "prendre": "prends prends prend prenons prenez prennent | prendr | pris",
    "mettre": "mets mets met mettons mettez mettent | mettr | mis",
    "suivre": "suis suis suit suivons suivez suivent | suivr | suivi",
    "courir": "cours cours court courons courez courent | courr | couru",
    "mourir": "meurs meurs meurt mourons mourez meurent | mourr | mort",
    "aître": "ais ais aît aissons aissez aissent | aîtr | u",
    "uire": "uis uis uit uisons uisez uisent | uir | uit",
    "aindre": "ains ains aint aignons aignez aignent | aindr | aint",
    "aincre": "aincs aincs ainc ainquons ainquez ainquent | aincr | aincu",
    "frir": "fre fres fre frons frez frent | frir | fert",
    "vrir": "vre vres vre vrons vrez vrent | vrir | vert",
    "dormir": "dors dors dort dormons dormez dorment | dormir | dormi",
    "partir": "pars pars part partons partez partent | partir | parti",
    "sentir": "sens sens sent sentons sentez sentent | sentir | senti",
    "sortir": "sors sors sort sortons sortez sortent | sortir | sorti",
    "envoyer": "envoie envoies envoie envoyons envoyez envoient | enverr | envoyé",
}
"""Verb families by the end of the infinitive: present | future stem | past participle."""

WITH_ETRE = frozenset(
    row("""
    aller venir revenir devenir partir arriver entrer rester tomber mourir retourner sortir
""")
)
DOUBLING_FR = ("appel", "jet")
"""Stems in -el and -et that double (`il jette`) where others take a grave accent (`il achete`)."""


class FrenchVerb(NamedTuple):
    """The forms of a verb; six persons each, in the order of `PERSONS`."""

    infinitive: str
    present: tuple[str, ...]
    imperfect: tuple[str, ...]
    future: tuple[str, ...]
    conditional: tuple[str, ...]
    participle: str
    takes_etre: bool


class EnglishVerb(NamedTuple):
    """The forms of a verb: eat, eats, ate, eaten, eating."""

    base: str
    third: str
    past: str
    participle: str
    progressive: str


def conjugate(infinitive: str) -> FrenchVerb:
    """Conjugate a verb given without its reflexive pronoun."""
    present, future, participle = _principal_parts(infinitive)
    stem = "ét" if infinitive == "être" else present[3].removesuffix("ons")
    return FrenchVerb(
        infinitive,
        present,
        tuple(_soften(stem, ending) for ending in IMPERFECT),
        tuple(future + ending for ending in FUTURE),
        tuple(future + ending for ending in IMPERFECT),
        participle,
        infinitive in WITH_ETRE,
    )


def _principal_parts(infinitive: str) -> tuple[tuple[str, ...], str, str]:
    families = [end for end in IRREGULAR if infinitive.endswith(end)]
    if families:
        end = max(families, key=len)  # savoir ends in avoir, which ends in voir
        prefix = infinitive.removesuffix(end)
        forms, future, participle = (part.split() for part in IRREGULAR[end].split("|"))
        return tuple(prefix + f for f in forms), prefix + future[0], prefix + participle[0]
    if infinitive.endswith("er"):
        return _first_group(infinitive)
    stem = infinitive[:-2]
    if infinitive.endswith("ir"):
        return tuple(stem + end for end in PRESENT_IR), infinitive, stem + "i"
    return tuple(stem + end for end in PRESENT_RE), infinitive[:-1], stem + "u"


def _first_group(infinitive: str) -> tuple[tuple[str, ...], str, str]:
    """Conjugate in -er: nous mangeons, nous plaçons, il achete/jette/protege/essaie (accents)."""
    stem = infinitive[:-2]
    strong, future = stem, infinitive
    if stem.endswith(DOUBLING_FR):
        strong = stem + stem[-1]
        future = strong + "er"
    elif re.search(r"e[bcdfglmnprstv]$", stem):
        strong = f"{stem[:-2]}è{stem[-1]}"
        future = strong + "er"
    elif re.search(r"é[bcdfglmnprstv]$", stem):
        strong = f"{stem[:-2]}è{stem[-1]}"  # the future keeps its e acute: il preferera
    elif stem.endswith("y"):
        strong = stem[:-1] + "i"
        future = strong + "er"
    stems = (strong, strong, strong, stem, stem, strong)
    present = tuple(_soften(s, end) for s, end in zip(stems, PRESENT_ER, strict=True))
    return present, future, stem + "é"


def _soften(stem: str, ending: str) -> str:
    """Keep the sound of c and g: mange + ons -> mangeons, but mange + ions -> mangions."""
    if ending[0] in "ao":
        if stem.endswith("g"):
            return f"{stem}e{ending}"
        if stem.endswith("c"):
            return f"{stem[:-1]}ç{ending}"
        return stem + ending
    if stem.endswith("ge") and ending[0] == "i":
        return stem[:-1] + ending
    if stem.endswith("ç"):
        return f"{stem[:-1]}c{ending}"
    return stem + ending


def participle_form(participle: str, *, feminine: bool, plural: bool) -> str:
    """Agree a participle: parti, partie, partis, parties; pris has one masculine form."""
    form = participle.replace("dû", "du") if feminine or plural else participle
    if feminine:
        form += "e"
    return form + "s" if plural and not form.endswith("s") else form


def french_plural(word: str) -> str:
    """Form the regular plural: chats, prix, bateaux, chevaux."""
    if word[-1] in "sxz":
        return word
    if word.endswith(("eau", "eu", "au")) and word != "bleu":
        return word + "x"
    return word[:-2] + "aux" if word.endswith("al") else word + "s"


FEMININES = (
    ("e", "e"),
    ("eux", "euse"),
    ("f", "ve"),
    ("er", "ère"),
    ("en", "enne"),
    ("el", "elle"),
    ("on", "onne"),
)


def french_feminine(adjective: str) -> str:
    """Form the regular feminine: rouge, heureuse, active, fiere, italienne, culturelle, petite."""
    for masculine, feminine in FEMININES:
        if adjective.endswith(masculine):
            return adjective.removesuffix(masculine) + feminine
    return adjective + "e"


def english_plural(word: str) -> str:
    """Form the regular plural: cats, boxes, cities, boys."""
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


DOUBLING_EN = frozenset(row("run swim forget travel begin prefer admit control"))
"""Verbs that double their last letter before -ing and -ed."""


def english_verb(base: str, past: str = "", participle: str = "") -> EnglishVerb:
    """Inflect a verb; past and participle are regular where not given."""
    stem = base + base[-1] if base in DOUBLING_EN else base
    regular = stem + "d" if base.endswith("e") else re.sub(r"([^aeiou])yed$", r"\1ied", stem + "ed")
    past = past or regular
    silent_e = base.endswith("e") and not base.endswith("ee") and base != "be"
    progressive = (stem[:-1] if silent_e else stem) + "ing"
    third = base + "es" if base == "go" else english_plural(base)
    if base == "have":
        third = "has"
    if base.endswith("ie"):
        progressive = base[:-2] + "ying"
    return EnglishVerb(base, third, past, participle or past, progressive)
