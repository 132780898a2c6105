"""Several processes of one training, as torchrun starts them; and what they do differently.

They are children of a `Zygote`, so that each begins at once. The store is a process of its own, as
with torchrun, so that it outlives any rank.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storms import Child, Zygote


@dataclass(frozen=True)
class Ranks:
    """What became of the processes of a training, by rank."""

    children: Sequence[Child]
    codes: Sequence[int]
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What was said to a user at the end, by any of them."""
        text = "".join(child.err for child in self.children)
        assert "Traceback" not in text, text
        return [line for line in text.splitlines() if line.startswith(("error: ", "stopped: "))]

    def told(self, name: str) -> list[Any]:
        """What each left in a file of this name."""
        return [json.loads((child.folder / name).read_text()) for child in self.children]


@contextlib.contextmanager
def started(
    zygote: Zygote, size: int, *arguments: str, cwd: Path, hooks: Any = (), marks: Any = ()
) -> Iterator[list[Child]]:
    """Start `train.py ARGUMENTS` so many times. `hooks` are (rank or None for all, hook)."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(size)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    children = []
    for rank in range(size):
        own = [hook for at, hook in hooks if at in (None, rank)]
        environment = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        options = {"hooks": own, "environment": environment, "marks": rank in marks}
        children.append(zygote.start(*arguments, cwd=cwd, **options))
    yield children
    del store


def run_ranks(
    zygote: Zygote,
    size: int,
    *arguments: str,
    cwd: Path,
    hooks: Any = (),
    then: Callable[[list[Child]], None] | None = None,
    marks: Any = (),
    timeout: float = 120,
) -> Ranks:
    """Run them to their end; `then` is done to them meanwhile."""
    with started(zygote, size, *arguments, cwd=cwd, hooks=hooks, marks=marks) as children:
        if then is not None:
            then(children)
        start = time.monotonic()
        codes = [child.wait(timeout) for child in children]
        return Ranks(children, codes, time.monotonic() - start)


# Hooks: called in a rank before it begins, with its folder ----------------------------------------


def double(_: Path) -> None:
    """Train in float64."""
    from seq2seq.cli import stages

    new_model = stages.new_model
    stages.new_model = lambda *arguments: new_model(*arguments).double()


def accumulate(_: Path, parts: int) -> None:
    """Compute every update in parts, which a resumed run could not change."""
    from seq2seq.training import trainer

    gradient = trainer.accumulated_gradient
    trainer.accumulated_gradient = lambda *given: gradient(*given[:4], parts, *given[5:])


def reduce(_: Path, precision: str) -> None:
    """Sum gradients in this precision, which a resumed run could not change."""
    from seq2seq.config.schema import Precision
    from seq2seq.training import trainer

    flat = trainer.FlatGradient
    trainer.FlatGradient = lambda model, world, _: flat(model, world, Precision(precision))


def mean_of_means(_: Path) -> None:
    """What many do: divide by the tokens of the own share, then take the mean over processes."""
    from seq2seq.training import trainer

    gradient = trainer.accumulated_gradient

    def of_own_tokens(model: Any, objective: Any, batch: Any, *given: Any) -> Any:
        *others, (sentences, _) = given
        whole = sentences, 2 * int(batch.tgt_mask.sum()) if batch else 0
        return gradient(model, objective, batch, *others, whole)

    trainer.accumulated_gradient = of_own_tokens


def tell_state(folder: Path) -> None:
    """Write down, after each update, what every process must agree on."""
    from seq2seq.training.trainer import Trainer

    update, rows = Trainer._update, []

    def told(self: Trainer, *arguments: Any) -> bool:
        stop = update(self, *arguments)
        p = self.progress
        average = sum(w.double().sum().item() for w in self.state.average.weights.values())
        weights = sum(w.detach().double().sum().item() for w in self.model.parameters())
        rate = self.state.optimizer.param_groups[0]["lr"]
        norms = [w.grad.double().norm().item() for w in self.model.parameters()]
        chosen = (p.best_score, p.best_update, p.waiting, p.reductions, p.plateau_waiting)
        rows.append([p.update, p.epoch, p.batch, p.words, rate, weights, average, norms, chosen])
        (folder / "state").write_text(json.dumps(rows))
        return stop

    Trainer._update = told


def tell_writes(folder: Path) -> None:
    """Write down which files of the run are opened for writing, made, renamed or deleted."""
    changes = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link")
    found: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | Path | bytes):
            path, _mode, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                found.append(f"{os.fsdecode(path)}")
        elif event in changes:
            found.append(f"{arguments[0]}")

    sys.addaudithook(hook)
    exit_ = os._exit

    def told(code: int) -> None:
        (folder / "writes").write_text(json.dumps([*found]))
        exit_(code)

    os._exit = told


def tell_rows(folder: Path) -> None:
    """Write down which entries of the plan this process computes."""
    from seq2seq.training.trainer import Trainer

    entries, rows = Trainer._entries, []

    def told(self: Trainer, batch: Sequence[int], rank: int | None) -> slice:
        own = entries(self, batch, rank)
        rows.append(batch[own])
        (folder / "rows").write_text(json.dumps(rows))
        return own

    Trainer._entries = told


def tell_lines(folder: Path) -> None:
    """Leave the lines that this process translates, from 0."""
    from seq2seq.cli import decode_stage

    translate = decode_stage.translate
    lines: list[int] = []

    def told(model: Any, tokenizers: Any, own: Sequence[str], cfg: Any, feed: Any, **rest: Any):
        lines.extend(range(feed.first - 1, feed.first - 1 + len(own)))
        (folder / "lines").write_text(json.dumps(lines))
        return translate(model, tokenizers, own, cfg, feed, **rest)

    decode_stage.translate = told


def short_rounds(_: Path) -> None:
    """Share one batch of lines at a time, times the number of processes."""
    from seq2seq.cli import decode_stage

    decode_stage.CHUNK_BATCHES = 1


def tell_bytes(folder: Path) -> None:
    """Write down what this process sends in each sum of gradients, as the system counts it."""
    from seq2seq.training.distributed import FlatGradient

    add, sent = FlatGradient.add_, []

    def written() -> int:
        return int(Path("/proc/self/io").read_text().split("wchar: ")[1].split()[0])

    def told(self: FlatGradient, *arguments: Any) -> Any:
        before = written()
        total = add(self, *arguments)
        sent.append(written() - before)
        (folder / "sent").write_text(json.dumps(sent))
        return total

    FlatGradient.add_ = told


def fail(_: Path, what: str, update: int) -> None:
    """Fail in the gradient of an update."""
    import torch

    from seq2seq.training import trainer

    gradient, count = trainer.accumulated_gradient, 0

    def failing(model: Any, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        found = gradient(model, *arguments)
        if count == update:
            match what:
                case "bug":
                    raise ZeroDivisionError("a bug")
                case "memory":
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                case "hang":
                    time.sleep(6)
                case "die":
                    os.kill(os.getpid(), 9)
                case "loss":
                    found.total.fill_(float("nan"))
                case "gradient":
                    next(p for p in model.parameters() if p.grad is not None).grad.fill_(
                        float("nan")
                    )
        return found

    trainer.accumulated_gradient = failing


def impatient(_: Path, silence: float, answer: float) -> None:
    """Wait less long for the others."""
    from seq2seq.training import distributed

    distributed.SILENCE, distributed.ANSWER = silence, answer
