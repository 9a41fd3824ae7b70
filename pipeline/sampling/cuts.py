"""Ranges of rows that a stream skips, and how to count the rows that remain."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate

Ranges = tuple[tuple[int, int], ...]  # half-open, ascending, disjoint


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Half-open ranges, sorted, and joined where they touch.

    >>> joined([(5, 8), (1, 3), (2, 4)])
    ((1, 4), (5, 8))
    """
    found: list[tuple[int, int]] = []
    for start, stop in sorted(r for r in ranges if r[0] < r[1]):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return tuple(found)


class Cuts:
    """Ranges of rows that a stream skips, called cut. Each question costs a bisection.

    Args:
        ranges: half-open, ascending, disjoint.

    >>> cuts = Cuts(((2, 4), (7, 8)))
    >>> cuts.outside(0, 10), cuts.after(0, 3), cuts.spans(1, 5)
    (7, 5, [(1, 2), (4, 7), (8, 9)])
    """

    __slots__ = ("_kept", "_starts", "_stops", "_totals", "ranges")

    def __init__(self, ranges: Ranges = ()) -> None:
        self.ranges = ranges
        self._starts, self._stops = [a for a, _ in ranges], [b for _, b in ranges]
        # before each range: how many rows are cut, and how many are not
        self._totals = list(accumulate((b - a for a, b in ranges), initial=0))
        self._kept = [a - total for a, total in zip(self._starts, self._totals, strict=False)]

    def outside(self, start: int, stop: int) -> int:
        """How many rows of [start, stop) are not cut."""
        if not self.ranges:
            return stop - start
        return self._rank(stop) - self._rank(start)

    def after(self, start: int, count: int) -> int:
        """The row after the next `count` rows from `start` on that are not cut."""
        if not self.ranges or not count:
            return start + count
        rank = self._rank(start) + count
        return rank + self._totals[bisect_left(self._kept, rank)]

    def spans(self, start: int, count: int) -> list[tuple[int, int]]:
        """The next `count` rows from `start` on that are not cut, as half-open ranges."""
        found: list[tuple[int, int]] = []
        at = bisect_right(self._stops, start)
        while count:
            if at < len(self.ranges) and self._starts[at] <= start:
                start, at = self._stops[at], at + 1
                continue
            end = start + count
            end = min(end, self._starts[at]) if at < len(self.ranges) else end
            found.append((start, end))
            start, count = end, count - (end - start)
        return found

    def next_from(self, row: int) -> tuple[int, int] | None:
        """The first range that ends after a row; None if there is none."""
        at = bisect_right(self._stops, row)
        return self.ranges[at] if at < len(self.ranges) else None

    def _rank(self, row: int) -> int:
        # how many rows before it are not cut
        at = bisect_left(self._starts, row)
        if not at:
            return row
        return row - self._totals[at] + max(0, self._stops[at - 1] - row)


NO_CUTS = Cuts()
