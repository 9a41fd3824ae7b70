"""`workers=0`: the loop's own thread evaluates a work when its result is asked for."""

from __future__ import annotations

import math
import time
import weakref
from collections import deque
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
BYTES = 4 << 20  # of a work of several batches, which are copied out of it while it is in caches


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
        self._most, self._idle = most, list[memoryview]()
        self._alive = dict[int, weakref.ref[Array]]()
        self._returned: deque[memoryview] = deque()

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An uninitialised array."""
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size < SMALL:
            return np.empty(shape, dtype)
        self._settle()
        fits = [i for i, memory in enumerate(self._idle) if memory.nbytes == size]
        memory = self._idle.pop(fits[-1]) if fits else np.empty(size, np.uint8).data
        return self._over(memory, dtype).reshape(shape)

    def _over(self, memory: memoryview, dtype: np.dtype[Any]) -> Array:
        # every view holds a reference to the one array that lies directly on the memory
        array, alive, returned = np.frombuffer(memory, dtype), self._alive, self._returned

        # runs in any thread, at any point, when the last view dies: must not take locks
        def free(_: object) -> None:
            alive.pop(id(memory), None)
            returned.append(memory)

        alive[id(memory)] = weakref.ref(array, free)
        return array

    def _settle(self) -> None:
        # move returned memory to the idle list, the latest last
        while self._returned:
            self._idle.append(self._returned.popleft())
        while sum([memory.nbytes for memory in self._idle]) > self._most:
            del self._idle[0]


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
        self._cost = Cost(chain.node.dealt)
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
