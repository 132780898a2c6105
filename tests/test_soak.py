"""A hundred thousand updates, and little memory: nothing grows."""

import json
import resource
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
from storms import Zygote, micro_corpus

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

UPDATES = 100_000
MEGABYTE = 1 << 20
TINY = [
    f"trainer.max_updates={UPDATES}",
    "trainer.checkpoint_every=100",
    "trainer.validate_every=1000",
    "trainer.patience=null",
    "trainer.batch_tokens=12",
    "logging.every=100",
    "scheduler.patience=1000",
    "model.hidden_size=4",
    "model.embedding_size=4",
    "model.align_size=4",
    "model.readout_size=4",
    "model.output_rank=4",
    "stages=[tokenize,train]",
]


def growth(rows: Sequence[dict[str, Any]], name: str, after: int) -> float:
    warm = [row[name] for row in rows if row["update"] >= after]
    return float(max(warm) - warm[0])


def shift(early: Sequence[dict[str, Any]], late: Sequence[dict[str, Any]], name: str) -> float:
    first, last = (statistics.median(row[name] for row in rows) for rows in (early, late))
    return last - first


def test_L7_nothing_grows_in_a_long_run(tmp_path, tally):
    overrides = micro_corpus(tmp_path / "corpus")
    with Zygote(tmp_path / "zygote") as zygote:
        child = zygote.start(
            *overrides, *TINY, "run_dir=run", cwd=tmp_path, hooks=[["measure", 1000]]
        )
        assert child.wait(timeout=4 * 3600) == 0, child.err[-2000:]
    rows = [json.loads(line) for line in (child.folder / "measured").read_text().splitlines()]
    assert rows[-1]["update"] == UPDATES
    resident = growth(rows, "resident", 5000) / MEGABYTE
    early, late = (
        statistics.median(row["seconds"] for row in part) for part in (rows[5:25], rows[-20:])
    )
    drift = late / early - 1
    note = f"+{resident:.1f} MB after update 5,000; update {1000 * late:.1f} ms, drift {drift:+.1%}"
    # By medians: a file that is open just while it is counted is no leak.
    names = ("descriptors", "threads", "files")
    grown = [shift(rows[5:25], rows[-20:], name) for name in names]
    held = resident <= 5 and grown == [0, 0, 0]
    fault = f"{UPDATES:,} updates: memory, descriptors, threads, files constant"
    tally("L7", fault, UPDATES if held else 0, UPDATES, note)
    assert resident <= 5, note
    assert grown == [0, 0, 0], rows[-1]
    # Two logs grow, by a line each: that is what they are for.
    assert growth(rows, "bytes", 5000) < UPDATES / 100 * 2000


LIMIT = 2 << 30


@pytest.mark.parametrize("pairs", [64, 20_000])
def test_L6_little_memory_is_enough_or_is_named(tmp_path, tally, pairs):
    """2 GB of addresses: the small run trains; a batch that cannot fit says so, and nobody dies."""
    overrides = micro_corpus(tmp_path / "corpus")
    large = [] if pairs == 64 else ["model.hidden_size=4000", "model.embedding_size=4000"]
    with Zygote(tmp_path / "zygote") as zygote:
        child = zygote.start(
            *overrides, *large, "run_dir=run", cwd=tmp_path, hooks=[["limit_memory", LIMIT]]
        )
        code = child.wait(timeout=600)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    fault = f"2 GB of address space, {'small' if pairs == 64 else 'large'} model: trains, or E8"
    tally("L6", fault, code in (0, 8), 1, f"exit {code}")
    assert code == (0 if pairs == 64 else 8), child.err[-500:]
    assert peak > 0
