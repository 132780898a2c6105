"""Translates in several processes on one machine.

Each takes whole chunks, cut as in one process, so batches, order and bytes are the same for any
number of processes with as many threads.
"""

import multiprocessing
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import torch

from seq2seq.data.tags import Languages, tagging
from seq2seq.decoding.chunks import chunks_of
from seq2seq.decoding.request import Request
from seq2seq.decoding.translate import translate
from seq2seq.decoding.translation import Translation
from seq2seq.run.errors import PlatformError, UsageError, UserError
from seq2seq.run.signals import signals_named

if TYPE_CHECKING:
    from seq2seq.decoding.pretrained import Pretrained

MOST = 1024
Chunk = list[tuple[int, str | Request]]
"""Lines with their numbers."""


def in_processes(
    model: "Pretrained",
    lines: Iterable[str | Request],
    ready: Callable[[], bool],
    count: int,
    *,
    maps: bool = False,
    languages: Languages = None,
) -> Iterator[Translation]:
    """Yield one translation per line, in order, as `translate` does.

    Each process has `threads` threads, by default 1, and the weights of this one (shared on Linux).

    Raises:
        UsageError: an impossible number of processes, or the model is not on the CPU.
        PlatformError: a process was killed.
    """
    if not 1 <= count <= MOST:
        raise UsageError("processes", f"{count} is out of range", f"Use 1 to {MOST}.")
    if (device := next(model.model.parameters()).device).type != "cpu":
        fix = "Use device=cpu, or leave it out."
        raise UsageError("processes", f"is for CPUs, and the model is on {device}", fix)
    tagging(model.config.data, model.tokenizers, languages)  # refuse a wrong language here
    workers: list[_Worker] = []
    busy: deque[_Worker] = deque()  # with a chunk each, in the order of the lines
    try:
        for _ in range(count):
            workers.append(_Worker(model, maps, languages, workers))
        turns = cycle(workers)
        numbered = enumerate(lines, start=1)
        for chunk in _or_error(chunks_of(numbered, _size, model.config.decode, ready)):
            if isinstance(chunk, UserError):  # after the lines before it
                yield from _answers(busy)
                raise chunk
            done = busy.popleft().answer() if len(busy) == count else iter(())
            worker = next(turns)
            worker.ask(chunk)
            busy.append(worker)
            yield from done
            if not ready():  # typed lines are answered before the next ones are read
                yield from _answers(busy)
        yield from _answers(busy)
    finally:
        for worker in workers:
            worker.process.kill()


def _size(item: tuple[int, str | Request]) -> int:
    return len(item[1] if isinstance(item[1], str) else item[1].source)


def _or_error(chunks: Iterator[Chunk]) -> Iterator[Chunk | UserError]:
    try:
        yield from chunks
    except UserError as error:
        yield error


def _answers(busy: "deque[_Worker]") -> Iterator[Translation]:
    while busy:
        yield from busy.popleft().answer()


class _Worker:
    """A process that translates chunks; `others` are those started before."""

    def __init__(
        self,
        model: "Pretrained",
        maps: bool,
        languages: Languages,
        others: Sequence["_Worker"],
    ) -> None:
        threads = model.config.threads or 1
        # A fork shares the weights, but lacks the threads that its parent has started.
        forks = sys.platform == "linux" and threads == 1
        context = multiprocessing.get_context("fork" if forks else "spawn")
        self.pipe, end = context.Pipe()
        inherited = [*(other.pipe for other in others), self.pipe] if forks else []
        translated = (model, maps, languages, threads)
        self.process = context.Process(target=_serve, args=(end, inherited, *translated))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks
            self.process.start()
        end.close()

    def ask(self, chunk: Chunk) -> None:
        """Send a chunk, if the last one has been answered."""
        with self._alive():
            self.pipe.send(chunk)

    def answer(self) -> Iterator[Translation]:
        """Wait for the translations of the chunk; return them, then raise what ended it early."""
        with self._alive():
            found, error = self.pipe.recv()

        def each() -> Iterator[Translation]:
            yield from found
            if error is not None:
                raise error

        return each()

    @contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError):
            self.process.join()
            what = f"a process has died (exit code {self.process.exitcode})"
            fix = "If memory ran out, use fewer processes or lower decode.batch_sentences."
            raise PlatformError("processes", what, fix) from None


def _serve(
    end: Connection,
    inherited: Sequence[Connection],
    model: "Pretrained",
    maps: bool,
    languages: Languages,
    threads: int,
) -> None:
    """Answer chunks until the parent ends."""
    for pipe in inherited:  # the parent's ends: as long as one is open, its death is not seen
        pipe.close()
    for number in signals_named("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(number, signal.SIG_DFL)
    torch.set_num_threads(threads)
    tags = tagging(model.config.data, model.tokenizers, languages)
    parts = (model.model, model.tokenizers)
    with suppress(EOFError, ConnectionError):
        while True:
            chunk = end.recv()
            lines, first = [line for _, line in chunk], chunk[0][0]
            found: list[Translation] = []
            error = None
            try:
                cfg = model.config.decode
                for each in translate(*parts, lines, cfg, maps=maps, tags=tags, first=first):
                    found.append(each)  # what is there before an error counts
            except Exception as raised:  # raised again in the parent
                error = raised
            end.send((found, error))
