"""What has been asked for and not been fetched: works in order, pulled by whoever is free."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pipeline.block import Block
from pipeline.errors import PipelineError
from pipeline.meter import Tally, add_up, weight
from pipeline.workers.stats import QueueStats, Watch, Worked
from pipeline.workers.work import Cost, Work

Outcome = Callable[[], Block]  # gives the block, or raises what went wrong


class Helper(Protocol):
    """Evaluates in the thread that waits for a result."""

    def may(self, work: Work) -> bool:
        """Whether this thread, now, may evaluate a work."""
        ...

    def evaluate(self, work: Work) -> Block: ...


MOST = 256  # works outstanding, however small: more read-ahead than this gains nothing
SECONDS = 0.1  # of one work: longer ones come late, and are costly to redo


class Future:
    """One piece of work under way.

    Attributes:
        state: "asked", then "ready", then "fetched"; or "cancelled".
        begun: whether a worker has ever begun with it.
        wanted: whether the thread that waits for it would evaluate it.
        claimed: whether it is that thread's to evaluate, and no worker's.
        bytes: of the result.
        deaths: workers that died over it, one after the other, at the same place.
        place: where the last of them died, as far as is known: stage and record.
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
        """The block, waiting for it; raises what its evaluation raised."""
        if self._queue.owner != os.getpid():  # a forked process has none of its parent's workers
            return self._queue.redo(self.work)
        return self._queue.fetch(self)()

    def cancel(self) -> None:
        """The result is not wanted any more."""
        if self._queue.owner == os.getpid():
            self._queue.cancel(self)


class Queue:
    """Futures of one executor: first come first served, urgent ones before; safe for threads.

    A KeyboardInterrupt may hit the thread that asks at any bytecode. So the lock is one written in
    C, taken by plain `with`, and nobody sleeps while holding it, as `threading.Condition` would:
    whoever waits sleeps on a lock of its own, which `notify` releases.

    Args:
        workers: how many pull from it.
        ahead: bytes of results that may wait to be fetched.
        redo: evaluates a work anew, in a process that was forked and has this queue's futures.
        helper: evaluates a work that nobody has begun, in the thread that waits for it; None where
            that thread must not.

    Attributes:
        lock: held to pull and to notify.
        more: called, outside of the lock, when there is more to pull.
        recall: called, outside of the lock, when a future is `wanted` that workers were sent: it
            is `claimed` if none has begun it.
        watch: told of each work that was evaluated, by whoever evaluated it.
        broken: the error for everybody who waits, once nothing will be worked on any more.
        owner: the process that the workers belong to.
    """

    def __init__(
        self,
        workers: int,
        ahead: int,
        redo: Callable[[Work], Block] | None = None,
        helper: Helper | None = None,
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
        self._numbers = 0
        self._outstanding = self._ready = self._ready_bytes = self._asked_size = 0
        self._awaited, self._full = 0, False
        self._done = self._done_size = 0
        self._cost = Cost()
        self._busy = self._wait = 0.0
        self._stages: dict[str, Tally] = {}

    # ---- waiting

    def _sleeper(self) -> Any:
        # with the lock held: something to acquire, once the lock is free, until the next notify
        sleeper = threading.Lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        return sleeper

    def notify(self) -> None:
        """Wake everybody who waits; with the lock held."""
        while self._sleepers:
            if self._sleepers[-1].locked():  # else an interrupt came between these two lines
                self._sleepers[-1].release()
            self._sleepers.pop()

    # ---- who asks

    def submit(self, work: Work, urgent: bool) -> Future:
        with self.lock:
            future = Future(self, self._numbers, work)
            self._numbers += 1
            self._outstanding += 1
            self._asked_size += work.size
            (self._waiting.appendleft if urgent else self._waiting.append)(future)
            self.notify()
        self.more()
        return future

    def fetch(self, future: Future) -> Outcome:
        """A future's outcome, waiting for it."""
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
                self._wait += time.perf_counter() - started

    def _help_wanted(self, future: Future) -> bool:
        # with the lock held: claim a future that nobody has begun; or whether to ask workers for it
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
        # an interrupt leaves it claimed: it is evaluated when it is asked for again
        assert self._helper is not None
        started = time.perf_counter()
        try:
            block = self._helper.evaluate(future.work)
        except Exception as error:
            self._settle(future, raising(error), 0)
        else:
            self._settle(future, lambda: block, weight(block))
        spent = time.perf_counter() - started
        self._busy += spent
        self.measured({}, Worked(future.number, -1, started, spent, {}))

    def cancel(self, future: Future) -> None:
        with self.lock:
            self._leave(future, "cancelled")
            future.outcome = None
        self._resume()

    def _resume(self) -> None:
        # work that a full budget held back may be pulled again
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

    # ---- how much to ask for

    def has_capacity(self) -> bool:
        """Whether results not fetched yet leave some of the budget, by the sizes seen so far."""
        with self.lock:
            if self._outstanding <= self._workers:
                return True
            if not self._done:
                return self._outstanding < 2 * self._workers + 2
            coming = (self._asked_size + self._done_size / self._done) * self._cost.nbytes
            return self._outstanding < MOST and self._ready_bytes + coming <= self._ahead

    def group(self, rows: int) -> int:
        """How many batches of so many rows make a good work; one, until some have been seen."""
        with self.lock:
            if self._done < self._workers or not self._cost:
                return 1
            share = self._ahead / (4 * self._workers + 4)
            return self._cost.batches(rows, seconds=SECONDS, nbytes=share)

    # ---- who works

    def pull(self) -> Future | None:
        """The next future to work on, if any; with the lock held.

        None where results that nobody fetches fill the budget: rows may be larger than those seen
        when they were asked for.
        """
        self._full = bool(self._waiting) and self._ready_bytes > self._ahead and not self._awaited
        while self._waiting and not self._full:
            future = self._waiting.popleft()
            if future.state == "asked" and not future.claimed:
                return future
        return None

    def await_pull(self) -> Future | None:
        """The next future to work on, once there is one; None when nothing more will come."""
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
        """Have these works done again, before all others."""
        with self.lock:
            self._waiting.extendleft(sorted(futures, key=lambda f: -f.number))
            self.notify()

    def finish(self, future: Future, outcome: Outcome, nbytes: int, seconds: float) -> None:
        """A worker has evaluated a future; the first outcome of one counts."""
        with self.lock:
            self._busy += seconds
            self._done += 1
            self._done_size += future.work.size
            self._cost.add(rows=future.work.size, nbytes=nbytes, seconds=seconds)
            self._settle(future, outcome, nbytes)

    def _settle(self, future: Future, outcome: Outcome, nbytes: int) -> None:
        # its outcome, unless it has one or is not asked for any more
        with self.lock:
            if future.state != "asked":
                return
            self._asked_size -= future.work.size
            future.outcome, future.bytes, future.state = outcome, nbytes, "ready"
            self._ready += 1
            self._ready_bytes += nbytes
            self.notify()

    def measured(self, stages: Mapping[str, Tally], worked: Worked | None = None) -> None:
        with self.lock:
            add_up(self._stages, stages)
        if self.watch is not None and worked is not None:
            self.watch(worked)

    def break_off(self, error: BaseException) -> None:
        """Nothing will be worked on any more: whoever waits gets this error."""
        with self.lock:
            self.broken = error
            self.notify()

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
    """Those who sleep until they are notified need no call."""


def _not_here(work: Work) -> Block:
    raise PipelineError("this loader's workers belong to the process that this one was forked from")


def closed() -> PipelineError:
    """The error for whoever still waits when the workers are ended."""
    return PipelineError("the loader was closed while it waited for a batch: use it before close()")


def raising(error: BaseException) -> Outcome:
    """The outcome of work that failed."""
    traceback = error.__traceback__

    def outcome() -> Block:
        raise error.with_traceback(traceback)  # without the frames of those it was raised to before

    return outcome
