"""The measurement itself: both kinds are trained, the same weights come out, the run is left."""

import pytest
from runs import run_here, tokenized_run

from bench.logging_cost import LoggingCost

SMALL = ["tokenizer.vocab_size=100", "trainer.max_updates=4", "trainer.validate_every=4"]
SMALL += ["trainer.validation_sentences=1", "decode.extra_steps=0", "logging.every=2"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return tokenized_run(tmp_path_factory.mktemp("cost"), *SMALL, pairs=40, held_out=3)


def test_the_share_is_of_medians() -> None:
    found = LoggingCost((10.0, 11.0, 30.0), (11.2, 11.0, 11.4), (8.0, 8.0, 1.0), identical=True)
    assert found.share == pytest.approx(0.025)
    assert "2.50 % of the updates; weights bit-identical" in str(found)


@pytest.mark.e2e
def test_both_kinds_are_trained_and_nothing_is_left(prepared, monkeypatch):
    before = sorted(path for path in prepared.rglob("*") if path.is_file())
    result = run_here(monkeypatch, "benchmark_logging", prepared, "--repeats", "2")
    assert result.code == 0, result
    off, on, updates, cost = result.out.decode().splitlines()
    assert [len(line.split()[4:]) for line in (off, on)] == [2, 2], (off, on)
    assert updates.startswith("updates, off ")
    assert cost.endswith("weights bit-identical")
    after = {path for path in prepared.rglob("*") if path.is_file()}
    assert after - set(before) <= {prepared / "metrics.jsonl"}
    assert (prepared / "metrics.jsonl").read_bytes() == b""
