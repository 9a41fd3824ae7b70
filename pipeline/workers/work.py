"""Works, which workers evaluate: stream rows, or a block of a lane. How many rows make one work."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipeline.block import Block, Columns, Int64s, Origin
from pipeline.errors import ChainError, CollateError
from pipeline.meter import METER
from pipeline.nodes import Part, Path, Pending
from pipeline.transforms.collate import Empty, collate
from pipeline.types import At, describe
from pipeline.workers.stats import QueueStats


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A work: rows of an indexed dataset's stream, int64[n]."""

    rows: Int64s

    @property
    def size(self) -> int:
        """Size relative to other works of the same dataset."""
        return max(1, len(self.rows))

    def __reduce__(self) -> Any:
        # as runs of consecutive rows: few however many rows, so it fits into one packet
        cuts = np.flatnonzero(np.diff(self.rows) != 1) + 1
        runs = [(int(r[0]), int(r[-1]) + 1) for r in np.split(self.rows, cuts) if len(r)]
        return _of_runs, (runs,)


def _of_runs(runs: list[tuple[int, int]]) -> Rows:
    spans = [np.arange(*run, dtype=np.int64) for run in runs]
    return Rows(np.concatenate(spans) if spans else np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class LaneBlock:
    """A work: block `number` of a lane of a streamed dataset, or of a part of a streamed mix."""

    lane: int
    number: int
    part: Path = ()

    @property
    def size(self) -> int:
        """Size relative to other works of the same dataset."""
        return 1


Work = Rows | LaneBlock


def evaluate(chain: Part, work: Work, empty: Empty | None = None) -> Block:
    """The work's rows: a pure function of chain and work.

    Args:
        chain, work: what to evaluate.
        empty: allocates columns, if rows may be stacked; None to leave rows as they are.

    Raises:
        ChainError: a row is an iterator, which could be read only once; the message names the
            record.
    """
    if isinstance(work, LaneBlock):
        block = chain.read_block(work.part, work.lane, work.number)
    else:
        at = At.of_rows(work.rows, max(1, chain.length))
        block = chain.read(at) if empty is None else chain.read_stacked(at, empty)
        if len(work.rows):
            chain.ahead(int(work.rows[0]), int(work.rows[-1]) + 1)
    if isinstance(block.values, list):
        once = {k for k in set(map(type, block.values)) if issubclass(k, Iterator | Coroutine)}
        if once:
            i, row = next((i, row) for i, row in enumerate(block.values) if type(row) in once)
            record = describe(chain.components, block.origin, i)
            raise ChainError(
                f"{record} is a {type(row).__name__}, which can be read only once. Give a list, a "
                "tuple or an array."
            )
    return block


def produce(chain: Part, work: Work, stack: bool, empty: Empty = np.empty) -> Block:
    """The work's rows, stacked into columns if asked for and possible."""
    block = evaluate(chain, work, empty if stack else None)
    return METER.timed("collate", stacked, block, empty) if stack else block


def records(chain: Part, work: Work) -> Origin:
    """Provenance of the records that a work reads, computed without reading. For errors."""
    if isinstance(work, LaneBlock):
        return chain.block_origin(work.part, work.lane, work.number)
    return chain.origin(At.of_rows(work.rows, max(1, chain.length)))


def count(chain: Part, work: Work) -> int:
    """How many records a work reads."""
    return len(work.rows) if isinstance(work, Rows) else len(records(chain, work))


def named(chain: Part, work: Work) -> str:
    """The first records that a work reads, in words."""
    origin = records(chain, work)
    components = chain.components
    shown = [describe(components, origin, i) for i in range(min(8, len(origin)))]
    more = f" and {len(origin) - 8} more" if len(origin) > 8 else ""
    return "; ".join(shown) + more


def stacked(block: Block, empty: Empty = np.empty) -> Block:
    """The block with its rows stacked into columns, or as it is if they do not stack.

    Stacking here or later, batch by batch, gives the same batches: nothing is promoted, and
    neighbouring rows have no influence.
    """
    if isinstance(block.values, Columns) or not len(block):
        return block
    try:
        columns = Columns(collate(block.values, empty=empty, strict=True), len(block))
        columns.own = True
        return Block(columns, block.origin, block.made)
    except CollateError:
        return block


class Executor(Protocol):
    """Evaluates works in any order. A result depends on its work alone."""

    @property
    def fresh(self) -> bool:
        """Whether results lie in memory that nobody else writes to or keeps."""
        ...

    def submit(self, work: Work, *, urgent: bool = False) -> Pending:
        """Begin a work. Urgent works, for which somebody waits, go first."""
        ...

    def has_capacity(self) -> bool:
        """Whether to submit another work before it is needed."""
        ...

    def group(self, rows: int) -> int:
        """How many batches of `rows` rows are best evaluated in one work."""
        ...

    def stats(self) -> QueueStats: ...

    def close(self) -> None:
        """Stop everything. Work submitted later starts it again."""
        ...


class Workers(Protocol):
    """A description of who evaluates: what `Loader(workers=)` takes."""

    def open(self, chain: Part, *, ahead: int, stack: bool) -> Executor:
        """An executor for a chain.

        Args:
            chain: what to evaluate.
            ahead: bytes of results that may wait to be fetched.
            stack: whether rows may be stacked into columns before they are handed over.
        """
        ...


FADE = 0.5  # factor by which earlier works count less, with each further work
LONG = 0.95  # the same, for the comparison of sizes
ROWS = 8192  # rows of a work: more gain nothing; fewer cost threads that pass the GIL on and on
ASKING = 4e-5  # seconds that it takes to ask one source for rows
LATE = 0.1  # seconds of a work that gathers the few rows of many sources
BYTES = 8 << 20  # bytes of a work: more leave the CPU's caches


class Cost:
    """Seconds and bytes of a row, averaged over recent works, as datasets change on the way.

    If the last work was heavier than the average, its bytes count, so that a budget holds when
    captions give way to images.

    Args:
        sources: how many sources a batch takes only a few rows of each.

    >>> cost = Cost()
    >>> cost.add(rows=1000, nbytes=1000, seconds=0.5)
    >>> cost.add(rows=10, nbytes=8000, seconds=0.5)
    >>> cost.nbytes, round(cost.seconds, 4)
    (800.0, 0.0015)
    """

    def __init__(self, sources: int = 1) -> None:
        self._sources = sources
        self._works = self._rows = self._bytes = self._seconds = self._last = 0.0
        self._moments = np.zeros(5)  # number of works; sums of rows, seconds, rows², rows × seconds
        self._fixed: float | None = None

    def __bool__(self) -> bool:
        return self._rows > 0

    def add(self, *, rows: int, nbytes: int, seconds: float) -> None:
        """Count one more work."""
        self._works = FADE * self._works + 1
        self._rows = FADE * self._rows + rows
        self._bytes = FADE * self._bytes + nbytes
        self._seconds = FADE * self._seconds + seconds
        self._last = nbytes / max(1, rows)
        terms = 1.0, rows, seconds, rows * rows, rows * seconds
        self._moments = LONG * self._moments + terms
        n, r, s, rr, rs = self._moments.tolist()
        spread = n * rr - r * r
        if spread > (r / 4) ** 2:
            # a linear fit over works of several sizes tells the fixed cost of a work, such as a
            # call for each of many sources
            each = max(0.0, (n * rs - r * s) / spread)
            self._fixed = max(0.0, (s - each * r) / n)

    @property
    def nbytes(self) -> float:
        """Bytes of a row."""
        return max(self._last, self._bytes / max(1.0, self._rows))

    @property
    def seconds(self) -> float:
        """Seconds of a row."""
        return self._seconds / max(1.0, self._rows)

    def batches(self, rows: int, *, seconds: float, nbytes: float) -> int:
        """How many batches of `rows` rows make a work of at most so many seconds and bytes.

        A work may take up to twice as long as one batch if most of that is a fixed cost, and up to
        `LATE` if much of it is asking many sources: rows of many batches are read together.
        """
        fixed = self._fixed or 0.0
        each = max(1e-9, self._seconds - self._works * fixed) / max(1.0, self._rows)
        one = fixed + each * rows
        if fixed > one / 2:
            seconds = max(seconds, 2 * one)
        if self._sources > 1 and 4 * ASKING * min(rows, self._sources) > one:
            seconds = max(seconds, LATE)
        fit = min(ROWS, (seconds - fixed) / each, min(BYTES, nbytes) / max(1.0, self.nbytes))
        least = 2 if self._fixed is None and one < 5 * seconds else 1  # to find the fixed cost
        return max(least, int(fit) // max(1, rows))
