"""In which steps records appeared: by the inverse of each order, or by looking at every row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from pipeline.block import Int64s, Origin
from pipeline.checkpoint.position import Exclusion
from pipeline.errors import PositionError
from pipeline.nodes import Part
from pipeline.nodes.node import Span
from pipeline.provenance.exclusions import Exclusions
from pipeline.sampling.cuts import Ranges
from pipeline.sampling.order import NoInverseError

FEW = 1 << 12  # in epochs of at most so many rows, looking at every row is as fast
MANY = 1 << 12  # for more records than this, too
RowsOf = Callable[[int], Ranges]  # step -> its stream rows


class Steps(Protocol):
    """What `found_steps` asks a stream: the rows of steps, and their provenance."""

    @property
    def rows_of(self) -> RowsOf | None: ...

    def origins(self, start: int, stop: int) -> Iterator[tuple[Int64s, Origin]]: ...


def found_steps(
    stream: Steps, part: Part, spans: list[Span], within: range, excluded: Iterable[Exclusion]
) -> list[int]:
    """The steps of a range whose batches hold at least one of some records, rising.

    Args:
        stream: the stream of batches.
        part: the part at the top of its dataset.
        spans: the records to look for.
        within: the steps to look at.
        excluded: excluded records: in their place may stand one that is looked for.
    """
    excluded_spans = [(name, a, b) for _, name, ranges in excluded for a, b in ranges]
    every, runs = [*spans, *excluded_spans], [within]
    records = sum(stop - start for _, start, stop in every)
    if stream.rows_of is not None and part.length > FEW and records <= MANY and len(within):
        try:
            steps = _by_inverse(stream.rows_of, part, every, within)
        except NoInverseError:
            pass
        else:
            if not excluded_spans:
                return steps
            runs = [range(step, step + 1) for step in steps]  # one of its rows may be a substitute
    return _by_looking(stream, part, spans, runs)


def _by_looking(stream: Steps, part: Part, spans: list[Span], runs: Iterable[range]) -> list[int]:
    wanted = Exclusions(part.components, [(0, name, ((a, b),)) for name, a, b in spans])
    hits = [
        steps[wanted.among(origin, 0)]
        for run in runs
        for steps, origin in stream.origins(run.start, run.stop)
    ]
    return np.unique(np.concatenate(hits)).tolist() if hits else []


def check_arithmetic(part: Part) -> None:
    """Raise PositionError, with the remedy, if only reading tells which rows a step has."""
    if part.streamed:
        why = f"{part.counting} counts rows as they come"
    elif part.skips:
        why = "on_error('skip') puts others in the place of rows that fail"
    else:
        return
    raise PositionError(
        f"find: {why}, so only reading the rows of a step again tells what was in it. Say which "
        "steps to read: find(…, within=range(a, b))."
    )


def _by_inverse(rows_of: RowsOf, part: Part, spans: list[Span], within: range) -> list[int]:
    first, last = rows_of(within.start)[0][0], rows_of(within[-1])[-1][1]
    n, found = part.length, [np.zeros(0, np.int64)]
    for turn in range(first // n, -(-last // n)):
        low, high = max(first - turn * n, 0), min(last - turn * n, n)
        found.append(turn * n + part.positions(spans, turn, low, high))
    rows = np.unique(np.concatenate(found))
    return _steps(rows_of, rows[(rows >= first) & (rows < last)], within)


def _steps(rows_of: RowsOf, rows: Int64s, within: range) -> list[int]:
    # rows of steps rise: the last step that begins at or before a row, if it holds the row
    found: set[int] = set()
    for row in rows.tolist():
        step = within[bisect_right(within, row, key=lambda k: rows_of(k)[0][0]) - 1]
        if any(start <= row < stop for start, stop in rows_of(step)):
            found.add(step)
    return sorted(found)
