"""Whole presets, shrunk, through `python train.py` in a process of its own."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from runs import ROOT, call

import seq2seq

pytestmark = pytest.mark.e2e

MULTI30K = ROOT.parent / "shared/data/multi30k"

TINY = [
    "threads=1",
    "device=cpu",
    "model.embedding_size=16",
    "model.hidden_size=24",
    "model.align_size=16",
    "model.readout_size=16",
    "evaluate.heatmaps=[1,2]",
]

PROMISED = [
    "config.yaml",
    "run.json",
    "run.lock",
    "fidelity.md",
    "fidelity.json",
    "data_report.json",
    "tokenizers/source.model",
    "tokenizers/target.model",
    "tokenizers/manifest.json",
    "checkpoints/best.json",
    "metrics.jsonl",
    "train.log",
    "decode/test.txt",
    "decode/test.jsonl",
    "scores.json",
    "length_bleu.json",
    "length_bleu.png",
    "heatmaps/test-0001.png",
    "heatmaps/test-0002.png",
    "curves.png",
    "tensorboard/projector_config.pbtxt",
    "tensorboard/projector/source.tsv",
    "tensorboard/projector/target_labels.tsv",
]


@dataclass(frozen=True)
class Trained:
    home: Path
    """The current directory of the process."""
    result: subprocess.CompletedProcess[bytes]

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def out(self) -> list[str]:
        return self.result.stdout.decode().splitlines()

    @property
    def log(self) -> list[str]:
        return self.result.stderr.decode().splitlines()


def train(home: Path, preset: str, changes: Sequence[str], **environment: str) -> Trained:
    command = [ROOT / "train.py", f"+experiment={preset}", "run_dir=run", *TINY, *changes]
    result = call(*command, cwd=home, **environment)
    assert result.returncode == 0, result.stderr.decode()
    return Trained(home, result)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory) -> Trained:
    changes = [
        "data.grammar.train_pairs=300",
        "data.grammar.validation_pairs=8",
        "data.grammar.test_pairs=9",
        "data.grammar.max_words=8",
        "tokenizer.vocab_size=200",
        "trainer.max_updates=30",
        "scheduler.warmup=10",
        "trainer.validate_every=15",
        "trainer.select_by=loss",  # such a model may score BLEU 0, which is never the best
        "trainer.batch_sentences=16",
        "logging.every=10",
        "evaluate.heatmaps=[1,2]",
    ]
    return train(tmp_path_factory.mktemp("quickstart"), "quickstart", changes)


@pytest.fixture(scope="module")
def multi30k(tmp_path_factory) -> Trained:
    if not (MULTI30K / "train.fr").exists():
        pytest.skip(f"{MULTI30K} is not there")
    changes = [
        f"data.root={MULTI30K}",
        "data.limit=500",
        "tokenizer.vocab_size=300",
        "trainer.max_updates=6",
        "scheduler.warmup=2",
        "trainer.validate_every=3",
        "trainer.validation_sentences=8",
        "decode.beam_size=1",
        "decode.max_ratio=1",
        "decode.extra_steps=0",
        "logging.every=2",
        "evaluate.heatmaps=[1,2]",
    ]
    # In the C locale, where python would print ASCII.
    home = tmp_path_factory.mktemp("multi30k")
    return train(home, "multi30k_en_fr", changes, LC_ALL="C", PYTHONUTF8="0")


@pytest.fixture(params=["quickstart", "multi30k"])
def trained(request) -> Trained:
    return request.getfixturevalue(request.param)


def test_every_promised_file_appears(trained):
    for name in PROMISED:
        path = trained.run / name
        assert path.is_file(), f"{name} is missing"
        assert path.stat().st_size > 0, f"{name} is empty"
    assert list((trained.run / "tensorboard").glob("events.*"))
    best = json.loads((trained.run / "checkpoints/best.json").read_text())
    assert (trained.run / f"checkpoints/update-{best['update']:08d}/manifest.json").is_file()
    assert not list(trained.run.rglob("*.tmp*"))
    assert not list(trained.run.rglob(".tmp-*"))
    assert not list(trained.run.rglob(".trash-*"))
    assert not (trained.run / "crash").exists()


def test_nothing_is_written_elsewhere(trained):
    assert [p.name for p in trained.home.iterdir()] == ["run"]


def test_counts_agree(trained):
    decoded = (trained.run / "decode/test.txt").read_bytes().split(b"\n")
    details = (trained.run / "decode/test.jsonl").read_bytes().split(b"\n")
    assert decoded.pop() == details.pop() == b""
    scores = json.loads((trained.run / "scores.json").read_text())
    report = json.loads((trained.run / "data_report.json").read_text())
    assert len(decoded) == len(details) == scores["sentences"] == report["test"]["read"]
    assert [json.loads(line)["text"] for line in details] == [line.decode() for line in decoded]


def test_the_end_shows_scores_samples_and_pictures(trained):
    """A table with signatures, three translations, the paths of two pictures, the run."""
    table = trained.out[:5]
    assert re.fullmatch(r"metric +score +95% interval +signature", table[0])
    rows = {re.split(r"  +", row)[0]: row for row in table[1:]}
    assert set(rows) == {"BLEU", "BLEU, tokenised", "chrF", "TER"}
    signature = r"nrefs:1\|case:mixed\|eff:no\|tok:13a\|smooth:exp\|version:[\d.]+"
    assert re.fullmatch(rf"BLEU +\d+\.\d\d  \d+\.\d\d-\d+\.\d\d +{signature}", rows["BLEU"])
    saved = json.loads((trained.run / "scores.json").read_text())["scores"]
    assert f" {saved['BLEU']['value']:.2f} " in rows["BLEU"]
    labels = [line.split(" ")[0] for line in trained.out[5:] if line]
    gold = ["attention", "alignment", ""] if (trained.run / "corpus/test.links").exists() else []
    assert labels == ["No", *gold, *["source", "output", "reference"] * 3, *["heatmap"] * 2, "run"]
    references = (trained.run / "corpus/test.target").read_text("utf-8").splitlines()
    shown = [line[11:] for line in trained.out if line.startswith("reference")]
    assert shown == references[:3]
    for line in trained.out:
        if line.startswith("heatmap"):
            path = trained.home / line.removeprefix("heatmap").strip()
            assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert trained.out[-1].split() == ["run", "run"]


def test_lengths_add_up(trained):
    bins = json.loads((trained.run / "length_bleu.json").read_text())["bins"]
    sources = (trained.run / "corpus/test.source").read_text("utf-8").splitlines()
    lengths = [len(source.split()) for source in sources]
    assert {b["first"]: b["sentences"] for b in bins} == Counter(
        (n - 1) // 10 * 10 + 1 for n in lengths
    )


def test_attention_is_scored_where_there_are_gold_links(trained):
    results = json.loads((trained.run / "scores.json").read_text())
    if not (trained.run / "corpus/test.links").exists():
        assert results["alignment"] is None
        return
    found = results["alignment"]
    assert (found["sentences"], found["skipped"]) == (9, 0)
    for name in ("error_rate", "precision", "recall"):
        assert 0 < found[name] < 1
    [line] = [line for line in trained.out if line.startswith("alignment ")]
    assert f"error rate {100 * found['error_rate']:.1f}%" in line


def test_the_log_has_plain_lines(trained):
    """Stderr is no terminal: no bar, no carriage return, no escape sequence."""
    assert b"\r" not in trained.result.stderr
    assert b"\x1b" not in trained.result.stderr
    line = re.compile(
        r"update \d+/\d+  epoch \d+  loss \d+\.\d{3}  [\d,]+ tokens/s  ETA (\d\d:)+\d\d"
    )
    assert sum(line.fullmatch(text) is not None for text in trained.log) == 3
    assert sum("validation after update" in text for text in trained.log) == 2
    assert "warn" not in trained.result.stderr.decode().lower()
    saved = (trained.run / "train.log").read_text("utf-8").splitlines()
    assert [text.split(" INFO ", 1)[-1] for text in saved] == trained.log


def test_stages_are_named_in_their_order(trained):
    stages = [text for text in trained.log if text.startswith("== ")]
    assert stages == ["== tokenize", "== train", "== decode", "== evaluate"]


def test_no_path_of_this_machine_is_saved(trained):
    """But for those that the user typed: data.root."""
    files = [trained.run / "config.yaml", trained.run / "run.json"]
    files += list((trained.run / "tokenizers").iterdir())
    for path in files:
        data = path.read_bytes().replace(str(MULTI30K).encode(), b"")
        for place in (trained.home, ROOT, Path.home(), Path(sys.prefix), Path("/tmp")):
            assert f"{place}/".encode() not in data, f"{path.name} names {place}"
            assert str(place).encode() not in data or place == Path.home(), path.name


def test_a_moved_run_still_decodes(quickstart, tmp_path):
    sources = (quickstart.run / "corpus/test.source").read_text("utf-8").splitlines()
    expected = (quickstart.run / "decode/test.txt").read_text("utf-8").splitlines()
    moved = quickstart.run.rename(tmp_path / "somewhere else")
    try:
        found = [t.text for t in seq2seq.load(moved).translate(sources)]
    finally:
        moved.rename(quickstart.run)
    assert found == expected


def test_resuming_a_finished_run_only_shows_it(quickstart):
    metrics = (quickstart.run / "metrics.jsonl").read_bytes()
    result = call(ROOT / "train.py", "resume=run", cwd=quickstart.home)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout == quickstart.result.stdout
    assert (quickstart.run / "metrics.jsonl").read_bytes() == metrics
