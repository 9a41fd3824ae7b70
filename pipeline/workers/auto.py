"""`workers="auto"`: trying executors on the running data, and choosing the fastest."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

from pipeline.block import Block
from pipeline.errors import ChainError, WorkerError
from pipeline.nodes import Part, Pending
from pipeline.workers.executor import in_worker
from pipeline.workers.processes import Processes
from pipeline.workers.serial import Serial
from pipeline.workers.stats import QueueStats, summed
from pipeline.workers.threads import Threads
from pipeline.workers.work import Executor, Work, Workers

LEAST = 0.3  # seconds of a trial at least
WORKS = 8  # works of a trial at least
WATCHED = 2.0  # seconds over which the pace is measured after the choice
CHANGE = 2.0  # factor by which the pace must rise or fall before all are tried again
GAIN = 1.05  # factor by which a later candidate must be faster
WAITING = 0.1  # share of its time that the loop may wait before more processes are tried


@dataclass(frozen=True)
class Auto:
    """Tries the loop's own thread, processes and, if no code is the user's own, threads, in turn.

    Each gets the running data for a moment: batches are the same whoever evaluates them. The
    fastest is chosen. If the loop still waits and there are more cores, more processes are tried.
    All are tried again once the pace has halved or doubled. `loader.stats()` shows the result.
    """

    def open(self, chain: Part, *, ahead: int, stack: bool) -> AutoExecutor:
        return AutoExecutor(chain, ahead, stack)


class AutoExecutor:
    """Forwards works to the executor that is on trial, or was chosen.

    Attributes:
        fresh: whether the last result lies in memory that nobody else writes to or keeps.
    """

    def __init__(self, chain: Part, ahead: int, stack: bool) -> None:
        self._chain, self._ahead, self._stack = chain, ahead, stack
        self._own = _no_users_code(chain)
        self._cores = _cores()
        self.fresh = False
        self._past = QueueStats()  # sums of executors that were closed
        self._outstanding = dict[int, int]()
        self._left: list[Executor] = []  # executors not chosen, whose results are still outstanding
        self._serial = self._open(Serial())
        self._begin_trials()

    def _open(self, workers: Workers) -> Executor:
        return workers.open(self._chain, ahead=self._ahead, stack=self._stack)

    # ---- trying

    def _begin_trials(self) -> None:
        self.tried: dict[str, float] = {}
        self._best, self._waiting = 0.0, list[Workers]()
        if self._cores > 1 and not in_worker():
            first = min(self._cores, 4)
            self._waiting = [Processes(first), *([Threads(first)] if self._own else [])]
        self._chosen: tuple[Workers, Executor] | None = None
        self._use(Serial(), self._serial)

    def _use(self, workers: Workers, executor: Executor) -> None:
        self._workers, self._now = workers, executor
        self._start()

    def _start(self) -> None:
        self._since, self._seen, self._waited, self._rows = time.perf_counter(), 0, 0.0, 0
        self._warm = isinstance(self._workers, Serial)

    def came(self, rows: int, waited: float) -> None:
        """Count a fetched result. At the end of a trial, or of a period, judge the pace.

        Args:
            rows: of the result.
            waited: seconds that the loop waited for it.
        """
        now = time.perf_counter()
        if not self._warm:  # a new executor has to start up first
            self._warm = self._now.stats().works >= WORKS
            if self._warm:
                self._since, self._seen, self._waited, self._rows = now, 0, 0.0, 0
            return
        self._seen, self._rows, self._waited = (
            self._seen + 1,
            self._rows + rows,
            self._waited + waited,
        )
        spent = now - self._since
        if self._seen < WORKS or spent < (WATCHED if self._decided else LEAST):
            return
        if self._decided:
            self._watch(self._rows / spent)
        else:
            self._judge(self._rows / spent, self._waited / spent)

    @property
    def _decided(self) -> bool:
        return self._chosen is not None and not self._waiting and self._now is self._chosen[1]

    def _judge(self, pace: float, waiting: float) -> None:
        self.tried[str(self._workers)] = pace
        if pace > self._best * (GAIN if self._chosen else 1.0):
            if self._chosen is not None:
                self._leave(self._chosen[1])
            self._chosen, self._best = (self._workers, self._now), pace
            n = self._workers.n if isinstance(self._workers, Processes) else self._cores
            if waiting > WAITING and n < self._cores:
                self._waiting.insert(0, Processes(min(2 * n, self._cores)))
        else:
            self._leave(self._now)
        while self._waiting:
            workers = self._waiting.pop(0)
            try:
                self._use(workers, self._open(workers))
            except (ChainError, WorkerError):
                continue
            return
        assert self._chosen is not None
        self._use(*self._chosen)

    def _watch(self, pace: float) -> None:
        if self._best / CHANGE < pace < self._best * CHANGE:
            self._start()
            self._warm = True
        elif self._cores > 1:
            if self._now is not self._serial:
                self._leave(self._now)
            self._begin_trials()

    def takes_over(self, executor: Executor) -> bool:
        """Whether the loop should evaluate a work on which `executor` failed.

        It should while `executor` is only on trial. Its trial ends, and the loop's own thread is
        chosen.
        """
        if executor is self._serial or self._decided:
            return False
        if self._now is executor:
            self._chosen, self._waiting = (Serial(), self._serial), []
            self._use(*self._chosen)
            self._leave(executor)
        return True

    def evaluate(self, work: Work) -> Block:
        """Evaluate a work in the loop's own thread."""
        self.fresh = self._serial.fresh
        return self._serial.submit(work, urgent=True).result()

    def released(self, executor: Executor) -> None:
        """Count one result of an executor as fetched or cancelled."""
        self._outstanding[id(executor)] -= 1
        self._close_left()

    def _leave(self, executor: Executor) -> None:
        if executor is not self._serial:
            self._left.append(executor)
            self._close_left()

    def _close_left(self) -> None:
        for executor in [e for e in self._left if not self._outstanding.get(id(e))]:
            executor.close()
            # only now: works that nobody wants any more were in progress
            self._left.remove(executor)
            self._past = summed(self._past, executor.stats())

    # ---- an executor

    def submit(self, work: Work, *, urgent: bool = False) -> AutoFuture:
        executor = self._now
        try:
            inner = executor.submit(work, urgent=urgent)
        except (ChainError, WorkerError):
            if not self.takes_over(executor):
                raise
            return self.submit(work, urgent=urgent)
        self._outstanding[id(executor)] = self._outstanding.get(id(executor), 0) + 1
        return AutoFuture(self, executor, inner, work)

    def has_capacity(self) -> bool:
        return self._now.has_capacity()

    def group(self, rows: int) -> int:
        return self._now.group(rows)

    def stats(self) -> QueueStats:
        found, chosen = self._now.stats(), [self._chosen[1]] if self._chosen else []
        for executor in {id(e): e for e in (self._serial, *chosen, *self._left)}.values():
            if executor is not self._now:
                found = summed(found, executor.stats())
        choice = str(self._workers) if self._decided else ""
        return replace(summed(found, self._past), tried=dict(self.tried), choice=choice)

    def close(self) -> None:
        """Stop everything. Work submitted later starts the chosen executor again."""
        chosen = [self._chosen[1]] if self._chosen else []
        for executor in {id(e): e for e in (self._now, *chosen, *self._left)}.values():
            executor.close()


class AutoFuture:
    """A work that one of the executors evaluates."""

    def __init__(self, by: AutoExecutor, executor: Executor, inner: Pending, work: Work) -> None:
        self._by, self._executor, self._inner, self._work = by, executor, inner, work
        self._open = True

    def result(self) -> Block:
        started = time.perf_counter()
        try:
            block = self._inner.result()
        except (ChainError, WorkerError):
            if not self._by.takes_over(self._executor):
                raise
            self._release()
            return self._by.evaluate(self._work)
        self._by.fresh = self._executor.fresh
        if self._release():
            self._by.came(len(block), time.perf_counter() - started)
        return block

    def cancel(self) -> None:
        self._inner.cancel()
        self._release()

    def _release(self) -> bool:
        was, self._open = self._open, False
        if was:
            self._by.released(self._executor)
        return was


def _no_users_code(chain: Part) -> bool:
    # whether all functions and sources are Lockstep's own, which threads can share
    stages = (*chain.stages, *chain.stages_of_parts())
    sources = [type(component.source) for component in chain.components]
    ours = [
        s.__module__.startswith("pipeline.") and s.__name__ != "SequenceSource" for s in sources
    ]
    return all(ours) and not any(stage.codes for stage in stages)


def _cores() -> int:
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return known or 1
