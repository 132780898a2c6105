"""The embedded corpus: golden examples by hand, phenomena by count, promises of `generate`."""

import hashlib
import itertools
import os
import re
import subprocess
import sys
from functools import cache

import pytest

from seq2seq.data.grammar import calendar, corpus, generate, morphology, numbers, pronouns, split_of
from seq2seq.data.grammar.dice import Dice
from seq2seq.data.grammar.entries import (
    ADJECTIVE,
    BE,
    MODIFIERS_OF,
    NOUN,
    VERBS_BY_FRAME,
    Verb,
)
from seq2seq.data.grammar.nouns import MASS, PLURAL, SINGULAR, SOME, THE, A, Nominal, Parts, build
from seq2seq.data.grammar.phrase import Phrase, english, french, join, linked, render
from seq2seq.data.grammar.places import city_or_country
from seq2seq.data.grammar.verbs import (
    CAN_DO,
    FUTURE,
    GOING,
    PAST,
    PERFECT,
    PRESENT,
    PROGRESSIVE,
    WAS_DOING,
    WHEN_FUTURE,
    Options,
    Tense,
    infinitive,
    negate,
    verb_group,
)
from seq2seq.data.pair import Pair
from seq2seq.data.words import split_words
from seq2seq.run.errors import ConfigError

DETERMINER = {d.en: d for d, _ in SINGULAR}
VERB: dict[str, Verb] = {
    f"{verb.en.base} {verb.fr.infinitive}": verb
    for verbs in VERBS_BY_FRAME.values()
    for verb in verbs
}


@cache
def corpus_of(count: int, low: int = 3, high: int = 20, split: str = "train") -> tuple[Pair, ...]:
    return tuple(generate(split, count, seed=7, min_words=low, max_words=high))


def french_of(phrase: Phrase | Nominal) -> str:
    text = render(Phrase(phrase.en, phrase.fr), ".").tgt
    return text[:-1]


def noun(en: str, **more: object) -> Nominal:
    return build(Parts(noun=NOUN[en], **{"determiner": THE, **more}))  # type: ignore[arg-type]


def person(en: str, fr: str, index: int, *, feminine: bool = False) -> Nominal:
    phrase = linked(en, fr)
    return Nominal(phrase.en, phrase.fr, index, feminine, "person")


def say(subject: Nominal, verb: str, tense: Tense, *after: Phrase, **options: object) -> Pair:
    group = verb_group(VERB[verb], subject, tense, Options(**options))  # type: ignore[arg-type]
    clause = Phrase(subject.en + group.aux + group.rest, subject.fr + group.fr)
    return render(join(clause, *after), ".")


def he() -> Nominal:
    return person("he", "il", 2)


def she() -> Nominal:
    return person("she", "elle", 2, feminine=True)


def links_by_word(pair: Pair) -> list[tuple[str, str]]:
    src, tgt = split_words(pair.src), split_words(pair.tgt)
    assert pair.links is not None
    return [(src[i], tgt[j]) for i, j in pair.links]


# Golden examples: noun phrases


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        (noun("man"), "L'homme"),
        (noun("hero"), "Le héros"),  # h aspire
        (
            noun("car", before=(ADJECTIVE["small"],), after=(ADJECTIVE["red"],)),
            "La petite voiture rouge",
        ),
        (noun("friend", before=(ADJECTIVE["old"],)), "Le vieil ami"),
        (noun("hero", before=(ADJECTIVE["old"],)), "Le vieux héros"),
        (noun("tree", before=(ADJECTIVE["beautiful"],)), "Le bel arbre"),
        (noun("idea", before=(ADJECTIVE["new"],)), "La nouvelle idée"),
        (noun("man", determiner=DETERMINER["this"]), "Cet homme"),
        (noun("owl", determiner=DETERMINER["this"]), "Ce hibou"),
        (noun("idea", determiner=DETERMINER["my"]), "Mon idée"),
        (noun("axe", determiner=DETERMINER["my"]), "Ma hache"),
        (noun("horse", determiner=PLURAL[0][0], plural=True), "Les chevaux"),
        (noun("car", determiner=SOME, plural=True), "Des voitures"),
        (
            noun("car", determiner=SOME, plural=True, before=(ADJECTIVE["small"],)),
            "De petites voitures",
        ),
        (noun("car", determiner=SOME, plural=True, negated=True), "De voitures"),
        (noun("egg", determiner=A, negated=True), "D'œuf"),
        (noun("bread", determiner=MASS[1][0]), "Du pain"),
        (noun("water", determiner=MASS[1][0]), "De l'eau"),
        (noun("house", plural=True, number=21), "Vingt et une maisons"),
        (noun("table", modifiers=(("kitchen", "de cuisine"),)), "La table de cuisine"),
        (
            noun("area", after=(ADJECTIVE["European"], ADJECTIVE["economic"])),
            "La zone économique européenne",
        ),
    ],
)
def test_noun_phrases(phrase: Nominal, expected: str) -> None:
    assert french_of(phrase) == expected


def test_small_red_car_links() -> None:
    car = noun("car", before=(ADJECTIVE["small"],), after=(ADJECTIVE["red"],))
    pair = render(Phrase(car.en, car.fr), ".")
    assert pair == Pair(
        "The small red car.", "La petite voiture rouge.", ((0, 0), (1, 1), (2, 3), (3, 2), (4, 4))
    )


def test_a_chain_of_compounds_reverses() -> None:
    museum, city = (
        next(pair for pair in MODIFIERS_OF[head] if pair[0] == modifier)
        for head, modifier in (("director", "museum"), ("museum", "city"))
    )
    director = noun("director", modifiers=(city, museum))
    pair = render(Phrase(director.en, director.fr), ".")
    assert pair.src == "The city museum director."
    assert pair.tgt == "Le directeur du musée de la ville."
    assert pair.links == (
        (0, 0), (1, 4), (1, 5), (1, 6), (2, 2), (2, 3), (3, 1), (4, 7),
    )  # fmt: skip


# Golden examples: verbs


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (
            say(he(), "see voir", PRESENT, negation=negate("not")),
            ("He does not see.", "Il ne voit pas."),
        ),
        (
            say(he(), "love aimer", PRESENT, negation=negate("never")),
            ("He never loves.", "Il n'aime jamais."),
        ),
        (say(she(), "arrive arriver", PAST), ("She arrived.", "Elle est arrivée.")),
        (say(person("they", "ils", 5), "leave partir", PAST), ("They left.", "Ils sont partis.")),
        (say(he(), "eat manger", PAST), ("He ate.", "Il a mangé.")),
        (say(he(), "eat manger", WAS_DOING), ("He was eating.", "Il mangeait.")),
        (say(he(), "eat manger", PROGRESSIVE), ("He is eating.", "Il mange.")),
        (say(he(), "eat manger", FUTURE), ("He will eat.", "Il mangera.")),
        (say(he(), "eat manger", GOING), ("He is going to eat.", "Il va manger.")),
        (say(he(), "eat manger", CAN_DO), ("He can eat.", "Il peut manger.")),
        (say(he(), "know savoir", PAST), ("He knew.", "Il savait.")),
        (say(he(), "arrive arriver", WHEN_FUTURE), ("He arrives.", "Il arrivera.")),
        (
            say(she(), "rest reposer", PAST, negation=negate("no longer")),
            ("She no longer rested.", "Elle ne s'est plus reposée."),
        ),
        (
            say(person("I", "je", 0), "eat manger", PERFECT, adverb=linked("often", "souvent")),
            ("I have often eaten.", "J'ai souvent mangé."),
        ),
    ],
)
def test_verb_groups(pair: Pair, expected: tuple[str, str]) -> None:
    assert (pair.src, pair.tgt) == expected


@pytest.mark.parametrize(
    ("subject", "verb", "objects", "tense", "expected"),
    [
        ("he", "see voir", ("her",), PRESENT, "Il la voit."),
        ("he", "love aimer", ("him",), PRESENT, "Il l'aime."),
        ("she", "give donner", ("it", "to him"), PRESENT, "Elle le lui donne."),
        ("she", "give donner", ("it", "to me"), PRESENT, "Elle me le donne."),
        ("he", "see voir", ("her",), PAST, "Il l'a vue."),
        ("he", "see voir", ("them",), PAST, "Il les a vus."),
        ("he", "see voir", ("them",), GOING, "Il va les voir."),
        ("he", "speak parler", ("to us",), PAST, "Il nous a parlé."),  # indirect: no agreement
    ],
)
def test_object_pronouns(
    subject: str, verb: str, objects: tuple[str, ...], tense: Tense, expected: str
) -> None:
    clitics = tuple(
        pronouns.indirect(pronouns.FORM[o[3:]], "to")
        if o.startswith("to ")
        else pronouns.direct(pronouns.FORM[o])
        for o in objects
    )
    who = he() if subject == "he" else she()
    group = verb_group(VERB[verb]._replace(particle=""), who, tense, Options(clitics=clitics))
    after = tuple(itertools.chain.from_iterable(clitic.en for clitic in clitics))
    pair = render(Phrase(who.en + group.aux + group.rest + after, who.fr + group.fr), ".")
    assert pair.tgt == expected


def test_links_of_a_negated_sentence_with_a_clitic() -> None:
    clitic = pronouns.direct(pronouns.FORM["her"])
    pair = say(he(), "see voir", PAST, Phrase(clitic.en), negation=negate("not"), clitics=(clitic,))
    assert (pair.src, pair.tgt) == ("He did not see her.", "Il ne l'a pas vue.")
    assert links_by_word(pair) == [
        ("He", "Il"), ("did", "a"), ("not", "ne"), ("not", "pas"), ("see", "vue"),
        ("her", "l'"), (".", "."),
    ]  # fmt: skip


def test_a_pronoun_is_not_an_article() -> None:
    """`de` and the article `le` are `du`; the pronoun `le` stays whole: de le voir."""
    clitic = pronouns.direct(pronouns.FORM["him"])
    seeing = infinitive(VERB["see voir"], he(), (clitic,))
    de = Phrase((), french("de", ()))
    tries = say(he(), "try essayer", PRESENT, de, seeing, Phrase(clitic.en))
    assert (tries.src, tries.tgt) == ("He tries to see him.", "Il essaie de le voir.")


# Golden examples: numbers, dates, places, forms


@pytest.mark.parametrize(
    ("n", "en", "fr"),
    [
        (1, "one", "un"),
        (17, "seventeen", "dix-sept"),
        (21, "twenty-one", "vingt et un"),
        (71, "seventy-one", "soixante et onze"),
        (80, "eighty", "quatre-vingts"),
        (81, "eighty-one", "quatre-vingt-un"),
        (82, "eighty-two", "quatre-vingt-deux"),
        (91, "ninety-one", "quatre-vingt-onze"),
        (95, "ninety-five", "quatre-vingt-quinze"),
    ],
)
def test_numbers(n: int, en: str, fr: str) -> None:
    assert (numbers.english_number(n), numbers.french_number(n)) == (en, fr)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        (numbers.hundreds(200), ("Two hundred.", "Deux cents.")),
        (numbers.hundreds(305), ("Three hundred and five.", "Trois cent cinq.")),
        (numbers.year(1984), ("Nineteen eighty-four.", "Mille neuf cent quatre-vingt-quatre.")),
        (numbers.year(2010), ("Two thousand and ten.", "Deux mille dix.")),
        (calendar.date(3, ("May", "mai")), ("On the third of May.", "Le trois mai.")),
        (calendar.date(1, ("May", "mai")), ("On the first of May.", "Le premier mai.")),
        (calendar.date(8, ("May", "mai")), ("On the eighth of May.", "Le huit mai.")),
        (calendar.clock(3, 0), ("At three o'clock.", "À trois heures.")),
        (calendar.clock(1, 30), ("At half past one.", "À une heure et demie.")),
        (calendar.clock(12, 45), ("At a quarter to one.", "À une heure moins le quart.")),
        (calendar.clock(3, 10), ("At ten past three.", "À trois heures dix.")),
    ],
)
def test_dates_and_hours(phrase: Phrase, expected: tuple[str, str]) -> None:
    pair = render(phrase, ".")
    assert (pair.src, pair.tgt) == expected


@pytest.mark.parametrize(
    ("infinitive", "present", "future", "imperfect", "participle"),
    [
        ("manger", "mangeons", "mangerons", "mangions", "mangé"),
        ("commencer", "commençons", "commencerons", "commencions", "commencé"),
        ("acheter", "achetons", "achèterons", "achetions", "acheté"),
        ("jeter", "jetons", "jetterons", "jetions", "jeté"),
        ("préférer", "préférons", "préférerons", "préférions", "préféré"),
        ("finir", "finissons", "finirons", "finissions", "fini"),
        ("vendre", "vendons", "vendrons", "vendions", "vendu"),
        ("savoir", "savons", "saurons", "savions", "su"),
        ("recevoir", "recevons", "recevrons", "recevions", "reçu"),
        ("écrire", "écrivons", "écrirons", "écrivions", "écrit"),
        ("craindre", "craignons", "craindrons", "craignions", "craint"),
        ("être", "sommes", "serons", "étions", "été"),
        ("convaincre", "convainquons", "convaincrons", "convainquions", "convaincu"),
        ("reconnaître", "reconnaissons", "reconnaîtrons", "reconnaissions", "reconnu"),
    ],
)
def test_conjugation_with_nous(
    infinitive: str, present: str, future: str, imperfect: str, participle: str
) -> None:
    verb = morphology.conjugate(infinitive)
    forms = (verb.present[3], verb.future[3], verb.imperfect[3], verb.participle)
    assert forms == (present, future, imperfect, participle)


def test_participles_agree() -> None:
    form = morphology.participle_form
    assert form("parti", feminine=True, plural=True) == "parties"
    assert form("pris", feminine=False, plural=True) == "pris"
    assert form("dû", feminine=True, plural=False) == "due"


def test_countries_and_cities_take_their_own_prepositions() -> None:
    dice = Dice("places")
    texts = {
        (pair.src, pair.tgt)
        for relation in ("in", "to", "from")
        for _ in range(600)
        for pair in [render(city_or_country(dice, relation), ".")]
    }
    assert {
        ("In Paris.", "À Paris."),
        ("In France.", "En France."),
        ("To Japan.", "Au Japon."),
        ("In the United States.", "Aux États-Unis."),
        ("From Japan.", "Du Japon."),
        ("From Italy.", "D'Italie."),
        ("From Hungary.", "De Hongrie."),
        ("From the Netherlands.", "Des Pays-Bas."),
    } <= texts


def test_english_articles_follow_the_sound() -> None:
    for phrase in ("a apple", "a honest man", "a university", "a European law", "a horse"):
        words = english(phrase)
        text = render(Phrase(words, french("x", words)), ".").src
        vowel = phrase[2:].startswith(("apple", "honest"))
        assert text.startswith("An " if vowel else "A "), text


# The corpus as a whole

PHENOMENA = {
    "que clause": (r"\b(whom|which) \w+ ", r"\bqu(e|')"),
    "qui clause": (r"\b(who|which) \w+", r"\bqui\b"),
    "dont": (r"\b(about|of) (whom|which)\b|\bwhose\b", r"\bdont\b"),
    "ou": (r"\w+ where\b", r"\boù\b"),
    "à qui": (r"\bto whom\b", r"\bà qui\b"),
    "not": (r"\bnot\b", r"\b(ne |n').*\bpas\b"),
    "never": (r"\bnever\b", r"\b(ne |n').*\bjamais\b"),
    "no longer": (r"\bno longer\b", r"\b(ne |n').*\bplus\b"),
    "nothing": (r"\bnothing\b", r"\b(ne |n').*\brien\b"),
    "nobody": (r"\bnobody\b", r"(?i)\bpersonne\b"),
    "two clitics": (r"\b(it|them) to (him|her|them)\b", r"\b(le|les) (lui|leur)\b"),
    "because": (r"\bbecause\b", r"\bparce qu(e|')"),
    "if": (r"(?i)\bif\b", r"(?i)\b(si\b|s')"),
    "that clause": (
        r"\b(say|says|said|know|knows|think|thinks|thought|hope|hopes) that\b",
        r"\bqu(e|')",
    ),
    "question": (r"^(Do|Does|Did|Will)\b.*\?$", r"^Est-ce qu.*\?$"),
    "there is": (r"(?i)\bthere (is|are)\b", r"(?i)\bil y a\b"),
    "comparison": (r"\bthan\b", r"\b(plus|moins) .* qu(e|')"),
    "passive": (r"\b(was|were) \w+ by\b", r"\b(a|ont) été \w+ par\b"),
    "vieil, bel, nouvel": (
        r"(?i)\b(old|beautiful|new) ",
        r"(?i)\b(vieil|bel|nouvel) [aeiouyhéèêœâ]",
    ),
    "cet": (r"(?i)\b(this|that)\b", r"(?i)\bcet [aeiouhéèêœâ]"),
    "mon before a vowel": (
        r"(?i)\b(my|his|her)\b",
        r"(?i)\b(mon|son) (amie|épée|assiette|île|idée|école|horloge|armoire|écharpe)",
    ),
    "du, des, au, aux": (r".", r"\b(du|des|au|aux)\b"),
    "future after quand": (
        r"(?i)\bwhen \w+ \w+s\b.*will",
        r"(?i)\bquand .*r(a|ont)\b.*r(a|ont|ai|ons|ez)\b",
    ),
    "year": (r"\b(seven|eigh|nine)teen \w+ty", r"\bmille \w+ cent\b"),
    "hour": (r"o'clock", r"\bheures?\b"),
    "en bois": (r"\bwooden\b", r"\ben bois\b"),
}


@pytest.mark.parametrize("phenomenon", PHENOMENA)
def test_phenomena_are_frequent(phenomenon: str) -> None:
    en, fr = (re.compile(pattern) for pattern in PHENOMENA[phenomenon])
    found = [pair for pair in corpus_of(9_000) if en.search(pair.src) and fr.search(pair.tgt)]
    assert len(found) >= 10, phenomenon


def test_negation_links_both_halves_to_not() -> None:
    for pair in corpus_of(3000):
        words = split_words(pair.src)
        if words.count("not") != 1 or not {"never", "nobody", "nothing", "no"}.isdisjoint(words):
            continue
        halves = {fr for en, fr in links_by_word(pair) if en == "not"}
        assert halves in ({"ne", "pas"}, {"n'", "pas"}), pair


def test_links_lie_inside_and_cover_content_words() -> None:
    function_words = {"and", "of", "on", "past", "to", "a", "an", "On"}
    for pair in corpus_of(9_000):
        src, tgt = split_words(pair.src), split_words(pair.tgt)
        assert pair.links
        assert all(0 <= i < len(src) and 0 <= j < len(tgt) for i, j in pair.links)
        assert pair.links[-1] == (len(src) - 1, len(tgt) - 1), "final mark to final mark"
        assert list(pair.links) == sorted(set(pair.links))
        unlinked = set(range(len(src))) - {i for i, _ in pair.links}
        assert {src[i] for i in unlinked} <= function_words, pair
        assert {j for _, j in pair.links} == set(range(len(tgt))), f"French word unlinked: {pair}"


def test_spelling_at_word_boundaries() -> None:
    wrong = re.compile(
        r"(?i)\b(de|le|la|que|ne|je|me|se|ce|ma|sa) [aeiouéèêàâœ]|\bde les? (?!\w+(er|ir|re)\b)"
        r"|\bà les? (?!\w+(er|ir|re)\b)|\bsi ils?\b|  | [.,?]|[a-z]['] "
    )
    # le huit, le onze: numbers that never elide
    fine = re.compile(r"(?i)\b(de|le|la|que|ne) (huit|onz|oui|un)\w*")
    for pair in corpus_of(9_000):
        assert not wrong.search(fine.sub("x", pair.tgt)), pair.tgt
        assert pair.src[0].isupper()
        assert pair.tgt[0].isupper()
        assert pair.src[-1] == pair.tgt[-1]
        assert not re.search(r"\ba [aeio]\w|\ban [^aeiouhAEIOU]", pair.src), pair.src


def test_translation_is_a_function() -> None:
    known: dict[str, str] = {}
    for pair in itertools.chain(
        corpus_of(9_000), generate("train", 8000, seed=3, min_words=3, max_words=6)
    ):
        assert known.setdefault(pair.src, pair.tgt) == pair.tgt, pair.src


def test_lexicon_has_no_ambiguous_forms() -> None:
    nouns = {form for noun in NOUN.values() for form in (noun.en, noun.en_plural)}
    verbs = {form for verb in VERB.values() for form in verb.en}
    assert not nouns & verbs
    assert not set(ADJECTIVE) & (nouns | verbs)
    for verb in VERB.values():
        assert verb.en.past not in (verb.en.base, verb.en.third)
    for noun_ in NOUN.values():
        assert noun_.en != noun_.en_plural or noun_.kind in ("mass", "drink")
    assert BE.fr.infinitive == "être"


def test_vocabulary_is_wide_but_seen_often() -> None:
    pairs = corpus_of(9_000)
    en = {word.lower() for pair in pairs for word in split_words(pair.src)}
    fr = {word.lower() for pair in pairs for word in split_words(pair.tgt)}
    assert len(en) >= 1500
    assert len(fr) >= 2500


def test_same_arguments_same_corpus_in_any_process() -> None:
    code = (
        "import hashlib; from seq2seq.data.grammar import generate\n"
        "pairs = generate('test', 60, seed=5, min_words=3, max_words=20)\n"
        "print(hashlib.sha256(repr(list(pairs)).encode()).hexdigest())"
    )
    here = list(generate("test", 60, seed=5, min_words=3, max_words=20))
    digests = {hashlib.sha256(repr(here).encode()).hexdigest()}
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_a_smaller_count_is_a_prefix() -> None:
    assert corpus_of(300) == corpus_of(9_000)[:300]


def test_seeds_differ() -> None:
    other = list(generate("train", 300, seed=8, min_words=3, max_words=20))
    assert len(set(other) & set(corpus_of(300))) < 5


def test_splits_are_disjoint_on_both_sides() -> None:
    splits = [corpus_of(400, 3, 5, split) for split in ("train", "validation", "test")]
    for one, other in itertools.combinations(splits, 2):
        assert not {pair.src for pair in one} & {pair.src for pair in other}
        assert not {pair.tgt for pair in one} & {pair.tgt for pair in other}
    for split, pairs in zip(("train", "validation", "test"), splits, strict=True):
        assert {split_of(pair.tgt) for pair in pairs} == {split}
        assert split == "train" or len({pair.src for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(("low", "high"), [(3, 3), (5, 8), (40, 60), (60, 60)])
def test_lengths(low: int, high: int) -> None:
    pairs = list(generate("train", 40, seed=1, min_words=low, max_words=high))
    assert all(low <= len(pair.src.split()) <= high for pair in pairs)


def test_lengths_are_spread() -> None:
    lengths = [len(pair.src.split()) for pair in corpus_of(9_000)]
    assert all(lengths.count(n) > 100 for n in range(3, 21))


def test_a_split_that_is_used_up_ends_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "MAX_MISSES", 60)
    with pytest.raises(ConfigError, match=r"test has only \d+ of 100000 pairs of 3 to 3 words"):
        list(generate("test", 100_000, seed=1, min_words=3, max_words=3))


@pytest.mark.parametrize(("low", "high"), [(2, 5), (9, 8), (3, 61)])
def test_impossible_lengths_are_refused(low: int, high: int) -> None:
    with pytest.raises(ConfigError, match="no range of lengths"):
        generate("train", 1, seed=1, min_words=low, max_words=high)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="no split 'dev'"):
        generate("dev", 1, seed=1, min_words=3, max_words=5)
