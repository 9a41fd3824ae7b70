"""What threads, processes and Ray share: a queue of works, and a crew that pulls from it."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pipeline.block import Block, Columns
from pipeline.checks import shown, whole
from pipeline.errors import OURS, ChainError, WorkerError
from pipeline.nodes import Part
from pipeline.tree import owned
from pipeline.workers.queue import Future, Queue, closed, raising
from pipeline.workers.stats import QueueStats, Watch
from pipeline.workers.totals import Totals
from pipeline.workers.work import Work, count, named, produce

KILLS = 3  # number of workers that may die over one work at the same place


class Crew:
    """The workers. They hold no reference to their executor, so dropping the executor ends them.

    Args:
        chain: what is evaluated.
        queue: where works are pulled from and results are put.
        n: how many workers.

    Attributes:
        restarts: how many workers were replaced.
    """

    def __init__(self, chain: Part, queue: Queue, n: int) -> None:
        self._chain, self._queue, self._n = chain, queue, n
        self.restarts = 0
        self._started = time.monotonic()

    def up(self) -> float:
        """Seconds since the workers were started, times their number."""
        return (time.monotonic() - self._started) * self._n

    def close(self) -> None:
        """End all workers. Whoever still waits for a result gets an error."""
        self._queue.break_off(closed())

    def _redo(
        self, future: Future, died: str, *, place: str = "", cause: BaseException | None = None
    ) -> None:
        """Put a work back whose worker died, or give it up with an error that names it.

        It is given up when `KILLS` workers in a row have died at the same place. Deaths at
        different places count as progress: each record may kill one worker. So in all a work may
        kill `KILLS` workers, and one more for each of its records.

        Args:
            future: of the work.
            died: who died and how, in the plural: "worker processes died of SIGKILL".
            place: stage and record at which it died, "" if unknown.
            cause: the exception that reported the death.
        """
        same = not future.place or place == future.place  # unknown after the first death
        future.deaths = future.deaths + 1 if same else 1
        future.place, future.total = place, future.total + 1
        if future.deaths < KILLS and future.total < KILLS + count(self._chain, future.work):
            with self._queue.lock:
                if future.state == "asked":
                    self._queue.put_back([future])
            return
        where = f", the last {place}" if place else ""
        error = WorkerError(
            f"{future.total} {died} over the same work{where}: {named(self._chain, future.work)}. "
            "Find the record among them with workers=0, and drop or repair it, or give the "
            "function more memory or time."
        )
        error.__cause__ = cause
        self._queue.finish(future, raising(error), 0, 0.0)


class Here:
    """Evaluates works in the thread that waits for them, as a worker would.

    Args:
        chain: what is evaluated.
        stack: whether rows are stacked into columns if possible.
        fresh: whether results must lie in memory that nobody else writes to or keeps.
    """

    def __init__(self, chain: Part, stack: bool, fresh: bool) -> None:
        self._chain, self._stack, self._fresh = chain, stack, fresh
        stages = (*chain.stages, *chain.stages_of_parts())
        self._seeds = any(stage.seed_globals for stage in stages)

    def may(self, work: Work) -> bool:
        """Whether this thread may evaluate it: only the main thread may seed global generators."""
        return not self._seeds or threading.current_thread() is threading.main_thread()

    def evaluate(self, work: Work) -> Block:
        """The work's rows, stacked if asked for."""
        block = produce(self._chain, work, self._stack)
        if self._fresh and isinstance(block.values, Columns):
            return Block(block.values.each(owned), block.origin, block.made)
        return block


@dataclass(frozen=True)
class Parallel:
    """A description of n workers: what Threads, Processes and Ray have in common.

    Attributes:
        n: how many workers.

    Raises:
        ChainError: n is below 1.
    """

    n: int
    fresh: ClassVar[bool] = False  # whether nobody else uses the memory of results
    nests: ClassVar[bool] = False  # whether such workers may be started inside a worker

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "n", whole("n", self.n, 1))
        except ChainError:
            raise ChainError(
                f"{type(self).__name__}({shown(self.n)}): give a whole number from 1, or "
                "workers=0 for none"
            ) from None

    def open(self, chain: Part, *, ahead: int, stack: bool) -> QueuedExecutor:
        """An executor whose crew starts with the first work."""
        helper = Here(chain, stack, self.fresh) if self._helped(chain) else None

        def start(queue: Queue) -> Crew:
            if not self.nests:
                refuse_in_worker(self)
            return self._crew(chain, queue, stack)

        return QueuedExecutor(
            start, self.n, ahead, helper, sources=chain.node.dealt, fresh=self.fresh
        )

    def _helped(self, chain: Part) -> bool:
        """Whether the thread that waits for a work may evaluate it if no worker has begun it."""
        return False

    def _crew(self, chain: Part, queue: Queue, stack: bool) -> Crew:
        """Start the workers."""
        raise NotImplementedError


class QueuedExecutor:
    """An executor with a queue and a crew.

    Args:
        start: starts the crew for a queue.
        workers: how many workers the crew has.
        ahead: bytes of results that may wait to be fetched.
        helper: evaluates works that nobody has begun in the thread that waits; None for never.
        fresh: whether results lie in memory that nobody else writes to or keeps.

    Attributes:
        watch: called for each evaluated work, in any thread.
    """

    watch: Watch | None = None

    def __init__(
        self,
        start: Callable[[Queue], Crew],
        workers: int,
        ahead: int,
        helper: Here | None,
        *,
        sources: int,
        fresh: bool,
    ) -> None:
        self._start, self._workers, self._ahead, self.fresh = start, workers, ahead, fresh
        self._helper, self._sources = helper, sources
        self._totals = Totals()
        self._renew()

    def _renew(self) -> None:
        # the queue lives as long as the crew and must not keep this executor alive
        redo = weakref.WeakMethod(self._evaluate)

        def again(work: Work) -> Block:
            evaluate = redo()
            assert evaluate is not None, "whoever holds futures holds their executor"
            return evaluate(work)

        self._crew: Crew | None = None
        self._queue = Queue(
            self._workers, self._ahead, again, self._helper, self._sources, self._totals
        )

    def _own(self) -> Queue:
        # after a fork, the workers, and the threads that hold locks, are the parent's
        if self._queue.owner != os.getpid():
            self._totals = Totals()  # what the parent's workers do is the parent's to count
            self._renew()
        return self._queue

    def _evaluate(self, work: Work) -> Block:
        return self.submit(work, urgent=True).result()

    def submit(self, work: Work, *, urgent: bool = False) -> Future:
        queue = self._own()
        if self._crew is None:
            queue.watch = self.watch
            crew = self._start(queue)
            self._end = weakref.finalize(self, _close, crew, os.getpid())
            self._crew = crew  # only now: after an interrupt `close` needs the line above
        return queue.submit(work, urgent)

    def has_capacity(self) -> bool:
        return self._own().has_capacity()

    def group(self, rows: int) -> int:
        return self._own().group(rows)

    def stats(self) -> QueueStats:
        queue, crew = self._own(), self._crew
        return queue.stats(up=crew.up() if crew else 0.0, restarts=crew.restarts if crew else 0)

    def close(self) -> None:
        """End the crew. Work submitted later starts another one."""
        self._own()
        if (crew := self._crew) is not None:
            up = crew.up()
            self._end()
            self._renew()
            self._totals.ended(up=up, restarts=crew.restarts)


def _close(crew: Crew, owner: int) -> None:
    # a forked process inherits the finalizer, but not the workers
    if os.getpid() == owner:
        crew.close()


# ---- workers that start workers

_here: str | None = None  # a description of this process, if it is a worker


def be_worker(what: str) -> None:
    """Mark this process as a worker, which may not start workers of its own."""
    global _here
    _here = what


def in_worker() -> bool:
    """Whether this process is a worker."""
    return _here is not None


def refuse_in_worker(wanted: object) -> None:
    """Refuse to start workers in a worker, where each would start as many again, without end.

    Raises:
        WorkerError: this process is a worker; the message names the line that asked.
    """
    if _here is None:
        return
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith((OURS, "<frozen importlib"))
    ):
        frame = frame.f_back
    module = frame.f_globals.get("__name__", "?")
    raise WorkerError(
        f"{module}, line {frame.f_lineno} of {frame.f_code.co_filename}, starts {wanted} inside "
        f"{_here}, which imports that module or calls its functions: workers would start workers "
        "without end. Put the loop into a function that the main script alone calls, or below "
        "`if __name__ == '__main__':`; inside a function of a dataset, use workers=0."
    )
