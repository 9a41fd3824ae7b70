"""Where time and memory go: each thread measures the stages that it evaluates, all in one place."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from pipeline.block import Block, Columns
from pipeline.tree import leaves
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
    """[rows, bytes, seconds] of each stage, and the seconds spent inside of all together."""

    __slots__ = ("inside", "stages")

    def __init__(self) -> None:
        self.stages: dict[str, list[Any]] = {}
        self.inside = 0.0

    def tallies(self) -> dict[str, Tally]:
        # over a copy: another thread may ask while the measuring one adds a stage
        return {stage: Tally(*figures) for stage, figures in list(self.stages.items())}

    def count(self, stage: str, rows: int, nbytes: int, seconds: float) -> None:
        """Add to the sums of a stage."""
        sums = self.stages.setdefault(stage, [0, 0, 0.0])
        sums[0] += rows
        sums[1] += nbytes
        sums[2] += seconds

    def add(self, more: Mapping[str, Tally]) -> None:
        """Add sums taken elsewhere."""
        total = self.tallies()
        add_up(total, more)
        self.stages.update({stage: list(tally) for stage, tally in total.items()})


_UNMARKED = nullcontext()


def marked(what: str) -> AbstractContextManager[Any]:
    """A context that appears as a span on the timeline of jax's profiler.

    It does nothing unless the program has imported jax, which Lockstep does not do here.
    """
    profiler = getattr(sys.modules.get("jax"), "profiler", None)
    mark = getattr(profiler, "TraceAnnotation", None)  # not there while jax is being imported
    return _UNMARKED if mark is None else mark(f"lockstep {what}")


class Beacon:
    """Tells where evaluation stands, in case it kills its process.

    Attributes:
        tell: called with the stage, and with the record if known; None if nobody listens.
    """

    tell: Callable[[str], None] | None = None


BEACON = Beacon()


class Meter(threading.local):
    """Sums by stage, which each thread keeps for itself until they are taken.

    >>> from pipeline.block import Origin
    >>> meter = Meter()
    >>> block = meter.timed("stage 0", lambda: Block([b"to", b"be"], Origin.none()))
    >>> meter.take()["stage 0"].bytes
    4
    """

    def __init__(self) -> None:
        self._here = Sums()

    def timed(self, stage: str, call: Callable[..., Block], *args: Any) -> Block:
        """Return `call(*args)` and measure it; the time of stages within counts for them alone."""
        here = self._here  # a thread's own attributes are slow to reach
        before, started = here.inside, time.perf_counter()
        if BEACON.tell is not None:
            BEACON.tell(f"in {stage}")
        block = None
        try:
            with marked(stage):
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

    def add(self, stage: str, rows: int, size: int, seconds: float) -> None:
        """Account for a stage that was not `timed`, because it took turns with others."""
        here = self._here
        here.count(stage, rows, size, seconds)
        here.inside += seconds

    @property
    def inside(self) -> float:
        """Seconds that this thread spent in stages."""
        return self._here.inside

    def take(self) -> dict[str, Tally]:
        """This thread's sums since they were last taken."""
        return self.into(Sums()).tallies()

    def into(self, sums: Sums) -> Sums:
        """Let this thread add to these sums from now on; returns those that it added to before."""
        before, self._here = self._here, sums
        return before


METER = Meter()


def add_up(total: dict[str, Tally], more: Mapping[str, Tally]) -> None:
    """Add the sums of `more` to those of `total`, in place."""
    for stage, tally in more.items():
        total[stage] = total.get(stage, Tally()).plus(tally)


# ---- sizes: estimates of memory. None of them raises, whatever rows hold: a measurement that fails
# must not fail the batch.


def nbytes(block: Block) -> int:
    """A block's bytes where they are cheap to know: columns, and rows that are bytes; else 0."""
    values = block.values
    if isinstance(values, Columns):
        return batch_bytes(values.tree)
    try:
        return sum(map(len, values)) if values and isinstance(values[0], bytes) else 0
    except TypeError:  # other rows are no bytes
        return 0


def batch_bytes(tree: Any) -> int:
    """Bytes of a pytree's arrays; 0 where they cannot be told.

    >>> class Odd:
    ...     nbytes = "many"
    >>> batch_bytes({"x": Odd()})
    0
    """
    try:
        return int(tree_bytes(tree))
    except Exception:
        return 0


def weight(block: Block) -> int:
    """Approximate bytes of a block; if its rows are a list, the first one stands for all."""
    if isinstance(block.values, Columns) or not len(block):
        return nbytes(block)
    try:
        return len(block) * sum(_weigh(leaf) for _, leaf in leaves(block.values[0]))
    except Exception:
        return 0


def _weigh(leaf: Any) -> int:
    # arrays and tensors know their bytes; a 0-d one has no len()
    size = getattr(leaf, "nbytes", None)
    if isinstance(size, int):
        return size
    try:
        return len(leaf) * (64 if isinstance(leaf, list) else 1)
    except TypeError:
        return 32
