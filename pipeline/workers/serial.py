"""`workers=0`: the loop's own thread evaluates a work when its result is asked for."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Block
from pipeline.meter import METER, Sums, weight
from pipeline.nodes import Part
from pipeline.workers.stats import QueueStats, Watch, Worked
from pipeline.workers.work import Cost, Rows, Work, produce

Array = NDArray[Any]

SECONDS = 0.02  # seconds of one work: the loop waits for all of it
KEPT = 64 << 20  # bytes of columns whose memory is reused
SMALL = 1 << 15  # bytes up to which an allocator itself reuses warm memory
BYTES = 1 << 20  # of a work of several batches, which are copied out of it while it is in caches


@dataclass(frozen=True)
class Serial:
    """The loop's own thread evaluates: `Loader(workers=0)`.

    It evaluates batch by batch; several at once if they are so quick that nobody notices.
    """

    def open(self, chain: Part, *, ahead: int, stack: bool) -> SerialExecutor:
        return SerialExecutor(chain, ahead, stack)


class Buffers:
    """Allocates columns, reusing the memory of earlier ones that nobody holds any more.

    Reuse saves page faults.

    Args:
        most: bytes that are kept for reuse.

    >>> buffers = Buffers(1 << 20)
    >>> first = buffers((1 << 16,), np.dtype(np.int8))
    >>> second, address = buffers(first.shape, first.dtype), first.ctypes.data
    >>> second.ctypes.data == address
    False
    >>> del first
    >>> buffers(second.shape, second.dtype).ctypes.data == address
    True
    """

    def __init__(self, most: int) -> None:
        self._most, self._held = most, list[Array]()

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An uninitialised array."""
        if dtype.hasobject or math.prod(shape) * dtype.itemsize < SMALL:
            return np.empty(shape, dtype)
        for array in self._held:
            # referenced by the list, by `array` and by the argument; a view would be another one
            if array.shape == shape and array.dtype == dtype and sys.getrefcount(array) == 3:
                return array
        made = np.empty(shape, dtype)
        self._held.append(made)
        while sum([held.nbytes for held in self._held]) > self._most:
            del self._held[0]
        return made


class SerialFuture:
    """One work, evaluated when its result is first asked for; after a failure, tried again."""

    __slots__ = ("_block", "_by", "_early", "_work")

    def __init__(self, by: SerialExecutor, work: Work, early: bool) -> None:
        self._by, self._work, self._early = by, work, early
        self._block: Block | None = None

    def result(self) -> Block:
        if self._block is None:
            self._begin()
            self._block = self._by.evaluate(self._work)
        return self._block

    def cancel(self) -> None:
        self._begin()
        self._block = None

    def _begin(self) -> None:
        self._by.waiting -= self._early
        self._early = False


class SerialExecutor:
    """Evaluates in the calling thread.

    Attributes:
        waiting: how many works were submitted before they were needed, and not begun.
        watch: called for each evaluated work.
    """

    fresh = False
    watch: Watch | None = None

    def __init__(self, chain: Part, ahead: int, stack: bool) -> None:
        self._chain, self._stack = chain, stack
        self._most, self._empty = min(BYTES, ahead), Buffers(min(KEPT, ahead))
        self._sums = Sums()
        self._works, self._busy = 0, 0.0
        self._cost = Cost()
        self.waiting = 0

    def submit(self, work: Work, *, urgent: bool = False) -> SerialFuture:
        self.waiting += not urgent
        return SerialFuture(self, work, early=not urgent)

    def evaluate(self, work: Work) -> Block:
        sums = self._sums if self.watch is None else Sums()
        before, started = METER.into(sums), time.perf_counter()
        try:
            block = produce(self._chain, work, self._stack, self._empty)
        finally:
            self._works += 1
            seconds = time.perf_counter() - started
            self._busy += seconds
            METER.into(before)
            if self.watch is not None:
                stages = sums.tallies()
                self._sums.add(stages)
                self.watch(Worked(self._works, -1, started, seconds, stages))
        if isinstance(work, Rows):
            self._cost.add(rows=len(block), nbytes=weight(block), seconds=seconds)
        return block

    def has_capacity(self) -> bool:
        # for a single work of several batches, once their speed is known
        return not self.waiting and bool(self._cost)

    def group(self, rows: int) -> int:
        return self._cost.batches(rows, seconds=SECONDS, nbytes=self._most) if self._cost else 1

    def stats(self) -> QueueStats:
        stages = self._sums.tallies()
        return QueueStats(stages=stages, works=self._works, busy=self._busy, wait=self._busy)

    def close(self) -> None:
        """Do nothing: there is nothing to end."""
