"""What threads, processes and Ray share: works wait in a queue, and a crew pulls them."""

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
from pipeline.errors import OURS, ChainError, WorkerError
from pipeline.nodes import Part
from pipeline.tree import owned
from pipeline.workers.queue import Future, Queue, closed, raising
from pipeline.workers.stats import QueueStats, Watch
from pipeline.workers.work import Work, count, named, produce

KILLS = 3  # workers that may die over one work at the same place


class Crew:
    """Those who work. It knows nothing of its executor, so that dropping the executor ends it.

    Args:
        chain: what is evaluated.
        queue: where work is pulled from and results go.
        n: workers.

    Attributes:
        restarts: workers replaced.
    """

    def __init__(self, chain: Part, queue: Queue, n: int) -> None:
        self._chain, self._queue, self._n = chain, queue, n
        self.restarts = 0
        self._started = time.monotonic()

    def up(self) -> float:
        """Seconds that workers have been there, summed over workers."""
        return (time.monotonic() - self._started) * self._n

    def close(self) -> None:
        """End them all; whoever still waits for a result gets an error."""
        self._queue.break_off(closed())

    def _redo(
        self, future: Future, died: str, *, place: str = "", cause: BaseException | None = None
    ) -> None:
        """Have a work done again whose worker died, or give up and name it.

        It is given up when `KILLS` workers in a row died at the same place. Deaths at ever other
        places are progress: each row may be one that kills only once. So a work may take one worker
        for each of its records besides, and no more.

        Args:
            future: of the work.
            died: who died and how, in the plural: "worker processes died of SIGKILL".
            place: stage and record at which it died, "" if nobody knows.
            cause: what told of the death.
        """
        same = not future.place or place == future.place  # of the first death nobody knows it
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
    """The thread that waits for a work, evaluating it as a worker would.

    Args:
        chain: what is evaluated.
        stack: whether rows are stacked into columns where they can be.
        fresh: whether results must lie in memory that nobody else writes to or keeps.
    """

    def __init__(self, chain: Part, stack: bool, fresh: bool) -> None:
        self._chain, self._stack, self._fresh = chain, stack, fresh
        stages = (*chain.stages, *chain.stages_of_parts())
        self._seeds = any(stage.seed_globals for stage in stages)

    def may(self, work: Work) -> bool:
        """Whether this thread may: global generators are seeded in the main thread alone."""
        return not self._seeds or threading.current_thread() is threading.main_thread()

    def evaluate(self, work: Work) -> Block:
        """The work's rows, stacked."""
        block = produce(self._chain, work, self._stack)
        if self._fresh and isinstance(block.values, Columns):
            return Block(block.values.each(owned), block.origin, block.made)
        return block


@dataclass(frozen=True)
class Parallel:
    """n workers, described: what Threads, Processes and Ray have in common.

    Attributes:
        n: how many.

    Raises:
        ChainError: n is below 1.
    """

    n: int
    fresh: ClassVar[bool] = False  # whether results lie in memory that nobody else sees
    nests: ClassVar[bool] = False  # whether a worker may have such workers itself

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            kind = type(self).__name__
            raise ChainError(
                f"{kind}({self.n!r}): give a whole number from 1, or workers=0 for none"
            )

    def open(self, chain: Part, *, ahead: int, stack: bool) -> QueuedExecutor:
        """An executor whose crew starts with the first work."""
        helper = Here(chain, stack, self.fresh) if self._helped(chain) else None

        def start(queue: Queue) -> Crew:
            if not self.nests:
                refuse_in_worker(self)
            return self._crew(chain, queue, stack)

        return QueuedExecutor(start, self.n, ahead, helper, fresh=self.fresh)

    def _helped(self, chain: Part) -> bool:
        """Whether the thread that waits for a work may evaluate it, while no worker has begun."""
        return False

    def _crew(self, chain: Part, queue: Queue, stack: bool) -> Crew:
        """Start the workers."""
        raise NotImplementedError


class QueuedExecutor:
    """Evaluates by a crew.

    Args:
        start: makes the crew that works off a queue.
        workers: how many it has.
        ahead: bytes of results that may wait to be fetched.
        helper: evaluates, in the thread that waits, what nobody has begun; None where it must not.
        fresh: whether results lie in memory that nobody else writes to or keeps.

    Attributes:
        watch: told of each work that was evaluated, by whoever evaluated it.
    """

    watch: Watch | None = None

    def __init__(
        self,
        start: Callable[[Queue], Crew],
        workers: int,
        ahead: int,
        helper: Here | None,
        *,
        fresh: bool,
    ) -> None:
        self._start, self._workers, self._ahead, self.fresh = start, workers, ahead, fresh
        self._helper = helper
        self._renew()

    def _renew(self) -> None:
        # the queue lives as long as its crew, and must not keep this executor alive
        redo = weakref.WeakMethod(self._evaluate)

        def again(work: Work) -> Block:
            evaluate = redo()
            assert evaluate is not None, "whoever holds futures holds their executor"
            return evaluate(work)

        self._crew: Crew | None = None
        self._queue = Queue(self._workers, self._ahead, again, self._helper)

    def _own(self) -> Queue:
        # in a forked process: the workers, and the threads that hold locks, are the parent's
        if self._queue.owner != os.getpid():
            self._renew()
        return self._queue

    def _evaluate(self, work: Work) -> Block:
        return self.submit(work, urgent=True).result()

    def submit(self, work: Work, *, urgent: bool = False) -> Future:
        queue = self._own()
        if self._crew is None:
            queue.watch = self.watch
            self._crew = self._start(queue)
            self._end = weakref.finalize(self, _close, self._crew, os.getpid())
        return queue.submit(work, urgent)

    def has_capacity(self) -> bool:
        return self._own().has_capacity()

    def group(self, rows: int) -> int:
        return self._own().group(rows)

    def stats(self) -> QueueStats:
        queue, crew = self._own(), self._crew
        return queue.stats(up=crew.up() if crew else 0.0, restarts=crew.restarts if crew else 0)

    def close(self) -> None:
        """End the crew; work submitted later starts another."""
        self._own()
        if self._crew is not None:
            self._end()
            self._renew()


def _close(crew: Crew, owner: int) -> None:
    # a fork of this process inherits the finalizer, but not those who work
    if os.getpid() == owner:
        crew.close()


# ---- workers that start workers

_here: str | None = None  # what this process is, if it is a worker


def be_worker(what: str) -> None:
    """Note that this process is a worker: it may not start workers of its own."""
    global _here
    _here = what


def refuse_in_worker(wanted: object) -> None:
    """Refuse to start workers in a worker: each would start as many, and these as many again.

    Raises:
        WorkerError: this process is a worker; names the line that asked.
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
