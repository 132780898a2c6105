"""Protected symbols: texts that no vocabulary splits (`tokenizer.symbols`)."""

from functools import cache
from itertools import chain

import pytest
from conftest import draws_of
from runs import begin, composed, locked, template_pairs, write_corpus
from test_tokenizer import corpus, text_of

from seq2seq.config.schema import CharactersConfig, PieceModel, SentencePieceConfig, WordsConfig
from seq2seq.data.character_vocabulary import Characters
from seq2seq.data.prepare import lengths_of, load_tokenizers, prepare
from seq2seq.data.sampling import Sampler
from seq2seq.data.subword_vocabulary import Subwords, VocabularyTooLargeError
from seq2seq.data.tokenizer import UNK
from seq2seq.data.word_vocabulary import Words
from seq2seq.run.errors import ConfigError

SYMBOLS = ["<2de>", "<2d", "[a,\"b']", "\u00bd", "__\u6f22__", "<2de>x"]
"""One begins as another does, one would be folded, one has what a list is written with."""

KINDS = ["bpe", "unigram", "words", "characters"]


@cache
def learnt(kind: str, joint: bool = False):
    """Source and target vocabularies of text that has a single one of the symbols, once."""
    if kind == "words":
        vocabulary = Words(WordsConfig(vocab_size=1000, symbols=SYMBOLS))
    elif kind == "characters":
        vocabulary = Characters(CharactersConfig(joint=joint, symbols=SYMBOLS))
    else:
        changes = {"kind": PieceModel[kind], "vocab_size": 200, "joint": joint}
        vocabulary = Subwords(SentencePieceConfig(symbols=SYMBOLS, **changes))
    english, french = corpus()
    texts = [[*english, "x"], [*french, "x <2de>"]]
    data = vocabulary.learn(texts, ["en", "fr"], ["a", "b"])
    return [vocabulary.load(data[i], i, code, "v") for i, code in enumerate(["en", "fr"])]


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_symbols_have_the_ids_after_the_special_ones_on_both_sides(kind, joint):
    for tok in learnt(kind, joint and kind != "words"):
        pieces = [piece.strip("\u2581") for piece in tok.pieces(range(len(tok)))]
        assert pieces[3:9] == SYMBOLS
        assert len({*pieces} & {*SYMBOLS}) == sum(piece in SYMBOLS for piece in pieces)


TEXTS = {
    "<2de> the cat": ["<2de>"],
    "the cat <2de>.": ["<2de>"],
    "the<2de>cat": ["<2de>"],
    "(<2d)": ["<2d"],
    "<2de>xcat": ["<2de>x"],
    "<2de> <2de> \u00bd": ["<2de>", "<2de>", "\u00bd"],
    "a [a,\"b'] __\u6f22__": ["[a,\"b']", "__\u6f22__"],
    "\u2602 <2de>\u2602": ["<2de>"],  # beside what is unknown
    "<2 de> 2de> __": [],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_symbols_are_whole_wherever_they_stand(kind, text):
    for tok in learnt(kind):
        [tokens], [ids] = tok.tokens([text]), tok.encode([text])
        assert [token.id for token in tokens] == ids
        found = [token for token in tokens if 3 <= token.id < 9]
        assert [SYMBOLS[token.id - 3] for token in found] == TEXTS[text]
        assert [text[slice(*token.span)].strip() for token in found] == TEXTS[text]
        written = text_of(tok, ids)
        assert [written.count(symbol) for symbol in TEXTS[text]] == [
            text.count(symbol) for symbol in TEXTS[text]
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_text_with_symbols_comes_back(kind):
    source, target = learnt(kind)
    first, second, third, *_ = corpus()[0]
    texts = [f"<2de> {first}", second.replace(" ", " [a,\"b'] ", 1), f"<2d {third} \u00bd"]
    assert UNK not in chain(*source.encode(texts))
    assert [text_of(source, ids) for ids in source.encode(texts)] == texts
    assert source.lost(texts) == [None] * 3
    assert text_of(target, target.encode(["x<2de> x"])[0]) == (
        "x <2de> x" if kind == "words" else "x<2de> x"
    )


def test_words_beside_a_symbol_say_where_no_space_is():
    """A symbol has one form; of two that touch the second would carry the mark, and is reported."""
    vocabulary = Words(WordsConfig(vocab_size=300, symbols=["<2de>", "<2fr>"]))
    text = "le<2de>chat <2fr><2de> dort"
    [data] = vocabulary.learn([[text] * 3], ["fr"], ["a"])
    words = data.decode().splitlines()
    assert words[:3] == ["\u203f", "<2de>", "<2fr>"]
    assert {*words[3:]} == {"le\u203f", "\u203fchat", "dort"}
    tok = vocabulary.load(data, 0, "fr", "v")
    assert text_of(tok, tok.encode([text])[0]) == "le<2de>chat <2fr> <2de> dort"
    assert tok.lost([text, "le<2de>chat <2fr>"]) == ["<2de>", None]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sampled_cuts_leave_symbols_whole(kind):
    tok, texts = learnt(kind)[1], [*TEXTS, *corpus()[1][:20]]
    certain = {"bpe": 0.0, "unigram": 1e4}[kind]
    sampler = Sampler(tok._processor, certain)
    assert sampler.sample(tok._prepared(texts), draws_of(texts, 1)) == tok.encode(texts)
    for text, ids in zip(texts, tok.sample(texts, 0.3, draws_of(texts, 1)), strict=True):
        assert [SYMBOLS[i - 3] for i in ids if 3 <= i < 9] == TEXTS.get(text, []), text


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        ("[a b]", "'a b' is empty, or has a space or the piece marker U+2581"),
        ("['']", "'' is empty, or"),
        ("['a\u200bb']", "'a\\u200bb' is empty, or"),
        ("['\u2581a']", "'\u2581a' is empty, or"),
        ("['<unk>']", "'<unk>' is already special"),
        ("['<a>','<b>','<a>']", "'<a>' is given twice"),
        ("['\u0301a']", "has a combining mark without its letter"),
    ],
)
@pytest.mark.parametrize("tokenizer", ["words", "sentencepiece"])
def test_what_cannot_be_a_symbol_is_one_line(tokenizer, symbols, message):
    with pytest.raises(ConfigError) as caught:
        composed(
            "debug",
            [f"tokenizer={tokenizer}", "~tokenizer.sampling", f"tokenizer.symbols={symbols}"],
        )
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_has_a_place_for_its_symbols():
    words = ["tokenizer=words", "~tokenizer.sampling", "tokenizer.symbols=['<a>','<b>']"]
    with pytest.raises(ConfigError, match=r"vocab_size=5 has no place for words. Use 6 or more"):
        composed("debug", [*words, "tokenizer.vocab_size=5"])
    assert composed("debug", [*words, "tokenizer.vocab_size=6"]).tokenizer.vocab_size == 6
    alone, more = (Subwords(SentencePieceConfig(vocab_size=None, symbols=s)) for s in ([], SYMBOLS))
    sizes = [
        len(v.load(v.learn([corpus()[0]], ["en"], ["a"])[0], 0, "en", "v")) for v in (alone, more)
    ]
    assert sizes[1] == sizes[0] + len(SYMBOLS)
    with pytest.raises(VocabularyTooLargeError) as caught:
        Subwords(SentencePieceConfig(symbols=SYMBOLS)).learn([corpus()[0]], ["en"], ["a"])
    largest = caught.value.largest
    Subwords(SentencePieceConfig(vocab_size=largest, symbols=SYMBOLS)).learn(
        [corpus()[0]], ["en"], ["a"]
    )


@pytest.mark.parametrize("tokenizer", ["words", "sentencepiece"])
def test_a_run_has_them_in_its_config_and_its_ids(tmp_path, tokenizer):
    pairs = [(f"<2fr> {a}", b) for a, b in template_pairs(60)]
    names = write_corpus(tmp_path / "corpus", pairs, held_out=10)
    words = [f"tokenizer={tokenizer}", "~tokenizer.sampling", "tokenizer.vocab_size=80"]
    cfg = composed("debug", [*names, *words, "tokenizer.symbols=['<2fr>','<2de>']"])
    with locked(begin(tmp_path / "run", cfg)) as run:
        prepare(run, cfg)
        assert "- <2fr>\n" in run.path("config.yaml").read_text()
        for tok in load_tokenizers(run, cfg):
            assert [p.strip("\u2581") for p in tok.pieces([3, 4])] == ["<2fr>", "<2de>"]
            assert [i for i in tok.encode(["<2de>a <2fr>"])[0] if 3 <= i <= 4] == [4, 3]
    assert lengths_of(cfg)[0].words("<2fr> a b") == 3  # for the limits on length
