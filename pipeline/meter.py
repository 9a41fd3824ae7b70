"""Where the time goes: each stage is measured at one seam, by the thread that evaluates it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pipeline.block import Block, Columns
from pipeline.tree import leaves


class Tally(NamedTuple):
    """Sums over a stage's blocks."""

    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def plus(self, other: Tally) -> Tally:
        rows, size = self.rows + other.rows, self.bytes + other.bytes
        return Tally(rows, size, self.seconds + other.seconds)


class Meter(threading.local):
    """Sums by stage, apart for each thread, until somebody takes them.

    >>> from pipeline.block import Origin
    >>> meter = Meter()
    >>> block = meter.timed("stage 0", lambda: Block([b"to", b"be"], Origin.none()))
    >>> meter.take()["stage 0"].bytes
    4
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tally] = {}
        self._inside = 0.0

    def timed(self, stage: str, call: Callable[..., Block], *args: Any) -> Block:
        """`call(*args)`; the time of stages called inside is theirs alone."""
        before, started = self._inside, time.perf_counter()
        block = None
        try:
            block = call(*args)
            return block
        finally:
            spent = time.perf_counter() - started
            own = spent - (self._inside - before)
            self._inside = before + spent
            rows, size = (len(block), nbytes(block)) if block is not None else (0, 0)
            self._sums[stage] = self._sums.get(stage, Tally()).plus(Tally(rows, size, own))

    def take(self) -> dict[str, Tally]:
        """What came together in this thread since it was last taken."""
        sums, self._sums, self._inside = self._sums, {}, 0.0
        return sums


METER = Meter()


def nbytes(block: Block) -> int:
    """A block's bytes where they are cheap to know: columns, and rows that are bytes; else 0."""
    values = block.values
    if isinstance(values, Columns):
        return sum(leaf.nbytes for _, leaf in leaves(values.tree))
    if values and isinstance(values[0], bytes):
        return sum(map(len, values))
    return 0


def add_up(total: dict[str, Tally], more: Mapping[str, Tally]) -> None:
    """Add sums by stage to others."""
    for stage, tally in more.items():
        total[stage] = total.get(stage, Tally()).plus(tally)
