"""What the benchmark counts, draws and prints; not how fast anything is."""

import json
import re

import pytest
from conftest import batch_loss
from runs import assert_fails, run_here, tiny_run
from torch.utils.flop_counter import FlopCounterMode

from bench import Size
from seq2seq.config.schema import Backend, Config, Normalize
from seq2seq.data.batching import collate
from seq2seq.data.tokenizer import PAD
from seq2seq.model import build_model


@pytest.mark.parametrize(("tx", "ty"), [(9, 7), (4, 12)])
def test_operations_are_those_that_torch_counts(tx, ty):
    """On one sentence and the reference loops; the start state's product is left out."""
    size = Size("test", embedding=24, hidden=32, vocabulary=50)
    cfg = size.apply_to(Config(), Backend.reference)
    model = build_model(cfg, num_source=50, num_target=50, pad=PAD)
    batch = collate([([3] * tx, [3] * ty)], PAD)
    with FlopCounterMode(display=False) as counter:
        batch_loss(model, batch).objective(Normalize.words).backward()
    assert size.training_operations(tx, ty, tx * ty) == pytest.approx(
        counter.get_total_flops(), rel=0.03
    )


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

    run = tiny_run(tmp_path_factory.getbasetemp())
    threads.clear()
    options = ["--limit", "3", "--beams", "2", "--threads", "3"]
    done = run_here(monkeypatch, "benchmark", "decode", run, *options, *few)
    assert done.code == 0, done.err
    assert set(threads) == {3}  # not as many as the run was trained with
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert [row["way"] for row in found["rows"]] == ["fused fp32", "fused bf16"]
    assert all(row["sentences/s"] > 0 and row["BLEU"] >= 0 for row in found["rows"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["train", "--sizes", "huge"], "--sizes: 'huge' is no size. Take some of small, medium, "),
        (["decode"], "decode: no run to decode with. Give RUN, as train.py prints it."),
        (["train", "--against", "peer.py"], "--against: the peer reads text. Give --data, too."),
    ],
)
def test_mistakes_are_one_line(monkeypatch, arguments, line):
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    assert_fails(run_here(monkeypatch, "benchmark", *arguments), 2, line)
