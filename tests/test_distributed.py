"""Training in several processes: exact on any number of them, and all leave together."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from ranks import Ranks, run_ranks
from runs import composed, run_new, template_pairs, tokenized_run, write_corpus
from storms import Zygote, difference

from seq2seq.config.schema import Stage
from seq2seq.training.distributed import World

DOUBLE = (None, ["double"])


# Shares -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_X4_shares_are_the_batch_and_balanced(size):
    rng = np.random.default_rng(size)
    batches = [np.sort(rng.integers(1, 60, count)) for count in (1, 2, 3, 7, 80)]
    for lengths in (*batches, np.array([3, 3, 3, 4, 500]), np.array([500, 1, 1])):
        shares = [World(rank, size).share(lengths, rank) for rank in range(size)]
        parts = [lengths[share] for share in shares]
        assert np.concatenate(parts).tolist() == lengths.tolist()
        for part in parts:
            assert abs(part.sum() - lengths.sum() / size) <= lengths.max()


# Whole trainings ----------------------------------------------------------------------------------


class Bench:
    """A prepared run to train in any number of processes, and what one process makes of it."""

    def __init__(self, folder: Path, zygote: Zygote) -> None:
        self.folder, self.zygote, self.count = folder, zygote, 0
        self.prepared = tokenized_run(folder, *CHANGES, pairs=120, held_out=8)

    def train(self, size: int, *changes: str, root: Path | None = None, **options) -> Ranks:
        """Train a copy of the run, or go on with one; `self.root` is where."""
        if root is None:
            self.count += 1
            root = Path(shutil.copytree(self.prepared, self.folder / f"{self.count}" / "run"))
        self.root = root
        words = [f"resume={root.name}", "stages=[train]", *changes]
        if size > 1:
            return run_ranks(self.zygote, size, *words, cwd=root.parent, **options)
        hooks = [hook for _, hook in options.pop("hooks", ())]
        child = self.zygote.start(*words, cwd=root.parent, hooks=hooks, **options)
        return Ranks([child], [child.wait()], 0.0)

    def trained(self, size: int, *changes: str, **options) -> Path:
        """Train to the end; return where."""
        ranks = self.train(size, *changes, **options)
        assert ranks.codes == [0] * size, [child.err for child in ranks.children]
        return self.root


CHANGES = ["trainer.batch_tokens=100", "trainer.max_updates=20", "trainer.ema_decay=0.9"]
CHANGES += ["trainer.validate_every=10", "trainer.checkpoint_every=5", "logging.every=1"]
CHANGES += ["logging.tensorboard=false", "trainer.reshuffle=true", "optimizer.lr=0.02"]
CHANGES += ["trainer.clip_norm=0.5", "trainer.normalize=words", "threads=1"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    with Zygote(folder / "zygote") as zygote:
        yield Bench(folder, zygote)


@pytest.fixture(scope="module")
def alone(bench) -> Path:
    """One process, in float64."""
    return bench.trained(1, hooks=[DOUBLE])


def losses(root: Path) -> list[float]:
    rows = [json.loads(line) for line in (root / "metrics.jsonl").read_text("utf-8").splitlines()]
    keys = ("train/loss", "train/grad_norm", "validation/loss", "validation/bleu")
    return [row[key] for row in rows for key in keys if key in row]


def weights(root: Path, update: int = 20) -> dict[str, np.ndarray]:
    path = root / f"checkpoints/update-{update:08d}/model.safetensors"
    return {name: x.numpy() for name, x in safetensors.torch.load_file(path).items()}


def distances(root: Path, other: Path) -> tuple[float, float]:
    """The largest relative differences of two runs: of losses and norms, and of weights."""
    found, expected = losses(root), losses(other)
    worst = max(abs(x - y) / max(1e-3, abs(y)) for x, y in zip(found, expected, strict=True))
    ours, theirs = weights(root), weights(other)
    assert ours.keys() == theirs.keys()
    return worst, max(abs(ours[k] - x).max() / abs(x).max() for k, x in theirs.items())


def assert_same(root: Path, other: Path) -> None:
    loss, weight = distances(root, other)
    assert loss <= 1e-6, loss  # it is summed in float32
    assert weight <= 1e-11, weight


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("size", "hooks"),
    [(1, [(0, ["accumulate", 2])]), (2, []), pytest.param(4, [], marks=pytest.mark.slow)],
)
def test_X1_any_number_of_processes_computes_the_same(bench, alone, size, hooks):
    """Dropout, subword sampling, averaged weights, clipping and the plateau rule are on."""
    assert len(losses(alone)) == 44
    assert_same(bench.trained(size, hooks=[DOUBLE, *hooks]), alone)


@pytest.mark.e2e
def test_X3_X8_X10_L9_three_processes_agree_read_each_pair_once_and_one_writes(bench, alone):
    """The same numbers everywhere; the shares of an update are its batch; rank 0 opens files."""
    hooks = [DOUBLE, (None, ["tell_state"]), (None, ["tell_rows"]), (None, ["tell_writes"])]
    ranks = bench.train(3, hooks=hooks)
    assert ranks.codes == [0] * 3, [child.err for child in ranks.children]
    assert_same(bench.root, alone)

    states = ranks.told("state")
    assert len(states[0]) == 20
    assert states[1] == states[0]
    assert states[2] == states[0]

    updates = zip(*ranks.told("rows"), strict=True)
    read = [row for shares in updates for own in shares for row in own]
    size = len((bench.root / "corpus/train.source").read_text("utf-8").splitlines())
    assert sorted(read[:size]) == [*range(size)], "the first epoch"

    leader, *others = ranks.told("writes")
    assert sum(str(bench.root) in path or path.startswith("run") for path in leader) > 20
    for writes in others:
        assert [path for path in writes if "run" in path.split("/")] == []


@pytest.mark.e2e
def test_X2_the_same_number_of_processes_repeats_bit_for_bit(bench):
    assert difference(bench.trained(2), bench.trained(2)) is None


@pytest.mark.e2e
def test_X4_more_processes_than_rows_and_one_long_sentence(bench, tmp_path):
    """Batches of two pairs and a last one of one, in three processes: some have no share."""
    pairs = template_pairs(29)
    pairs[15] = tuple(" ".join([side.removesuffix(" .")] * 60) + " ." for side in pairs[15])
    changes = ["trainer.batch_tokens=null", "trainer.batch_sentences=2", "data.max_words=1000"]
    changes += ["tokenizer.sampling=0", "data.max_ratio=9"]
    names = write_corpus(tmp_path / "corpus", pairs, 4)
    cfg = composed("debug", [*names, "tokenizer.vocab_size=80", *CHANGES, *changes])
    cfg.stages = [Stage.tokenize]
    prepared = run_new(tmp_path / "run", cfg).root
    assert (prepared / "corpus/train.source").read_text().count("\n") == 21
    roots = []
    for size in (1, 3):
        root = Path(shutil.copytree(prepared, tmp_path / f"{size}" / "run"))
        roots.append(bench.trained(size, root=root, hooks=[DOUBLE]))
    assert_same(*roots)


@pytest.mark.e2e
def test_X5_a_mean_of_means_is_noticed(bench, alone):
    """The division that other programs make is not what one process computes."""
    root = bench.trained(2, hooks=[DOUBLE, (None, ["mean_of_means"])])
    assert distances(root, alone)[1] > 1e-4
