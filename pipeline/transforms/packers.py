"""Plans which piece of which document goes into which row, from lengths alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.block import Int64s
from pipeline.transforms.fits import CHOOSERS, weights

HOWS = ("split", "first_fit", "best_fit")
LONGER = ("split", "truncate", "refuse")


@dataclass(frozen=True, slots=True)
class Layout:
    """m pieces of documents, sorted by the row that they fill and by their place in it.

    Attributes:
        document: int64[m], which document a piece is cut from.
        start: int64[m], where in the document it starts.
        stop: int64[m, fields], where it stops in each field.
        row: int64[m], the row that it fills: from 0 on, rising without gaps.
    """

    document: Int64s
    start: Int64s
    stop: Int64s
    row: Int64s

    @property
    def rows(self) -> int:
        return int(self.row[-1]) + 1 if len(self.row) else 0

    @property
    def bounds(self) -> Int64s:
        """int64[rows + 1]: row i holds pieces `bounds[i]:bounds[i + 1]`."""
        return np.searchsorted(self.row, np.arange(self.rows + 1))

    @property
    def sizes(self) -> Int64s:
        """int64[m, fields]: tokens of each piece."""
        return self.stop - self.start[:, None]

    @property
    def offset(self) -> Int64s:
        """int64[m, fields]: where in its row each piece stands; a field's pieces lie end to end."""
        sizes = self.sizes
        before = np.cumsum(sizes, 0) - sizes
        return before - before[self.bounds[:-1]][self.row]

    def padding(self, limits: Int64s) -> float:
        """The share of all fields' tokens in these rows that is padding; 0.0 of no rows."""
        room = self.rows * int(np.sum(limits))
        return 1 - int(self.sizes.sum()) / room if room else 0.0


def plan(
    lengths: Int64s,
    limits: int | Sequence[int] | Int64s,
    *,
    how: str = "split",
    cross: bool = True,
    longest_first: bool = True,
    max_segments: int | None = None,
    longer: str = "split",
) -> Layout:
    """The layout of documents of these lengths, packed together: a pure function.

    Documents without tokens go nowhere. Rows stand in the order in which the documents that opened
    them came, and documents within a row in the order in which they came.

    Args:
        lengths: int64[n], tokens of each document; or int64[n, fields].
        limits: tokens of a row; with several fields, a number for each.
        how: "split" lays documents end to end and cuts them at row borders; "first_fit" puts each
            into the first row with room in all fields; "best_fit" into the one with least room to
            spare (over the fields, as shares of their limits; ties to the first).
        cross: of "split": whether a document that fits a row may be cut. If not, it begins a new
            row where the rest of the last one is too short for it (next-fit).
        longest_first: of the fits: whether long documents choose first (by the field that fills
            most of its limit), or each chooses as it comes.
        max_segments: the most pieces of a row.
        longer: a document longer than a row is cut into whole rows and a rest ("split"), or its
            tokens past the limit are left out ("truncate"; the same for "refuse", which callers
            check beforehand). Where documents are cut, their fields must be equally long.

    >>> plan(np.array([3, 3, 1, 9, 2]), 4, how="first_fit", longest_first=False).row.tolist()
    [0, 0, 1, 1, 2, 3, 4]
    >>> laid = plan(np.array([2, 3, 2]), 4, how="best_fit")
    >>> laid.document.tolist(), laid.row.tolist(), laid.offset[:, 0].tolist()
    ([0, 2, 1], [0, 0, 1], [0, 2, 0])
    """
    limits = np.atleast_1d(np.asarray(limits, np.int64))
    sizes = np.asarray(lengths, np.int64).reshape(len(lengths), len(limits))
    if longer != "split":
        sizes = np.minimum(sizes, limits)
    full = np.flatnonzero(sizes.any(1))
    if how == "split" and cross:
        laid = _split(sizes[full, 0], int(limits[0]), max_segments, len(limits))
    else:
        document, start, stop = _pieces(sizes[full], limits)
        needs = stop - start[:, None]
        if how == "split":
            row = _next_rows(needs, limits, max_segments)
        else:
            row = _fit_rows(needs, limits, how, longest_first, max_segments)
        order = np.argsort(row, kind="stable")
        laid = Layout(document[order], start[order], stop[order], row[order])
    return Layout(full[laid.document], laid.start, laid.stop, laid.row)


# ---- split


def _split(size: Int64s, limit: int, most: int | None, fields: int) -> Layout:
    # each piece lies between two consecutive ends, of documents or of rows
    end = np.cumsum(size)
    total = int(end[-1]) if len(end) else 0
    cuts = np.arange(limit, total, limit) if most is None else _row_ends(end, limit, most)
    stop = np.union1d(end, cuts)
    start = np.concatenate([[0], stop[:-1]])[: len(stop)]
    document = np.searchsorted(end, start, side="right")
    begin = (end - size)[document]
    row = np.searchsorted(cuts, start, side="right")
    return Layout(document, start - begin, np.repeat((stop - begin)[:, None], fields, 1), row)


def _row_ends(end: Int64s, limit: int, most: int) -> Int64s:
    # row by row: after `limit` tokens or the end of its last document, whichever comes first
    ends: list[int] = []
    at = 0
    while len(end) and at < end[-1]:
        last = int(np.searchsorted(end, at, side="right")) + most - 1
        at = min(at + limit, int(end[min(last, len(end) - 1)]))
        ends.append(at)
    return np.array(ends, np.int64)


# ---- whole documents


def _pieces(sizes: Int64s, limits: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    # (document, start, stop) of each piece: a document, or whole rows and the rest of a long one
    counts = (-(-sizes // limits)).max(1, initial=0)
    document = np.repeat(np.arange(len(sizes)), counts)
    ends = np.cumsum(counts)
    piece = (np.arange(len(document)) - np.repeat(ends - counts, counts))[:, None]
    return document, piece[:, 0] * limits[0], np.minimum(sizes[document], (piece + 1) * limits)


def _next_rows(needs: Int64s, limits: Int64s, most: int | None) -> Int64s:
    # one step for each row: as many pieces as fit, in order
    n = len(needs)
    ends = np.cumsum(needs, 0)
    before = np.zeros(len(limits), np.int64)
    counts: list[int] = []
    at = 0
    while at < n:
        fits = [
            int(np.searchsorted(ends[:, f], before[f] + limits[f], side="right"))
            for f in range(len(limits))
        ]
        stop = min(*fits, n, n if most is None else at + most)
        counts.append(stop - at)
        at, before = stop, ends[stop - 1]
    return np.repeat(np.arange(len(counts)), counts)


def _fit_rows(
    needs: Int64s, limits: Int64s, how: str, longest_first: bool, most: int | None
) -> Int64s:
    n = len(needs)
    order = np.arange(n)
    if longest_first:
        order = np.argsort(-(needs * weights(limits)).max(1, initial=0), kind="stable")
    most = n if most is None else most
    choose = CHOOSERS[how, len(limits) == 1]
    chosen = np.array(choose(needs[order], limits, most), np.int64)
    # rows are numbered as they were opened: renumber them by the first document put into each
    opener = order[np.unique(chosen, return_index=True)[1]]
    number = np.empty(len(opener), np.int64)
    number[np.argsort(opener)] = np.arange(len(opener))
    row = np.empty(n, np.int64)
    row[order] = number[chosen]
    return row
