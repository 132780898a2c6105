"""Several processes that train one model together, started by torchrun.

Each process holds the whole model and takes its share of every batch. Counts are summed before the
backward pass and gradients after it, so all processes make the same optimizer step; in between they
agree whether to go on. torch.distributed does the sums: gloo on CPUs, NCCL on GPUs. Messages go
through the store of torchrun, which also tells who is missing when a process dies or falls silent.
"""

import json
import logging
import os
import signal
import socket
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from seq2seq.config.schema import Config, Precision
from seq2seq.data.store import Lengths
from seq2seq.run.errors import (
    InternalError,
    MemoryLimitError,
    PlatformError,
    UserError,
    internal_error,
    print_error,
)
from seq2seq.run.memory import ADVICE, OutOfMemory, is_out_of_memory
from seq2seq.run.naming import CONFIG
from seq2seq.run.signals import Interrupted, StopRequest

log = logging.getLogger(__name__)
T = TypeVar("T")
E = TypeVar("E", bound=UserError)

SILENCE = 600.0
"""Seconds that processes wait for one that does not come to an exchange."""
ANSWER = 10.0
"""Seconds to answer a roll call, or for the leading process to pass on a message."""
_SLICE = timedelta(seconds=0.25)
"""Time between two checks of signals and messages during a wait."""
_RUN = "seq2seq/run"
_SLICE_IS_OVER = "Operation timed out!"
_RESUME = "Resume the run; any number of processes will do."


class LostError(PlatformError):
    """A process has died or fallen silent."""


class ElsewhereError(Exception):
    """A bug in another process, as raised in the one that leads; its note is the traceback."""


class World:
    """The processes of a training. The default is one process, which exchanges nothing.

    Rank 0 leads: it alone writes files. `store` is torchrun's, anew after each restart; `lasting`
    is the same without what is forgotten at a restart.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, store: Any = None, lasting: Any = None
    ) -> None:
        self.rank, self.size, self._store, self._lasting = rank, size, store, lasting
        self._speaker = 0  # the rank that prints an error
        self._agreed = False  # the error was raised in every process, or is another's

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def share(self, lengths: Lengths, rank: int) -> slice:
        """Return the entries of a batch that a process takes, given the tokens (B,) of all.

        Shares are contiguous, so that sentences of similar length stay together, and each is within
        a sentence of the mean. A share may be empty.
        """
        # An entry is in the share in which the middle of its tokens lies.
        middles = 2 * np.cumsum(lengths) - lengths
        owners = middles * self.size // (2 * lengths.sum())
        return slice(*np.searchsorted(owners, [rank, rank + 1]).tolist())

    def part_of(self, count: int) -> slice:
        """Return which of `count` lines this process takes."""
        return slice(*(count * rank // self.size for rank in (self.rank, self.rank + 1)))

    def interruptible(self, stop: StopRequest) -> AbstractContextManager[None]:
        """Allow `Interrupted` in a process that is alone; of several, none may leave alone."""
        return stop.interruptible() if self.size == 1 else nullcontext()

    # Exchanges: every process has to take part ---------------------------------------------------

    def sums(self, numbers: Sequence[int]) -> list[int]:
        """Return the sum of each integer over all processes."""
        return self._reduced(numbers, dist.ReduceOp.SUM)

    def highest(self, numbers: Sequence[int]) -> list[int]:
        """Return the maximum of each integer over all processes."""
        return self._reduced(numbers, dist.ReduceOp.MAX)

    def _reduced(self, numbers: Sequence[int], by: Any) -> list[int]:
        if self.size == 1:
            return [*numbers]
        tensor = torch.tensor(numbers, dtype=torch.int64)
        self._wait(dist.all_reduce(tensor, by, async_op=True))
        return [int(number) for number in tensor]

    def agreed(self, stop: StopRequest) -> StopRequest:
        """Return a request with the signal that a process received; not every one did."""
        [number] = self.highest([stop.signal or 0])
        request = StopRequest()
        request.signal = signal.Signals(number) if number else None
        return request

    def add_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes."""
        if self.size > 1:
            work = dist.all_reduce(tensor, async_op=True)
            work.wait() if tensor.is_cuda else self._wait(work)  # a GPU waits by itself
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Return the JSON values of all processes, by rank."""
        if self.size == 1:
            return [value]
        data = json.dumps(value).encode()
        sizes = [len(data) * (rank == self.rank) for rank in range(self.size)]
        ends = [*accumulate(self.sums(sizes), initial=0)]
        every = np.zeros(ends[-1], np.uint8)
        every[ends[self.rank] : ends[self.rank + 1]] = np.frombuffer(data, np.uint8)
        self.add_(torch.from_numpy(every))
        return [json.loads(every[start:stop].tobytes()) for start, stop in pairwise(ends)]

    def _wait(self, work: Any) -> None:
        """Finish an exchange; meanwhile handle signals, and look for messages and silence."""
        start = time.monotonic()
        while True:
            try:
                work.wait(_SLICE)
                return
            except RuntimeError as error:
                if work.is_completed() and str(error) != _SLICE_IS_OVER:
                    self._call_roll(error)
            self._look(silent=time.monotonic() - start > SILENCE)

    # Messages through the store ------------------------------------------------------------------

    def tell(self, name: str, value: Any = None) -> None:
        """Leave a JSON value for the others, who may be late for it, unlike for an exchange."""
        if self.size > 1:
            self._store.set(name, json.dumps(value))

    def told(self, name: str) -> Any:
        """Return what the leading process tells; wait for as long as it is at work."""
        while not self._has(name):
            self._look()
            time.sleep(_SLICE.total_seconds())
        return json.loads(self._store.get(name))

    def meet(self, name: str) -> None:
        """Wait until the leading process, which may write files meanwhile, comes here too."""
        self.tell(name) if self.leads else self.told(name)

    def remember(self, root: Path) -> None:
        """Note the directory of the run for a restart by torchrun, whose store outlives it."""
        self._lasting.set(_RUN, str(root.resolve()))

    def begun(self) -> Path | None:
        """Return the run that the processes worked on before torchrun restarted them."""
        restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        if not restarts or not self._lasting.check([_RUN]):
            return None
        root = Path(self._lasting.get(_RUN).decode())
        return root if (root / CONFIG).exists() else None

    def _has(self, name: str) -> bool:
        try:
            return bool(self._store.check([name]))
        except dist.DistError as error:  # it is in the process that leads, or in torchrun
            self._speaker = self.rank
            raise LostError("rank 0", "does not answer, nor does its host", _RESUME) from error

    def _look(self, *, silent: bool = False) -> None:
        """Leave if another process has failed, is missing, or is being looked for."""
        if self._has("failure"):
            self._follow(json.loads(self._store.get("failure")))
        if silent or self._has("roll"):
            self._call_roll(None)

    def _call_roll(self, error: RuntimeError | None) -> NoReturn:
        """Find out who is missing, and leave.

        Raises:
            LostError: names the ranks that do not answer.
        """
        self.tell("roll")
        self.tell(f"here/{self.rank}")
        end, missing = time.monotonic() + ANSWER, [*range(self.size)]
        while missing and time.monotonic() < end:
            time.sleep(0.1)
            if self._has("failure"):  # it left with a message
                self._follow(json.loads(self._store.get("failure")))
            missing = [rank for rank in missing if not self._has(f"here/{rank}")]
        self._agreed = True
        if not missing:
            what = f"a connection was lost ({' '.join(str(error).split())[:200]})"
            raise LostError("torch.distributed", what, _RESUME)
        self._speaker = min({*range(self.size)} - {*missing})
        names = ", ".join(self._name(rank) for rank in missing)
        why = f"for {SILENCE:g} s" if error is None else "any more"
        raise LostError(names, f"does not answer {why}", _RESUME)

    def _name(self, rank: int) -> str:
        host = json.loads(self._store.get(f"host/{rank}")) if self._has(f"host/{rank}") else "?"
        return f"rank {rank} of {self.size} on {host}"

    def _follow(self, report: dict[str, Any]) -> NoReturn:
        """Leave because another process has failed.

        Raises:
            UserError: its error.
            ElsewhereError: a bug there.
        """
        self._agreed = True
        if report["traceback"] and self.leads:
            bug = ElsewhereError(f"{self._name(report['rank'])}: {report['what']}")
            bug.add_note(report["traceback"])
            raise bug
        kinds = {kind.__name__: kind for kind in UserError.__subclasses__()}
        where = f"{self._name(report['rank'])}: {report['where']}"
        kind = kinds.get(report["kind"], UserError)
        raise kind(where, report["what"], report["fix"], report["code"])

    def part(self) -> None:
        """Close the connections; what follows is the work of the leading process."""
        if self.size > 1:
            dist.destroy_process_group()

    # Leaving -------------------------------------------------------------------------------------

    def together(self, error: E) -> E:
        """Return an error that every process raises here; only the leading one will print it."""
        self._agreed = True
        return error

    def leave(self, error: UserError) -> int:
        """Let the others know of the error that ends this process; return the exit code.

        One process prints it: the one that leads, or this one if that does not react.
        """
        if self.size == 1:
            return print_error(error)
        try:
            if not self._agreed:
                self._store.compare_set("failure", "", json.dumps(self._report(error)))
            if self.rank != self._speaker:
                # Not earlier than the leading process, which may be saving: torchrun ends all
                # processes once the first has ended.
                end = time.monotonic() + (SILENCE if self._agreed else ANSWER)
                while time.monotonic() < end:
                    if self._has("left"):
                        return error.exit_code
                    time.sleep(0.05)
            code = print_error(self._own(error) if self.rank else error)
            self.tell("left")
        except (dist.DistError, LostError):  # the store is gone, too, with the process that leads
            return error.exit_code if self._agreed else print_error(self._own(error))
        return code

    def _own(self, error: UserError) -> UserError:
        if isinstance(error, LostError):
            return error
        where = f"rank {self.rank} of {self.size}: {error.where}"
        return type(error)(where, error.what, error.fix, error.exit_code)

    def _report(self, error: UserError) -> dict[str, Any]:
        what, lines, cause = error.what, "", error.__cause__
        if isinstance(error, InternalError) and cause is not None:
            what = f"{type(cause).__name__}: {cause}"
            lines = "".join(traceback.format_exception(cause))
        kind = type(error).__name__
        where = {"rank": self.rank, "where": error.where, "kind": kind, "traceback": lines}
        return where | {"what": what, "fix": error.fix, "code": error.exit_code}

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Log warnings of a process that does not lead to stderr, and convert a bug to one line.

        Raises:
            MemoryLimitError: memory ran out, and no more specific error was raised.
            InternalError: a bug.
        """
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(f"rank {self.rank}: %(message)s"))
        logger = logging.getLogger("seq2seq")
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryLimitError("training", "out of memory", ADVICE) from None
            raise internal_error("training", error, "its traceback") from error
        finally:
            logger.removeHandler(handler)

    def log_shares(self, cfg: Config, device: torch.device, sent: int) -> None:
        """Log the processes with their devices, and for each its share and the bytes it sends.

        Raises:
            PlatformError: two processes would use the same GPU.
        """
        # Who is here, and on which device
        name = str(device)
        if device.type == "cuda":
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
            name = f"cuda:{torch.cuda.current_device()} ({torch.cuda.get_device_name()}), "
            name += f"CUDA_VISIBLE_DEVICES={visible}"
        local = os.environ.get("LOCAL_RANK", "?")
        every = self.gather([socket.gethostname(), name, local])
        # The share of each
        trainer = cfg.trainer
        if trainer.batch_sentences is not None:
            whole, unit = trainer.batch_sentences, "sentences"
        else:
            whole, unit = trainer.batch_tokens or 0, "tokens"
        text = "%d processes: about %s of the %s %s of a batch each; each sends %s bytes per update"
        share = f"{whole / self.size:,.0f}"
        log.info(text, self.size, share, f"{whole:,}", unit, f"{sent:,}")
        # Two of them on one GPU would be slower than one.
        first: dict[tuple[str, str], int] = {}
        for rank, (host, where, local) in enumerate(every):
            log.info("rank %d is local rank %s on %s: %s", rank, local, host, where)
            if (other := first.setdefault((host, where), rank)) != rank and device.type == "cuda":
                what = f"has the GPU of rank {other}, {where}"
                fix = "Start as many processes as there are GPUs, or give device=cpu."
                raise self.together(PlatformError(self._name(rank), what, fix))

    def check_equal(self, model: nn.Module, update: int) -> None:
        """Check that all processes are after the same update and have the same weights.

        Raises:
            PlatformError: names a rank that differs from rank 0.
        """
        if self.size == 1:
            return
        bits = (p.detach().flatten().view(torch.int32) for p in model.parameters())
        states = self.gather([update, torch.stack([each.sum() for each in bits]).tolist()])
        for rank, state in enumerate(states):
            if state != states[0]:
                differs = f"has update {state[0]}, rank 0 has update {states[0][0]}"
                what = differs if state[0] != states[0][0] else f"other weights at update {update}"
                fix = "Use the same versions and the same files on every host."
                raise self.together(PlatformError(self._name(rank), what, fix))


ALONE = World()


class Attempt:
    """Work that a process may have to give up; the others hear of it at their next exchange.

    with attempt():
        ...  # is cut short if a stop request interrupts it, or memory runs out

    One process alone raises what several catch.
    """

    def __init__(self, world: World, stop: StopRequest) -> None:
        self.world, self.stop = world, stop
        self.interrupted, self.shortage = False, ""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Surround the work."""
        if self.world.size == 1:
            with self.stop.interruptible():
                yield
            return
        try:
            with OutOfMemory() as oom, self.stop.interruptible():
                yield
        except Interrupted:
            self.interrupted = True
        self.shortage = oom.message or ""


class FlatGradient:
    """The gradient of a model as one tensor, to be summed in one exchange."""

    def __init__(self, model: nn.Module, world: World, precision: Precision) -> None:
        self.world, self.precision = world, precision
        self.weights = [p for p in model.parameters() if p.requires_grad]
        size = sum(p.numel() for p in self.weights)
        self.flat = self.weights[0].new_zeros(size + 1, requires_grad=False)  # the loss is last
        self.sent = self.flat
        if precision is Precision.bf16:
            self.sent = self.flat.new_zeros(size, dtype=torch.bfloat16)
        self.own_is_finite = torch.ones((), dtype=torch.bool)

    @property
    def bytes_sent(self) -> int:
        """Bytes that each process sends for an update: a ring passes everything around twice."""
        return 2 * (self.world.size - 1) * self.sent.nbytes // self.world.size

    def present(self) -> list[int]:
        """Return which weights have a gradient here, as 0 and 1; without sentences, none has."""
        return [int(p.grad is not None) for p in self.weights]

    @torch.no_grad()
    def add_(self, total: Tensor, present: Sequence[int]) -> Tensor:
        """Replace the gradients by their sums over all processes; return the summed loss ().

        Weights that are not `present` in any process keep None.
        """
        *views, loss = self.flat.split([*(p.numel() for p in self.weights), 1])
        for weight, view in zip(self.weights, views, strict=True):
            view.zero_() if weight.grad is None else view.copy_(weight.grad.flatten())
            weight.grad = None
        loss.copy_(total)
        self.own_is_finite = self.flat.sum().isfinite()  # not read unless the sum is not finite
        self._sum()
        for weight, view, somewhere in zip(self.weights, views, present, strict=True):
            weight.grad = view.view_as(weight) if somewhere else None
        summed: Tensor = loss.squeeze(0)
        return summed

    def _sum(self) -> None:
        if self.precision is Precision.fp32:
            self.world.add_(self.flat)
            return
        self.sent.copy_(self.flat[:-1])
        self.flat[:-1] = self.world.add_(self.sent)
        self.world.add_(self.flat[-1:])  # the loss is a number that users read


# Joining ------------------------------------------------------------------------------------------


def join() -> World:
    """Meet the other processes that torchrun started.

    Raises:
        PlatformError: they cannot be reached.
    """
    limit = timedelta(seconds=SILENCE)
    try:
        lasting, rank, size = next(rendezvous("env://", timeout=limit))
        # The store of torchrun outlives a restart, and so would what was said before it.
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = PrefixStore(f"restart-{restarts}", lasting)
        cuda = torch.cuda.is_available() and dist.is_nccl_available()
        if cuda:
            local = int(os.environ.get("LOCAL_RANK", rank))
            torch.cuda.set_device(local % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        # Longer than our own limit, which names who is silent.
        group = PrefixStore("group", store)
        dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=2 * limit)
    except (ValueError, RuntimeError) as error:
        what = f"the processes do not find each other ({' '.join(str(error).split())[:200]})"
        fix = "Start with torchrun; see docs/scale.md."
        raise PlatformError("torch.distributed", what, fix) from None
    world = World(rank, size, store, lasting)
    world.tell(f"host/{rank}", socket.gethostname())
    return world
