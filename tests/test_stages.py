"""Whole presets, shrunk, through `python train.py` in a process of its own."""

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from forks import call_here
from runs import ROOT, call, config_of

from seq2seq.fidelity import compare

pytestmark = pytest.mark.e2e

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
    "decode/flags.json",
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
def trained(tmp_path_factory) -> Trained:
    """In the C locale, where python would print ASCII."""
    few = ["train_pairs=300", "validation_pairs=8", "test_pairs=9", "max_words=8"]
    changes = [f"data.grammar.{change}" for change in few]
    # Such a model may score BLEU 0, which is never the best.
    changes += [
        "scheduler.warmup=10",
        "trainer.max_updates=30",
        "trainer.validate_every=15",
        "trainer.select_by=loss",
    ]
    changes += ["trainer.batch_sentences=16", "tokenizer.vocab_size=200", "logging.every=10"]
    home = tmp_path_factory.mktemp("quickstart")
    return train(home, "quickstart", changes, LC_ALL="C", PYTHONUTF8="0")


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
    table = trained.out[:7]
    assert re.fullmatch(r"metric +score +95% interval +signature", table[0])
    rows = {re.split(r"  +", row)[0]: row for row in table[1:]}
    words = {"BLEU, tokenised", "BLEU, lower-cased tokenised", "chrF++"}
    assert set(rows) == {"BLEU", "chrF", "TER"} | words
    signature = r"nrefs:1\|case:mixed\|eff:no\|tok:13a\|smooth:exp\|version:[\d.]+"
    assert re.fullmatch(rf"BLEU +\d+\.\d\d  \d+\.\d\d-\d+\.\d\d +{signature}", rows["BLEU"])
    saved = json.loads((trained.run / "scores.json").read_text())["scores"]
    assert f" {saved['BLEU']['value']:.2f} " in rows["BLEU"]
    labels = [line.split(" ")[0] for line in trained.out[7:] if line]
    gold = ["attention", "alignment", ""]
    assert labels == [
        "No",
        "Unseen",
        "Flags",
        *gold,
        "note",
        *["source", "output", "reference"] * 3,
        *["heatmap"] * 2,
        "run",
    ]
    references = (trained.run / "corpus/test.target").read_text("utf-8").splitlines()
    shown = [line[11:] for line in trained.out if line.startswith("reference")]
    assert shown == references[:3]
    for line in trained.out:
        if line.startswith("heatmap"):
            path = trained.home / line.removeprefix("heatmap").strip()
            assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert trained.out[-1].split() == ["run", "run"]


def test_attention_is_scored_as_there_are_gold_links(trained):
    found = json.loads((trained.run / "scores.json").read_text())["alignment"]
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


def test_deviations_take_one_line_of_a_first_screen_that_is_short(trained):
    first = next(i for i, text in enumerate(trained.log) if text.startswith("update "))
    assert first < 12
    found = [text for text in trained.log[:first] if "deviation" in text]
    assert found == [compare(config_of(trained.run)).count()]


def test_the_ledger_has_a_run_once_with_what_it_scored(trained, tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    for _ in range(2):
        added = call_here(ROOT / "scripts/ledger.py", ledger, trained.run, cwd=tmp_path)
        assert added.returncode == 0, added.stderr.decode()
    [line] = map(json.loads, ledger.read_text("utf-8").splitlines())
    saved = json.loads((trained.run / "scores.json").read_text())["scores"]
    for name in ("BLEU", "BLEU, lower-cased tokenised", "chrF"):
        score = saved[name]
        assert line["test"][name] == [score[key] for key in ("value", "low", "high", "signature")]
    rows = [json.loads(row) for row in (trained.run / "metrics.jsonl").read_text().splitlines()]
    best = [row for row in rows if row["update"] == line["best_update"]][-1]
    assert line["validation"]["loss"] == best["validation/loss"]
    assert (line["name"], line["updates"]) == ("quickstart", 30)
    [parameters] = {row.split()[1] for row in trained.log if row.startswith("model: ")}
    assert f"{line['parameters']:,}" == parameters


def test_resuming_a_finished_run_only_shows_it(trained):
    metrics = (trained.run / "metrics.jsonl").read_bytes()
    result = call_here(ROOT / "train.py", "resume=run", cwd=trained.home)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout == trained.result.stdout
    assert (trained.run / "metrics.jsonl").read_bytes() == metrics
