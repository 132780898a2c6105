"""The paper's word vocabulary: what it learns and refuses, and unknown words put back by weight."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from conftest import draws_of
from runs import begin, composed, locked, run_new, template_pairs, write_corpus
from test_filters import filtered, pairs_of
from test_tokenizer import text_of

import seq2seq
from seq2seq.alignment.words import group_pieces
from seq2seq.config.schema import Config, WordsConfig
from seq2seq.data.prepare import lengths_of, load_pairs, load_tokenizers, prepare
from seq2seq.data.tokenizer import EOS, PAD, UNK
from seq2seq.data.toy import generate
from seq2seq.data.word_vocabulary import JOINED, Moses, Words, WordTokenizer, plain
from seq2seq.data.words import is_blank
from seq2seq.decoding.translate import replace_unknown
from seq2seq.decoding.translation import END
from seq2seq.evaluation.figures import heatmap_png
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import DataError, RunDirError
from seq2seq.run.reading import read_json

STRANGE = [
    "😀👨\u200d👩\u200d👧 🎉", "\x00\x01 a\x7f\x85b", "▁ a▁b ▁▁", "</s> <pad> <unk> &amp; &#124; |",
    "\ud800 x", "DOTMULTI THISISPROTECTED000 @-@", ". .. ... ....", "'", '" “ ” „', "漢字 かな",
    "\u202e\u200b", "ab' - mail", "e\u0301té", "a\u2028b\u00a0c", "١٢٣", "x" * 5000,
]  # fmt: skip

WORDS = ["tokenizer=words", "~tokenizer.sampling"]
"""To words, in the preset `debug`, which samples subwords."""


def kind(vocab_size: int = 50) -> Words:
    return Words(WordsConfig(vocab_size=vocab_size))


def learn(lines, vocab_size: int = 50, language: str = "fr") -> bytes:
    return kind(vocab_size).learn([lines], [language], ["a"])[0]


def tokenizer(lines, language: str = "fr", vocab_size: int = 50) -> WordTokenizer:
    return kind().load(learn(lines, vocab_size, language), 0, language, "test")


# Moses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("fr", "L'accord n'est-il pas signé ?", "L' accord n' est-il pas signé ?"),
        ("en", "Mr. Smith can't pay $3,500 (or so).", "Mr. Smith can 't pay $ 3,500 ( or so ) ."),
        ("en", 'AT&T\'s <b> [x] | "y"', 'AT & T \'s < b > [ x ] | " y "'),  # nothing escaped
        ("de", "Die Zahl, d. h. 1.000 usw.", "Die Zahl , d. h. 1.000 usw."),
        ("pt_BR", "O Sr. Silva veio.", "O Sr. Silva veio ."),  # of `pt`
        ("gd", "Dr. Tha e blàth.", "Dr. Tha e blàth ."),  # no rules of its own: English ones
    ],
)
def test_words_by_hand_and_back(language, text, words):
    moses = Moses(language)
    assert moses.words(text) == words.split()
    if language in ("fr", "de", "pt_BR"):
        assert moses.join(moses.words(text)) == text


def test_case_stays_and_every_blank_separates():
    assert Moses("en").words("\tThe  THE\u00a0the\u2003tHe ") == ["The", "THE", "the", "tHe"]


@pytest.mark.parametrize("text", ["", " ", "\t \u00a0\u3000", "\x00\x1f"])
def test_a_blank_text_has_no_words(text):
    tok = tokenizer(["un mot"])
    cut = tok.sample([text], 0.1, draws_of([text], 1))
    assert tok.encode([text]) == tok.tokens([text]) == cut == [[]]
    assert text_of(tok, []) == tok.write([])[0] == ""


# What is learnt ---------------------------------------------------------------------------------


def by_hand(lines, size: int) -> list[str]:
    """Count, then take the most frequent one at a time, of equals the one that sorts first."""
    counts: dict[str, int] = {}
    for line in lines:
        for word in line.split(" "):
            counts[word] = counts.get(word, 0) + 1
    chosen = []
    while counts and len(chosen) < size:
        most = max(counts.values())
        word = min(w for w, n in counts.items() if n == most)
        chosen.append(word)
        del counts[word]
    return chosen


@pytest.mark.parametrize("vocab_size", [4, 5, 23, 1000])
def test_the_most_frequent_words_are_kept(vocab_size):
    rng = random.Random(vocab_size)
    lines = [" ".join(rng.choices("abcdefgABCéèzwxyt", k=9)) for _ in range(40)]
    data = learn(lines, vocab_size)
    assert data.decode().splitlines() == [JOINED, *by_hand(lines, vocab_size - 3)]
    rng.shuffle(lines)  # neither the order nor the hash seed of a process matters
    assert learn(lines, vocab_size) == data
    assert len(tokenizer(lines, vocab_size=vocab_size)) == min(vocab_size, 17 + 3)


@pytest.mark.e2e
def test_ids_of_the_authors():
    """y_0, unknown, end, then the words: 30,001 ids hold 29,998 of them."""
    lines = [" ".join(f"w{i}" for i in range(n, n + 3001)) for n in range(0, 30_010, 3001)] + ["w7"]
    tok = tokenizer(lines, vocab_size=30_001)
    assert len(tok) == 30_001
    assert tok.pieces(range(5)) == ["<pad>", "▁<unk>", "</s>", "▁w7", "▁w0"]
    pieces = tok.pieces(range(len(tok)))
    assert len(set(pieces)) == len(pieces)
    assert sum(piece.startswith("▁w") for piece in pieces) == 29_998


def test_no_word_is_an_error():
    with pytest.raises(DataError, match=r"tokenizer: no vocabulary could be learnt \(no word\)"):
        learn(["", " \x01"])


# Ids and text -----------------------------------------------------------------------------------


def test_text_survives():
    pairs = list(generate("train", 80, seed=1, min_words=3, max_words=12))
    for language, texts in (("en", [p.src for p in pairs]), ("fr", [p.tgt for p in pairs])):
        tok = tokenizer(texts, language, 5000)
        rows = tok.encode(texts)
        assert not {PAD, UNK, EOS} & set(chain(*rows))
        assert [text_of(tok, ids) for ids in rows] == texts


def test_rare_words_are_unknown_and_shown_as_such():
    tok = tokenizer(["le chat dort."] * 2 + ["le chien rare dort."], vocab_size=7)
    [ids] = tok.encode(["le lynx dort."])
    assert [i == UNK for i in ids] == [False, True, False, False]
    [tokens] = tok.tokens(["le lynx dort."])
    assert [token.piece for token in tokens] == ["▁le", "▁lynx", "▁dort", "▁."]
    assert [token.span for token in tokens] == [(0, 2), (3, 7), (8, 12), (12, 13)]
    assert text_of(tok, ids) == "le <unk> dort."
    assert text_of(tok, [PAD, *ids, EOS, PAD]) == "le <unk> dort."
    assert tok.write(["▁le", "▁Lynx", "▁."])[0] == "le Lynx."


@pytest.mark.e2e
@pytest.mark.parametrize("language", ["fr", "cs", "fi", "xx"])
def test_C14_no_text_is_too_strange(language):
    texts = [*STRANGE, " ".join(["mot", "l'eau", ".", "😀"] * 1250)]
    tok = tokenizer([t for t in texts if "\ud800" not in t], language, 5000)
    for ids, tokens, text in zip(tok.encode(texts), tok.tokens(texts), texts, strict=True):
        assert len(ids) == len(tokens)
        assert bool(ids) != is_blank(text)
        assert not {PAD, EOS} & set(ids)  # text never becomes a special id
        assert isinstance(text_of(tok, ids), str)
        assert tok.write([t.piece for t in tokens])[0] == text_of(tok, ids) or "\ud800" in text
        labels, groups = group_pieces(text, [token.span for token in tokens])
        assert list(chain(*groups)) == list(range(len(tokens)))
        assert len(labels) == len(groups)
    rng = random.Random(1)
    for _ in range(100):
        assert isinstance(text_of(tok, rng.choices(range(len(tok)), k=12)), str)


def test_a_slip_of_the_library_leaves_the_words_apart():
    assert Moses("cs").join(["ab'", "-", "mail"]) == "ab' - mail"


def test_words_are_their_own_labels():
    tok = tokenizer(["x"])
    text = "L'homme paie 3,5 % à AT&T..."
    labels, groups = group_pieces(text, [token.span for token in tok.tokens([text])[0]])
    assert labels == ["L'", "homme", "paie", "3,5", "%", "à", "AT", "&", "T", "..."]
    assert groups == [[i] for i in range(10)]


# The file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"a\nb",
        b"\xff\n",
        b"a\n\nb\n",
        b"a\nb c\n",
        b"a\r\nb\r\n",
        "a\nb\u00a0\n".encode(),
        b"a\nb\na\n",
    ],
)
def test_U6_another_file_is_refused(data):
    wanted = r"^run/source.words: is not a list of words, each of them on one line of its own. Rest"
    with pytest.raises(RunDirError, match=wanted):
        kind().load(data, 0, "fr", "run/source.words")


@pytest.fixture
def prepared(tmp_path) -> Iterator[tuple[RunDir, Config]]:
    names = write_corpus(tmp_path / "corpus", template_pairs(80), held_out=10)
    cfg = composed("debug", [*names, *WORDS, "tokenizer.vocab_size=20"])
    with locked(begin(tmp_path / "run", cfg)) as run:
        prepare(run, cfg)
        yield run, cfg


def test_a_run_keeps_both_vocabularies_and_their_ids(prepared):
    run, cfg = prepared
    tokenizers = load_tokenizers(run, cfg)
    assert read_json(run.path("data_report.json"))["vocabularies"] == [20, 20]
    pairs = load_pairs(run, "train", tokenizers)
    for side, tok, store in zip(
        ("source", "target"), tokenizers, (pairs.src, pairs.tgt), strict=True
    ):
        lines = run.path(f"corpus/train.{side}").read_text("utf-8").splitlines()
        language = {"source": "en", "target": "fr"}[side]
        moses = Moses(language)
        counts = Counter(chain.from_iterable(map(moses.words, lines)))
        kept = run.path(f"tokenizers/{side}.words").read_text("utf-8").split("\n")[1:-1]
        kept = [plain(word) for word in kept]
        assert {counts[word] for word in kept} >= {max(counts.values())}
        assert min(counts[w] for w in kept) >= max(n for w, n in counts.items() if w not in kept)
        assert [list(store[i]) for i in range(3)] == [[*tok.encode([x])[0], EOS] for x in lines[:3]]


def test_a_changed_vocabulary_is_refused(prepared):
    run, cfg = prepared
    path = run.path("tokenizers/target.words")
    path.write_bytes(path.read_bytes().replace(b".", b"!"))
    with pytest.raises(RunDirError, match="SHA-256 differs from the recorded one"):
        load_tokenizers(run, cfg)


def test_lengths_are_limited_in_the_words_of_the_vocabulary(tmp_path):
    """`l'eau.` is one word between blanks and three of Moses."""
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.en").write_text("water\nwater\n", "utf-8")
        (tmp_path / f"{name}.fr").write_text("l'eau.\neau.\n", "utf-8")
    splits = (("train", "train"), ("validation", "val"), ("test", "test"))
    names = [f"data.{split}=[{name}.en,{name}.fr]" for split, name in splits]
    cfg = composed("debug", [*WORDS, *names, f"data.root={tmp_path}", "data.max_words=2"])
    with locked(begin(tmp_path / "run", cfg)) as run:
        prepare(run, cfg)
    assert run.path("corpus/train.target").read_text("utf-8") == "eau.\n"
    by_spaces = lengths_of(composed("debug"))
    kept, _ = filtered(pairs_of(cfg.data), by_spaces, max_words=2)
    assert [pair.tgt for pair in kept] == ["l'eau.", "eau."]


# Unknown words put back -------------------------------------------------------------------------


def test_an_unknown_word_takes_the_token_with_the_greatest_weight():
    alpha = np.array(
        [[0.1, 0.2, 0.6, 0.1], [0.05, 0.15, 0.1, 0.7], [0.3, 0.3, 0.1, 0.3], [1, 0, 0, 0]],
        np.float32,
    )
    source = ["▁a", "▁b", "▁c"]  # the fourth column is the end symbol's
    pieces = ["▁<unk>", "▁<unk>", "▁<unk>", "▁x"]
    assert replace_unknown([UNK, UNK, UNK, 9], pieces, alpha, source) == ["▁c", "▁b", "▁a", "▁x"]
    assert replace_unknown([], [], alpha, source) == []


@pytest.fixture(scope="module")
def word_run(tmp_path_factory) -> Path:
    """An untrained model of few words: it emits unknown ones all the time."""
    base = tmp_path_factory.mktemp("words")
    names = write_corpus(base / "corpus", template_pairs(120), held_out=10)
    changes = [*WORDS, "tokenizer.vocab_size=6", "trainer.max_updates=2"]
    changes += ["decode.forbid_unknown=false", "seed=4"]
    changes += ["trainer.validate_every=2", "logging.tensorboard=false"]
    return run_new(base / "run", composed("debug", [*names, *changes])).root


LINES = [
    "the Wolf sees 3,5 % of AT&T .",
    "Zoë",
    "",
    "the cat sees the lynx today .",
    "a b c d e f g",
]


def translated(run: Path, *overrides: str):
    return seq2seq.load(run, ["decode.max_ratio=1.5", *overrides]).translate(LINES)


@pytest.mark.e2e
def test_the_stages_run_with_words(word_run):
    lines = (word_run / "decode/test.txt").read_text("utf-8").splitlines()
    assert len(lines) == 10
    assert len(list((word_run / "heatmaps").glob("*.png"))) == 2


@pytest.mark.e2e
def test_unknown_words_become_words_of_the_source(word_run):
    first = translated(word_run)
    copied = translated(word_run, "decode.replace_unknown=true")
    assert any("▁<unk>" in c.tokens for t in first for c in t.candidates)
    for before, after in zip(first, copied, strict=True):
        words = after.source_tokens[:-1]
        assert [plain(word[1:]) for word in words] == Moses("en").words(after.source)
        assert after.source_tokens[-1:] == ((END,) if words else ())
        for old, new in zip(before.candidates, after.candidates, strict=True):
            assert (new.score, new.token_log_probs) == (old.score, old.token_log_probs)
            expected = [
                max(range(len(words)), key=lambda j: (row[j], -j)) if token == "▁<unk>" else None
                for token, row in zip(old.tokens, old.alignment, strict=True)
            ]
            assert new.tokens == tuple(
                token if j is None else words[j]
                for token, j in zip(old.tokens, expected, strict=True)
            )
            assert "<unk>" not in new.text
            written = [plain(token[1:]) for token in new.tokens if token != END]
            assert new.text.replace(" ", "") == "".join(written)
        if after.candidates:
            png = heatmap_png(composed("debug"), after.soft_alignment())
            assert png.startswith(b"\x89PNG")


@pytest.mark.e2e
def test_batch_mates_do_not_change_what_is_copied(word_run):
    copy = "decode.replace_unknown=true"
    alone = translated(word_run, copy, "decode.batch_sentences=1")
    together = translated(word_run, copy, "decode.batch_sentences=64")
    assert [t.text for t in alone] == [t.text for t in together]
    assert [[c.tokens for c in t.candidates] for t in alone] == [
        [c.tokens for c in t.candidates] for t in together
    ]
