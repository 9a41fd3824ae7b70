"""The queue of an executor: works in order, their results, and how much to read ahead."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from pipeline.block import Block
from pipeline.errors import PipelineError
from pipeline.meter import METER, Sums, weight
from pipeline.workers.stats import QueueStats, Watch, Worked
from pipeline.workers.totals import Totals
from pipeline.workers.work import Cost, Work

Outcome = Callable[[], Block]  # returns the block, or raises the error


class Helper(Protocol):
    """Evaluates works in the thread that waits for a result."""

    def may(self, work: Work) -> bool:
        """Whether the current thread may evaluate a work."""
        ...

    def evaluate(self, work: Work) -> Block: ...


MOST = 256  # works outstanding at most: reading further ahead gains nothing
SECONDS = 0.1  # seconds of one work: longer ones come late, and are costly to redo


class Future:
    """One work that was submitted.

    Attributes:
        state: "asked", then "ready", then "fetched"; or "cancelled".
        begun: whether a worker has ever begun it.
        wanted: whether a thread waits for it that could evaluate it itself.
        claimed: whether that thread evaluates it, so that no worker may begin it.
        bytes: size of the result.
        deaths: how many workers in a row died over it at the same place.
        total: how many workers died over it.
        place: stage and record at which the last of them died, "" if unknown.
    """

    __slots__ = (
        "_queue",
        "begun",
        "bytes",
        "claimed",
        "deaths",
        "number",
        "outcome",
        "place",
        "state",
        "total",
        "wanted",
        "work",
    )

    def __init__(self, queue: Queue, number: int, work: Work) -> None:
        self._queue, self.number, self.work = queue, number, work
        self.outcome: Outcome | None = None
        self.state, self.bytes = "asked", 0
        self.begun = self.wanted = self.claimed = False
        self.deaths = self.total = 0
        self.place = ""

    def result(self) -> Block:
        """The block, once it is evaluated; raises what its evaluation raised."""
        if self._queue.owner != os.getpid():  # a forked process has no workers
            return self._queue.redo(self.work)
        return self._queue.fetch(self)()

    def cancel(self) -> None:
        """Give up the result."""
        if self._queue.owner == os.getpid():
            self._queue.cancel(self)


class Queue:
    """The works of one executor, first in, first out, urgent ones first. Thread-safe.

    A KeyboardInterrupt may hit the thread that waits at any bytecode. So the lock is one
    implemented in C, taken by a plain `with`. Nobody sleeps while holding it, as
    `threading.Condition` would: each waiting thread sleeps on a lock of its own, which `notify`
    releases.

    Args:
        workers: how many workers pull from it.
        ahead: bytes of results that may wait to be fetched.
        redo: evaluates a work again, in a process that was forked and has inherited its future.
        helper: evaluates works that nobody has begun, in the thread that waits; None for never.
        sources: how many sources a batch takes only a few rows of each.
        totals: where what works cost is counted.

    Attributes:
        lock: must be held to call `pull` and `notify`.
        more: called without the lock when there is more to pull.
        recall: called without the lock when a future becomes `wanted` that was handed out. It is to
            be taken back and `claimed` if no worker has begun it.
        watch: called for each evaluated work, in any thread.
        broken: the error for everybody who waits, once the workers have stopped for good.
        owner: id of the process that has the workers.
    """

    def __init__(
        self,
        workers: int,
        ahead: int,
        redo: Callable[[Work], Block] | None = None,
        helper: Helper | None = None,
        sources: int = 1,
        totals: Totals | None = None,
    ) -> None:
        self._workers, self._ahead, self._helper = workers, ahead, helper
        self.owner, self.redo = os.getpid(), redo or _not_here
        self.more: Callable[[], None] = _nothing
        self.recall: Callable[[], None] = _nothing
        self.watch: Watch | None = None
        self.lock = threading.RLock()
        self.broken: BaseException | None = None
        self._sleepers: list[Any] = []
        self._waiting: deque[Future] = deque()
        self._outstanding = self._ready = self._ready_bytes = self._asked_size = 0
        self._awaited, self._full = 0, False
        self._done = self._done_size = 0
        self._cost = Cost(sources)
        self._totals = totals or Totals()

    # ---- waiting

    def _sleeper(self) -> Any:
        # with the lock held: makes a lock that the next notify releases, to be acquired outside
        sleeper = threading.Lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        return sleeper

    def notify(self) -> None:
        """Wake everybody who waits. The lock must be held."""
        while self._sleepers:
            if self._sleepers[-1].locked():  # else an interrupt came between these two lines
                self._sleepers[-1].release()
            self._sleepers.pop()

    # ---- submitting and fetching

    def submit(self, work: Work, urgent: bool) -> Future:
        with self.lock:
            future = Future(self, self._totals.numbered(), work)
            self._outstanding += 1
            self._asked_size += work.size
            (self._waiting.appendleft if urgent else self._waiting.append)(future)
            self.notify()
        self.more()
        return future

    def fetch(self, future: Future) -> Outcome:
        """A future's outcome, once it is there."""
        if future.outcome is None:
            self._await(future)
        with self.lock:
            self._leave(future, "fetched")
        self._resume()
        assert future.outcome is not None
        return future.outcome

    def _await(self, future: Future) -> None:
        started = time.perf_counter()
        try:
            with self.lock:
                self._awaited += 1
            self._resume()
            while True:
                with self.lock:
                    if future.outcome is not None:
                        return
                    if self.broken is not None:
                        raise self.broken
                    recalled = self._help_wanted(future)
                    sleeper = self._sleeper()
                if future.claimed:
                    self._help(future)
                    if self.broken is not None:
                        raise self.broken
                    return
                if recalled:
                    self.recall()
                sleeper.acquire()
        finally:
            with self.lock:
                self._awaited -= 1
            self._totals.waited(time.perf_counter() - started)

    def _help_wanted(self, future: Future) -> bool:
        # with the lock held: claim a future that nobody has begun, or return whether to recall it
        if self._helper is None or future.begun or future.claimed or future.wanted:
            return False
        if not self._helper.may(future.work):
            return False
        future.wanted = True
        if future not in self._waiting:
            return True
        future.claimed = True  # before it is removed: an interrupt may come between
        self._waiting.remove(future)
        return False

    def _help(self, future: Future) -> None:
        # after an interrupt it stays claimed, and is evaluated when its result is asked for again
        assert self._helper is not None
        sums, started = Sums(), time.perf_counter()
        before = METER.into(sums)
        try:
            block = self._helper.evaluate(future.work)
        except Exception as error:
            outcome, size = raising(error), 0
        else:
            outcome, size = (lambda: block), weight(block)
        finally:
            spent = time.perf_counter() - started
            METER.into(before)
            self.measured(Worked(future.number, -1, started, spent, sums.tallies()))
        self._settle(future, outcome, size)

    def cancel(self, future: Future) -> None:
        with self.lock:
            self._leave(future, "cancelled")
            future.outcome = None
        self._resume()

    def _resume(self) -> None:
        # works may be pulled that a full budget held back
        if self._full:
            with self.lock:
                self._full = False
                self.notify()
            self.more()

    def _leave(self, future: Future, state: str) -> None:
        if future.state in ("asked", "ready"):
            self._outstanding -= 1
            if future.state == "ready":
                self._ready -= 1
                self._ready_bytes -= future.bytes
            else:
                self._asked_size -= future.work.size
            future.state = state

    # ---- how far to read ahead

    def has_capacity(self) -> bool:
        """Whether another work fits the budget, by the sizes of results so far."""
        with self.lock:
            if self._outstanding <= self._workers:
                return True
            if not self._done:
                return self._outstanding < 2 * self._workers + 2
            coming = (self._asked_size + self._done_size / self._done) * self._cost.nbytes
            return self._outstanding < MOST and self._ready_bytes + coming <= self._ahead

    def group(self, rows: int) -> int:
        """How many batches of `rows` rows make a work of a good size; 1 until some are done."""
        with self.lock:
            if self._done < self._workers or not self._cost:
                return 1
            share = self._ahead / (4 * self._workers + 4)
            return self._cost.batches(rows, seconds=SECONDS, nbytes=share)

    # ---- for workers

    def pull(self) -> Future | None:
        """The next future to work on, or None. The lock must be held.

        Also None while results that nobody has fetched fill the budget: rows may have turned out
        larger than expected when the works were submitted.
        """
        self._full = bool(self._waiting) and self._ready_bytes > self._ahead and not self._awaited
        while self._waiting and not self._full:
            future = self._waiting.popleft()
            if future.state == "asked" and not future.claimed:
                return future
        return None

    def await_pull(self) -> Future | None:
        """The next future to work on, once there is one; None if the queue is broken off."""
        while True:
            with self.lock:
                if self.broken is not None:
                    return None
                future = self.pull()
                if future is not None:
                    future.begun = True
                    return future
                sleeper = self._sleeper()
            sleeper.acquire()

    def put_back(self, futures: list[Future]) -> None:
        """Have works done again, before all others."""
        with self.lock:
            self._waiting.extendleft(sorted(futures, key=lambda f: -f.number))
            self.notify()

    def finish(self, future: Future, outcome: Outcome, nbytes: int, seconds: float) -> None:
        """Store the outcome that a worker had for a future. Only the first outcome counts."""
        with self.lock:
            self._totals.done()
            self._done += 1
            self._done_size += future.work.size
            self._cost.add(rows=future.work.size, nbytes=nbytes, seconds=seconds)
            self._settle(future, outcome, nbytes)

    def _settle(self, future: Future, outcome: Outcome, nbytes: int) -> None:
        # store an outcome, unless there is one already or the future was cancelled
        with self.lock:
            if future.state != "asked":
                return
            self._asked_size -= future.work.size
            future.outcome, future.bytes, future.state = outcome, nbytes, "ready"
            self._ready += 1
            self._ready_bytes += nbytes
            self.notify()

    def measured(self, worked: Worked) -> None:
        """Count what a work has cost. Comes before `finish`, as its result lets the loop go on."""
        self._totals.measured(worked.stages, worked.seconds)
        if self.watch is not None:
            self.watch(worked)

    def break_off(self, error: BaseException) -> None:
        """Stop for good. Whoever waits gets this error."""
        with self.lock:
            self.broken = error
            self.notify()

    def stats(self, *, up: float, restarts: int) -> QueueStats:
        with self.lock:
            now = QueueStats(
                self._workers,
                ready=self._ready,
                ready_bytes=self._ready_bytes,
                asked=self._outstanding - self._ready,
                restarts=restarts,
            )
        return self._totals.added_to(now, up=up)


def _nothing() -> None:
    """Do nothing: workers that sleep until they are notified need no call."""


def _not_here(work: Work) -> Block:
    raise PipelineError("this loader's workers belong to the process that this one was forked from")


def closed() -> PipelineError:
    """The error for whoever still waits when the workers are ended."""
    return PipelineError("the loader was closed while it waited for a batch: use it before close()")


def raising(error: BaseException) -> Outcome:
    """The outcome of a work that failed with this error."""
    traceback = error.__traceback__

    def outcome() -> Block:
        raise error.with_traceback(traceback)  # without the frames added when it was raised before

    return outcome
