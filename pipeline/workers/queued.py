"""What threads, processes and Ray have in common: works queue in a book, and a crew pulls them."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Protocol

from pipeline.workers.stats import QueueStats
from pipeline.workers.tickets import Book, Ticket
from pipeline.workers.work import Work


class Crew(Protocol):
    """Those who work. It knows nothing of its executor, so that dropping the executor ends it."""

    restarts: int

    def up(self) -> float:
        """Seconds that workers have been there, summed over workers."""
        ...

    def close(self) -> None:
        """End them all."""
        ...


class QueuedExecutor:
    """Evaluates by a crew, which starts with the first work.

    Args:
        start: makes the crew that works off a book.
        workers: how many it has.
        ahead: bytes of results that may wait to be fetched.
        fresh: whether results lie in memory that nobody else writes to or keeps.
    """

    def __init__(
        self, start: Callable[[Book], Crew], *, workers: int, ahead: int, fresh: bool
    ) -> None:
        self._start, self._workers, self._ahead, self._fresh = start, workers, ahead, fresh
        self._crew: Crew | None = None
        self._book = Book(workers, ahead)

    @property
    def fresh(self) -> bool:
        return self._fresh

    def submit(self, work: Work, *, urgent: bool = False) -> Ticket:
        if self._crew is None:
            self._crew = self._start(self._book)
            self._end = weakref.finalize(self, _close, self._crew, os.getpid())
        return self._book.submit(work, urgent)

    def room(self) -> bool:
        return self._book.room()

    def group(self, rows: int) -> int:
        return self._book.group(rows)

    def stats(self) -> QueueStats:
        crew = self._crew
        return self._book.stats(
            up=crew.up() if crew else 0.0, restarts=crew.restarts if crew else 0
        )

    def close(self) -> None:
        """End the crew; work submitted later starts another."""
        if self._crew is not None:
            self._end()
            self._crew, self._book = None, Book(self._workers, self._ahead)


def _close(crew: Crew, owner: int) -> None:
    # a fork of this process inherits the finalizer, but not those who work
    if os.getpid() == owner:
        crew.close()
