"""Training in several processes: exact on any number of them, and all leave together."""

import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import test_minimum_risk as risk
import torch
from conftest import FAMILY, TINY, random_batch, tiny_model
from ranks import Ranks, run_ranks
from runs import (
    ROOT,
    composed,
    environment,
    run_new,
    template_pairs,
    tokenized_run,
    write_corpus,
)
from storms import Zygote, difference
from test_guided_alignment import GUIDED, linked_batch
from test_objective import SIZES

from seq2seq.config.registry import build
from seq2seq.config.schema import (
    Candidates,
    Config,
    Normalize,
    Precision,
    RDropConfig,
    SimCutConfig,
    Stage,
)
from seq2seq.model.draws import name_sites
from seq2seq.training.distributed import FlatGradient, World
from seq2seq.training.gradient import accumulated_gradient
from seq2seq.training.objective import draw_keys

TRIALS = 50  # of the storm
DOUBLE = (None, ["double"])


def slow(*case: object) -> object:
    return pytest.param(*case, marks=pytest.mark.slow)


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


DROPPED = {"embedding_dropout": 0.3}
OBJECTIVES = {
    "rdrop": lambda: (tiny_model(2, **DROPPED), random_batch(2, SIZES), with_(RDropConfig())),
    "simcut": lambda: (tiny_model(2, **DROPPED), random_batch(2, SIZES), with_(SimCutConfig())),
    "hard": lambda: (tiny_model(3, attention=FAMILY["hard"]), random_batch(3, SIZES), TINY),
    "guided": lambda: (tiny_model(4, **DROPPED), linked_batch(4), with_(GUIDED)),
    "risk": lambda: (*risk.toy(tiny_model), risk.config(candidates=Candidates.samples, count=3)),
}
"""A model, a batch and a config for each loss that is more than a sum over tokens."""


def with_(objective: object) -> Config:
    return replace(TINY, objective=objective)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("normalize", [Normalize.none, Normalize.words, Normalize.sentences])
def test_X1_every_objective_is_the_sum_of_its_shares(name, normalize):
    model, batch, cfg = OBJECTIVES[name]()
    cfg = replace(cfg, trainer=replace(cfg.trainer, normalize=normalize, label_smoothing=0.1))
    letters = (risk.Letters(), risk.Letters())
    objective = build(cfg.objective, cfg, letters if name == "risk" else ())
    name_sites(model.train())
    count, tokens = batch.num_sentences, int(batch.tgt_mask.sum())
    keys = draw_keys(3, 5, count, objective.passes)

    def gradient(part, own=slice(None), whole=None) -> dict[str, torch.Tensor]:
        accumulated_gradient(model, objective, part, keys[own], 1, cfg, whole)
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    expected, found = gradient(batch), {}
    lengths = (batch.src_mask.sum(dim=1) + batch.tgt_mask.sum(dim=1)).numpy()
    for rank in range(4):
        own = World(rank, 4).share(lengths, rank)
        part = batch.each(lambda tensor, own=own: tensor[own]) if range(count)[own] else None
        for n, grad in gradient(part, own, (count, tokens)).items():
            found[n] = found.get(n, 0) + grad
    assert found.keys() == expected.keys()
    for n, grad in expected.items():
        torch.testing.assert_close(found[n], grad, rtol=1e-9, atol=1e-12)


class Twins(World):
    """Two processes with the same gradient."""

    def __init__(self) -> None:
        super().__init__(0, 2)

    def add_(self, tensor):
        return tensor.mul_(2)


@pytest.mark.parametrize(("precision", "bound", "size"), [("fp32", 0, 4), ("bf16", 2**-8, 2)])
def test_X14_gradients_are_summed_in_the_precision_asked_for(precision, bound, size):
    model = torch.nn.Linear(7, 5)
    own = [torch.randn_like(p) for p in model.parameters()]
    for p, grad in zip(model.parameters(), own, strict=True):
        p.grad = grad.clone()
    flat = FlatGradient(model, Twins(), Precision(precision))
    total = flat.add_(torch.tensor(math.pi), [1, 1])
    assert total == 2 * torch.tensor(math.pi)
    for p, grad in zip(model.parameters(), own, strict=True):
        error = (p.grad - 2 * grad).abs() / (2 * grad).abs()
        assert error.max() <= bound
        assert (error.max() > 0) == (bound > 0)
    assert flat.bytes_sent == size * sum(p.numel() for p in model.parameters()) + size * (size == 4)


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
def both(bench) -> Path:
    """Two processes, in float32."""
    return bench.trained(2)


@pytest.fixture(scope="module")
def alone(bench) -> Path:
    """One process, in float64."""
    return bench.trained(1, hooks=[DOUBLE])


LOSSES = ("train/loss", "train/grad_norm", "validation/loss", "validation/bleu")


def losses(root: Path, *keys: str) -> list[float]:
    rows = [json.loads(line) for line in (root / "metrics.jsonl").read_text("utf-8").splitlines()]
    keys = keys or LOSSES
    return [row[key] for row in rows for key in keys if key in row]


def weights(root: Path) -> dict[str, np.ndarray]:
    [*_, path] = sorted(root.glob("checkpoints/update-*/model.safetensors"))
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
    [slow(1, [(0, ["accumulate", 2])]), (2, []), slow(4, [])],
)
def test_X1_any_number_of_processes_computes_the_same(bench, alone, size, hooks):
    """Dropout, subword sampling, averaged weights, clipping and the plateau rule are on."""
    assert len(losses(alone)) == 44
    assert_same(bench.trained(size, hooks=[DOUBLE, *hooks]), alone)


@pytest.mark.e2e
def test_X3_X8_X10_X15_L9_three_processes_agree_and_one_writes(bench, alone):
    """The same numbers everywhere; the shares of an update are its batch; rank 0 opens files."""
    told = ("tell_state", "tell_rows", "tell_writes", "tell_bytes")
    ranks = bench.train(3, hooks=[DOUBLE, *((None, [name]) for name in told)])
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

    counted = re.search(r"each sends ([\d,]+) bytes", ranks.children[0].err)
    for sent in ranks.told("sent"):
        assert np.median(sent) == pytest.approx(int(counted[1].replace(",", "")), rel=0.02)

    leader, *others = ranks.told("writes")
    assert sum(str(bench.root) in path or path.startswith("run") for path in leader) > 20
    for writes in others:
        assert [path for path in writes if "run" in path.split("/")] == []


@pytest.mark.e2e
def test_X2_the_same_number_of_processes_repeats_bit_for_bit(bench, both):
    assert difference(bench.trained(2), both) is None


@pytest.mark.slow
@pytest.mark.e2e
def test_X14_sums_in_bfloat16_train_as_well(bench, both):
    """Over twenty updates at a high rate losses stay within 1% of those with sums in float32."""
    root = bench.trained(2, hooks=[(None, ["reduce", "bf16"])])
    found, expected = (np.array(losses(path, "train/loss")) for path in (root, both))
    assert len(expected) == 20
    worst = np.abs(found / expected - 1).max()
    assert 0 < worst < 0.01, worst


@pytest.mark.e2e
def test_X4_more_processes_than_rows_and_one_long_sentence(bench, tmp_path):
    """Batches of two pairs and a last one of one, in three processes: some have no share."""
    pairs = template_pairs(29)
    pairs[15] = tuple(" ".join([side.removesuffix(" .")] * 60) + " ." for side in pairs[15])
    changes = ["trainer.batch_tokens=null", "trainer.batch_sentences=2", "data.max_words=1000"]
    changes += ["tokenizer.sampling=0", "data.max_ratio=9", "trainer.max_updates=11"]
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


# Decoding together --------------------------------------------------------------------------------


@pytest.mark.e2e
def test_X9_processes_share_the_lines_of_the_test_set(bench, both):
    """In two rounds of lines the bytes are those of one process; samples have the same draws."""
    stages = ["stages=[decode,evaluate]", "decode.batch_sentences=2", "decode.sample=true"]
    roots = []
    for size in (1, 3):
        root = Path(shutil.copytree(both, bench.folder / f"decoded{size}" / "run"))
        hooks = [(None, ["short_rounds"]), (None, ["tell_lines"])]
        ranks = bench.train(size, *stages, root=root, hooks=hooks)
        assert ranks.codes == [0] * size, [child.err for child in ranks.children]
        roots.append(root)
    assert len((roots[0] / "decode/test.txt").read_text("utf-8").splitlines()) == 8
    for name in ("decode/test.txt", "decode/test.jsonl", "decode/flags.json", "scores.json"):
        assert (roots[0] / name).read_bytes() == (roots[1] / name).read_bytes(), name
    assert ranks.told("lines") == [[0, 1], [2, 3, 6], [4, 5, 7]]


@pytest.mark.e2e
def test_X6_a_signal_to_one_stops_decoding_in_all(bench, both):
    """It interrupts one process in its search; the others hear of it when they have their part."""

    def stop(children) -> None:
        assert children[0].until("+file decode/test.txt")
        children[1].send(signal.SIGTERM)

    root = Path(shutil.copytree(both, bench.folder / "cut" / "run"))
    hooks = [(1, ["slow_search", 60]), (None, ["short_rounds"])]
    found = bench.train(2, "stages=[decode]", root=root, hooks=hooks, then=stop, marks=(0,))
    assert found.codes == [143, 143], [child.err for child in found.children]
    [line] = found.lines
    assert line.startswith("stopped: run: interrupted in stage decode (SIGTERM). Continue with: ")
    assert not (root / "decode").exists() or not [*(root / "decode").iterdir()]


# Leaving together ---------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("what", "code", "parts"),
    [
        ("bug", 70, ["rank 1 of 2 on ", "ZeroDivisionError: a bug", "run/crash/"]),
        slow("memory", 8, ["run: out of memory at update 7 on rank 1 with ", " pairs of up to "]),
        slow("loss", 6, ["run: loss is nan at update 7 (batch of ", "on rank 1)"]),
        ("gradient", 6, ["run: gradient norm is nan at update 7", ", first in ", "on rank 1)"]),
        ("die", 5, ["rank 1 of 2 on ", "does not answer any more. Resume the run"]),
        slow("hang", 5, ["rank 1 of 2 on ", "does not answer for 3 s. Resume the run"]),
    ],
)
def test_X7_one_process_fails_and_all_leave(bench, both, what, code, parts):
    """Within 30 s, with one line that names the rank; resumed, nothing is lost by it."""
    hooks = [(1, ["fail", what, 7]), (None, ["impatient", 3.0, 2.0])]
    ranks = bench.train(2, hooks=hooks)
    assert [*ranks.codes] == [code, -9 if what == "die" else code]
    assert ranks.seconds < 30
    [line] = ranks.lines
    for part in parts:
        assert part in line
    failures = bench.root / "crash/failures.json"
    assert failures.exists() == (code in (6, 70))
    if what == "bug":
        [trace] = bench.root.glob("crash/*.txt")
        assert "raise ZeroDivisionError" in trace.read_text("utf-8")
    if what in ("die", "memory"):
        assert difference(bench.trained(2, root=bench.root), both) is None


@pytest.mark.e2e
def test_X3_a_run_goes_on_in_any_number_of_processes(bench, alone):
    """Two, of which one dies; three, of which one dies; one. Each change is logged and recorded."""
    sizes, root = (2, 3, 1), None
    for size, update in zip(sizes, (7, 6, 0), strict=True):
        hooks = [DOUBLE, (size - 1, ["fail", "die", update]), (None, ["impatient", 60.0, 2.0])]
        ranks = bench.train(size, root=root, hooks=hooks if update else [DOUBLE])
        root = bench.root
        assert ranks.codes == ([5] * (size - 1) + [-9] if update else [0])
        if size != 2:
            changed = f"processes {5 - size if size == 3 else 3} -> {size} (the same batches and"
            assert f"from here on not bit-exact: {changed}" in ranks.children[0].err
    assert_same(root, alone)
    restarts = json.loads((root / "run.json").read_text("utf-8"))["restarts"]
    assert [restart["processes"] for restart in restarts] == [*sizes]


@pytest.mark.slow
def test_X3_K1_any_rank_killed_anywhere(bench, both, alone, tally):
    """In an update, a validation, a save: with as many processes the same bits, else the same."""
    held = 0
    for trial in range(TRIALS):
        rng = random.Random(trial)
        size, rank = (3, rng.randrange(3)) if trial % 2 else (2, rng.randrange(2))
        double = [DOUBLE] * (size == 3)

        def kill(children, rank=rank, rng=rng) -> None:
            for _ in range(rng.randrange(5, 90)):
                if children[rank].next_mark() is None:
                    break
            time.sleep(rng.uniform(0, 0.02))
            children[rank].send(signal.SIGKILL)

        hooks = [*double, (None, ["impatient", 60.0, 2.0])]
        ranks = bench.train(size, hooks=hooks, then=kill, marks=(rank,))
        root = bench.root
        assert -9 in ranks.codes
        if size == 2:
            held += difference(bench.trained(2, root=root), both) is None
        else:
            assert_same(bench.trained(rng.choice([1, 2, 3]), root=root, hooks=double), alone)
            held += 1
    tally("X3", "SIGKILL to any rank at a random place, then resumed", held, TRIALS)
    assert held == TRIALS


@pytest.mark.e2e
@pytest.mark.parametrize(("ranks", "mark"), [((1,), "+update"), slow((0, 1), "+validation")])
def test_X6_a_signal_to_one_or_all_stops_all(bench, both, ranks, mark):
    """One checkpoint, the exit code of the signal, and the same result once resumed."""

    def stop(children) -> None:
        assert children[ranks[0]].until(mark, 2)
        for rank in ranks:
            children[rank].send(signal.SIGTERM)

    found = bench.train(2, then=stop, marks=(ranks[0],))
    assert found.codes == [143, 143], [child.err for child in found.children]
    [line] = found.lines
    assert line.startswith("stopped: run: saved at update ")
    assert "(SIGTERM). Continue with: " in line
    assert difference(bench.trained(2, root=bench.root), both) is None


# torchrun itself ----------------------------------------------------------------------------------


ONE_HOST = ("--standalone", "--nproc-per-node=2")


@contextmanager
def torchrun(bench: Bench, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start torchrun; yield it, and the file that its stderr goes to."""
    folder = bench.folder / "torchrun"
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", *words]
    path = folder / f"{len([*folder.iterdir()])}.err"
    with path.open("wb") as err:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stderr=err, stdout=subprocess.DEVNULL
        )
        try:
            yield process, path
        finally:
            process.terminate()
            process.wait()


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)


def begun(folder: Path, name: str) -> list[str]:
    """What makes in a folder the run that a bench trains."""
    names = write_corpus(folder / "corpus", template_pairs(120), 8)
    stages = ["stages=[tokenize,train]", "tokenizer.vocab_size=100", f"run_dir={name}"]
    return [str(ROOT / "train.py"), "+experiment=debug", *names, *CHANGES, *stages]


@pytest.mark.slow
def test_X11_after_a_kill_torchrun_starts_again_and_the_run_goes_on(bench, both):
    words = [*ONE_HOST, "--max-restarts=2", *begun(bench.folder / "again", "again")]
    root = bench.folder / "torchrun/again"
    with torchrun(bench, *words) as (process, err):
        wait_for(root / "checkpoints/update-00000005", process)
        ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(ranks[-1]), signal.SIGKILL)
        assert process.wait(500) == 0, err.read_text("utf-8")
    assert err.read_text("utf-8").count("continuing from ") == 1
    assert difference(root, both) is None


@pytest.mark.slow
def test_X12_two_nodes_on_the_loopback_address(bench, both):
    """Each is a torchrun with one process; they meet at an address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"--rdzv-endpoint=127.0.0.1:{free.getsockname()[1]}"
    words = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=x12", address]
    words += begun(bench.folder / "nodes", "nodes")
    with torchrun(bench, *words) as (one, err), torchrun(bench, *words) as (other, _):
        assert one.wait(500) == 0, err.read_text("utf-8")
        assert other.wait(60) == 0
    assert difference(bench.folder / "torchrun/nodes", both) is None


@pytest.mark.slow
def test_X6_sigterm_to_torchrun_stops_the_run(bench, both):
    """torchrun passes it on and exits with 1; the run is saved once and goes on."""
    root = bench.folder / "torchrun/stopped"
    words = [*ONE_HOST, *begun(bench.folder / "stopped", "stopped")]
    with torchrun(bench, *words) as (process, err):
        wait_for(root / "checkpoints/update-00000005", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(500) == 1
    said = err.read_text("utf-8").splitlines()
    [line] = [line for line in said if line.startswith("stopped: ")]
    assert "(SIGTERM). Continue with: " in line
    assert difference(bench.trained(2, root=root), both) is None
