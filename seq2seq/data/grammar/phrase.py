"""Phrases in two languages at once: French words remember the English words they translate.

A rule lays out its English words and its French words independently, in whatever order each
language wants; because a French word holds references (`sources`), reordering needs no index
arithmetic. `render` turns a finished phrase into text and numbers the links.
"""

from typing import NamedTuple

from seq2seq.data.grammar.orthography import (
    CONTRACTIONS,
    before_vowel,
    english_article,
    starts_with_vowel,
)
from seq2seq.data.pair import Pair

PUNCTUATION = frozenset(",.?")


class Word:
    """One word of either language; identity matters, so a word belongs to one sentence only.

    Args:
        text: The written form; a final apostrophe glues the next word to it.
        sources: The English words that a French word translates; none for an English word.
        pronoun: True for the object pronouns le and les, which never contract: `de le voir`.
    """

    __slots__ = ("pronoun", "sources", "text")

    def __init__(self, text: str, sources: "Words" = (), *, pronoun: bool = False) -> None:
        self.text = text
        self.sources = sources
        self.pronoun = pronoun


Words = tuple[Word, ...]


class Phrase(NamedTuple):
    """English words and the French words that translate them."""

    en: Words = ()
    fr: Words = ()


EMPTY = Phrase()


def english(text: str) -> Words:
    """Make English words from a text with spaces."""
    return tuple([Word(part) for part in text.split(" ")]) if text else ()


def french(text: str, sources: Words) -> Words:
    """Make French words from a text with spaces, each linked to all of the sources."""
    return tuple([Word(part, sources) for part in text.split(" ")]) if text else ()


def linked(en: str, fr: str) -> Phrase:
    """Translate as one block: `linked("last week", "la semaine derniere")` links all to all."""
    words = english(en)
    return Phrase(words, french(fr, words))


def each(*pairs: tuple[str, str]) -> Phrase:
    """Translate piece by piece, in the same order on both sides."""
    return join(*[linked(en, fr) for en, fr in pairs])


def join(*phrases: Phrase) -> Phrase:
    """Concatenate on both sides."""
    en: Words = ()
    fr: Words = ()
    for phrase in phrases:
        en += phrase.en
        fr += phrase.fr
    return Phrase(en, fr)


def render(phrase: Phrase, mark: str) -> Pair:
    """Write a sentence with its final mark and number its links.

    No space before `?`: French typography wants a thin one, but then the mark would be the only
    one that does not attach, and a tokenizer would have to undo it.
    """
    end = Word(mark)
    en = [*phrase.en, end]
    fr = contract(elide([*phrase.fr, Word(mark, (end,))]))
    position = {word: i for i, word in enumerate(en)}
    links = sorted({(position[s], j) for j, word in enumerate(fr) for s in word.sources})
    texts = [word.text for word in en]
    for i, text in enumerate(texts):
        if text == "a":
            texts[i] = english_article(texts[i + 1])
    return Pair(_write(texts), _write([word.text for word in fr]), tuple(links))


def elide(words: list[Word]) -> list[Word]:
    """Change words in front of a vowel: `le homme` -> `l' homme`, `ma amie` -> `mon amie`."""
    done = []
    for word, following in zip(words, [*words[1:], None], strict=True):
        changed = following and before_vowel(word.text, following.text)
        done.append(Word(changed, word.sources) if changed else word)
    return done


def contract(words: list[Word]) -> list[Word]:
    """Merge a preposition with a full article: `de le roi` -> `du roi`, links of both kept.

    Runs after `elide`, so that `de l' homme` stays.
    """
    done: list[Word] = []
    for word in words:
        merged = CONTRACTIONS.get((done[-1].text, word.text)) if done else None
        if merged and not word.pronoun:
            done[-1] = Word(merged, done[-1].sources + word.sources)
        else:
            done.append(word)
    return done


def vowel_follows(words: Words) -> bool:
    """Tell whether a phrase begins with a vowel sound."""
    return bool(words) and starts_with_vowel(words[0].text)


def _write(texts: list[str]) -> str:
    text = ""
    for part in texts:
        text += part if part in PUNCTUATION else " " + part
    text = text[1:].replace("' ", "'")
    return text[0].upper() + text[1:]
