"""The order in which pairs are drawn, padding, and the files that ids and text come from."""

import tracemalloc
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import torch

from seq2seq.config.schema import BatchOrder, TrainerConfig
from seq2seq.data import batching
from seq2seq.data.batching import collate, pad_ids, plan_epoch
from seq2seq.data.store import IdStore, TextStore
from seq2seq.run.errors import RunDirError

PAD = 0
BY_SENTENCES = TrainerConfig(
    batch_sentences=8,
    batch_tokens=None,
    pool_batches=5,
    batch_order=BatchOrder.shortest_first,
    reshuffle=True,
)
BY_TOKENS = replace(BY_SENTENCES, batch_sentences=None, batch_tokens=100)
CONFIGS = {
    f"{'sentences' if cfg.batch_sentences else 'tokens'}-{order.name}": replace(
        cfg, batch_order=order
    )
    for cfg in (BY_SENTENCES, BY_TOKENS)
    for order in BatchOrder
}
every_config = pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS.keys())


def lengths(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 30, count), rng.integers(1, 30, count)


def plan(cfg: TrainerConfig, count: int = 203, seed: int = 1, epoch: int = 0) -> list[list[int]]:
    return [*plan_epoch(longest(count), cfg, seed=seed, epoch=epoch)]


def longest(count: int = 203) -> np.ndarray:
    return np.maximum(*lengths(count))


# Order ------------------------------------------------------------------------------------------


@every_config
@pytest.mark.parametrize("count", [1, 7, 8, 9, 40, 41, 203])
def test_every_pair_comes_exactly_once_an_epoch(cfg, count):
    for epoch in range(2):
        batches = plan(cfg, count, epoch=epoch)
        assert all(batches), "an empty batch"
        assert sorted(chain(*batches)) == list(range(count))
        assert {type(row) for row in chain(*batches)} == {int}


@every_config
def test_plan_is_a_pure_function_of_seed_and_epoch(cfg):
    np.random.seed(1)
    first = plan(cfg, seed=3, epoch=2)
    np.random.random()
    assert plan(cfg, seed=3, epoch=2) == first
    assert plan(cfg, seed=3, epoch=1) != first
    assert plan(cfg, seed=4, epoch=2) != first


@every_config
def test_without_reshuffling_every_epoch_is_the_first(cfg):
    once = replace(cfg, reshuffle=False)
    assert plan(once, epoch=7) == plan(once, epoch=0) == plan(cfg, epoch=0)
    assert plan(once, seed=2) != plan(once, seed=1)


def test_pools_hold_pool_batches_times_batch_sentences():
    """B.2: 1,600 pairs are drawn, sorted, and cut into 20 batches of 80."""
    cfg = replace(BY_SENTENCES, batch_sentences=80, pool_batches=20)
    batches = plan(cfg, count=4000)
    assert [len(batch) for batch in batches] == [80] * 50
    assert [len(batch) for batch in plan(BY_SENTENCES, count=203)] == [8] * 25 + [3]
    size = longest(4000)
    maxima = [size[batch].max() for batch in batches]
    falls = [i for i, (a, b) in enumerate(pairwise(maxima), start=1) if b < a]
    assert falls == [20, 40]  # sorted within 1,600 pairs, begun anew after them
    for start in (0, 20, 40):
        rows = list(chain(*batches[start : start + 20]))
        assert (np.diff(size[rows]) >= 0).all()


@pytest.mark.parametrize("cfg", [BY_SENTENCES, BY_TOKENS], ids=["sentences", "tokens"])
def test_order_within_a_pool(cfg):
    """Sorted by the longer side; shuffled, they are the same batches, each in its pool."""
    rows = list(chain(*plan(replace(cfg, pool_batches=1000))))
    assert (np.diff(longest()[rows]) >= 0).all()
    ordered, shuffled = plan(cfg), plan(replace(cfg, batch_order=BatchOrder.shuffled))
    assert ordered != shuffled
    assert sorted(ordered) == sorted(shuffled)
    if cfg is BY_SENTENCES:
        for start in range(0, 25, 5):
            pool = slice(start, start + 5)
            assert sorted(ordered[pool]) == sorted(shuffled[pool])


# Token budget -----------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 29, 30, 64, 100, 10_000])
def test_padded_tokens_stay_within_the_budget_and_fill_it(budget):
    size = longest()
    batches = plan(replace(BY_TOKENS, batch_tokens=budget, pool_batches=1000))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * size[batch].max() <= budget
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * size[following[0]] > budget
    assert (len(batches) == 1) == (budget == 10_000)


# Padding ----------------------------------------------------------------------------------------


def test_rows_are_padded_to_the_longest():
    ids, mask = pad_ids([[5, 6, 2], [2], [7, 2]], PAD)
    assert ids.tolist() == [[5, 6, 2], [2, 0, 0], [7, 2, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert (ids.dtype, mask.dtype) == (torch.int64, torch.bool)
    # Padding is what was asked for, and real tokens may look like it.
    ids, mask = pad_ids([np.array([9, 0], np.int32), np.array([9], np.int32)], 9)
    assert ids.tolist() == [[9, 0], [9, 9]]
    assert mask.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("row", [[], np.zeros(0, np.int32)])
def test_N4_a_row_of_padding_cannot_be_built(row):
    with pytest.raises(AssertionError, match="a row without tokens"):
        pad_ids([[5, 2], row], PAD)
    with pytest.raises(AssertionError, match="a row without tokens"):
        collate([([5, 2], row)], PAD)


def test_N4_no_batch_of_padding_only(tally):
    """Corpora, many of whose sides are nothing but the end symbol, as prepare writes them.

    Each row of each batch has a token, and the cost per word of the batch is a number.
    """
    seed, count = 4, 1000
    rng = np.random.default_rng(seed)
    for _ in range(count):
        size = int(rng.integers(1, 9))
        src, tgt = (np.maximum(1, rng.integers(-4, 7, size)) for _ in range(2))
        by_tokens = rng.random() < 0.5
        cfg = replace(
            BY_TOKENS if by_tokens else BY_SENTENCES,
            batch_tokens=int(rng.integers(1, 20)) if by_tokens else None,
            batch_sentences=None if by_tokens else int(rng.integers(1, 5)),
            pool_batches=int(rng.integers(1, 3)),
        )
        plan_ = plan_epoch(np.maximum(src, tgt), cfg, seed=seed, epoch=0)
        assert sorted(chain(*plan_)) == list(range(size))
        for rows in plan_:
            batch = collate([(np.full(src[i], 2), np.full(tgt[i], 2)) for i in rows], PAD)
            for mask in (batch.src_mask.numpy(), batch.tgt_mask.numpy()):
                assert mask[:, 0].all(), (seed, src, tgt, cfg)
    tally("N4", "batch of padding only", count, count, "no such batch")


@pytest.mark.parametrize("cfg", [BY_SENTENCES, BY_TOKENS], ids=["sentences", "tokens"])
@pytest.mark.parametrize("count", [200_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_X13_a_plan_is_small(cfg, count, monkeypatch):
    """A list of a number per pair would take 36 bytes a pair; here it is four, at most ten."""
    monkeypatch.setattr(batching, "_BLOCK", 1 << 12)
    cfg = replace(cfg, batch_tokens=cfg.batch_tokens and 2000, pool_batches=20)
    cfg = replace(cfg, batch_sentences=cfg.batch_sentences and 80)
    long = longest(count).astype(np.int32)
    tracemalloc.start()
    made = plan_epoch(long, cfg, seed=1, epoch=0)
    kept, peak = (size / count for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    assert len(made) > count / 200
    assert 4 < kept < 4.5, kept
    assert peak < 10, peak


# Files ------------------------------------------------------------------------------------------


def id_store(folder, rows: list[list[int]], name: str = "x") -> IdStore:
    flat = np.array([i for row in rows for i in row], np.int32)
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    (folder / f"{name}.ids").write_bytes(flat.tobytes())
    (folder / f"{name}.ends").write_bytes(ends.tobytes())
    return IdStore(folder / f"{name}.ids", folder / f"{name}.ends", 2**31)


def test_id_store_gives_rows_back(tmp_path):
    rows = [[5, 6, 2], [2], [2**31 - 1, 2]]
    store = id_store(tmp_path, rows)
    assert len(store) == 3
    assert [store[i].tolist() for i in range(3)] == rows
    assert store.lengths().tolist() == [3, 1, 2]
    assert isinstance(store[0], np.memmap)  # mapped, not read
    assert not store[0].flags.writeable
    with pytest.raises(IndexError):
        store[3]


LINES = ["The cat.", "", "naïve – 漢字 😀", "  two  spaces ", "a\u2028b\x85c\rd", "last"]


def test_text_store_is_a_sequence_of_lines(tmp_path):
    r"""Multi-byte characters whole; a line ends at \n and nowhere else."""
    path = tmp_path / "text"
    path.write_bytes("".join(f"{line}\n" for line in LINES).encode())
    text = TextStore(path)
    assert [text[i] for i in range(len(text))] == list(text) == LINES
    assert [text[-i] for i in range(1, len(text) + 1)] == LINES[::-1]
    for cut in ("", ":2", "2:4", "1::2", "::-1", "-2:", "3:99", "4:2"):
        parts = slice(*(int(part) if part else None for part in cut.split(":")))
        assert text[parts] == LINES[parts], cut
    for row in (len(LINES), -len(LINES) - 1):
        with pytest.raises(IndexError):
            text[row]


def test_text_store_names_the_line_that_is_no_text(tmp_path):
    (tmp_path / "text").write_bytes(b"a\nb\nc\xff\nd\n")
    with pytest.raises(RunDirError, match=r"text:3: not valid UTF-8"):
        TextStore(tmp_path / "text")[2:3]
