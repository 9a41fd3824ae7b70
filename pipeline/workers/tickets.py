"""What has been asked for and not been fetched: works in order, pulled by whoever is free."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.block import Block, Columns
from pipeline.errors import PipelineError
from pipeline.meter import Tally, add_up, nbytes
from pipeline.tree import leaves
from pipeline.workers.recent import Recent
from pipeline.workers.stats import QueueStats
from pipeline.workers.work import Work

Outcome = Callable[[], Block]  # gives the block, or raises what went wrong

MOST = 256  # works outstanding, however small: beyond, being ahead gains nothing
ROWS = 2048  # of one work: where reading many at once stops to gain
BYTES = 8 << 20  # of one work: larger ones only leave the caches
SECONDS = 0.1  # of one work: longer ones come late, and are costly to redo


class Ticket:
    """One piece of work under way."""

    __slots__ = ("_book", "bytes", "kills", "number", "outcome", "state", "work")

    def __init__(self, book: Book, number: int, work: Work) -> None:
        self._book, self.number, self.work = book, number, work
        self.outcome: Outcome | None = None
        self.state = "asked"  # then "ready", "fetched" or "cancelled"
        self.bytes = 0
        self.kills = 0

    def result(self) -> Block:
        return self._book.fetch(self)()

    def cancel(self) -> None:
        self._book.cancel(self)


class Book:
    """Tickets of one executor: first come first served, urgent ones before; safe for threads.

    Args:
        workers: how many pull from it.
        ahead: bytes of results that may wait to be fetched.

    Attributes:
        lock: held to pull; notified when there is more to pull, or to fetch.
        more: called, outside of the lock, when there is more to pull.
    """

    def __init__(self, workers: int, ahead: int) -> None:
        self._workers, self._ahead = workers, ahead
        self.more: Callable[[], None] = _nothing
        self.lock = threading.Condition()
        self._waiting: deque[Ticket] = deque()
        self._numbers = 0
        self._outstanding = self._ready = self._ready_bytes = self._asked_size = 0
        self._awaited, self._held = 0, False
        self._done = self._done_size = 0
        self._cost = Recent()
        self._busy = self._wait = 0.0
        self._stages: dict[str, Tally] = {}
        self.broken: BaseException | None = None

    # ---- who asks

    def submit(self, work: Work, urgent: bool) -> Ticket:
        with self.lock:
            ticket = Ticket(self, self._numbers, work)
            self._numbers += 1
            self._outstanding += 1
            self._asked_size += work.size
            (self._waiting.appendleft if urgent else self._waiting.append)(ticket)
            self.lock.notify_all()
        self.more()
        return ticket

    def fetch(self, ticket: Ticket) -> Outcome:
        """A ticket's outcome, waiting for it."""
        if ticket.outcome is None:
            self._await(ticket)
        with self.lock:
            self._leave(ticket, "fetched")
        self._resume()
        assert ticket.outcome is not None
        return ticket.outcome

    def _await(self, ticket: Ticket) -> None:
        started = time.perf_counter()
        with self.lock:
            self._awaited += 1
        self._resume()
        with self.lock:
            try:
                while ticket.outcome is None:
                    if self.broken is not None:
                        raise self.broken
                    self.lock.wait()
            finally:
                self._awaited -= 1
            self._wait += time.perf_counter() - started

    def cancel(self, ticket: Ticket) -> None:
        with self.lock:
            self._leave(ticket, "cancelled")
            ticket.outcome = None
        self._resume()

    def _resume(self) -> None:
        # whom a full budget held back looks again
        if self._held:
            with self.lock:
                self._held = False
                self.lock.notify_all()
            self.more()

    def _leave(self, ticket: Ticket, state: str) -> None:
        if ticket.state in ("asked", "ready"):
            self._outstanding -= 1
            if ticket.state == "ready":
                self._ready -= 1
                self._ready_bytes -= ticket.bytes
            else:
                self._asked_size -= ticket.work.size
            ticket.state = state

    # ---- how much to ask for

    def room(self) -> bool:
        """Whether results not fetched yet leave some of the budget, by the sizes seen so far."""
        with self.lock:
            if self._outstanding <= self._workers:
                return True
            if not self._done:
                return self._outstanding < 2 * self._workers + 2
            coming = (self._asked_size + self._each()) * self._cost.nbytes
            return self._outstanding < MOST and self._ready_bytes + coming <= self._ahead

    def group(self, rows: int) -> int:
        """How many batches of so many rows make a good work; one, until some have been seen."""
        with self.lock:
            if self._done < self._workers or not self._cost:
                return 1
            room = self._ahead / (4 * self._workers + 4)
            most = rows_of_a_work(self._cost.seconds, SECONDS, self._cost.nbytes, room)
            return max(1, most // max(1, rows))

    def _each(self) -> float:
        return self._done_size / self._done

    # ---- who works

    def pull(self) -> Ticket | None:
        """The next ticket to work on, if any; call it with the lock held.

        None where results that nobody fetches fill the budget: rows may be larger than those seen
        when they were asked for.
        """
        self._held = bool(self._waiting) and self._ready_bytes > self._ahead and not self._awaited
        while self._waiting and not self._held:
            ticket = self._waiting.popleft()
            if ticket.state == "asked":
                return ticket
        return None

    def await_pull(self) -> Ticket | None:
        """The next ticket to work on, once there is one; None when it was broken off."""
        with self.lock:
            while self.broken is None:
                ticket = self.pull()
                if ticket is not None:
                    return ticket
                self.lock.wait()
            return None

    def put_back(self, tickets: list[Ticket]) -> None:
        """Tickets whose work is to be done again, before all others; with the lock held."""
        self._waiting.extendleft(sorted(tickets, key=lambda t: -t.number))

    def finish(self, ticket: Ticket, outcome: Outcome, nbytes: int, seconds: float) -> None:
        """A ticket's outcome, unless it has one or is not wanted any more."""
        with self.lock:
            self._busy += seconds
            self._done += 1
            self._done_size += ticket.work.size
            self._cost.add(rows=ticket.work.size, nbytes=nbytes, seconds=seconds)
            if ticket.state != "asked":
                return
            self._asked_size -= ticket.work.size
            ticket.outcome, ticket.bytes, ticket.state = outcome, nbytes, "ready"
            self._ready += 1
            self._ready_bytes += nbytes
            self.lock.notify_all()

    def measured(self, stages: Mapping[str, Tally]) -> None:
        with self.lock:
            add_up(self._stages, stages)

    def break_off(self, error: BaseException) -> None:
        """Nothing will be worked on any more: whoever waits gets this error."""
        with self.lock:
            self.broken = error
            self.lock.notify_all()

    def stats(self, *, up: float, restarts: int) -> QueueStats:
        with self.lock:
            return QueueStats(
                self._workers,
                dict(self._stages),
                self._done,
                self._busy,
                self._wait,
                up,
                self._ready,
                self._ready_bytes,
                self._outstanding - self._ready,
                restarts,
            )


def _nothing() -> None:
    """Those who wait on the lock need no call."""


def closed() -> PipelineError:
    """What somebody still waiting gets when the workers are ended."""
    return PipelineError("the loader was closed while it waited for a batch: use it before close()")


def rows_of_a_work(each: float, seconds: float, size: float, room: float) -> int:
    """How many rows are best evaluated together.

    Args:
        each: seconds that a row takes.
        seconds: that the work may take.
        size: bytes of a row.
        room: bytes that the work may take.
    """
    most = min(BYTES, room) / max(1.0, size)
    return int(min(ROWS, most, seconds / max(1e-9, each)))


def weight(block: Block) -> int:
    """About how much memory a block takes; rows that are no columns are judged by the first."""
    if isinstance(block.values, Columns) or not len(block):
        return nbytes(block)
    return len(block) * sum(_weigh(leaf) for _, leaf in leaves(block.values[0]))


def _weigh(leaf: Any) -> int:
    if isinstance(leaf, np.ndarray):
        return leaf.nbytes
    return len(leaf) * (64 if isinstance(leaf, list) else 1) if hasattr(leaf, "__len__") else 32


def raising(error: BaseException) -> Outcome:
    """The outcome of work that failed."""

    def outcome() -> Block:
        raise error

    return outcome
