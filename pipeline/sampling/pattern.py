"""Which component of a mix gives each row, and where its rows stand: a table of a round.

Weights that are too small for a round of 65,536 rows have no table: see splits.py.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.sampling.dealing import ROUND, dealer
from pipeline.sampling.splits import Splits, Weights
from pipeline.types import ENDLESS

FIRST = 1024  # rows that are dealt at once; then as many again and again, to the end of a round
Entries = tuple[tuple[int, Weights], ...]


@dataclass(frozen=True, slots=True)
class _Table:
    # rows as they were dealt so far, and the cycle they go on in once debts have come again
    which: NDArray[np.int32]
    rank: NDArray[np.int32]
    first: int
    cycle: int  # rows after `first` that come again and again; 0 while nobody knows
    counts: Int64s  # of each component in a cycle

    def inside(self, rows: Int64s) -> tuple[Int64s, Int64s]:
        if not self.cycle:
            return np.zeros_like(rows), rows
        turn = np.maximum(rows - self.first, 0) // self.cycle
        return turn, rows - turn * self.cycle


class Deal:
    """How rows are dealt to components under one set of weights; the table grows as needed.

    A round is the smallest number of rows in which each component gets a whole number. After a
    round, debts are what they were before. Debts from earlier weights may take some rounds to
    settle.

    Args:
        weights: integers that add up to 65,536.
        debts: what each component is owed before the first row, in units of a row.
        unit: of the debts, so many to a row: a multiple of 65,536.
    """

    def __init__(self, weights: Weights, debts: Weights, unit: int = ROUND) -> None:
        self._dealer = dealer(weights, debts, unit)
        self._round = ROUND // int(np.gcd.reduce(weights))
        self._seen, self._lock = {debts: 0}, threading.Lock()
        none = np.zeros(0, np.int32)
        self._table = _Table(none, none, 0, 0, np.zeros(len(weights), np.int64))

    def at(self, rows: Int64s) -> tuple[Int64s, Int64s]:
        """The component of each row, and its rank among that component's rows."""
        table = self._reach(int(rows.max(initial=-1)) + 1)
        turn, inside = table.inside(rows)
        which = table.which[inside].astype(np.int64)
        return which, table.rank[inside] + turn * table.counts[which]

    def before(self, row: int) -> Int64s:
        """int64[components]: rows of each before a row."""
        table = self._reach(row)
        turn, inside = table.inside(np.array([row]))
        dealt = np.bincount(table.which[: int(inside[0])], minlength=len(table.counts))
        return dealt + int(turn[0]) * table.counts

    def find(self, component: int, rank: int, most: int) -> int:
        """The row of a component's rank-th row; `most` if it comes no earlier."""
        table, reach = self._table, FIRST
        here = np.flatnonzero(table.which == component)
        while len(here) <= rank and not table.cycle and len(table.which) < most:
            table, reach = self._reach(min(reach, most)), 2 * reach
            here = np.flatnonzero(table.which == component)
        if len(here) <= rank:
            each = int(table.counts[component])
            if not each or not table.cycle:
                return most
            turn, rank = divmod(rank - (len(here) - each), each)
            return min(most, int(here[len(here) - each + rank]) + turn * table.cycle)
        return min(most, int(here[rank]))

    def _reach(self, rows: int) -> _Table:
        table = self._table
        if table.cycle or rows <= len(table.which):
            return table
        with self._lock:
            while not self._table.cycle and len(self._table.which) < rows:
                self._table = self._more(self._table)
            return self._table

    def _more(self, table: _Table) -> _Table:
        # as many again, at most to the end of a round
        start = len(table.which)
        stop = min(max(FIRST, 2 * start), (start // self._round + 1) * self._round)
        new = self._dealer.deal(start, stop)
        which, counts, first, cycle = np.concatenate([table.which, new]), table.counts, 0, 0
        if stop % self._round == 0:
            debts = self._dealer.debts(stop)
            first = self._seen.setdefault(debts, stop)
            cycle = stop - first
        if cycle:
            counts = np.bincount(which[first:], minlength=len(counts))
        return _Table(which, _ranks(which), first, cycle, counts)


@dataclass(frozen=True, slots=True)
class _Segment:
    # rows [start, stop) of one entry of the schedule, `before` of each component dealt earlier
    start: int
    stop: int
    dealt: Deal | Splits
    before: Int64s

    def counts(self, row: int) -> Int64s:
        return self.before + self.dealt.before(min(row, self.stop) - self.start)


class Pattern:
    """The component of every row of a mix, computed from one table for each set of weights.

    Args:
        entries: (first row, weights as integers) of each, rising from 0. If they add up to 65,536
            every prefix is within a row of its shares, else, up to 2**30, within 1.7 rows. What is
            owed as one entry ends is made up for under the next.

    >>> pattern = Pattern(((0, (49152, 16384)),))
    >>> which, rank = pattern.at(np.arange(8))
    >>> which.tolist(), rank.tolist()
    ([0, 0, 1, 0, 0, 0, 1, 0], [0, 1, 0, 2, 3, 4, 1, 5])
    >>> pattern.counts(1_000_000).tolist()
    [750000, 250000]
    """

    def __init__(self, entries: Entries) -> None:
        self.entries = entries

    def __reduce__(self) -> Any:
        return pattern, (self.entries,)

    def in_lanes(self, lanes: int) -> Pattern:
        """The pattern of each of so many lanes: entries begin at the lane's row, rounded up."""
        starts = {-(-row // lanes): weights for row, weights in self.entries}
        return pattern(tuple(starts.items()))

    def at(self, rows: Int64s) -> tuple[Int64s, Int64s]:
        """The component of each row, and how many of that component's rows come before it."""
        if len(self._segments) == 1:
            return self._segments[0].dealt.at(rows)
        which, rank = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        owner = np.searchsorted([s.start for s in self._segments], rows, side="right") - 1
        for i in np.unique(owner).tolist():
            segment, here = self._segments[i], owner == i
            which[here], inside = segment.dealt.at(rows[here] - segment.start)
            rank[here] = inside + segment.before[which[here]]
        return which, rank

    def counts(self, row: int) -> Int64s:
        """int64[components]: rows of each before a row, in O(entries and one round)."""
        return self._segment(row).counts(row)

    def find(self, component: int, rank: int) -> int:
        """The row that is the component's rank-th; ENDLESS if it is never dealt so many."""
        for segment in self._segments:
            inside = rank - int(segment.before[component])
            rows = segment.stop - segment.start
            row = segment.dealt.find(component, inside, rows)
            if row < rows:
                return segment.start + row
        return ENDLESS

    def end(self, component: int) -> int:
        """The row from which on a component is not dealt any more; ENDLESS if it always is."""
        last = [i for i, (_, weights) in enumerate(self.entries) if weights[component]]
        if not last:
            return 0
        following = self.entries[last[-1] + 1 : last[-1] + 2]
        return following[0][0] if following else ENDLESS

    def share(self, row: int) -> list[float]:
        """Each component's share of the rows at a row."""
        current = [weights for start, weights in self.entries if start <= row][-1]
        return [weight / sum(current) for weight in current]

    def _segment(self, row: int) -> _Segment:
        return [s for s in self._segments if s.start <= row][-1]

    @cached_property
    def _segments(self) -> list[_Segment]:
        # what is owed to each component as one entry ends, it is still owed under the next
        before = np.zeros(len(self.entries[0][1]), np.int64)
        debts, segments = tuple(before.tolist()), list[_Segment]()
        unit = math.lcm(ROUND, *(sum(weights) for _, weights in self.entries))
        stops = [start for start, _ in self.entries[1:]] + [ENDLESS]
        for (start, weights), stop in zip(self.entries, stops, strict=True):
            segment = _Segment(start, stop, dealt(weights, debts, unit), before)
            segments.append(segment)
            if stop < ENDLESS:
                before = segment.counts(stop)
                got = (before - segment.before).tolist()
                each = unit // sum(weights) * (stop - start)
                debts = tuple(
                    d + each * w - unit * n for d, w, n in zip(debts, weights, got, strict=True)
                )
        return segments


@lru_cache(64)
def pattern(entries: Entries) -> Pattern:
    """The pattern of a schedule, one object a process: its tables are found once."""
    return Pattern(entries)


@lru_cache(64)
def dealt(weights: Weights, debts: Weights, unit: int) -> Deal | Splits:
    """How rows are dealt from debts on, one object a process."""
    return (Deal if sum(weights) == ROUND else Splits)(weights, debts, unit)


def _ranks(which: NDArray[np.int32]) -> NDArray[np.int32]:
    order = np.argsort(which, kind="stable")
    sizes = np.bincount(which)
    rank = np.empty(len(which), np.int32)
    rank[order] = np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank
