"""What the benchmark counts, draws and prints; not how fast anything is."""

import json
import re
import subprocess
from itertools import chain

import pytest
from runs import assert_fails, run_here, tiny_run

import pipeline
from bench import Size, operations
from seq2seq.config.schema import Config
from seq2seq.data.batching import collate
from seq2seq.data.tokenizer import PAD
from seq2seq.run.errors import PlatformError


@pytest.mark.e2e
def test_operations_are_those_of_the_equations():
    """Multiplications and additions of the paper's products, three times: backward has two each."""
    m, n, words, tx, ty = 24, 32, 50, 9, 7
    cfg = Size("test", embedding=m, hidden=n, vocabulary=words).apply_to(Config())
    batch = collate([([3] * tx, [3] * ty)] * 4, PAD)
    encoder = 2 * (3 * m * n + 3 * n * n) + 2 * n * n  # both directions, U_a h
    state = 3 * m * n + 3 * n * n + 2 * n * 3 * n + n * n  # W, U, C, W_a
    readout = (n + m + 2 * n) * n + n // 2 * words  # U_o, V_o, C_o, W_o
    forward = tx * encoder + ty * (state + readout) + tx * ty * 3 * n
    assert operations(cfg, words, batch) == pytest.approx(3 * 2 * forward / ty, rel=0.03)


@pytest.mark.slow
def test_the_script_prepares(monkeypatch, tmp_path):
    options = ["--pairs", "12000", "--rounds", "1", "--json", tmp_path / "found.json"]
    done = run_here(monkeypatch, "benchmark", "prepare", *options)
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "found.json").read_text("utf-8"))["rows"]
    both = [(row["vocabulary"], row["workers"]) for row in rows]
    assert both == [("words", 1), ("words", 2), ("sentencepiece", 1), ("sentencepiece", 2)]
    assert all(row["pairs/s"] > 0 for row in rows)


def test_a_clock_counts_each_moment_once_as_the_innermost_part(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pipeline.time.time", lambda: now[0])

    def takes(seconds, *calls):
        def function():
            now[0] += seconds
            for call in calls:
                call()
            now[0] += seconds
            return seconds

        return function

    clock = pipeline.Clock(now[0])
    inner = clock.timed("inner", takes(1))
    outer = clock.timed("outer", takes(10, inner, takes(100), inner))
    now[0] += 1000
    assert outer() == 10
    now[0] += 2000
    clock.count()
    assert clock.wall == {pipeline.START: 3000, "outer": 220, "inner": 4}
    assert clock.calls == {"outer": 1, "inner": 2}
    assert sum(clock.wall.values()) == now[0] - 100


def test_the_time_of_a_whole_run_by_hand():
    wall = {pipeline.UPDATES: 6.0, "validation: loss": 4.0, "checkpoints": 1.0, "decode": 5.0}
    calls = {pipeline.UPDATES: 3, "validation: scores": 2, "checkpoints": 9}
    short = {"wall": wall | {pipeline.OTHER: 70.0}, "cpu": wall, "calls": calls}
    rows = pipeline.rows_of([short], updates=30, validations=10)
    assert [(row["part"], row["whole run s"], row["share"]) for row in rows] == [
        (pipeline.UPDATES, 60, "37.5%"),
        ("validation: loss", 20, "12.5%"),
        ("checkpoints", 5, "3.1%"),
        ("decode", 5, "3.1%"),
        (pipeline.OTHER, 70, "43.8%"),
    ]
    assert [row["whole run CPU s"] for row in rows] == [60, 20, 5, 5, 0]


def test_all_timed_functions_are_there():
    for where in chain(*pipeline.PARTS.values()):
        owner, name = pipeline.owner_of(where)
        assert callable(getattr(owner, name)), where


def test_a_run_that_fails_is_one_line(monkeypatch):
    failed = subprocess.CompletedProcess([], 3, "", "error: no such file")
    monkeypatch.setattr("pipeline.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(PlatformError, match=r"pipeline: failed: error: no such file\. Run it"):
        pipeline.timed_run(["+experiment=debug"])


@pytest.mark.slow
def test_the_script_times_a_whole_run(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    options = ["--preset", "debug", "--updates", "10", "--threads", "1"]
    done = run_here(monkeypatch, "benchmark", "pipeline", *options, "--json", tmp_path / "f.json")
    assert done.code == 0, done.err
    assert b"measured: a run of 10 updates" in done.out
    rows = json.loads((tmp_path / "f.json").read_text("utf-8"))["rows"]
    assert {row["part"] for row in rows} == {*pipeline.PARTS, pipeline.START}
    assert all(row["whole run s"] >= 0 and row["measured s"] >= 0 for row in rows)
    [updates] = [row for row in rows if row["part"] == pipeline.UPDATES]
    assert updates["whole run s"] == pytest.approx(2 * updates["measured s"], abs=0.1)
    shares = [float(row["share"].rstrip("%")) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=1)
    assert rows[-1]["part"] == pipeline.OTHER


@pytest.mark.e2e
def test_the_script_trains_and_decodes(monkeypatch, tmp_path_factory, tmp_path):
    monkeypatch.setattr("bench.SIZES", {"small": (8, 8)})
    threads: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    few = ["--rounds", "1", "--json", tmp_path / "found.json"]
    options = ["--sizes", "small", "--vocabulary", "60", "--batch", "4", "--updates", "1"]
    done = run_here(monkeypatch, "benchmark", "train", *options, *few)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert [row["way"] for row in found["rows"]] == ["fused fp32", "fused bf16"]
    assert all(row["tokens/s"] > 0 for row in found["rows"])
    assert re.search(rb"\| small +\| 60 +\| fused fp32 \|", done.out)

    options = ["--vocabulary", "60", "--batch", "4", "--updates", "1", "--ways", "auto fp32"]
    names = "multi30k_en_fr; multi30k_en_fr attention=dot; transformer_tiny"
    done = run_here(monkeypatch, "benchmark", "members", "--members", names, *options, *few)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    members = ["multi30k_en_fr", "attention=dot", "transformer_tiny"]
    assert [row["member"] for row in found["rows"]] == members
    assert found["rows"][0]["time per operation"] == 1
    assert all(row["time per operation"] > 0 for row in found["rows"])

    run = tiny_run(tmp_path_factory.getbasetemp())
    threads.clear()
    options = ["--limit", "3", "--beams", "2", "--threads", "3"]
    done = run_here(monkeypatch, "benchmark", "decode", run, *options, *few)
    assert done.code == 0, done.err
    assert set(threads) == {3}  # not as many as the run was trained with
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert [row["way"] for row in found["rows"]] == ["fused fp32", "fused bf16"]
    assert all(row["sentences/s"] > 0 and row["BLEU"] >= 0 for row in found["rows"])
    changed = [row["changed lines"] for row in found["rows"]]
    assert changed[0] == "0.0%"
    assert changed[1] in ("0.0%", "33.3%", "66.7%", "100.0%")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--sizes", "huge"], "--sizes: 'huge' is no size. Choose from small, medium, "),
        (["decode"], "decode: no run to decode with. Give RUN."),
        (["train", "--against", "peer.py"], "--against: the peer reads text. Give --data, too."),
    ],
)
def test_mistakes_are_one_line(monkeypatch, arguments, line):
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    assert_fails(run_here(monkeypatch, "benchmark", *arguments), 2, line)
