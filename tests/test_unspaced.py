"""A made-up language without spaces, by the README's command for one's own corpus."""

import json
import logging
import random
import re
import statistics
from pathlib import Path

import pytest
from forks import call_here
from runs import ROOT, composed, run_new

from seq2seq.config.schema import Stage

pytestmark = pytest.mark.e2e

KANA = "".join(chr(code) for code in range(0x3042, 0x3094, 3))
PAIRS = 1000


def kana_pairs(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Sentences of 2 to 40 words of two to five kana, and the same in English-looking words."""
    draw = random.Random(seed)
    words = {"".join(draw.choices(KANA, k=draw.randint(2, 5))) for _ in range(400)}
    lexicon = {word: "".join(draw.choices("bdfgklmnprst", k=4)) for word in sorted(words)}
    pairs = []
    for _ in range(count):
        chosen = draw.choices(list(lexicon), k=draw.randint(2, 40))
        pairs.append(("".join(chosen) + "。", " ".join(lexicon[w] for w in chosen) + " ."))
    return pairs


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """The files that the README's command expects."""
    folder = tmp_path_factory.mktemp("kana")
    pairs = kana_pairs(PAIRS + 60)
    parts = {"test": pairs[:30], "dev": pairs[30:60], "train": pairs[60:]}
    for name, part in parts.items():
        for side, language in enumerate(("ja", "en")):
            text = "".join(f"{pair[side]}\n" for pair in part)
            (folder / f"{name}.{language}").write_text(text, "utf-8")
    return folder


LIMITS = [
    *("threads=1", "device=cpu", "trainer.max_updates=4", "trainer.validate_every=4"),
    *("scheduler.warmup=2", "model.hidden_size=16", "model.embedding_size=16"),
    *("model.align_size=16", "model.readout_size=16", "decode.beam_size=2", "decode.max_ratio=1"),
    *("logging.every=2", "trainer.validation_sentences=5"),
]


@pytest.fixture(scope="module")
def trained(corpus):
    """The command itself, in the directory of the files; smaller and shorter, and nothing else."""
    command = ["+experiment=own_corpus", "name=mine", "run_dir=run"]
    command += ["data.source_language=ja", "data.target_language=en"]
    done = call_here(ROOT / "train.py", *command, *LIMITS, cwd=corpus)
    assert done.returncode == 0, done.stderr.decode()
    return corpus / "run", done.stderr.decode(), done.stdout.decode()


def lengths_of(corpus: Path, name: str) -> list[int]:
    return [len(line) for line in (corpus / name).read_text("utf-8").splitlines()]


def test_nothing_is_dropped_for_its_script(trained, corpus):
    run, log, _ = trained
    report = json.loads((run / "data_report.json").read_text("utf-8"))["train"]
    assert (report["read"], report["kept"]) == (PAIRS, PAIRS)
    assert "dropped, such as" not in log
    found = report["lengths"]["source"]
    counts = lengths_of(corpus, "train.ja")
    assert found["unit"] == "characters"
    assert (found["mean"], found["longest"]) == (round(statistics.mean(counts), 2), max(counts))
    assert report["lengths"]["target"]["unit"] == "words"
    assert f"mean length: source {found['mean']:.1f} characters, target 2" in log


def test_lengths_are_sensible_in_every_table(trained, corpus, script):
    run, _, _ = trained
    found = json.loads((run / "length_bleu.json").read_text())
    counts = [min((n - 1) // 10, 6) for n in lengths_of(corpus, "test.ja")]
    assert found["unit"] == "characters"
    assert {b["first"]: b["sentences"] for b in found["bins"]} == {
        10 * n + 1: counts.count(n) for n in sorted({*counts})
    }
    assert len(found["bins"]) > 3
    table = script("evaluate", run, "--by-length", corpus / "plot.png")
    assert table.out.decode().splitlines()[0].split()[0] == "characters"


def test_a_heatmap_and_a_report_are_written(trained, corpus, script):
    run, log, out = trained
    heatmaps = sorted((run / "heatmaps").glob("*.png"))
    assert [path.name for path in heatmaps] == [f"test-000{n}.png" for n in range(1, 5)]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in heatmaps)
    assert out.count("heatmap ") == 4
    done = script("report", run, "--output", corpus / "report.html", "--sentences", "3")
    assert done.code == 0, done.err
    page = (corpus / "report.html").read_text("utf-8")
    assert '"lengthUnit": "characters"' in page or '"lengthUnit":"characters"' in page
    first = lengths_of(corpus, "test.ja")[0]
    assert re.search(rf'"length": ?{first}\b', page)
    assert "hardly learnt to translate yet (BLEU is" in log
    assert "hardly learnt to translate yet (BLEU is" in page


def test_the_other_direction_keeps_everything_too(corpus, tmp_path, caplog):
    names = [f"data.root={corpus}", "data.source_language=en", "data.target_language=ja"]
    cfg = composed("own_corpus", names)
    cfg.stages = [Stage.tokenize]
    with caplog.at_level(logging.WARNING):
        run = run_new(tmp_path / "run", cfg)
    report = json.loads(run.path("data_report.json").read_text("utf-8"))["train"]
    assert report["kept"] == PAIRS
    assert not [text for text in caplog.messages if "dropped, such" in text]
