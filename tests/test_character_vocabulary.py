"""The vocabulary of characters, or of tokens between spaces: every script, and a whole run."""

import json
from pathlib import Path

import pytest
from runs import composed, run_new
from test_tokenizer import text_of
from test_word_vocabulary import STRANGE

import seq2seq
from seq2seq.config.schema import CharactersConfig, Units
from seq2seq.data.character_vocabulary import Characters, UnitTokenizer
from seq2seq.data.prepare import lengths_of
from seq2seq.data.tokenizer import EOS, PAD, UNK
from seq2seq.data.tokenizer import composed as nfc
from seq2seq.data.words import is_blank
from seq2seq.decoding.request import Request
from seq2seq.evaluation.figures import DETAILS
from seq2seq.run.errors import ConfigError, DataError, RunDirError

TOKENS = {"source": Units.tokens, "target": Units.tokens}


def tokenizer(lines, **settings) -> UnitTokenizer:
    kind = Characters(CharactersConfig(**settings))
    return kind.load(kind.learn([lines, lines], ["en", "fr"], ["a", "b"])[1], 1, "fr", "v")


SCRIPTS = {
    "Devanagari": ("नमस्ते", "न म स्ते"),
    "Yoruba": (
        "o\u0323\u0301n e\u0301\u0323",
        "\u1ecd\u0301 n ▁ \u1eb9\u0301",
    ),  # both orders of the marks
    "emoji": ("👩\u200d👩\u200d👧🇫🇷👍🏽", "👩\u200d👩\u200d👧 🇫🇷 👍🏽"),
    "Hangul": ("\u1112\u1161\u11ab국", "한 국"),
    "Arabic": ("مُدَ", "مُ دَ"),
    "Thai": ("กำ", "กำ"),
    "spaces": ("a  b ", "a ▁ ▁ b ▁"),
    "U+2581": ("a▁ b", "a \ufdd0 ▁ b"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_characters_by_hand_and_back(script):
    text, pieces = SCRIPTS[script]
    tok = tokenizer([each for each, _ in SCRIPTS.values()])
    [tokens], [ids] = tok.tokens([text]), tok.encode([text])
    assert [token.piece for token in tokens] == tok.pieces(ids) == pieces.split(" ")
    assert [token.id for token in tokens] == ids
    assert text_of(tok, [PAD, *ids, EOS]) == nfc(text)
    # Every character of the text is in one span, in its order.
    assert "".join(text[slice(*token.span)] for token in tokens) == text
    written, spans = tok.write(tok.pieces(ids))
    assert [written[slice(*span)] for span in spans] == [
        piece.replace("▁", " ").replace("\ufdd0", "▁") for piece in tok.pieces(ids)
    ]
    assert tok.lost([text, f"{text}Q"]) == [None, "Q"]


def test_no_text_is_too_strange():
    tok = tokenizer([text for text in STRANGE if "\ud800" not in text])
    for text, ids in zip(STRANGE, tok.encode(STRANGE), strict=True):
        assert bool(ids) != is_blank(text)
        assert not {PAD, EOS} & {*ids}
        assert not {*"\t\n\x85\u2028"} & {*text_of(tok, ids)}
        if "\ud800" not in text and ids:
            assert text_of(tok, ids).split() == nfc(text).split()


def test_rare_characters_are_unknown_and_shown_as_such():
    tok = tokenizer(["abba c"], min_count=2)
    assert tok.pieces(range(len(tok))) == ["<pad>", "<unk>", "</s>", "a", "b"]
    assert tok.encode(["acb"]) == tok.sample(["acb"], 0.5, []) == [[3, UNK, 4]]
    assert [token.piece for token in tok.tokens(["acb"])[0]] == ["a", "c", "b"]
    assert text_of(tok, [3, UNK, 4]) == "a\ufffdb"
    assert len(tokenizer(["abba c"], vocab_size=4)) == 4
    with pytest.raises(
        DataError, match=r"learnt from a\. Give more text, or lower tokenizer\.min_co"
    ):
        tokenizer(["abc"], min_count=2)


def test_tokens_are_what_stands_between_spaces():
    tok = tokenizer(["HH AH0 L OW1", "t\u0361\u0283 . \u02c8 ,"], **TOKENS)
    [ids] = tok.encode(["OW1  . t\u0361\u0283 OW"])
    assert tok.pieces(ids) == ["▁OW1", "▁.", "▁t\u0361\u0283", "<unk>"]
    assert tok.write(tok.pieces(ids)) == (
        "OW1 . t\u0361\u0283 \ufffd", [(0, 3), (3, 5), (5, 9), (9, 11)]
    )  # fmt: skip
    # Pieces of the other side, copied for unknown ones
    assert tok.write(["\u00e9", "▁", "▁HH"])[0] == "\u00e9 HH"
    mixed = tokenizer(["ab c"], target=Units.tokens)
    assert mixed.encode(["ab c"]) == [[3, 4]]


@pytest.mark.parametrize("data", [b"", b"\n", b"a", b"a\n\nb\n", b"\xff\n", b"a\nb\na\n"])
def test_another_file_is_refused(data):
    wanted = "run/source.characters: is not a list of characters, each of them on one line of its"
    with pytest.raises(RunDirError, match=wanted):
        Characters(CharactersConfig()).load(data, 0, "fr", "run/source.characters")


def test_settings_that_do_not_fit_are_refused():
    chosen = ["tokenizer=characters", "~tokenizer.sampling"]
    with pytest.raises(
        ConfigError, match=r"joint=true with source=characters, target=tokens\. Set"
    ):
        composed("debug", [*chosen, "tokenizer.joint=true", "tokenizer.target=tokens"])
    with pytest.raises(ConfigError, match=r"vocab_size=3 is out of range"):
        composed("debug", [*chosen, "tokenizer.vocab_size=3"])
    with pytest.raises(ConfigError, match=r"no place for characters\. Use 5 or more, or null"):
        composed("debug", [*chosen, "tokenizer.vocab_size=4", "tokenizer.symbols=['<a>']"])


# In a run ---------------------------------------------------------------------------------------

WORDS = ["cat", "dog", "bird", "house", "tree", "river", "stone", "cloud", "wheat", "flour"]


@pytest.fixture(scope="module")
def spelling_run(tmp_path_factory) -> Path:
    """A short training to spell words backwards, in capitals between spaces."""
    root, names = tmp_path_factory.mktemp("characters"), []
    pairs = [f"{a} {b}" for a in WORDS for b in WORDS]
    splits = {
        "train": pairs[20:],
        "validation": pairs[:10],
        "test": ["x\u00e9bec dog", *pairs[10:20]],
    }
    for split, texts in splits.items():
        lines = [f"{text}\t{' '.join(text.replace(' ', '')[::-1].upper())}\n" for text in texts]
        (root / f"{split}.tsv").write_text("".join(lines), "utf-8")
        names.append(f"data.{split}={root}/{split}.tsv")
    changes = ["tokenizer=characters", "~tokenizer.sampling", "tokenizer.target=tokens"]
    changes += ["trainer.select_by=symbol_error_rate", "evaluate.heatmap_words=true"]
    changes += ["decode.forbid_unknown=false", "tokenizer.vocab_size=null", *names]
    return run_new(root / "run", composed("debug", changes)).root


@pytest.mark.e2e
def test_the_stages_run_with_characters(spelling_run):
    report = json.loads((spelling_run / "data_report.json").read_text("utf-8"))
    assert report["train"]["lengths"]["source"]["unit"] == "characters"
    assert report["test"]["unwritable"] == {"lines": 1, "first_line": 1, "first": "\u00c9"}
    scores = json.loads((spelling_run / "scores.json").read_text("utf-8"))
    assert {"exact match", "character error rate", "symbol error rate"} < {*scores["scores"]}
    assert len(list((spelling_run / "heatmaps").glob("*.png"))) == 2
    lines = map(json.loads, (spelling_run / "metrics.jsonl").read_text("utf-8").splitlines())
    [*rates] = (row["validation/symbol_error_rate"] for row in lines if "validation/loss" in row)
    best = json.loads((spelling_run / "checkpoints/best.json").read_text("utf-8"))
    if best["metric"] == "symbol_error_rate":
        assert best["value"] == pytest.approx(min(rates))
    assert len(rates) == 2
    [first, *_] = (spelling_run / DETAILS).read_text("utf-8").splitlines()
    assert json.loads(first)["source_tokens"] == [*"x\u00e9bec▁dog", "</s>"]


@pytest.mark.e2e
def test_everything_that_decodes_works_with_characters(spelling_run):
    model = seq2seq.load(spelling_run, ["decode.replace_unknown=true", "decode.max_ratio=1"])
    # A given beginning, a required and a forbidden token
    rules = Request("cat dog", prefix="G O", required=[["W"]], forbidden=["E", "T"])
    [found] = model.translate([rules])
    assert found.text.split()[:2] == ["G", "O"]
    assert "W" in found.text.split()
    assert not {"E", "T"} & {*found.text}
    # The given text, with its unknown token, and attention that sums to 1 for each
    [forced] = model.force([("cat dog", "G \u00c9 T")])
    assert forced.text == "G \u00c9 T"
    assert forced.alignment.shape == (4, 8)
    # An unknown token is a letter of the source
    unknown = model.translate(["\u00e9\u00e8", "cat"])
    assert not any("\ufffd" in c.text for t in unknown for c in t.candidates)
    assert [len(t.source_tokens) for t in unknown] == [3, 4]


def test_lengths_are_in_characters():
    cfg = composed("debug", ["tokenizer=characters", "~tokenizer.sampling"])
    length, _ = lengths_of(cfg, ("zh", "en"))
    assert [length("\u6f22\u5b57 ab"), length.in_words("\u6f22\u5b57 ab")] == [4, 4]
    assert length.unit(["ab cd"]) == "characters"
