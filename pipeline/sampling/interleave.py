"""Interleaving datasets: some at a time take turns, a few rows each, until all are exhausted."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace

import numpy as np

from pipeline.block import Int64s


class Turns:
    """Rounds in which each of `cycle` slots gives the next `run` rows of its dataset.

    When a dataset is exhausted, the next dataset that has not begun takes its slot, from the next
    round on (if several slots become free at once, in the order of slots). If none is left, the
    slot is dropped. So each row comes exactly once, whatever the lengths. It equals `tf.data`'s
    interleave(cycle_length, block_length), except that a slot is never refilled within a round. A
    few numbers for each dataset are kept in memory.

    Args:
        lengths: rows of each dataset.
        cycle: how many datasets take turns at a time.
        run: rows that each gives in a round.

    >>> turns = Turns([3, 1, 2], cycle=2, run=1)
    >>> which, index = turns.locate(np.arange(6))
    >>> which.tolist(), index.tolist()
    ([0, 1, 0, 2, 0, 2], [0, 0, 1, 0, 2, 1])
    """

    def __init__(self, lengths: Sequence[int], cycle: int, run: int) -> None:
        self._lengths, self._run = np.asarray(lengths, np.int64), run
        self._rounds = -(-self._lengths // run)
        self._begin, self._slot = _schedule(self._rounds.tolist(), cycle)
        # between these rounds, all rounds give the same number of rows
        last = self._begin + np.maximum(self._rounds - 1, 0)
        end = self._begin + self._rounds
        self._breaks = np.unique(np.concatenate([[0], self._begin, last, end]))
        self._firsts = self._rows_before(self._breaks)

    def _rows_before(self, rounds: Int64s) -> Int64s:
        # sum over datasets of clip(round - begin, 0, rounds) * run, where the last run may be
        # short; summed by slopes, since a table of every dataset at every break would be quadratic
        full = self._lengths // self._run
        rest = self._lengths - full * self._run
        events = np.concatenate([self._begin, self._begin + full, self._begin + full])
        ends = self._begin + self._rounds
        events = np.concatenate([events, ends])
        run = np.full(len(full), self._run)
        slopes = np.concatenate([run, -run, rest, -rest])
        order = np.argsort(events, kind="stable")
        events, slopes = events[order], np.cumsum(slopes[order])
        value = np.concatenate([[0], np.cumsum(slopes[:-1] * np.diff(events))])
        at = np.searchsorted(events, rounds, side="right") - 1
        return np.where(at < 0, 0, value[at] + slopes[at] * (rounds - events[at])).astype(np.int64)

    def locate(self, position: Int64s) -> tuple[Int64s, Int64s]:
        """The dataset of the row at each position, and the row's index in it: int64[m] each.

        Args:
            position: int64[m] in [0, sum of lengths).
        """
        which, index = np.empty_like(position), np.empty_like(position)
        segment = np.searchsorted(self._firsts, position, side="right") - 1
        for s in np.unique(segment):
            here = np.flatnonzero(segment == s)
            ahead = position[here] - self._firsts[s]
            which[here], index[here] = self._within(int(self._breaks[s]), ahead)
        return which, index

    def position(self, which: int, index: Int64s) -> Int64s:
        """The positions of rows of one dataset: the inverse of `locate`.

        >>> Turns([3, 1, 2], cycle=2, run=1).position(2, np.array([0, 1])).tolist()
        [3, 5]
        """
        out, rounds = np.empty_like(index), self._begin[which] + index // self._run
        segment = np.searchsorted(self._breaks, rounds, side="right") - 1
        for s in np.unique(segment).tolist():
            here, first = segment == s, int(self._breaks[s])
            active, _, ends = self._active(first)
            place = int(np.flatnonzero(active == which)[0])
            before = (rounds[here] - first) * ends[-1] + (ends[place - 1] if place else 0)
            out[here] = self._firsts[s] + before + index[here] % self._run
        return out

    def _within(self, round_: int, ahead: Int64s) -> tuple[Int64s, Int64s]:
        active, done, ends = self._active(round_)
        turns, inside = np.divmod(ahead, ends[-1])
        place = np.searchsorted(ends, inside, side="right")
        before = np.where(place > 0, ends[place - 1], 0)
        return active[place], done[place] + turns * self._run + inside - before

    def _active(self, round_: int) -> tuple[Int64s, Int64s, Int64s]:
        # the active datasets, rows that each has given, and where in a round its turn ends
        active = np.flatnonzero((self._begin <= round_) & (round_ < self._begin + self._rounds))
        active = active[np.argsort(self._slot[active])]
        done = (round_ - self._begin[active]) * self._run
        return active, done, np.cumsum(np.minimum(self._run, self._lengths[active] - done))


def _schedule(rounds: list[int], cycle: int) -> tuple[Int64s, Int64s]:
    """The round in which each dataset begins, and its slot."""
    begin, slot = np.zeros(len(rounds), np.int64), np.zeros(len(rounds), np.int64)
    free = [(0, s) for s in range(min(cycle, len(rounds)))]
    heapify(free)
    for i, length in enumerate(rounds):
        if length:  # an empty dataset takes no turn
            start, s = free[0]
            begin[i], slot[i] = start, s
            heapreplace(free, (start + length, s))
    return begin, slot
