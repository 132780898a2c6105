# ruff: noqa: RUF001
"""One kind of mistake, in languages and forms beside those that were reported."""

import unicodedata

import pytest
from runs import composed, run_new, template_pairs, write_corpus

from seq2seq.config.schema import WordsConfig
from seq2seq.data.encodings import form_of, likeliest
from seq2seq.data.lengths import count_characters
from seq2seq.data.readers.files import _columns_named
from seq2seq.data.word_vocabulary import Words
from seq2seq.data.words import count_words, split_words


@pytest.mark.e2e
def test_references_are_composed_as_translations_are(tmp_path):
    pairs = [
        (source, unicodedata.normalize("NFD", f"déjà {target}"))
        for source, target in template_pairs(60)
    ]
    changes = [*write_corpus(tmp_path / "corpus", pairs), "tokenizer.vocab_size=90"]
    run = run_new(tmp_path / "run", composed("debug", [*changes, "stages=[tokenize]"]))
    for split in ("train", "validation", "test"):
        text = run.path(f"corpus/{split}.target").read_text("utf-8")
        assert "déjà" in text
        assert unicodedata.is_normalized("NFC", text)


@pytest.mark.parametrize(
    ("language", "text", "count"),
    [
        ("yo", unicodedata.normalize("NFD", "Ọ̀rọ̀ rẹ̀ dára"), 3),
        ("fa", "می\u200cخواهد کتاب\u200cها", 2),
        ("de", "Donau\u00addampf\u00adschiff", 1),
        ("en", "👍🏽 👩\u200d👩\u200d👧", 2),
    ],
)
def test_limits_count_the_words_of_the_vocabulary(language, text, count):
    assert Words(WordsConfig()).word_counter(language)(text) == count


def test_what_cannot_be_seen_is_neither_word_nor_character():
    assert count_words("the \u200b old \u00ad man") == 3
    assert count_characters("a\u3164\u2800b") == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("o‘zbek", ["o‘zbek"]),
        ("ἀλλ᾽ ἐγώ", ["ἀλλ᾽", "ἐγώ"]),
        ("‘yes’ l’eau", ["‘", "yes’", "l’", "eau"]),
    ],
)
def test_apostrophes_of_other_languages(text, words):
    assert split_words(text) == words


CYRILLIC = {
    "ru": "Старик видит корабль. Это дом.",
    "uk": "Старий бачить корабель.",
    "bg": "Старецът вижда кораба.",
}


@pytest.mark.parametrize("language", CYRILLIC)
@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("cp1251", "Windows-1251"),
        ("koi8_u", "KOI8"),
        ("iso8859_5", "ISO-8859-5"),
        ("cp866", "CP866"),
    ],
)
def test_cyrillic_encodings_are_told_apart(language, codec, name):
    try:
        raw = CYRILLIC[language].encode(codec)
    except UnicodeEncodeError:
        pytest.skip("has not these letters")
    assert likeliest(raw, [language])[0].startswith(name)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("eng fra", (0, 1)),
        ("fra_Latn eng_Latn", (1, 0)),
        ("fre en", (1, 0)),
        ("#en fr", (0, 1)),
        ("[fr] [en]", (1, 0)),
        ("“en” fr\u00a0", (0, 1)),
        ("de fr", None),
        ("the cat", None),
    ],
)
def test_headers_of_codes_in_other_spellings(header, columns):
    assert _columns_named(header.split(" "), ("en", "fr")) == columns


def test_more_forms_that_are_no_text():
    for start in (b"<!DOCTYPE html>", b"version https://git-lfs.github.com", b"BZh91AY&SY"):
        assert form_of(start)
    assert form_of(b"BZhappy people") is None
