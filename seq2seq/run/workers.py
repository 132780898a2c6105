"""Work on one machine in several processes: results in the order of the items, memory bounded."""

import multiprocessing
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, cycle, islice
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from seq2seq.run.errors import PlatformError, UserError
from seq2seq.run.signals import signals_named

T = TypeVar("T")
R = TypeVar("R")

FORKS = sys.platform == "linux"
"""Whether processes start as copies of this one, which share its memory."""


CHUNK = 10_000
"""Lines that a process gets at once."""
CHUNK_CHARACTERS = 1 << 24
"""The same for long lines."""


def number_of_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    work: Callable[[T], R],
    items: Iterable[T],
    count: int,
    *,
    ready: Callable[[], bool] = lambda: True,
    forks: bool = FORKS,
) -> Iterator[R]:
    """Yield `work(item)` of each item, in order, computed in `count` processes.

    Each process has one item at a time, so this one holds `count` items and a result. What `work`
    raises is raised here. An error of `items` is raised after the results of those before it.

    Args:
        work: A function without side effects; has to be picklable unless processes are forks.
        items: Read in this process.
        count: Number of processes; started as they are needed.
        ready: Whether the next item can be read without waiting; if not, all results come first.
        forks: Whether to fork. A fork lacks the threads that this process has started.

    Raises:
        PlatformError: a process was killed.
    """
    workers: list[_Worker[T, R]] = []
    busy: deque[_Worker[T, R]] = deque()  # in the order of the items
    turns = cycle(range(count))
    try:
        for item in _or_error(items):
            if isinstance(item, UserError):
                yield from _results(busy)
                raise item
            # Processes take turns, so the next one is the one whose result is to come next.
            turn = next(turns)
            if turn == len(workers):
                workers.append(_Worker(work, workers, forks=forks))
            done = [busy.popleft().result()] if len(busy) == count else []
            workers[turn].start(item)
            busy.append(workers[turn])
            yield from done
            if not ready():
                yield from _results(busy)
        yield from _results(busy)
    finally:
        for worker in workers:
            worker.process.kill()


def mapped(work: Callable[[T], R], items: Iterable[T], count: int) -> Iterator[R]:
    """Like `map`, in forks of this process if there are several items and this system forks."""
    stream = iter(items)
    first = [*islice(stream, 2)]
    if count == 1 or len(first) < 2 or not FORKS:
        return map(work, chain(first, stream))
    return in_order(work, chain(first, stream), count)


def chunked(
    items: Iterable[T],
    size: Callable[[T], int],
    most: int | None = None,
    characters: int = CHUNK_CHARACTERS,
    ready: Callable[[], bool] = lambda: True,
) -> Iterator[list[T]]:
    """Group items; `size` returns the characters of one.

    A chunk ends after `most` items (by default `CHUNK`) or `characters`, or if no other is ready.
    """
    chunk: list[T] = []
    count = 0
    for item in items:
        chunk.append(item)
        count += size(item)
        if len(chunk) == (most or CHUNK) or count >= characters or not ready():
            yield chunk
            chunk, count = [], 0
    if chunk:
        yield chunk


def _or_error(items: Iterable[T]) -> Iterator[T | UserError]:
    try:
        yield from items
    except UserError as error:
        yield error


def _results(busy: "deque[_Worker[T, R]]") -> Iterator[R]:
    while busy:
        yield busy.popleft().result()


class _Worker(Generic[T, R]):
    """A process that works on one item at a time; `others` are those started before."""

    def __init__(
        self, work: Callable[[T], R], others: Sequence["_Worker[T, R]"], *, forks: bool
    ) -> None:
        context: Any = multiprocessing.get_context("fork" if forks else "spawn")
        self.pipe, end = context.Pipe()
        inherited = [*(other.pipe for other in others), self.pipe] if forks else []
        self.process = context.Process(target=_serve, args=(work, end, inherited))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks
            self.process.start()
        end.close()

    def start(self, item: T) -> None:
        """Send an item; the result of the last one has been taken."""
        with self._alive():
            self.pipe.send(item)

    def result(self) -> R:
        """Wait for the result of the item."""
        with self._alive():
            result, error = self.pipe.recv()
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    @contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            self.process.join()
            what = f"a process has died (exit code {self.process.exitcode})"
            fix = "If memory ran out, use fewer processes or smaller batches."
            raise PlatformError("processes", what, fix) from None


def _serve(work: Callable[[T], R], end: Connection, inherited: Sequence[Connection]) -> None:
    """Work on items until the parent ends."""
    for pipe in inherited:  # the parent's ends: while one is open, its death is not seen
        pipe.close()
    for number in signals_named("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(number, signal.SIG_DFL)
    with suppress(EOFError, ConnectionError):
        while True:
            result, error = None, None
            try:
                result = work(end.recv())
            except (EOFError, ConnectionError):
                raise
            except Exception as raised:  # raised again in the parent
                error = raised
            end.send((result, error))
