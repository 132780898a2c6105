"""Answers the questions of several people at once: those that wait together are one batch.

A thread works on one batch at a time. A newer question of the same page replaces an older one,
which nobody will read, even while that is being answered.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from seq2seq.run.errors import PlatformError, UserError, internal_error

log = logging.getLogger(__name__)

Q = TypeVar("Q")

Answer = dict[str, Any]  # JSON-compatible
Wanted = Callable[[], bool]
"""Returns whether anybody still waits for the answers that are being computed."""

Work = Callable[[Sequence[Q], Wanted], Sequence[Answer]]
"""Answers a batch of questions, or raises `AbandonedError` once it is not wanted."""

MAX_WAITING = 500  # questions that may wait


class AbandonedError(Exception):
    """Nobody waits for the answers any more."""


class SupersededError(Exception):
    """The same page has asked a newer question."""


@dataclass(eq=False)
class _Job(Generic[Q]):
    kind: str
    question: Q
    page: str
    answer: "Future[Answer]" = field(default_factory=Future)

    def fail(self, error: Exception) -> None:
        with suppress(InvalidStateError):  # the server has stopped waiting
            self.answer.set_exception(error)


class Engine(Generic[Q]):
    """A model in a thread of its own, which answers up to `most` questions in a batch.

    Questions of the first kind are quick: they go first, but every other batch is of those that
    have waited longest.
    """

    def __init__(self, kinds: Mapping[str, Work[Q]], most: int) -> None:
        self.kinds, self._most = kinds, most
        self._waiting: list[_Job[Q]] = []
        self._now: list[_Job[Q]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ask(self, kind: str, question: Q, page: str) -> "Future[Answer]":
        """Queue a question of a page, in place of its older ones of this kind.

        Raises:
            PlatformError: too many questions wait.
        """
        job = _Job(kind, question, page)
        with self._changed:
            for old in (*self._waiting, *self._now):
                if (old.kind, old.page) == (kind, page):
                    old.fail(SupersededError())
            self._waiting = [old for old in self._waiting if not old.answer.done()]
            if len(self._waiting) >= MAX_WAITING:
                raise PlatformError("play", "too many people ask at once", "Try again.")
            self._waiting.append(job)
            self._changed.notify()
        return job.answer

    def close(self) -> None:
        """Abandon all questions and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            self._answer(batch)

    def _next(self) -> list[_Job[Q]]:
        """Wait for questions and return a batch of one kind; an empty one at the end."""
        first = next(iter(self.kinds))
        with self._changed:
            was_first = any(job.kind == first for job in self._now)
            self._now = []
            self._changed.wait_for(lambda: self._closed or self._waiting)
            if self._closed:
                return []
            others = [job.kind for job in self._waiting if job.kind != first]
            is_first = len(others) < len(self._waiting) and not (others and was_first)
            kind = first if is_first else others[0]
            self._now = [job for job in self._waiting if job.kind == kind][: self._most]
            self._waiting = [job for job in self._waiting if job not in self._now]
            return self._now

    def _answer(self, batch: Sequence[_Job[Q]]) -> None:
        batch = [job for job in batch if not job.answer.done()]

        def wanted() -> bool:
            return not self._closed and not all(job.answer.done() for job in batch)

        if not wanted():
            return
        try:
            answers = self.kinds[batch[0].kind]([job.question for job in batch], wanted)
        except Exception as error:  # a bug ends a question, not the server
            if len(batch) > 1:  # one of them is at fault
                for job in batch:
                    self._answer([job])
            elif isinstance(error, UserError | AbandonedError):
                batch[0].fail(error)
            else:
                log.error("a question was not answered", exc_info=error)
                batch[0].fail(internal_error("play", error, "the traceback in the terminal"))
            return
        for job, answer in zip(batch, answers, strict=True):
            with suppress(InvalidStateError):  # the server has stopped waiting
                job.answer.set_result(answer)
