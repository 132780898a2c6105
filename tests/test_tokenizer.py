"""Subword vocabularies: what they learn, what they refuse, and that text survives them."""

import getpass
import random
import tempfile
import unicodedata
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
from conftest import draws_of

from seq2seq.config.schema import PieceModel, SentencePieceConfig
from seq2seq.data import subword_vocabulary
from seq2seq.data.subword_vocabulary import (
    MOST_PIECES,
    SentencePieceTokenizer,
    Subwords,
    VocabularyTooLargeError,
    train_sentencepiece,
)
from seq2seq.data.tokenizer import EOS, PAD, UNK, composed, surface
from seq2seq.data.toy import generate
from seq2seq.run.errors import ConfigError, DataError, RunDirError

SIZE = 250
ODD = [
    "naïve cœur – « où ? » À l’été",
    "漢字 かな 日本語",
    "😀 🎉 ok",
    "< a > / s",
]
EVIL = ["</s>", "<pad>", "<unk>", "<s>", "a </s> b", "a</s>b<pad>", "</s></s>", "▁</s>", "<s>a</s>"]

every_kind = pytest.mark.parametrize("kind", PieceModel, ids=lambda kind: kind.name)


@cache
def corpus() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """English and French sentences of the grammar."""
    pairs = list(generate("train", 150, seed=1, min_words=3, max_words=12))
    return tuple(p.src for p in pairs), tuple(p.tgt for p in pairs)


def trained(lines, cfg: SentencePieceConfig) -> bytes:
    return train_sentencepiece(lines, cfg, cfg.normalization)


def config(kind: PieceModel = PieceModel.bpe, **changes) -> SentencePieceConfig:
    values = {"vocab_size": SIZE, "normalization": "identity"}
    return SentencePieceConfig(kind=kind, **(values | changes))


@cache
def model(kind: PieceModel) -> bytes:
    return trained([*corpus()[1], *ODD], config(kind))


def tokenizer(kind: PieceModel) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(model(kind), "test")


def learnt(lines, kind: PieceModel = PieceModel.bpe, **changes) -> SentencePieceTokenizer:
    """A vocabulary of as many pieces as the lines give, unless the changes have a size."""
    cfg = config(kind, **({"vocab_size": None} | changes))
    return SentencePieceTokenizer(trained(lines, cfg), "test")


def text_of(tok, ids) -> str:
    return tok.write(tok.pieces(ids))[0]


@pytest.fixture(params=PieceModel, ids=lambda kind: kind.name)
def kind(request) -> PieceModel:
    return request.param


@pytest.fixture
def tok(kind) -> SentencePieceTokenizer:
    return tokenizer(kind)


# Ids and text -----------------------------------------------------------------------------------


def test_vocabulary_has_the_size_asked_for_and_the_special_ids(tok):
    assert (PAD, UNK, EOS) == (0, 1, 2)
    assert tok.pieces([PAD, UNK, EOS]) == ["<pad>", "<unk>", "</s>"]
    assert "<s>" not in tok.pieces(range(SIZE))  # there is no start symbol
    assert len({*tok.pieces(range(SIZE))}) == len(tok) == SIZE


def test_text_survives(tok):
    texts = [*corpus()[1], *ODD, "漢字", "😀", "où"]
    rows = tok.encode(texts)
    assert [text_of(tok, ids) for ids in rows] == texts
    assert UNK not in chain(*rows)
    assert tok.encode([texts[3]])[0] == rows[3]  # alone as in company
    assert text_of(tok, [*rows[-1], EOS, PAD, PAD]) == "où"
    assert text_of(tok, []) == text_of(tok, [EOS]) == ""


@pytest.mark.parametrize("empty", ["", " ", "   ", "\u2581"])
def test_empty_text_has_no_ids(tok, empty):
    assert tok.encode([empty, "chat", empty])[::2] == [[], []]
    assert tok.tokens([empty]) == [[]]


def test_C14_text_that_looks_like_a_symbol_is_text(tok):
    for text in EVIL:
        for ids in (tok.encode([text])[0], tok.sample([text], 0.3, draws_of([text], 1))[0]):
            assert not {PAD, EOS} & set(ids), text
        # Its letters are known, so nothing of it is lost.
        assert text_of(tok, tok.encode([text])[0]) == text.strip("▁")


def test_C14_no_text_becomes_a_control_id(kind, tok, tally):
    """Pieces of symbols in random company, in training text as in what is encoded."""
    seed = 14
    draw = random.Random(seed)
    parts = ["<s>", "</s>", "<unk>", "<pad>", "▁", "<0x0A>", "<", ">", "/", "s", "pad", " ", "0x"]
    texts = ["".join(draw.choices(parts, k=draw.randrange(1, 9))) for _ in range(1000)]
    symbols = learnt([*corpus()[1], *EVIL * 20, "<0x0A> < > / 0 x A s p a d u n k"], kind)
    for vocabulary in (tok, symbols):
        rows = vocabulary.encode(texts) + vocabulary.sample(texts, 0.3, draws_of(texts, seed))
        bad = [text for text, ids in zip(texts * 2, rows, strict=True) if {PAD, EOS} & set(ids)]
        assert not bad, seed
    trained = symbols.encode(texts)
    assert UNK not in chain(*trained)  # nor does `<unk>`: all letters are known
    for text, ids in zip(texts, trained, strict=True):
        assert text_of(symbols, ids) == " ".join(text.split()), seed
    tally("C14", f"texts like symbols, {kind.name}", len(texts), len(texts), "none a control id")


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"])
def test_C13_the_order_of_marks_makes_no_difference(rule):
    """A dot below behind another mark: SentencePiece's own rules compose neighbours only."""
    text = "Z\u0336\u0321\u0323 a\u0300\u0301 e\u0301 ệ"
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    for form in forms:
        tok = learnt([form] * 3, normalization=rule)
        composed, decomposed = tok.encode(forms)
        assert composed == decomposed
        assert UNK not in composed
        cuts = [tok.sample([text], 0.0, draws_of([text], 1)) for text in forms]
        assert cuts[0] == cuts[1]
        one, other = tok.tokens(forms)
        assert [token[:2] for token in one] == [token[:2] for token in other]


def test_identity_keeps_spellings_apart(kind):
    texts = ["\u00e9t\u00e9", "e\u0301te\u0301"]
    tok = learnt(texts, kind)
    assert [text_of(tok, ids) for ids in tok.encode(texts)] == texts


def test_normalization_folds_what_it_says():
    text = "ﬁn ½ ①"
    for rule, expected in (("nmt_nfkc", "fin 1\u20442 1"), ("identity", text)):
        tok = learnt([*corpus()[1], text], normalization=rule)
        assert text_of(tok, tok.encode([text])[0]) == expected


def test_unknown_letters_are_the_unknown_symbol(tok):
    [ids] = tok.encode(["le ж"])
    assert UNK in ids
    assert not {PAD, EOS} & set(ids)
    assert text_of(tok, ids).startswith("le")


def test_tokens_are_what_stands_in_the_text_one_for_each_id(kind):
    tok = learnt(corpus()[1], kind, vocab_size=SIZE)
    texts = [*corpus()[1][:20], "漢字 et 😀😀x", "x漢"]
    rows, tokens = tok.encode(texts), tok.tokens(texts)
    assert UNK in chain(*rows)
    for text, ids, row in zip(texts, rows, tokens, strict=True):
        cut = [token.piece for token in row]
        assert [token.id for token in row] == ids
        assert [text[slice(*token.span)].replace(" ", "▁") for token in row[1:]] == cut[1:]
        assert "".join(cut).replace("▁", " ").strip() == text
        known = [(i, piece) for i, piece in zip(ids, cut, strict=True) if i != UNK]
        assert tok.pieces([i for i, _ in known]) == [piece for _, piece in known]


def test_pieces_of_another_vocabulary_are_joined_as_words(tok):
    [tokens] = tok.tokens(["le"])
    pieces = [token.piece for token in tokens]
    text, spans = tok.write([*pieces, "▁Ωmega", "▁漢▁", "x", "</s>"])
    assert text == "le Ωmega 漢 x"
    assert spans[-4:] == [(2, 8), (8, 11), (11, 12), (12, 12)]


def test_surface_offsets_tile_the_text(tok):
    texts = [*corpus()[1][:20], *ODD]
    for rows in (tok.encode(texts), tok.sample(texts, 0.4, draws_of(texts, 1))):
        for ids, expected in zip(rows, texts, strict=True):
            pieces = tok.pieces(ids)
            text, offsets = surface(pieces)
            assert text == expected
            assert len(offsets) == len(pieces)
            assert [start for start, _ in offsets] == [0, *(end for _, end in offsets[:-1])]
            assert offsets[-1][1] == len(text)


def test_surface_by_hand():
    assert surface(["▁The", "▁c", "at", "."]) == ("The cat.", [(0, 3), (3, 5), (5, 7), (7, 8)])
    assert surface(["▁", "▁", "a"]) == ("a", [(0, 0), (0, 0), (0, 1)])
    assert surface([]) == ("", [])


def test_lost_characters_are_those_that_written_text_lacks(kind):
    rules = Subwords(config(kind, normalization="nfc"))
    tok = rules.load(trained([*corpus()[1], *ODD], config(kind)), 1, "fr", "test")
    rng = random.Random(1)
    parts = [*corpus()[1][:5], *ODD, "e\u0301", "Ω", "  ", "\t", "\u00a0", "\u2028", "⁇", "▁", " "]
    lines = ["".join(rng.choices(parts, k=rng.randint(0, 4))) for _ in range(300)]
    found = tok.lost(lines)
    assert {None, "Ω"} < {*found}
    for line, lost in zip(lines, found, strict=True):
        theirs = "".join(text_of(tok, tok.encode([line])[0]).split())
        ours = "".join(composed(line).split())
        assert (lost is None) == (ours == theirs), ascii(line)


# Sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["one letter", "corpus", "alphabet"])
def test_C12_as_many_pieces_as_the_text_gives(kind, text):
    """At most 8,000, and never fewer than it has letters."""
    alphabet = ["".join(map(chr, range(start, start + 50))) for start in range(0x4E00, 0x7000, 50)]
    lines, low, high = {
        "one letter": (["a"], 5, 6),
        "corpus": (corpus()[1], 200, MOST_PIECES),
        "alphabet": (alphabet, 8700, 8760),
    }[text]
    tok = learnt(lines, kind)
    assert low <= len(tok) <= high
    assert UNK not in chain(*tok.encode(lines))


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("words", "joint", "size"),
    [(100_000, False, 2005), (200_000, True, 2005), (400_000, False, 4005), (10**7, False, 8000)],
)
def test_a_vocabulary_without_a_size_follows_the_text(words, joint, size):
    """Words of five letters and a space: an alphabet of five, and merges by the root of words."""
    lines = ["ab cd"[:5] + "a"] * words  # 6 characters a line
    assert subword_vocabulary.suitable_size(lines, joint) == size


def test_C12_too_large_vocabulary_names_the_largest_and_that_works(kind):
    with pytest.raises(VocabularyTooLargeError) as caught:
        learnt(corpus()[1], kind, vocab_size=50_000)
    largest = caught.value.largest
    wanted = f"; at most {largest}. Set tokenizer.vocab_size={largest} or less, or null"
    assert wanted in str(caught.value)
    assert len(learnt(corpus()[1], kind, vocab_size=largest)) == largest
    with pytest.raises(VocabularyTooLargeError):
        learnt(corpus()[1], kind, vocab_size=largest + 1)


def test_C12_vocabulary_below_the_alphabet_names_the_bound_and_that_is_right(kind):
    with pytest.raises(ConfigError, match=r"vocab_size=10 is smaller than the alphabet") as caught:
        learnt(corpus()[1], kind, vocab_size=10)
    smallest = int(caught.value.fix.removeprefix("Use ").partition(" or more")[0])
    with pytest.raises(ConfigError):
        learnt(corpus()[1], kind, vocab_size=smallest - 1)
    assert len(learnt(corpus()[1], kind, vocab_size=smallest)) == smallest


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"])
def test_an_unknown_normalization_names_those_that_work(kind, rule):
    with pytest.raises(ConfigError, match=rf"normalization='nfkd' is unknown\. Use .*\b{rule}\b"):
        learnt(corpus()[1], kind, normalization="nfkd")
    assert trained(corpus()[1], config(kind, normalization=rule))


@pytest.mark.parametrize("lines", [[], ["", ""], ["   "]], ids=["none", "", "space"])
def test_no_text_is_a_data_error(kind, lines):
    wanted = "no vocabulary could be learnt: 'identity' leaves no letter of the text"
    with pytest.raises(DataError, match=wanted) as caught:
        trained(lines, config(kind))
    assert "\n" not in str(caught.value)


def test_C7_long_lines_are_not_dropped():
    """SentencePiece leaves out lines above 4,192 bytes unless it is told otherwise."""
    tok = learnt([*corpus()[1], "ж " * 5000])
    assert UNK not in tok.encode(["ж"])[0]


# The model's bytes ------------------------------------------------------------------------------


def test_T1_training_twice_gives_the_same_bytes(kind):
    assert trained([*corpus()[1], *ODD], config(kind)) == model(kind)


def test_U13_no_path_of_this_machine_is_in_the_bytes(kind):
    places = {str(Path.cwd()), str(Path.home()), tempfile.gettempdir(), str(Path(__file__).parent)}
    for place in places - {"/"}:
        assert place.encode() not in model(kind)
    assert getpass.getuser().encode() not in model(kind).replace(b"root", b"")


DAMAGE = {
    "nothing": lambda data: b"",
    "text": lambda data: b"no model",
    "half": lambda data: data[: len(data) // 2],
    "a byte too few": lambda data: data[:-1],
    "a byte too many": lambda data: data + b"x",
    "no beginning": lambda data: data[5:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_U6_damaged_model_is_refused(damage):
    data = DAMAGE[damage](model(PieceModel.bpe))
    with pytest.raises(RunDirError, match=r"source\.model: not a SentencePiece model") as caught:
        SentencePieceTokenizer(data, "run/tokenizers/source.model")
    assert "\n" not in str(caught.value)


# Two languages ----------------------------------------------------------------------------------


def both(**changes) -> list[SentencePieceTokenizer]:
    kind = Subwords(config(**changes))
    return [
        kind.load(data, side, "", "test")
        for side, data in enumerate(kind.learn(corpus(), ("en", "fr"), ("a", "b")))
    ]


def test_joint_vocabulary_is_one_for_both():
    source, target = both(joint=True)
    assert source.pieces(range(SIZE)) == target.pieces(range(SIZE))
    for lines in corpus():  # it knows both languages
        assert UNK not in chain(*source.encode(lines))


def test_separate_vocabularies_know_their_own_language():
    source, target = both()
    assert (len(source), len(target)) == (SIZE, SIZE)
    assert source.pieces(range(SIZE)) != target.pieces(range(SIZE))
    assert UNK not in chain(*target.encode(corpus()[1]))
    assert UNK in chain(*source.encode(["où été"]))


def test_C12_too_large_for_either_language_names_a_size_that_fits_both():
    with pytest.raises(VocabularyTooLargeError) as caught:
        both(vocab_size=50_000)
    assert {len(tok) for tok in both(vocab_size=caught.value.largest)} == {caught.value.largest}


@pytest.mark.parametrize(("most", "step"), [(10, 1), (9, 2), (5, 2), (3, 4), (1, 10), (99, 1)])
def test_sample_of_the_corpus_is_spread_over_it(most, step, monkeypatch):
    monkeypatch.setattr(subword_vocabulary, "train_sentencepiece", lambda lines, *_: [*lines])
    text = [str(i) for i in range(10)]
    expected = text[::step]
    assert len(expected) <= most
    assert Subwords(config(max_lines=most)).learn([text, text], (), ("a", "b")) == [expected] * 2
    joint = Subwords(config(max_lines=most, joint=True)).learn([text, text], (), ("a", "b"))
    assert joint == [expected * 2] * 2
