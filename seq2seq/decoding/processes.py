"""Translates in several processes on one machine.

Each takes whole chunks, cut as in one process, so batches, order and bytes are the same for any
number of processes with as many threads.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from seq2seq.config.schema import Config
from seq2seq.data.tags import Languages, tagging
from seq2seq.data.tokenizer import Tokenizer
from seq2seq.decoding.chunks import Feed, chunks_of
from seq2seq.decoding.request import Request
from seq2seq.decoding.translate import for_search, translate
from seq2seq.decoding.translation import Translation
from seq2seq.model.ensemble import Decodable
from seq2seq.model.protocols import Stepper
from seq2seq.run.errors import UsageError
from seq2seq.run.workers import FORKS, in_order

MOST = 1024

Parts = tuple[Decodable, tuple[Tokenizer, Tokenizer], Config]
Numbered = tuple[int, str | Request]


def in_processes(
    parts: Parts,
    lines: Iterable[str | Request],
    ready: Callable[[], bool],
    count: int,
    maps: bool,
    languages: Languages,
) -> Iterator[Translation]:
    """Yield one translation per line, in order, as `translate` does.

    Each process has `threads` threads, by default 1; forks share the weights of this one.

    Raises:
        UsageError: an impossible number of processes, or the model is not on the CPU.
        PlatformError: a process was killed.
    """
    model, _, config = parts
    if not 1 <= count <= MOST:
        raise UsageError("processes", f"{count} is out of range", f"Use 1 to {MOST}.")
    if (device := next(model.parameters()).device).type != "cpu":
        fix = "Use device=cpu, or leave it out."
        raise UsageError("processes", f"is for CPUs, and the model is on {device}", fix)

    def size(item: Numbered) -> int:
        return len(item[1] if isinstance(item[1], str) else item[1].source)

    # Forks need not load the model, but have one thread: see `pretrained`.
    chunks = chunks_of(enumerate(lines, start=1), size, config.decode, ready)
    work = _Translator(parts, maps, languages)
    forks = FORKS and config.threads in (None, 1)
    for found, error in in_order(work, chunks, count, ready=ready, forks=forks):
        yield from found
        if error is not None:
            raise error


@dataclass
class _Translator:
    """Translates chunks, in a process that prepares the weights for the search once."""

    parts: Parts
    maps: bool
    languages: Languages

    @cached_property
    def searcher(self) -> Stepper:
        """The search's view of the weights."""
        model, _, config = self.parts
        return for_search(model, config.decode)

    def __call__(self, chunk: list[Numbered]) -> tuple[list[Translation], Exception | None]:
        """Return the translations of a chunk, and the error that ended it early."""
        model, tokenizers, config = self.parts
        torch.set_num_threads(config.threads or 1)
        feed = Feed(tagging(config.data, tokenizers, self.languages), first=chunk[0][0])
        text = [line for _, line in chunk], config.decode, feed
        found: list[Translation] = []
        try:
            searcher = self.searcher
            for each in translate(model, tokenizers, *text, maps=self.maps, searcher=searcher):
                found.append(each)  # those before an error count
        except Exception as error:  # raised again in the parent
            return found, error
        return found, None
