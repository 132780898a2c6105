"""What preparing and training make of corpora that no one would wish for."""

import hashlib
import json
import logging
import math
import os
import re
import select
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from runs import begin, composed, environment, locked, run_new, template_pairs, write_corpus

import seq2seq
from seq2seq.config.schema import Config
from seq2seq.data.prepare import load_tokenizers, prepare
from seq2seq.data.tokenizer import EOS, PAD, UNK
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError, DataError, one_line
from seq2seq.run.reading import read_json

pytestmark = pytest.mark.e2e

PIECES = ["tokenizer.vocab_size=null", "tokenizer.sampling=0"]
WORDS = ["tokenizer=words", "~tokenizer.sampling"]
GOOD = template_pairs(60)

both_tokenizers = pytest.mark.parametrize("tokenizer", [PIECES, WORDS], ids=["pieces", "words"])


def prepared(folder: Path, overrides: Sequence[str]) -> tuple[RunDir, Config, dict]:
    """A run with its corpus prepared, its config and its data report."""
    cfg = composed("debug", overrides)
    with locked(begin(folder / "run", cfg)) as run:
        prepare(run, cfg)
    return run, cfg, read_json(run.path("data_report.json"))


def write_train(folder: Path, source: Sequence[str | bytes], target: Sequence[str | bytes]) -> None:
    """Replace the training files of `write_corpus`."""
    for name, lines in (("train.en", source), ("train.fr", target)):
        data = [line if isinstance(line, bytes) else line.encode() for line in lines]
        (folder / name).write_bytes(b"".join(line + b"\n" for line in data))


def fails(folder: Path, error: type, overrides: Sequence[str]) -> str:
    """The one line with which preparing ends; nothing is taken for prepared."""
    cfg = composed("debug", overrides)
    with locked(begin(folder / "run", cfg)) as run:
        with pytest.raises(error) as caught:
            prepare(run, cfg)
        assert not run.path("data_report.json").exists()
    assert caught.value.exit_code == (3 if issubclass(error, DataError) else 1)
    line = one_line(caught.value)
    assert "\n" not in line
    return line


# The report ---------------------------------------------------------------------------------------


def test_C2_C3_C4_C6_C16_the_report_accounts_for_every_line(tmp_path, caplog):
    names = write_corpus(tmp_path, GOOD, held_out=5)
    odd: list[tuple[bytes, bytes, str]] = [
        (b"", b"x", "empty"),
        (b"x", " \t\u00a0\u3000\u200b".encode(), "empty"),
        (b"", b"", "empty"),
        (b"\xff", b"x", "bad_line"),
        (b"x", b"a\0b", "bad_line"),
        (b"\xff", b"\xff", "bad_line"),
        (b"w " * 61, b"w " * 61, "too_long"),
        (b"w", b"w " * 10, "ratio"),
        (b"bell\x07", b"x", "kept"),
        (b"cr\r", b"vt\vff\f\r", "kept"),
        (GOOD[20][0].encode(), GOOD[20][1].encode(), "duplicate"),
    ]
    train = [(a.encode(), b.encode()) for a, b in GOOD[10:]]
    write_train(tmp_path, *zip(*train, *((a, b) for a, b, _ in odd), strict=True))
    marked = tmp_path / "train.en"
    marked.write_bytes(b"\xef\xbb\xbf" + marked.read_bytes())
    with caplog.at_level(logging.WARNING):
        run, _, report = prepared(tmp_path, [*names, *PIECES, "data.on_bad_line=skip"])
    found, expected = report["train"], Counter(what for _, _, what in odd)
    assert found["read"] == len(train) + len(odd)
    assert found["kept"] == len(train) + expected["kept"]
    for reason in ("bad_line", "empty", "too_long", "ratio", "duplicate"):
        assert found[reason] == expected[reason], reason
        rows = [n for n, (_, _, what) in enumerate(odd, len(train) + 1) if what == reason]
        assert found["examples"][reason] == rows
    source, target = found["inputs"]
    assert (source["name"], source["lines"], target["lines"]) == ("train.en", 61, 61)
    assert (source["byte_order_marks"], target["byte_order_marks"]) == (1, 0)
    assert (source["carriage_returns"], target["carriage_returns"]) == (1, 1)
    assert (source["control_characters"], target["control_characters"]) == (1, 1)
    assert report["test"]["in_training"] == report["validation"]["in_training"] == 0
    for file in (source, target):
        assert file["sha256"] == hashlib.sha256((tmp_path / file["name"]).read_bytes()).hexdigest()
    for side, lines in (("source", 52), ("target", 52)):
        assert run.path(f"corpus/train.{side}").read_bytes().count(b"\n") == lines
    assert run.path("corpus/train.source").read_text("utf-8").startswith(GOOD[10][0])
    assert "3 of 61 pairs cannot be read and were skipped" in caplog.text
    assert str(tmp_path) not in json.dumps(report)


def test_C3_the_test_set_is_read_strictly(tmp_path):
    names = write_corpus(tmp_path, GOOD, held_out=5)
    (tmp_path / "test.fr").write_bytes(b"a\n\xff\nb\nc\nd\n")
    line = fails(tmp_path, DataError, [*names, *PIECES, "data.on_bad_line=skip"])
    assert "test.fr:2: invalid UTF-8 byte 0xff at byte 1" in line


def test_C15_shared_pairs_of_training_and_test_set_are_counted(tmp_path, caplog):
    names = write_corpus(tmp_path, GOOD, held_out=5)
    write_train(tmp_path, *zip(*GOOD[:3], *GOOD[10:], *GOOD[9:10] * 2, strict=True))
    with caplog.at_level(logging.WARNING):
        _, _, report = prepared(tmp_path, [*names, *PIECES])
    assert (report["test"]["in_training"], report["validation"]["in_training"]) == (3, 1)
    assert "data.test: 3 of 5 pairs are training pairs, too" in caplog.text
    assert "data.validation: 1 of 5 pairs are training pairs, too" in caplog.text


def test_C15_nothing_but_one_pair(tmp_path, caplog):
    names = write_corpus(tmp_path, GOOD, held_out=5)
    write_train(tmp_path, ["the cat"] * 100, ["le chat"] * 100)
    with caplog.at_level(logging.WARNING):
        _, _, report = prepared(tmp_path, [*names, *PIECES])
    assert (report["train"]["kept"], report["train"]["duplicate"]) == (1, 99)
    assert "99 of 100 pairs repeat an earlier one" in caplog.text


def test_C18_a_file_that_changes_is_not_taken_for_prepared(tmp_path, monkeypatch):
    names = write_corpus(tmp_path, GOOD, held_out=5)
    path = tmp_path / "train.fr"
    os.utime(path, ns=(0, 0))
    real = seq2seq.data.text.scan_stream

    def slow(stream, name, report):
        for line in real(stream, name, report):
            if name == path and report.lines == 20:
                with path.open("ab") as file:
                    file.write(b"one more\n")
            yield line

    monkeypatch.setattr(seq2seq.data.text, "scan_stream", slow)
    line = fails(tmp_path, DataError, [*names, *PIECES])
    assert "train.fr: was changed while it was read (" in line


# Endless lines ------------------------------------------------------------------------------------


def peak_bytes(call: Callable[[], object]) -> int:
    """How far the memory of this process rises above what it holds now."""

    def held(what: str) -> int:
        [line] = [x for x in Path("/proc/self/status").read_text().split("\n") if what in x]
        return int(line.split()[1]) * 1024

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    except OSError:
        pytest.skip("no /proc/self/clear_refs here")
    before = held("VmRSS")
    call()
    return held("VmHWM") - before


@both_tokenizers
@pytest.mark.parametrize(
    "line",
    ["the cat " * 1_250_000, "w " * 100_000, "x" * 1_000_000],
    ids=["10 MB", "100,000 tokens", "1 M equal characters"],
)
def test_C7_endless_lines_are_dropped_and_counted(tmp_path, tokenizer, line):
    names = write_corpus(tmp_path, GOOD, held_out=5)
    pairs = [*GOOD[10:], ("the cat", line), (line, "le chat"), (line, line)]
    write_train(tmp_path, *zip(*pairs, strict=True))
    found: dict = {}
    started = time.monotonic()
    peak = peak_bytes(lambda: found.update(prepared(tmp_path, [*names, *tokenizer])[2]))
    assert time.monotonic() - started < 10
    assert peak < 200e6
    assert (found["train"]["too_long"], found["train"]["kept"]) == (3, 50)
    assert found["train"]["examples"]["too_long"] == [51, 52, 53]


# Few pairs ----------------------------------------------------------------------------------------

TWO_UPDATES = ["trainer.max_updates=2", "trainer.validate_every=1", "logging.tensorboard=false"]


def trained_on(folder: Path, count: int, *changes: str) -> RunDir:
    """A run on so few pairs and one pair in each other set; all that it measured is a number."""
    names = write_corpus(folder, GOOD[: count + 2], held_out=1)
    run = run_new(folder / "run", composed("debug", [*names, *PIECES, *TWO_UPDATES, *changes]))
    rows = [json.loads(line) for line in run.path("metrics.jsonl").read_text().splitlines()]
    numbers = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert numbers
    assert all(map(math.isfinite, numbers))
    return run


@pytest.mark.e2e
@pytest.mark.parametrize(("count", "batch"), [(1, 1), (1, 80), (2, 1), (2, 80), (7, 80)])
def test_C11_few_pairs_train(tmp_path, count, batch):
    sizes = ["trainer.batch_tokens=null", f"trainer.batch_sentences={batch}"]
    run = trained_on(tmp_path, count, *sizes, "stages=[tokenize,train]")
    assert read_json(run.path("data_report.json"))["train"]["kept"] == count
    assert any("bleu" in row.lower() for row in run.path("metrics.jsonl").read_text().split("\n"))


@pytest.mark.slow
def test_C11_one_pair_through_all_stages(tmp_path):
    run = trained_on(tmp_path, 1, "evaluate.heatmaps=[1]")
    scores = read_json(run.path("scores.json"))["scores"]
    assert all(math.isfinite(score["value"]) for score in scores.values())


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_C11_no_pair_at_all(tmp_path, split):
    names = write_corpus(tmp_path, GOOD, held_out=5)
    for language in ("en", "fr"):
        (tmp_path / f"{split}.{language}").write_bytes(b"")
    line = fails(tmp_path, DataError, [*names, *PIECES])
    assert f"{split}.en, {split}.fr: holds no sentence pair. Give a file with" in line


# Sizes of the vocabulary --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -1, 10**9])
@both_tokenizers
def test_C12_sizes_out_of_bounds(tokenizer, size):
    with pytest.raises(ConfigError, match=rf"tokenizer.vocab_size={size} is out of range. Use \["):
        composed("debug", [*tokenizer, f"tokenizer.vocab_size={size}"])


@pytest.mark.parametrize(
    ("joint", "train", "text"),
    [
        ("false", ["train.en", "train.fr"], r"train\.(en|fr)"),
        ("true", ["train.en", "train.fr"], r"train\.en and train\.fr"),
        ("false", ["p.tsv"], r"the (source|target) side of p\.tsv"),
    ],
)
def test_C12_too_large_names_the_text_and_a_size_that_works(tmp_path, joint, train, text):
    names = write_corpus(tmp_path, GOOD, held_out=5)
    rows = "".join(f"{a}\t{b}\n" for a, b in GOOD[10:])
    (tmp_path / "p.tsv").write_text(rows, "utf-8")
    names += [f"tokenizer.joint={joint}", f"data.train=[{','.join(train)}]"]
    line = fails(tmp_path, DataError, [*names, "tokenizer.vocab_size=8000"])
    before, _, rest = line.partition(" is too large for ")
    assert before == "error: config: tokenizer.vocab_size=8000"
    name, _, rest = rest.partition("; at most ")
    assert re.fullmatch(text, name)
    largest = int(rest.partition(".")[0])
    assert f"Set tokenizer.vocab_size={largest} or less, or null" in rest
    fitting = [*names, f"tokenizer.vocab_size={largest}"]
    _, _, report = prepared(tmp_path / "fits", fitting)
    assert report["vocabularies"] == [largest, largest]
    names.append(f"tokenizer.vocab_size={largest + 1}")
    assert "is too large" in fails(tmp_path / "not", DataError, names)


def test_C12_too_small_is_a_config_error(tmp_path):
    names = write_corpus(tmp_path, GOOD, held_out=5)
    line = fails(tmp_path, ConfigError, [*names, "tokenizer.vocab_size=6"])
    assert "tokenizer.vocab_size=6 is smaller than the alphabet of the corpus. Use " in line


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("joint", ["true", "false"])
def test_C12_as_many_pieces_as_the_text_gives(tmp_path, kind, joint):
    names = write_corpus(tmp_path, GOOD, held_out=5)
    names += [*PIECES, f"tokenizer.kind={kind}", f"tokenizer.joint={joint}"]
    run, cfg, report = prepared(tmp_path, names)
    for side, tok in zip(("source", "target"), load_tokenizers(run, cfg), strict=True):
        lines = run.path(f"corpus/train.{side}").read_text("utf-8").split("\n")
        assert not {UNK, PAD} & {i for ids in tok.encode(lines) for i in ids}
    assert all(20 < size <= 8000 for size in report["vocabularies"])


# Letters of the world -----------------------------------------------------------------------------

WORLD = {
    "composed": "é à ü Ångström côté",
    "bidi": "אבג שלום \u202bעולם\u202c مرحبا 12 abc",  # noqa: RUF001 - letters of two alphabets
    "joined emoji": "👨\u200d👩\u200d👧\u200d👦 hi 🏳\ufe0f\u200d🌈",
    "flags": "🇫🇷 🇩🇪 🇯🇵🇰🇷",
    "Devanagari": "नमस्ते दुनिया क्षत्रिय",
    "Thai": "สวัสดีชาวโลก น้ำ",
    "private use": "\ue000\ue123 \U000f0000 x",
    "last": "\U0010ffff \U0010fffd z",
    "stacked": "Z\u0336\u0321\u0323a\u0300\u0301\u0302\u0303\u0304\u0305l\u0334g\u0335o",
    "CJK": "漢字かなカナ 한국어 中文字符",
}


@pytest.fixture(scope="module")
def world_run(tmp_path_factory) -> Iterator[Path]:
    """Trained for two updates on all of it."""
    folder = tmp_path_factory.mktemp("world")
    lines = [*WORLD.values(), *(unicodedata.normalize("NFD", text) for text in WORLD.values())]
    names = write_corpus(folder, [*zip(lines, reversed(lines), strict=True)] * 3, held_out=20)
    changes = [*names, *PIECES, *TWO_UPDATES, "stages=[tokenize,train]"]
    return run_new(
        folder / "run", composed("debug", [*changes, "tokenizer.normalization=nfkc"])
    ).root


@pytest.mark.e2e
def test_C13_letters_of_the_world_are_trained_on_and_translated(world_run):
    model = seq2seq.load(world_run)
    texts = list(WORLD.values())
    forms = [[unicodedata.normalize(form, text) for text in texts] for form in ("NFC", "NFD")]
    composed_, decomposed = ([t.text for t in model.translate(form)] for form in forms)
    assert composed_ == decomposed
    assert len(composed_) == len(WORLD)
    for text in composed_:
        assert text.encode().decode() == text
    for form, tok in zip(("NFKC", "NFC"), model.tokenizers, strict=True):  # the target is kept
        for name, text in WORLD.items():
            [ids] = tok.encode([text])
            assert not {PAD, EOS, UNK} & set(ids), name
            expected = " ".join(unicodedata.normalize(form, text).split())
            assert tok.write(tok.pieces(ids))[0] == expected, name


# Random bytes -------------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.parametrize("count", [20, pytest.param(2000, marks=pytest.mark.slow)])
def test_C19_N4_random_corpora_train_or_are_refused_in_one_line(tmp_path, tally, count):
    seed = 2014
    program = Path(__file__).parent / "random_corpora.py"
    command = [sys.executable, program, str(seed), str(count)]
    outcomes: Counter[str] = Counter()
    errors = tmp_path / "stderr"
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, env=environment(), cwd=tmp_path
        ) as child,
    ):
        for number in range(count):
            wait = 120 if number == 0 else 20  # the first one pays for importing torch
            ready, _, _ = select.select([child.stdout], [], [], wait)
            if not ready:
                child.kill()
            line = child.stdout.readline() if ready else b""
            assert line, (f"{seed} {number}", "hang" if not ready else errors.read_text()[-2000:])
            found = json.loads(line)
            assert found["corpus"] == f"{seed} {number}"
            if found["code"] == 0:
                outcomes[found["line"]] += 1
                continue
            outcomes["refused"] += 1
            assert found["line"].startswith("error: "), found
            assert "\n" not in found["line"]
            assert "internal error" not in found["line"]
            small = found["code"] == 1 and "is smaller than the alphabet" in found["line"]
            assert found["code"] == 3 or small, found
    assert child.returncode == 0
    assert "Traceback" not in errors.read_text()
    assert min(outcomes[what] for what in ("trained", "tokenized", "refused")) >= count // 25
    note = ", ".join(f"{outcomes[what]:,} {what}" for what in ("trained", "tokenized", "refused"))
    tally("C19", "random corpora", sum(outcomes.values()), count, note)
