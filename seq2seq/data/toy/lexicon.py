"""The lexicon: reads the tables of words as entries of the grammar."""

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple, TypeVar

from seq2seq.data.toy.morphology import (
    conjugate,
    english_plural,
    english_verb,
    french_forms,
    french_plural,
)
from seq2seq.data.toy.phrase import Tense
from seq2seq.data.toy.rules import Rule
from seq2seq.data.toy.tables import lists, rows
from seq2seq.data.toy.verbs import HELPERS, Verb

T = TypeVar("T")


class Entry(NamedTuple):
    """One way to make a constituent, without further choices."""

    item: Rule | Verb
    words: int  # in English
    weight: float


Lexicon = dict[str, list[Entry]]
Entries = Iterator[tuple[str, Entry]]


def read_lexicon() -> Lexicon:
    """Read all tables of words; the key `PRE.person,animal` stands for two constituents."""
    lexicon: Lexicon = defaultdict(list)
    for key, entry in [*_nouns(), *_adjectives(), *_verbs(), *_words(), *_auxiliaries()]:
        for features in product(*[feature.split(",") for feature in key.split(".")]):
            lexicon[".".join(features)].append(entry)
    return dict(lexicon)


def _entry(english: str, french: str, weight: float = 1.0, like: str = "") -> Entry:
    rule = Rule(english, french, like=like)
    return Entry(rule, rule.words, weight)


def _common_first(entries: list[T]) -> Iterator[tuple[int, T]]:
    """Weight the words of a list: the first has three times the weight of the last."""
    for place, entry in enumerate(entries):
        yield 90 - 60 * place // len(entries), entry


def _nouns() -> Entries:
    nouns: dict[str, list[tuple[str, str, str, str]]] = {}
    for key, entries in lists("nouns"):
        _, kind, *mass = key.split(".")
        for weight, (english, french) in _common_first(entries):
            en, _, plural = english.partition("/")
            article, _, french = french.partition(" ")
            fr, _, fr_plural = french.partition("/")
            like = {"un": "il", "une": "elle"}[article]
            nouns[en] = [(f"{kind}.{'mass' if mass else 'sg'}", en, fr, like)]
            if not mass:
                plurals = plural or english_plural(en), fr_plural or french_plural(fr)
                nouns[en].append((f"{kind}.pl", *plurals, f"{like}s"))
            for features, en_form, fr_form, like_it in nouns[en]:
                yield f"NOUN.{features}", _entry(en_form, fr_form, weight, like_it)

    # Compound nouns: city1 museum2 director3, directeur3 du2 musée2 de1 la1 ville1.
    for key, heads in lists("compounds"):
        modifiers, _, french = key.partition(" = ")
        name = "PART" if re.match("du |de l", french) else "COMPOUND"
        words = modifiers.split()
        english = " ".join([f"{word}{i}" for i, word in enumerate(words, 1)])
        chunks = re.split(r" (?=d[eu] )", french)
        complement = " ".join([_label(c, len(words) - i) for i, c in enumerate(chunks)])
        for features, en, fr, like in [form for head, _ in heads for form in nouns[head]]:
            sides = f"{english} {en}9", f"{_label(fr, 9)} {complement}"
            yield f"{name}.{features}", _entry(*sides, like=like)


def _label(text: str, label: int) -> str:
    return " ".join([f"{word}{label}" for word in text.replace("'", "' ").split()])


def _adjectives() -> Entries:
    for key, entries in lists("adjectives"):
        position, _, kinds = key.partition(".")
        for weight, (english, french) in _common_first(entries):
            en, _, comparative = english.partition("/")
            forms = french_forms(*french.split("/"))
            fr = "/".join(forms)
            # Before its noun, it is marked for spelling.txt, twice in the plural.
            in_front = "{}_/{}_/{}__/{}__".format(*forms)
            yield key, _entry(en, in_front if position == "PRE" else fr, weight)
            if position in ("PRE", "POST"):
                yield f"SAID.{kinds}", _entry(en, fr, weight)
                if not comparative:
                    yield f"LONG.{kinds}", _entry(en, fr, weight)
                elif comparative != "-":
                    yield f"ER.{kinds}", _entry(comparative, f"plus {fr}", weight)


def _verbs() -> Entries:
    yield "BE", Entry(Verb({}, "", HELPERS["être"]), 0, 1.0)
    for key, entries in lists("verbs"):
        for weight, (english, french) in _common_first(entries):
            head, *irregular = english.split()
            base, _, particle = head.rstrip("!").partition("+")
            infinitive = re.sub("^(se |s')", "", french)
            forms = english_verb(base, *irregular)
            verb = Verb(forms, particle, conjugate(infinitive), infinitive != french)
            aspect = "state" if head.endswith("!") else "act"
            yield f"VERB.{aspect}.{key}", Entry(verb, 1 + bool(particle), weight)


def _words() -> Entries:
    numbers = dict(lists("numbers"))["1"]
    for key, entries in lists("words"):
        symbol, _, like = key.rstrip("]").partition("[")
        for english, french in entries:
            if match := re.fullmatch(r"(\d+)\.\.(\d+)", english):
                first, last = map(int, match.groups())
                yield from [(symbol, _entry(*number)) for number in numbers[first - 1 : last]]
            else:
                text, _, weight = english.partition("*")
                yield symbol, _entry(text, french.partition("*")[0], float(weight or 1), like)


# Adverb groups of words.txt for each polarity of a verb group, with their weights.
POLARITIES = {"pos": {"": 88, "often": 12}, "neg": {"not": 70, "never": 30}, "plain": {"": 1}}


def _auxiliaries() -> Entries:
    adverbs = dict(lists("words")) | {"ADVERB.": [("", "")]}
    for verbs, drawn, english, do, french, groups in rows("tenses"):
        helper, _, main = french.rpartition(" ")
        choices = product([word.partition("*") for word in drawn.split()], POLARITIES.items())
        for (time, _, weight), (polarity, shares) in choices:
            # In table order, so that a seed gives the same corpus in every process.
            for group in [group for group in shares if group in ["", *groups.split()]]:
                form = f"{do} ~ V:base" if do and (group == "not" or time == "asked") else english
                helpers, _, form_of_verb = form.partition("V:")
                tense = Tense(form_of_verb, helper, main)
                words = adverbs[f"ADVERB.{group}"]
                for adverb, its_french in words:
                    rule = Rule(helpers.replace("~", adverb), its_french, tense=tense)
                    share = float(weight or 1) * shares[group] / len(words)
                    key = f"AUX.{time}.{','.join(verbs.split())}.{polarity}"
                    yield key, Entry(rule, rule.words, share)
