"""Rows dealt to weighted components one after another, by Tijdeman's rule in exact integers.

R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): every prefix is
within one row of its share. A row goes to the component with the earliest deadline among those
whose debt is at least 1 / (2 (m - 1)); its deadline is when its debt would come to 1 minus that.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.sampling.splits import Weights

ROUND = 65_536  # weights are integers that add up to it, if none is too small for that


class Dealer(Protocol):
    """Deals rows in order, many at a time."""

    def deal(self, start: int, stop: int) -> NDArray[np.int32]:
        """The components of rows [start, stop), which follow those dealt so far."""
        ...

    def debts(self, row: int) -> Weights:
        """What each component is owed before the next row, `row`, in units."""
        ...


def dealer(weights: Weights, debts: Weights, unit: int) -> Dealer:
    """Deals by weights that add up to 65,536, from debts on, of which so many units are a row."""
    return Owing(weights, debts, unit) if any(debts) else Even(weights, unit)


class Even:
    """Deals where nothing is owed at first: then the rows in which a component may have its
    rank-th row are known beforehand, and end before those of the next begin.
    """

    def __init__(self, weights: Weights, unit: int = ROUND) -> None:
        self._weights, self._unit = np.array(weights), unit
        self._least = _least(weights)
        self._live = np.flatnonzero(self._weights)
        self._released = np.zeros(len(weights), np.int64)  # rows of each that could be dealt so far
        self._given = np.zeros(len(weights), np.int64)
        self._left = np.zeros((0, 2), np.int64)  # those that were not: (component, rank)

    def debts(self, row: int) -> Weights:
        return tuple(((row * self._weights - ROUND * self._given) * (self._unit // ROUND)).tolist())

    def deal(self, start: int, stop: int) -> NDArray[np.int32]:
        fresh = self._release(stop)
        component, rank = np.concatenate([self._left, fresh]).T
        weight, old = self._weights[component], len(self._left)
        # deadlines as whole numbers and fractions: two that differ are at least 2**-32 apart
        whole, part = np.divmod(ROUND * (self._least - 1 + self._least * rank), weight)
        order = np.lexsort([component, (part << 33) // weight, whole])
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        first = -(-ROUND * (1 + self._least * rank[old:]) // (weight[old:] * self._least)) - 1
        by_row = np.argsort(first, kind="stable")
        bounds = np.searchsorted(first[by_row], np.arange(start, stop + 1), "left").tolist()
        chosen = _earliest(place[:old].tolist(), place[old:][by_row].tolist(), bounds)
        which = component[order[chosen]]
        left = np.ones(len(order), bool)
        left[order[chosen]] = False
        self._left = np.stack([component[left], rank[left]], 1)
        self._given += np.bincount(which, minlength=len(self._given))
        return which.astype(np.int32)

    def _release(self, stop: int) -> Int64s:
        # (component, rank) of the rows that may be dealt from now on and before `stop`
        weight = self._weights[self._live]
        most = (stop * weight * self._least - ROUND) // (ROUND * self._least) + 1
        since, counts = self._released[self._live], np.maximum(most, 0) - self._released[self._live]
        ends = np.cumsum(counts)
        rank = np.arange(ends[-1]) + np.repeat(since - (ends - counts), counts)
        self._released[self._live] = since + counts
        return np.stack([np.repeat(self._live, counts), rank], 1)


def _earliest(ready: list[int], fresh: list[int], bounds: list[int]) -> list[int]:
    # row i chooses the least of all that came up to bounds[i + 1] and were not chosen yet
    heapify(ready)
    chosen: list[int] = []
    start = 0
    for stop in bounds[1:]:
        for place in fresh[start:stop]:
            heappush(ready, place)
        chosen.append(heappop(ready))
        start = stop
    return chosen


class Owing:
    """Deals from debts on, row after row: what is owed may be more than the rule could make up for.

    Deadlines do not change while a component waits, so heaps hold them.
    """

    def __init__(self, weights: Weights, debts: Weights, unit: int) -> None:
        self._debts, self._unit = debts, unit
        self._weights = [weight * (unit // ROUND) for weight in weights]
        self._given = [0] * len(weights)
        self._least = _least(weights)
        self._exact = 33 + (unit // ROUND).bit_length()  # two deadlines are further apart
        self._ready: list[tuple[int, int]] = []
        self._due: dict[int, list[tuple[int, int]]] = {}  # (component, its rank) by the row
        for component, weight in enumerate(weights):
            if weight:
                self._wait(component, 0)

    def debts(self, row: int) -> Weights:
        owed = zip(self._debts, self._weights, self._given, strict=True)
        return tuple(debt + row * weight - self._unit * given for debt, weight, given in owed)

    def deal(self, start: int, stop: int) -> NDArray[np.int32]:
        return np.array([self._one(row) for row in range(start, stop)], np.int32)

    def _one(self, row: int) -> int:
        for component, rank in self._due.pop(row, ()):
            if rank == self._given[component]:
                heappush(self._ready, (self._deadline(component), component))
        chosen = heappop(self._ready)[1] if self._ready else self._most_owed(row)
        self._given[chosen] += 1
        self._wait(chosen, row + 1)
        return chosen

    def _wait(self, component: int, row: int) -> None:
        # the row from which on it may be chosen: row r counts as r + 1 rows' worth of its weight
        least, weight = self._least, self._weights[component]
        needed = self._unit + least * (self._unit * self._given[component] - self._debts[component])
        first = -(-needed // (weight * least)) - 1
        self._due.setdefault(max(row, first), []).append((component, self._given[component]))

    def _deadline(self, component: int) -> int:
        # an integer, by which different deadlines differ and equal ones do not
        least, unit = self._least, self._unit
        owed = unit * self._given[component] - self._debts[component]
        return ((unit * (least - 1) + least * owed) << self._exact) // self._weights[component]

    def _most_owed(self, row: int) -> int:
        # after weights were taken away, all that are left may have had more than their share
        owed = self.debts(row + 1)
        live = [c for c, weight in enumerate(self._weights) if weight]
        most = max(owed[c] for c in live)
        return min((self._deadline(c), c) for c in live if owed[c] == most)[1]


def _least(weights: Weights) -> int:
    # the debt from which on a component may be chosen is 1 / this: 2 (m - 1)
    return 2 * max(sum(w > 0 for w in weights) - 1, 0) or 1
