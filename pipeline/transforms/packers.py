"""Which piece of which document goes into which row: one function for each way to pack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.block import Int64s


@dataclass(frozen=True, slots=True)
class Layout:
    """Pieces of documents in rows: m of them, in order of row and of their place in the row.

    Attributes:
        document: int64[m], which document a piece is cut from.
        start: int64[m], where in the document it starts.
        stop: int64[m, fields], where it stops in each field.
        row: int64[m], rising from 0 without gaps.
    """

    document: Int64s
    start: Int64s
    stop: Int64s
    row: Int64s

    @property
    def bounds(self) -> Int64s:
        """int64[rows + 1]: row i holds pieces `bounds[i]:bounds[i + 1]`."""
        return np.searchsorted(self.row, np.arange(self.rows + 1))

    @property
    def rows(self) -> int:
        return int(self.row[-1]) + 1 if len(self.row) else 0


Packer = Callable[[Int64s, Int64s], Layout]
"""(tokens int64[documents, fields], tokens a row int64[fields]) -> Layout, a pure function."""


def _ranges(counts: Int64s) -> Int64s:
    """0, 1, … counts[0] - 1, 0, 1, … counts[1] - 1, …"""
    ends = np.cumsum(counts)
    return np.arange(counts.sum()) - np.repeat(ends - counts, counts)


def split(sizes: Int64s, limits: Int64s) -> Layout:
    """Documents end to end, cut at every limit; a document's fields are of one size."""
    size, limit = sizes[:, 0], limits[0]
    end = np.cumsum(size)
    begin = end - size
    first = begin // limit
    counts = np.where(size > 0, (end - 1) // limit - first + 1, 0)
    document = np.repeat(np.arange(len(size)), counts)
    row = first[document] + _ranges(counts)
    start = np.maximum(begin[document], row * limit) - begin[document]
    stop = np.minimum(end[document], (row + 1) * limit) - begin[document]
    return Layout(document, start, np.repeat(stop[:, None], len(limits), 1), row)


def first_fit(sizes: Int64s, limits: Int64s) -> Layout:
    """Each document into the first row with room for it; longer ones in pieces of a whole row."""
    counts = (-(-sizes // limits)).max(1, initial=0)
    document = np.repeat(np.arange(len(sizes)), counts)
    piece = _ranges(counts)[:, None]
    stop = np.minimum(sizes[document], (piece + 1) * limits)
    start = piece[:, 0] * limits[0]
    row = _first_rows(stop - start[:, None], limits)
    order = np.argsort(row, kind="stable")
    return Layout(document[order], start[order], stop[order], row[order])


def _first_rows(needs: Int64s, limits: Int64s) -> Int64s:
    rows = np.zeros(len(needs), np.int64)
    # one row beyond the open ones is empty, and everything fits into it
    frees = [np.full(len(needs) + 1, limit) for limit in limits]
    opened = 0
    for i, need in enumerate(needs.tolist()):
        fits = frees[0][: opened + 1] >= need[0]
        for free, n in zip(frees[1:], need[1:], strict=True):
            fits &= free[: opened + 1] >= n
        row = int(fits.argmax())
        for free, n in zip(frees, need, strict=True):
            free[row] -= n
        rows[i] = row
        opened = max(opened, row + 1)
    return rows


PACKERS: dict[str, Packer] = {"split": split, "first_fit": first_fit}
