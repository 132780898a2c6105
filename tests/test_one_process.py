"""Rows about several processes and workers, which are not offered: what makes them void.

One process reads, trains and writes; batches are made in it, from ids in flat arrays.
"""

import ast
import subprocess
import sys

import numpy as np
import pytest
import torch
from runs import composed, config_of, run_new, tiny_run
from test_structure import BUILD, MODULES, imports, measuring, within

from seq2seq.data.batching import plan_epoch
from seq2seq.data.prepare import load_pairs, load_tokenizers
from seq2seq.run.directory import RunDir

PARALLEL = ("multiprocessing", "concurrent", "subprocess", "torch.distributed", "joblib")
PARALLEL += ("torch.multiprocessing", "torch.utils.data", "torch.nn.parallel")
STARTS = {"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec", "os.system"}
STARTS |= {"subprocess.Popen"}


def parallel(tree: ast.AST) -> set[str]:
    """What a module takes from the libraries that start processes."""
    spelt = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = {name for name in spelt if within(name, *PARALLEL, *STARTS)}
    return used | {name for name in imports(tree) if within(name, *PARALLEL)}


@pytest.mark.parametrize("name", [n for n in MODULES if n != BUILD and not measuring(n)])
def test_X8_L9_no_module_starts_a_process(name):
    assert not parallel(MODULES[name])


@pytest.mark.parametrize(
    "line",
    [
        "from torch.utils.data import DataLoader",
        "import torch.distributed as dist",
        "torch.nn.parallel.DistributedDataParallel(model)",
        "from concurrent.futures import ProcessPoolExecutor",
        "os.fork()",
    ],
)
def test_X8_a_process_is_noticed(line):
    assert parallel(ast.parse(line))


# The first hook of a process stays until its end, so it asks whether it is wanted.
WATCHED: list[list[str]] = []


def hook(event: str, _arguments: object) -> None:
    if WATCHED and event in STARTS:
        WATCHED[-1].append(event)


@pytest.fixture
def started():
    """The processes that were started meanwhile."""
    if not hasattr(sys, "_seq2seq_watched"):
        sys.addaudithook(hook)
        sys._seq2seq_watched = True
    WATCHED.append([])
    yield WATCHED[-1]
    WATCHED.clear()


def test_X8_the_hook_sees_a_process(started):
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert "subprocess.Popen" in started


@pytest.mark.e2e
def test_X8_a_run_is_one_process(tmp_path, started):
    """No rank but the one that holds the lock, so no other one writes."""
    few = ["trainer.max_updates=2", "trainer.validate_every=1", "stages=[tokenize,train,decode]"]
    run = run_new(tmp_path / "run", composed("debug", few))
    assert (run.root / "decode" / "test.txt").exists()
    assert started == []


@pytest.mark.e2e
def test_L9_the_order_of_batches_knows_no_workers(tmp_path_factory):
    """The same whatever reads meanwhile, from one flat array a side (no list of arrays to copy)."""
    run = RunDir(tiny_run(tmp_path_factory.getbasetemp()))
    tokenizers = load_tokenizers(run, config_of(run.root))
    cfg = composed("debug").trainer
    seen = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            pairs = load_pairs(run, "train", tokenizers)
            for side in (pairs.src, pairs.tgt):
                assert type(side._ids) is type(side._ends) is np.memmap
                assert (side._ids.ndim, side._ids.dtype) == (1, np.int32)
            plan = plan_epoch(pairs.src.lengths(), pairs.tgt.lengths(), cfg, seed=1, epoch=1)
            batches = [pairs.batch(rows, 0) for rows in plan]
            seen.append([(b.src.tolist(), b.tgt.tolist()) for b in batches])
    finally:
        torch.set_num_threads(1)
    assert sum(len(src) for src, _ in seen[0]) == len(pairs)
    assert seen[0] == seen[1] == seen[2]
