"""Vocabularies: what they learn, what they refuse, and that text survives them."""

import getpass
import random
import tempfile
import unicodedata
from functools import cache
from itertools import chain, pairwise
from pathlib import Path

import pytest
from runs import composed

from seq2seq.data.prepare import Sample, _learn_vocabularies, load_tokenizers
from seq2seq.data.tokenizer import (
    EOS,
    MOST_PIECES,
    PAD,
    UNK,
    SentencePieceTokenizer,
    VocabularyTooLargeError,
    surface,
    train_sentencepiece,
)
from seq2seq.data.toy import generate
from seq2seq.errors import ConfigError, DataError, RunDirError
from seq2seq.run import RunDir
from seq2seq.settings import Config, PieceModel, SentencePieceConfig, TokenizerKind

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


def config(kind: PieceModel = PieceModel.bpe, **changes) -> SentencePieceConfig:
    values = {
        "vocab_size": SIZE,
        "joint": False,
        "normalization": "identity",
        "character_coverage": 1.0,
        "sampling": 0.0,
        "max_lines": 1000,
    }
    return SentencePieceConfig(name=TokenizerKind.sentencepiece, kind=kind, **(values | changes))


def whole(**changes) -> Config:
    cfg = composed("debug")
    cfg.tokenizer = config(**changes)
    return cfg


@cache
def model(kind: PieceModel) -> bytes:
    return train_sentencepiece([*corpus()[1], *ODD], config(kind))


def tokenizer(kind: PieceModel) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(model(kind), "test")


# Ids and text -----------------------------------------------------------------------------------


@every_kind
def test_vocabulary_has_the_size_asked_for_and_the_special_ids(kind):
    tok = tokenizer(kind)
    assert len(tok) == SIZE
    assert (PAD, UNK, EOS) == (0, 1, 2)
    assert tok.pieces([PAD, UNK, EOS]) == ["<pad>", "<unk>", "</s>"]
    assert "<s>" not in tok.pieces(range(SIZE))  # there is no start symbol
    assert len(set(tok.pieces(range(SIZE)))) == SIZE


@every_kind
def test_text_survives(kind):
    tok = tokenizer(kind)
    texts = [*corpus()[1], *ODD, "漢字", "😀", "où"]
    rows = tok.encode(texts)
    assert [tok.decode(ids) for ids in rows] == texts
    assert UNK not in chain(*rows)
    assert tok.encode([texts[3]])[0] == rows[3]  # alone as in company


@every_kind
@pytest.mark.parametrize("blank", ["", " ", "   ", "\u2581"])
def test_blank_text_has_no_ids(kind, blank):
    assert tokenizer(kind).encode([blank, "chat", blank])[::2] == [[], []]


@every_kind
def test_decoding_drops_padding_and_end(kind):
    tok = tokenizer(kind)
    [ids] = tok.encode(["où ?"])
    assert tok.decode([*ids, EOS, PAD, PAD]) == "où ?"
    assert tok.decode([]) == tok.decode([EOS]) == ""


@every_kind
def test_C14_text_that_looks_like_a_symbol_is_text(kind):
    tok = tokenizer(kind)
    for text in EVIL:
        for ids in (tok.encode([text])[0], tok.sample([text], 0.3, 1)[0]):
            assert not {PAD, EOS} & set(ids), text
        # Its letters are known, so nothing of it is lost.
        assert tok.decode(tok.encode([text])[0]) == text.strip("▁")


@every_kind
def test_C14_no_text_becomes_a_control_id(kind, tally):
    """Pieces of symbols in random company, in training text as in what is encoded."""
    seed = 14
    draw = random.Random(seed)
    parts = ["<s>", "</s>", "<unk>", "<pad>", "▁", "<0x0A>", "<", ">", "/", "s", "pad", " ", "0x"]
    texts = ["".join(draw.choices(parts, k=draw.randrange(1, 9))) for _ in range(1000)]
    for vocabulary in (tokenizer(kind), symbols(kind)):
        rows = vocabulary.encode(texts) + vocabulary.sample(texts, 0.3, seed)
        bad = [text for text, ids in zip(texts * 2, rows, strict=True) if {PAD, EOS} & set(ids)]
        assert not bad, seed
    trained = symbols(kind).encode(texts)
    assert UNK not in chain(*trained)  # nor does `<unk>`: all letters are known
    for text, ids in zip(texts, trained, strict=True):
        assert symbols(kind).decode(ids).split() == text.replace("▁", " ").split(), seed
    tally("C14", f"texts like symbols, {kind.name}", len(texts), len(texts), "none a control id")


@cache
def symbols(kind: PieceModel) -> SentencePieceTokenizer:
    """Learnt from text that is full of what looks like symbols."""
    lines = [*corpus()[1], *EVIL * 20, "<0x0A> < > / 0 x A s p a d u n k"]
    return SentencePieceTokenizer(train_sentencepiece(lines, config(kind, vocab_size=None)), "test")


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"])
def test_C13_the_order_of_marks_makes_no_difference(rule):
    """A dot below behind another mark: SentencePiece's own rules compose neighbours only."""
    text = "Z\u0336\u0321\u0323 a\u0300\u0301 e\u0301 ệ"
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    for learnt in ([forms[0]], [forms[1]]):
        data = train_sentencepiece(learnt * 3, config(normalization=rule, vocab_size=None))
        tok = SentencePieceTokenizer(data, "test")
        composed_, decomposed = tok.encode(forms)
        assert composed_ == decomposed
        assert UNK not in composed_
        assert tok.tokens(forms)[0] == tok.tokens(forms)[1]
        assert tok.sample(forms[:1], 0.0, 1) == tok.sample(forms[1:], 0.0, 1)


@every_kind
def test_identity_keeps_spellings_apart(kind):
    texts = ["\u00e9t\u00e9", "e\u0301te\u0301"]
    tok = SentencePieceTokenizer(train_sentencepiece(texts, config(kind, vocab_size=None)), "test")
    assert [tok.decode(ids) for ids in tok.encode(texts)] == texts


@every_kind
def test_C12_as_many_pieces_as_the_text_gives(kind):
    """At most 8,000, and never fewer than it has letters."""
    alphabet = ["".join(map(chr, range(start, start + 50))) for start in range(0x4E00, 0x7000, 50)]
    for lines, low, high in (
        (["a"], 5, 6),
        (corpus()[1], 200, MOST_PIECES),
        (alphabet, 8700, 8760),
    ):
        data = train_sentencepiece(lines, config(kind, vocab_size=None))
        tok = SentencePieceTokenizer(data, "test")
        assert low <= len(tok) <= high
        assert UNK not in chain(*tok.encode(lines))
        assert train_sentencepiece(lines, config(kind, vocab_size=None)) == data


@every_kind
def test_unknown_letters_are_the_unknown_symbol(kind):
    tok = tokenizer(kind)
    [ids] = tok.encode(["le ж"])
    assert UNK in ids
    assert not {PAD, EOS} & set(ids)
    assert tok.decode(ids).startswith("le")


@every_kind
def test_pieces_are_the_text(kind):
    tok = tokenizer(kind)
    for text, ids in zip(corpus()[1][:20], tok.encode(corpus()[1][:20]), strict=True):
        assert "".join(tok.pieces(ids)).replace("\u2581", " ").strip() == text


def test_normalization_folds_what_it_says():
    text = "ﬁn ½ ①"
    folded = train_sentencepiece([*corpus()[1], text], config(normalization="nmt_nfkc"))
    kept = train_sentencepiece([*corpus()[1], text], config())
    for data, expected in ((folded, "fin 1\u20442 1"), (kept, text)):
        tok = SentencePieceTokenizer(data, "test")
        assert tok.decode(tok.encode([text])[0]) == expected


# Subword sampling -------------------------------------------------------------------------------


@every_kind
def test_sampling_is_decided_by_its_seed(kind):
    tok, texts = tokenizer(kind), corpus()[1][:40]
    first = tok.sample(texts, 0.3, 7)
    tok.sample(texts, 0.3, 8)
    assert tok.sample(texts, 0.3, 7) == first
    others = [tok.sample(texts, 0.3, seed) for seed in (8, 2**32 - 1)]
    assert all(other != first for other in others)
    assert first != tok.encode(texts)


@every_kind
def test_a_sampled_cut_is_still_the_text(kind):
    tok, texts = tokenizer(kind), [*corpus()[1][:40], *ODD[:3], ""]
    for seed in range(3):
        cuts = tok.sample(texts, 0.3, seed)
        assert [tok.decode(ids) for ids in cuts] == texts, f"seed {seed}"
    assert cuts[-1] == []


@every_kind
def test_sampling_leaves_encoding_as_it_was(kind):
    tok, texts = tokenizer(kind), corpus()[1][:40]
    before = tok.encode(texts)
    tok.sample(texts, 0.5, 1)
    assert tok.encode(texts) == before


def test_more_dropout_gives_more_pieces():
    tok, texts = tokenizer(PieceModel.bpe), corpus()[1]
    counts = [sum(map(len, tok.sample(texts, rate, 1))) for rate in (0.0, 0.1, 0.5)]
    assert counts[0] < counts[1] < counts[2]
    assert counts[0] == sum(map(len, tok.encode(texts)))


# What training refuses --------------------------------------------------------------------------


@every_kind
def test_C12_too_large_vocabulary_names_the_largest_and_that_works(kind):
    with pytest.raises(VocabularyTooLargeError) as caught:
        train_sentencepiece(corpus()[1], config(kind, vocab_size=50_000))
    largest = caught.value.largest
    assert f"; at most {largest}. Set tokenizer.vocab_size={largest} or less, or null" in str(
        caught.value
    )
    data = train_sentencepiece(corpus()[1], config(kind, vocab_size=largest))
    assert len(SentencePieceTokenizer(data, "test")) == largest
    with pytest.raises(VocabularyTooLargeError):
        train_sentencepiece(corpus()[1], config(kind, vocab_size=largest + 1))


@every_kind
def test_C12_vocabulary_below_the_alphabet_names_the_bound_and_that_is_right(kind):
    with pytest.raises(ConfigError) as caught:
        train_sentencepiece(corpus()[1], config(kind, vocab_size=10))
    assert "tokenizer.vocab_size=10 is smaller than the alphabet" in str(caught.value)
    smallest = int(caught.value.fix.removeprefix("Use ").partition(" or more")[0])
    with pytest.raises(ConfigError):
        train_sentencepiece(corpus()[1], config(kind, vocab_size=smallest - 1))
    data = train_sentencepiece(corpus()[1], config(kind, vocab_size=smallest))
    assert len(SentencePieceTokenizer(data, "test")) == smallest


@every_kind
def test_unknown_normalization_is_a_config_error(kind):
    with pytest.raises(ConfigError, match=r"normalization='nfkd' is unknown\. Use nmt_nfkc, "):
        train_sentencepiece(corpus()[1], config(kind, normalization="nfkd"))


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"])
def test_every_normalization_that_the_message_names_works(rule):
    assert train_sentencepiece(corpus()[1], config(normalization=rule))


@every_kind
@pytest.mark.parametrize("lines", [[], ["", ""], ["   "], ["▅"]], ids=["none", "", "blank", "▅"])
def test_no_text_is_a_data_error(kind, lines):
    wanted = "no vocabulary could be learnt: 'identity' leaves no letter of the text"
    with pytest.raises(DataError, match=wanted) as caught:
        train_sentencepiece(lines, config(kind))
    assert "\n" not in str(caught.value)


def test_long_lines_are_not_dropped():
    """SentencePiece leaves out lines above 4,192 bytes unless it is told otherwise."""
    long = "ж " * 5000
    tok = SentencePieceTokenizer(train_sentencepiece([*corpus()[1], long], config()), "test")
    assert UNK not in tok.encode(["ж"])[0]


# The model's bytes ------------------------------------------------------------------------------


@every_kind
def test_training_twice_gives_the_same_bytes(kind):
    assert train_sentencepiece([*corpus()[1], *ODD], config(kind)) == model(kind)


@every_kind
def test_no_path_of_this_machine_is_in_the_bytes(kind):
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
def test_damaged_model_is_refused(damage):
    data = DAMAGE[damage](model(PieceModel.bpe))
    with pytest.raises(RunDirError, match=r"source\.model: not a SentencePiece model") as caught:
        SentencePieceTokenizer(data, "run/tokenizers/source.model")
    assert "\n" not in str(caught.value)


# Two languages ----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path) -> RunDir:
    """A run whose training text is there."""
    run = RunDir(tmp_path)
    for side, lines in zip(("source", "target"), corpus(), strict=True):
        run.write(f"corpus/train.{side}", "".join(f"{line}\n" for line in lines))
    return run


def test_joint_vocabulary_is_one_for_both(run):
    _learn_vocabularies(run, whole(joint=True))
    source, target = load_tokenizers(run, whole())
    assert source.pieces(range(SIZE)) == target.pieces(range(SIZE))
    for lines in corpus():  # it knows both languages
        assert UNK not in chain(*source.encode(lines))


def test_separate_vocabularies_know_their_own_language(run):
    _learn_vocabularies(run, whole())
    source, target = load_tokenizers(run, whole())
    assert (len(source), len(target)) == (SIZE, SIZE)
    assert source.pieces(range(SIZE)) != target.pieces(range(SIZE))
    assert UNK not in chain(*target.encode(corpus()[1]))
    assert UNK in chain(*source.encode(["où été"]))


def test_C12_too_large_for_either_language_names_a_size_that_fits_both(run):
    with pytest.raises(VocabularyTooLargeError) as caught:
        _learn_vocabularies(run, whole(vocab_size=50_000))
    assert not run.path("tokenizers").exists()
    _learn_vocabularies(run, whole(vocab_size=caught.value.largest))
    assert {len(tok) for tok in load_tokenizers(run, whole())} == {caught.value.largest}


@pytest.mark.parametrize(("most", "taken"), [(10, 10), (9, 5), (5, 5), (3, 3), (1, 1), (99, 10)])
def test_sample_of_the_corpus_is_spread_over_it(most, taken, tmp_path):
    (tmp_path / "text").write_text("".join(f"{i}\n" for i in range(10)))
    lines = Sample([tmp_path / "text"], most)
    sample = list(lines)
    assert len(sample) == taken <= most
    assert list(lines) == sample  # it is read anew, not held
    assert list(Sample([tmp_path / "text"] * 2, most)) == sample * 2
    assert len({int(b) - int(a) for a, b in pairwise(sample)}) <= 1
    assert sample[0] == "0"


# What stands in the text ------------------------------------------------------------------------


@every_kind
def test_tokens_are_what_stands_in_the_text_one_for_each_id(kind):
    tok = SentencePieceTokenizer(train_sentencepiece(corpus()[1], config(kind)), "test")
    texts = [*corpus()[1][:20], "漢字 et 😀😀x", "x漢"]
    rows, tokens = tok.encode(texts), tok.tokens(texts)
    assert UNK in chain(*rows)
    for text, ids, cut in zip(texts, rows, tokens, strict=True):
        assert "".join(cut).replace("▁", " ").strip() == text
        known = [(i, piece) for i, piece in zip(ids, cut, strict=True) if i != UNK]
        assert tok.pieces([i for i, _ in known]) == [piece for _, piece in known]
    assert tok.tokens(["", " "]) == [[], []]


@every_kind
def test_joined_pieces_are_the_decoded_text(kind):
    tok = tokenizer(kind)
    rows = [*tok.encode([*corpus()[1][:20], *ODD]), [PAD, UNK, EOS], []]
    assert [tok.join(tok.pieces(ids)) for ids in rows] == [tok.decode(ids) for ids in rows]


@every_kind
def test_pieces_of_another_vocabulary_are_joined_as_words(kind):
    tok = tokenizer(kind)
    [pieces] = tok.tokens(["le"])
    assert tok.join([*pieces, "▁Ωmega", "▁漢▁", "x", "</s>"]).rstrip() == "le Ωmega 漢▁x"


# Where pieces stand -----------------------------------------------------------------------------


@every_kind
def test_surface_offsets_tile_the_text(kind):
    tok, texts = tokenizer(kind), [*corpus()[1][:20], *ODD]
    for rows in (tok.encode(texts), tok.sample(texts, 0.4, 1)):
        for ids, expected in zip(rows, texts, strict=True):
            pieces = tok.pieces(ids)
            text, offsets = surface(pieces)
            assert text == expected
            assert len(offsets) == len(pieces)
            assert "".join(text[start:end] for start, end in offsets) == text
            assert [start for start, _ in offsets] == [0, *(end for _, end in offsets[:-1])]


def test_surface_by_hand():
    assert surface(["▁The", "▁c", "at", "."]) == ("The cat.", [(0, 3), (3, 5), (5, 7), (7, 8)])
    assert surface(["▁", "▁", "a"]) == ("a", [(0, 0), (0, 0), (0, 1)])
    assert surface([]) == ("", [])
