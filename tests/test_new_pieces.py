"""Pieces that a vocabulary is given on a warm start: symbols, letters, words."""

from functools import cache
from itertools import chain

import pytest
import torch
from runs import begin, composed, locked, run_new, template_pairs, write_corpus
from safetensors.torch import load_file
from test_tokenizer import corpus, text_of
from test_warm_start import LIKE_TINY, SHORT

import seq2seq
from seq2seq.config.schema import CharactersConfig, PieceModel, SentencePieceConfig, WordsConfig
from seq2seq.data.character_vocabulary import Characters
from seq2seq.data.prepare import load_tokenizers, prepare
from seq2seq.data.subword_vocabulary import Subwords
from seq2seq.data.tokenizer import UNK
from seq2seq.data.word_vocabulary import Words
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError
from seq2seq.run.reading import read_lines_of
from seq2seq.training.checkpoint import best_weights, directory_of

pytestmark = pytest.mark.e2e

ORIGIN_SYMBOLS = ["<2de>"]
PLAIN = {"words": ".", "bpe": "o", "unigram": ".", "characters": "o"}


def symbols_of(kind: str) -> list[str]:
    """One is known, one is new, one was a plain piece."""
    return ["<2de>", "<2fr>", PLAIN[kind]]


@cache
def learnt(kind: str):
    """The kind of vocabulary, one whose config names more symbols, and what it learnt."""
    if kind == "words":
        make = lambda own: Words(WordsConfig(vocab_size=100, symbols=own))  # noqa: E731
    elif kind == "characters":
        make = lambda own: Characters(CharactersConfig(symbols=own))  # noqa: E731
    else:
        make = lambda own: Subwords(  # noqa: E731
            SentencePieceConfig(kind=PieceModel[kind], vocab_size=150, symbols=own)
        )
    [data] = make(ORIGIN_SYMBOLS).learn([corpus()[0]], ["en"], ["a"])
    return make(symbols_of(kind)), data


@pytest.mark.parametrize("kind", PLAIN)
def test_a_vocabulary_grows_at_its_end_and_cuts_old_text_as_before(kind):
    (vocabulary, data), symbols, plain = learnt(kind), symbols_of(kind), PLAIN[kind]
    old = vocabulary.load(data, 0, "en", "v")
    pieces = ["zebra", "\u010d"] if kind == "words" else ["\u010d", "\u6f22"]
    grown = vocabulary.grown(data, len(old), symbols, pieces)
    new = vocabulary.load(grown, 0, "en", "v")
    assert len(new) == len(old) + 3
    assert new.pieces(range(len(old))) == old.pieces(range(len(old)))
    texts = [*corpus()[0], "<2de> The cat"]
    assert new.encode([t.replace(plain, "") for t in texts]) == old.encode(
        [t.replace(plain, "") for t in texts]
    )
    # The new ones are used, symbols wherever they stand, also one that was a plain piece.
    written = new.pieces([*chain(*new.encode(corpus()[0]))])
    assert {piece.strip("\u2581") for piece in written if plain in piece} == {plain}
    [ids] = new.encode([f"x.<2fr> {pieces[0]} {pieces[1]}"])
    assert [i for i in ids if i >= len(old)] == [*range(len(old), len(old) + 3)]
    assert UNK not in new.encode([" ".join(pieces)])[0]
    assert text_of(new, new.encode([" ".join(pieces)])[0]) == " ".join(pieces)
    # A second try begins with the ids of the origin; nothing new is nothing changed.
    assert vocabulary.grown(grown, len(old), symbols, pieces) == grown
    assert vocabulary.grown(grown, len(old), [], []) != grown
    [known] = old.pieces([9])
    known = known.removeprefix("\u2581") if kind == "words" else known
    assert vocabulary.grown(data, len(old), ORIGIN_SYMBOLS, [known]) == data


@pytest.fixture(scope="module")
def domain(tmp_path_factory) -> list[str]:
    """Text of the origin's words, with a new tag and letters that it has never seen."""
    pairs = [(f"<2fr> {a}", b) for a, b in template_pairs(120, seed=2)]
    pairs[50:60] = [(f"{a} \u017d\u017dzzz", f"{b} \u0161kola") for a, b in pairs[50:60]]
    return write_corpus(tmp_path_factory.mktemp("domain"), pairs)


def grown(run, domain, *changes):
    cfg = [*domain, *LIKE_TINY, *SHORT, f"init.run={run}", "tokenizer.symbols=['<2fr>']"]
    return composed("debug", [*cfg, "init.new_pieces=2", "stages=[tokenize,train]", *changes])


def test_a_run_has_rows_for_new_pieces_and_all_else_of_its_origin(run, domain, tmp_path, caplog):
    caplog.set_level("INFO")
    cfg = grown(run, domain, "trainer.max_updates=1", "optimizer.lr=1e-30")
    new = run_new(tmp_path / "new", cfg)
    its = load_tokenizers(RunDir.open(run), seq2seq.load(run).config)
    own = load_tokenizers(new, cfg)
    added = [t.pieces(range(120, len(t))) for t in own]
    assert added[0] == ["<2fr>", "z", "\u017d"]  # as often each, in the order of letters
    assert added[1][0] == "<2fr>"
    assert {*added[1][1:]} <= {*"\u0161kl"}
    assert "source.model: 1 new symbols, 2 new pieces: z \u017d" in caplog.messages
    assert [t.pieces(range(120)) for t in own] == [t.pieces(range(120)) for t in its]

    # Old rows to the bit, new ones the mean of the old but y_0's; every other weight as it was.
    before = load_file(best_weights(RunDir.open(run))[0])
    after = load_file(directory_of(new, 0) / "model.safetensors")
    assert before.keys() == after.keys()
    changed = set()
    for name, weight in before.items():
        assert torch.equal(after[name][: len(weight)], weight), name
        if len(after[name]) > len(weight):
            changed.add(name)
            mean = weight[1:].double().mean(dim=0).float()
            assert all(torch.equal(row, mean) for row in after[name][len(weight) :]), name
    assert {"encoder.embedding.E.weight", "decoder.embedding.E.weight"} < changed
    assert len(changed) in (3, 4)

    # Greedily, text of old pieces is translated as by the origin.
    lines = [line.removeprefix("<2fr> ") for line in read_lines_of(new.path("corpus/test.source"))]
    rules = ["decode.beam_size=1"]
    old, now = (
        [t.text for t in seq2seq.load(path, rules).translate(lines)] for path in (run, new.root)
    )
    assert now == old


def test_preparing_again_gives_the_same_vocabularies(run, domain, tmp_path):
    cfg = grown(run, domain)
    with locked(begin(tmp_path / "new", cfg)) as new:
        prepare(new, cfg)
        files = {p.name: p.read_bytes() for p in new.path("tokenizers").iterdir()}
        new.path("data_report.json").unlink()  # as if it had been interrupted
        prepare(new, cfg)
        assert {p.name: p.read_bytes() for p in new.path("tokenizers").iterdir()} == files


def test_an_origin_keeps_its_symbols(run, domain, tmp_path):
    new = run_new(
        tmp_path / "new", grown(run, domain, "data.placeholders=[url]", "trainer.max_updates=1")
    )
    for lost, symbol in (
        (["data.placeholders=[url]", "tokenizer.symbols=[]"], "<2fr>"),
        ([], "<url1>"),
    ):
        with pytest.raises(ConfigError, match=f"protects {symbol}, and this run does not. Give"):
            begin(tmp_path / "other", grown(new.root, domain, *lost))
    with pytest.raises(ConfigError, match=r"new_pieces is given and init.run is not. Give both"):
        composed("debug", ["init.new_pieces=2"])
