"""Rows about several processes and workers, which are not offered: what makes them void.

One process reads, trains and writes; batches are made in it, from ids in flat arrays.
"""

import ast

import pytest
from test_structure import BUILD, COMPILER, MODULES, PROVENANCE, imports, measuring, within

PARALLEL = ("multiprocessing", "concurrent", "subprocess", "torch.distributed", "joblib")
PARALLEL += ("torch.multiprocessing", "torch.utils.data", "torch.nn.parallel")
STARTS = {"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec", "os.system"}
STARTS |= {"subprocess.Popen"}


def parallel(tree: ast.AST) -> set[str]:
    """What a module takes from the libraries that start processes."""
    spelt = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = {name for name in spelt if within(name, *PARALLEL, *STARTS)}
    return used | {name for name in imports(tree) if within(name, *PARALLEL)}


def test_X8_L9_no_module_starts_a_process():
    for name, tree in MODULES.items():
        assert name in (BUILD, COMPILER, PROVENANCE) or measuring(name) or not parallel(tree), name


@pytest.mark.parametrize(
    "line",
    ["from torch.utils.data import DataLoader", "import torch.distributed as dist", "os.fork()"],
)
def test_X8_a_process_is_noticed(line):
    assert parallel(ast.parse(line))
