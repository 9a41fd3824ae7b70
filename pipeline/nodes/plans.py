"""Which pieces of which documents fill packed row r of an epoch: arithmetic on lengths alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.storage.lru import LRU
from pipeline.transforms.packers import Layout

CHUNK = 128  # documents for each running sum that is kept, which takes 8 bytes
_PASS = 1 << 16  # documents looked up at a time; a multiple of CHUNK
EPOCHS = 4  # epochs whose running sums are kept, at most
BLOCKS = 1 << 12  # blocks whose layouts are kept, at most

Sizes = Callable[[Int64s], Int64s]
"""Tokens of the documents at these positions of an epoch's order: int64[m] -> int64[m, fields]."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """m pieces of documents, sorted by the row that they fill and by their place in it.

    Attributes:
        document: int64[m], a position in the epoch's order of documents.
        start: int64[m], where in the document a piece starts.
        stop: int64[m, fields], where it stops in each field.
        row: int64[m], an index into the rows asked for: the one that it fills.
    """

    document: Int64s
    start: Int64s
    stop: Int64s
    row: Int64s


class Plan(Protocol):
    """Which documents fill which packed rows.

    Attributes:
        rows: packed rows of an epoch.
        counts: packed rows of each block; None where documents are not packed in blocks.
    """

    @property
    def rows(self) -> int: ...
    @property
    def counts(self) -> Int64s | None: ...

    def pieces(self, rows: Int64s, epoch: Any, sizes: Sizes) -> Pieces:
        """The pieces that fill some rows of an epoch.

        Args:
            rows: int64[k] in [0, self.rows), in any order, repeats included.
            epoch: a hashable key of the epoch's order.
            sizes: looks lengths up in that order.
        """
        ...

    def holding(self, documents: Int64s, epoch: Any, sizes: Sizes) -> Int64s:
        """The rows that hold pieces of some documents of an epoch: the inverse of `pieces`."""
        ...


class EndToEnd:
    """All documents of an epoch end to end, cut every `limit` tokens: only the last row is padded.

    Args:
        n: documents of an epoch.
        limit: tokens of a row.
        sizes: looks lengths up in any epoch's order: their total is the same in all.
    """

    def __init__(self, n: int, limit: int, sizes: Sizes) -> None:
        self._n, self._limit, self.counts = n, limit, None
        self._sums = LRU[Any, Int64s](EPOCHS)
        self._total = int(self._summed(sizes)[-1])
        self.rows = -(-self._total // limit)

    def pieces(self, rows: Int64s, epoch: Any, sizes: Sizes) -> Pieces:
        sums = self._sums.get(epoch, lambda _: self._summed(sizes))
        begin = rows * self._limit
        end = np.minimum(begin + self._limit, self._total)
        # the chunks that rows begin and end in, and those between
        first, last = (np.searchsorted(sums, x, side="right") - 1 for x in (begin, end - 1))
        chunks = np.unique(_ranges(first, last + 1)[0])
        document = (chunks[:, None] * CHUNK + np.arange(CHUNK)).ravel()
        document = document[document < self._n]
        size = sizes(document)[:, 0]
        chunk = np.searchsorted(chunks, document // CHUNK)
        heads = np.searchsorted(document, chunks * CHUNK)
        before = np.cumsum(size) - size
        doc_begin = sums[chunks][chunk] + before - before[heads][chunk]
        doc_end = doc_begin + size
        span = (
            np.searchsorted(doc_end, begin, side="right"),
            np.searchsorted(doc_begin, end, side="left"),
        )
        which, row = _ranges(*span)
        which, row = which[size[which] > 0], row[size[which] > 0]
        start = np.maximum(begin[row], doc_begin[which]) - doc_begin[which]
        stop = np.minimum(end[row], doc_end[which]) - doc_begin[which]
        return Pieces(document[which], start, stop[:, None], row)

    def holding(self, documents: Int64s, epoch: Any, sizes: Sizes) -> Int64s:
        sums = self._sums.get(epoch, lambda _: self._summed(sizes))
        chunk = documents // CHUNK
        before, which = _ranges(chunk * CHUNK, documents)
        within = np.bincount(which, sizes(before)[:, 0], len(documents)).astype(np.int64)
        begin = sums[chunk] + within
        end = begin + sizes(documents)[:, 0]
        full = end > begin
        return np.unique(_ranges(begin[full] // self._limit, -(-end[full] // self._limit))[0])

    def _summed(self, sizes: Sizes) -> Int64s:
        # tokens before each chunk of documents, then the total
        parts = [np.zeros(1, np.int64)]
        for start in range(0, self._n, _PASS):
            size = sizes(np.arange(start, min(start + _PASS, self._n)))[:, 0]
            parts.append(np.add.reduceat(size, np.arange(0, len(size), CHUNK)))
        return np.cumsum(np.concatenate(parts))


class Blocks:
    """Near-equal blocks of documents, each packed by itself; the same ones in every epoch.

    Args:
        n: documents of an epoch.
        block: approximate number of documents of a block.
        lay: packs documents, given their lengths.
        sizes: looks lengths up in any epoch's order, which is the same in all.
        counts: packed rows of each block, if known already.
    """

    def __init__(
        self,
        n: int,
        block: int,
        lay: Callable[[Int64s], Layout],
        sizes: Sizes,
        counts: Int64s | None = None,
    ) -> None:
        self._n, self._lay = n, lay
        self._blocks = -(-n // block)
        self._kept = LRU[int, Layout](BLOCKS)
        if counts is None:
            laid = (self._layout(b, sizes).rows for b in range(self._blocks))
            counts = np.fromiter(laid, np.int64, self._blocks)
        self.counts = counts
        self._firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.rows = int(self._firsts[-1])

    def pieces(self, rows: Int64s, epoch: Any, sizes: Sizes) -> Pieces:
        block = np.searchsorted(self._firsts, rows, side="right") - 1
        parts: list[Pieces] = []
        for b in np.unique(block).tolist():
            here = np.flatnonzero(block == b)
            layout = self._layout(b, sizes)
            bounds, asked = layout.bounds, rows[here] - self._firsts[b]
            which, row = _ranges(bounds[asked], bounds[asked + 1])
            document = self._start(b) + layout.document[which]
            parts.append(Pieces(document, layout.start[which], layout.stop[which], here[row]))
        order = np.argsort(np.concatenate([p.row for p in parts]), kind="stable")
        names = ("document", "start", "stop", "row")
        return Pieces(*(np.concatenate([getattr(p, x) for p in parts])[order] for x in names))

    def holding(self, documents: Int64s, epoch: Any, sizes: Sizes) -> Int64s:
        starts = np.arange(self._blocks + 1) * self._n // self._blocks
        block = np.searchsorted(starts, documents, side="right") - 1
        parts = [np.zeros(0, np.int64)]
        for b in np.unique(block).tolist():
            layout = self._layout(b, sizes)
            inside = np.isin(layout.document, documents[block == b] - self._start(b))
            parts.append(self._firsts[b] + layout.row[inside])
        return np.unique(np.concatenate(parts))

    def _start(self, b: int) -> int:
        return b * self._n // self._blocks

    def _layout(self, b: int, sizes: Sizes) -> Layout:
        documents = np.arange(self._start(b), self._start(b + 1))
        return self._kept.get(b, lambda _: self._lay(sizes(documents)))


def _ranges(starts: Int64s, stops: Int64s) -> tuple[Int64s, Int64s]:
    """The numbers of all ranges `starts[i]:stops[i]`, end to end, and the i of each number."""
    counts = np.maximum(stops - starts, 0)
    which = np.repeat(np.arange(len(starts)), counts)
    ends = np.cumsum(counts)
    return starts[which] + np.arange(len(which)) - (ends - counts)[which], which
