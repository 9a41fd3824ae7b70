"""Who evaluates when nobody else does: the caller's own thread, when the result is asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass

from pipeline.block import Block
from pipeline.chain import Chain
from pipeline.meter import METER, Sums
from pipeline.workers.stats import QueueStats
from pipeline.workers.work import Work, evaluate


@dataclass(frozen=True)
class Serial:
    """The loop's own thread evaluates, batch by batch: `Loader(workers=0)`."""

    def open(self, chain: Chain, *, ahead: int, stack: bool) -> SerialExecutor:
        return SerialExecutor(chain)


class SerialResult:
    """One piece of work, done when first asked for; after a failure, asking again tries again."""

    __slots__ = ("_block", "_by", "_work")

    def __init__(self, by: SerialExecutor, work: Work) -> None:
        self._by, self._work = by, work
        self._block: Block | None = None

    def result(self) -> Block:
        if self._block is None:
            self._block = self._by.evaluate(self._work)
        return self._block

    def cancel(self) -> None:
        self._block = None


class SerialExecutor:
    """Evaluates in the calling thread."""

    fresh = False

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._sums = Sums()
        self._works, self._busy = 0, 0.0

    def submit(self, work: Work, *, urgent: bool = False) -> SerialResult:
        return SerialResult(self, work)

    def evaluate(self, work: Work) -> Block:
        before, started = METER.into(self._sums), time.perf_counter()
        try:
            return evaluate(self._chain, work)
        finally:
            self._works += 1
            self._busy += time.perf_counter() - started
            METER.into(before)

    def room(self) -> bool:
        return False

    def group(self, rows: int) -> int:
        return 1

    def stats(self) -> QueueStats:
        stages = self._sums.tallies()
        return QueueStats(stages=stages, works=self._works, busy=self._busy, wait=self._busy)

    def close(self) -> None:
        """Nothing to end."""
