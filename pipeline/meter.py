"""Where the time goes: each stage is measured at one seam, by the thread that evaluates it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pipeline.block import Block, Columns
from pipeline.tree import nbytes as tree_bytes


class Tally(NamedTuple):
    """Sums over a stage's blocks."""

    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0

    def plus(self, other: Tally) -> Tally:
        rows, size = self.rows + other.rows, self.bytes + other.bytes
        return Tally(rows, size, self.seconds + other.seconds)


class Sums:
    """[rows, bytes, seconds] by stage, and the seconds spent inside of any."""

    __slots__ = ("inside", "stages")

    def __init__(self) -> None:
        self.stages: dict[str, list[Any]] = {}
        self.inside = 0.0

    def tallies(self) -> dict[str, Tally]:
        return {stage: Tally(*figures) for stage, figures in self.stages.items()}


class Meter(threading.local):
    """Sums by stage, apart for each thread, until somebody takes them.

    >>> from pipeline.block import Origin
    >>> meter = Meter()
    >>> block = meter.timed("stage 0", lambda: Block([b"to", b"be"], Origin.none()))
    >>> meter.take()["stage 0"].bytes
    4
    """

    def __init__(self) -> None:
        self._here = Sums()

    def timed(self, stage: str, call: Callable[..., Block], *args: Any) -> Block:
        """`call(*args)`; the time of stages called inside is theirs alone."""
        here = self._here  # a thread's own attributes are slow to reach
        before, started = here.inside, time.perf_counter()
        block = None
        try:
            block = call(*args)
            return block
        finally:
            spent = time.perf_counter() - started
            if (sums := here.stages.get(stage)) is None:
                sums = here.stages[stage] = [0, 0, 0.0]
            sums[2] += spent - (here.inside - before)
            here.inside = before + spent
            if block is not None:
                sums[0] += len(block)
                sums[1] += nbytes(block)

    def take(self) -> dict[str, Tally]:
        """What came together in this thread since it was last taken."""
        return self.into(Sums()).tallies()

    def into(self, sums: Sums) -> Sums:
        """From now on this thread adds to these sums; gives those that it added to before."""
        before, self._here = self._here, sums
        return before


METER = Meter()


def nbytes(block: Block) -> int:
    """A block's bytes where they are cheap to know: columns, and rows that are bytes; else 0."""
    values = block.values
    if isinstance(values, Columns):
        return tree_bytes(values.tree)
    if values and isinstance(values[0], bytes):
        return sum(map(len, values))
    return 0


def add_up(total: dict[str, Tally], more: Mapping[str, Tally]) -> None:
    """Add sums by stage to others."""
    for stage, tally in more.items():
        total[stage] = total.get(stage, Tally()).plus(tally)
