"""What the benchmark counts, draws and prints; not how fast anything is."""

import json
import re

import pytest
from runs import assert_fails, run_here, tiny_run

from bench import Size, operations
from seq2seq.config.schema import Config
from seq2seq.data.batching import collate
from seq2seq.data.tokenizer import PAD


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
