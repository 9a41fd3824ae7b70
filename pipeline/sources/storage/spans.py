"""Merging byte spans that overlap or lie near each other, so that they are read together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pipeline.block import Int64s

Span = tuple[int, int]


class Runs(NamedTuple):
    """Byte spans merged into runs, each of which is read at once.

    Attributes:
        file: int64[runs], the file number of each run. Runs are sorted by file, then by offset.
        start, stop: int64[runs], the byte range of each run in its file.
        run: int64[n], which run contains each of the n spans, in the order they were given.
    """

    file: Int64s
    start: Int64s
    stop: Int64s
    run: Int64s

    def parts(self, start: Int64s, stop: Int64s, data: Sequence[bytes]) -> list[bytes]:
        """The bytes of each span.

        Args:
            start, stop: int64[n], the spans as they were given to `merge`.
            data: the bytes of each run.
        """
        origin = self.start[self.run]
        places = zip((start - origin).tolist(), (stop - origin).tolist(), strict=True)
        return [data[run][a:b] for run, (a, b) in zip(self.run.tolist(), places, strict=True)]


def merge(file: Int64s, start: Int64s, stop: Int64s, *, gap: int) -> Runs:
    """Merge the spans `[start[i], stop[i])` of files `file[i]`, in any order.

    Args:
        file, start, stop: int64[n] each. Spans may overlap, repeat, and be empty.
        gap: unwanted bytes between two spans up to which they are read together.

    >>> start, stop = np.array([30, 0, 8, 5]), np.array([40, 9, 9, 20])
    >>> runs = merge(np.array([0, 0, 1, 0]), start, stop, gap=4)
    >>> runs.start.tolist(), runs.stop.tolist(), runs.run.tolist()
    ([0, 30, 8], [20, 40, 9], [1, 0, 2, 0])
    """
    if not len(file):
        return Runs(file, start, stop, file)
    # place all files on one axis, further apart than the gap
    names, dense = np.unique(file, return_inverse=True)
    sizes = np.zeros(len(names), np.int64)
    np.maximum.at(sizes, dense, stop)
    sizes += gap + 1
    base = (np.cumsum(sizes) - sizes)[dense]
    order = np.argsort(base + start, kind="stable")
    first, last = (base + start)[order], (base + stop)[order]
    apart = first[1:] > np.maximum.accumulate(last)[:-1] + gap
    cuts = np.concatenate([[0], np.flatnonzero(apart) + 1])
    run = np.empty(len(file), np.int64)
    run[order] = np.concatenate([[0], np.cumsum(apart)])
    ends = np.maximum.reduceat(last, cuts) - base[order][cuts]
    return Runs(file[order][cuts], start[order][cuts], ends, run)


def merged(spans: Sequence[Span], gap: int) -> list[Span]:
    """The spans of one file in ascending order; those at most `gap` bytes apart are merged.

    >>> merged([(10, 20), (0, 9), (30, 31)], gap=1)
    [(0, 20), (30, 31)]
    """
    start, stop = np.array(spans, np.int64).reshape(-1, 2).T
    runs = merge(np.zeros(len(spans), np.int64), start, stop, gap=gap)
    return list(zip(runs.start.tolist(), runs.stop.tolist(), strict=True))
