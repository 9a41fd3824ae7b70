"""Who evaluates while the loop goes on: threads, for functions that release the GIL."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from pipeline.errors import ChainError
from pipeline.meter import METER
from pipeline.nodes import Part
from pipeline.workers.queued import QueuedExecutor
from pipeline.workers.tickets import Book, Outcome, Ticket, closed, raising, weight
from pipeline.workers.work import evaluate, stacked


@dataclass(frozen=True)
class Threads:
    """n threads evaluate: right where functions release the GIL (NumPy, decoders, reading).

    Attributes:
        n: how many.

    Raises:
        ChainError: n is below 1.

    >>> from pipeline import Dataset, Loader
    >>> with Loader(Dataset(range(8)), 4, workers=Threads(2)) as loader:
    ...     [batch.tolist() for batch in loader]
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """

    n: int

    def __post_init__(self) -> None:
        check_count("Threads", self.n)

    def open(self, chain: Part, *, ahead: int, stack: bool) -> QueuedExecutor:
        def start(book: Book) -> _Crew:
            return _Crew(chain, book, self.n, stack)

        return QueuedExecutor(start, workers=self.n, ahead=ahead, fresh=False)


def check_count(kind: str, n: object) -> None:
    """Refuse numbers of workers below one.

    Raises:
        ChainError: n is no whole number from 1.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ChainError(f"{kind}({n!r}): give a whole number from 1, or workers=0 for none")


class _Crew:
    restarts = 0  # a thread does not die

    def __init__(self, chain: Part, book: Book, n: int, stack: bool) -> None:
        self._chain, self._book, self._stack = chain, book, stack
        self._started = time.perf_counter()
        names = [f"lockstep-{i}" for i in range(n)]
        self._threads = [threading.Thread(target=self._run, name=x, daemon=True) for x in names]
        for thread in self._threads:
            thread.start()

    def up(self) -> float:
        return (time.perf_counter() - self._started) * len(self._threads)

    def _run(self) -> None:
        while (ticket := self._book.await_pull()) is not None:
            started = time.perf_counter()
            outcome, size = self._evaluate(ticket)
            self._book.finish(ticket, outcome, size, time.perf_counter() - started)
            self._book.measured(METER.take())
            del ticket, outcome  # a thread that waits keeps nobody's batch

    def _evaluate(self, ticket: Ticket) -> tuple[Outcome, int]:
        try:
            block = evaluate(self._chain, ticket.work)
            block = METER.timed("collate", stacked, block) if self._stack else block
        except BaseException as error:
            return raising(error), 0
        return (lambda: block), weight(block)

    def close(self) -> None:
        self._book.break_off(closed())
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=1.5)
