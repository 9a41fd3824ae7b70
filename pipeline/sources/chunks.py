"""Random access to rows of files that are read in chunks, with a cache of decoded chunks."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Columns, Int64s
from pipeline.errors import RecordError
from pipeline.sources.arrow_columns import Tree, Unusable, memory, put, refuse, room
from pipeline.sources.indices import inside
from pipeline.sources.storage.ahead import Ahead
from pipeline.sources.storage.files import Files
from pipeline.sources.storage.lru import LRU

LOGGER = logging.getLogger("pipeline")
FETCH = 64 << 20  # file bytes that one read holds at once, unless a single chunk is larger
WASTE = 100  # rows decoded for each row used, from which on a warning is logged
LEAST = 16  # chunks that must have been dropped before it is logged
AHEAD = 8 << 20  # bytes that one read-ahead call reads
_OBJECTS = 4096  # bytes that a chunk's objects take, whatever it holds
A = TypeVar("A")
B = TypeVar("B")


class Chunk(NamedTuple):
    """A decoded chunk.

    Attributes:
        columns: as returned by `arrow.Fields.columns`.
        rows: how many of its rows can be read: all, or those before the first corrupt one.
        error: why the others cannot be read; names them, and ends in a remedy. "" if all can.
        out_of_range: bool[rows] for each column that holds times out of NumPy's range.
        mapped: addresses of a mapped file; what columns have there takes no memory.
    """

    columns: Tree
    rows: int
    error: str = ""
    out_of_range: Mapping[str, NDArray[np.bool_]] = {}
    mapped: range = range(0)

    @staticmethod
    def unreadable(path: str, rows: tuple[int, int], name: str, why: str) -> Chunk:
        """A chunk of which no row can be read: rows `[start, stop)` of a file."""
        return Chunk({}, 0, damage(path, rows, name, why))


def damage(path: str, rows: tuple[int, int], name: str, why: str) -> str:
    """The error message for rows `[start, stop)` of a file that cannot be decoded.

    >>> damage("a.parquet", (0, 10), "row group 0", "column 'i': bad page")[:54]
    'cannot decode rows 0 to 9 (row group 0) of a.parquet: '
    """
    return (
        f"cannot decode rows {rows[0]} to {rows[1] - 1} ({name}) of {path}: {why}. "
        'Rewrite the file, or skip such rows with .on_error("skip").'
    )


def is_damage(error: Exception, stored: int) -> bool:
    """Whether decoding failed because the bytes are damaged, so that it would fail again.

    A damaged length makes a decoder ask for absurd amounts of memory. So running out of memory
    counts as damage if one allocation is far larger than the stored bytes can expand to.

    Args:
        error: what the decoder raised.
        stored: how many bytes were decoded.
    """
    if isinstance(error, MemoryError):
        asked = max(map(int, re.findall(r"size (\d+)", str(error))), default=0)
        return asked > max(_LEAST_ABSURD, _EXPANSION * stored)
    return True


_LEAST_ABSURD = 1 << 30  # bytes
_EXPANSION = 4096  # larger than the compression ratio of lz4 and of almost all real data


class Decoder(NamedTuple):
    """How the chunks of a format are decoded.

    Attributes:
        decode: returns chunks by number; their bytes are requested concurrently.
        weigh: approximate bytes of memory that reading each of some chunks takes.
        empty: the columns of a chunk without rows: fields, dtypes and shapes.
        costly: whether decoding a chunk for a few rows is worth a warning.
        far: whether chunks come from so far away that reading ahead pays off.
    """

    decode: Callable[[list[int]], Sequence[Chunk]]
    weigh: Callable[[list[int]], list[int]]
    empty: Tree
    costly: bool
    far: bool


class Chunks:
    """The rows of all files' chunks, end to end. Decoded chunks are cached, for all threads.

    Args:
        files: the files that hold the chunks.
        counts: for each file, int64[chunks], the rows of each chunk.
        decoder: decodes the chunks.
        cache_bytes: how many bytes of decoded chunks to keep.

    Attributes:
        bounds: int64[chunks + 1], the first row of each chunk, and the end.
    """

    def __init__(
        self, files: Files, counts: Sequence[Int64s], decoder: Decoder, cache_bytes: int
    ) -> None:
        self._files, self._decoder, self._limit = files, decoder, cache_bytes
        sizes = np.concatenate([np.zeros(0, np.int64), *counts])
        self.bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._first = np.concatenate([[0], np.cumsum([len(c) for c in counts])]).astype(np.int64)
        self._weights: dict[int, int] = {}
        self._warned = False
        self.forget()

    def forget(self) -> None:
        """Drop all decoded chunks."""
        self._pid = os.getpid()
        self.kept = LRU[int, Chunk](self._limit, weigh=_weight, dropped=self._drop)
        self._damaged: dict[int, tuple[int, str]] = {}  # by chunk: rows that can be read, error
        self._used: dict[int, int] = {}  # rows read from each chunk since it was decoded
        self._waste = [0, 0, 0]  # of dropped chunks: how many, their rows, rows that were used
        self._ahead = Ahead(self.get, self._slab)

    def close(self) -> None:
        """Stop reading ahead, and drop all decoded chunks."""
        if self._pid == os.getpid():
            self._ahead.close()
        self.forget()

    @cached_property
    def horizon(self) -> int:
        """How many rows ahead to look: a quarter of the cache holds so many. 0 for local files."""
        size = sum(self._files.sizes)
        rows = int(self.bounds[-1])
        return min(rows, rows * (self._limit // 4) // size) if self._decoder.far and size else 0

    def ahead(self, indices: Int64s) -> None:
        """Start reading chunks of which rows to come will use at least a quarter.

        Args:
            indices: an evenly spaced sample of the next `horizon` rows, in the order of need.
        """
        if self._pid != os.getpid():
            self.forget()
        chunk_of = np.searchsorted(self.bounds, indices, side="right") - 1
        found, first, counts = np.unique(chunk_of, return_index=True, return_counts=True)
        every = max(1, self.horizon // max(1, len(indices)))
        good = counts * every * 4 >= np.diff(self.bounds)[found]
        wanted: list[int] = []
        room = self._limit // 4
        coming = found[good][np.argsort(first[good])].tolist()
        for chunk, weight in zip(coming, self._weigh(coming), strict=True):
            room -= weight
            if wanted and room < 0:
                break
            if chunk not in self.kept:
                wanted.append(chunk)
        self._ahead.want(wanted)

    def _weigh(self, chunks: list[int]) -> list[int]:
        # of all at once: to learn it, a file may have to be asked
        if new := [chunk for chunk in chunks if chunk not in self._weights]:
            self._weights.update(zip(new, self._decoder.weigh(new), strict=True))
        return [self._weights[chunk] for chunk in chunks]

    def get(self, chunks: list[int]) -> list[Chunk]:
        """Chunks by number, decoded if they are not kept."""
        return self.kept.get_many(chunks, self._decoder.decode)

    def _slab(self, chunks: list[int]) -> int:
        # how many of these chunks to read in one call
        sizes = np.cumsum(self._weigh(chunks))
        return min(len(chunks), 1 + int(np.searchsorted(sizes, AHEAD)))

    def place(self, chunk: int) -> tuple[int, int]:
        """The file of a chunk, and the chunk's number in that file."""
        file = int(np.searchsorted(self._first, chunk, side="right")) - 1
        return file, chunk - int(self._first[file])

    def span(self, chunk: int) -> tuple[int, int]:
        """Rows `[start, stop)` of its file that a chunk holds."""
        base = self._files.bounds[self.place(chunk)[0]]
        return int(self.bounds[chunk] - base), int(self.bounds[chunk + 1] - base)

    def read(self, indices: Int64s) -> Columns:
        """Rows by index, copied. Each chunk is decoded at most once a call."""
        if self._pid != os.getpid():  # a forked child, in which locks may never be released
            self.forget()
        wanted = inside(indices, int(self.bounds[-1]))
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        chunk_of = np.searchsorted(self.bounds, ascending, side="right") - 1
        needed, firsts = np.unique(chunk_of, return_index=True)
        cuts = dict(zip(needed.tolist(), np.split(np.arange(len(order)), firsts[1:]), strict=False))
        for number, rows in cuts.items():
            self._refuse_damaged(number, int(ascending[rows[-1]]))
        out = room(self._decoder.empty, len(order))
        for slab in self._slabs(needed.tolist()):
            for number in slab:  # counted before any of them is dropped
                self._used[number] = self._used.get(number, 0) + len(cuts[number])
            chunks = self.get(slab)
            for number, chunk in zip(slab, chunks, strict=True):
                if chunk.error:
                    self._damaged[number] = chunk.rows, chunk.error
                rows = ascending[cuts[number]] - self.bounds[number]
                self._put(number, chunk, out, order[cuts[number]], rows)
        return Columns(out)

    def _slabs(self, chunks: list[int]) -> Iterator[list[int]]:
        # as many chunks at once as fit into FETCH bytes
        slab: list[int] = []
        held = 0
        self._weigh([chunk for chunk in chunks if chunk not in self.kept])
        for chunk in chunks:
            weight = 0 if chunk in self.kept else self._weigh([chunk])[0]
            if slab and held + weight > FETCH:
                yield slab
                slab, held = [], 0
            slab.append(chunk)
            held += weight
        if slab:
            yield slab

    def _put(self, number: int, chunk: Chunk, out: Tree, at: NDArray[Any], rows: Int64s) -> None:
        self._refuse_damaged(number, int(self.bounds[number] + rows[-1]))
        try:
            for name, bad in chunk.out_of_range.items():
                refuse(bad, rows, name, "is a time that 64-bit nanoseconds cannot hold")
            put(chunk.columns, out, at, rows)
        except Unusable as e:
            path, row = self._files.where(self.bounds[number] + np.array([e.row]))[0]
            raise RecordError(
                f"column {e.column!r} of row {row} of {path} {e.why}. {e.remedy}, or skip such "
                'rows with .on_error("skip").'
            ) from None

    def _refuse_damaged(self, number: int, last: int) -> None:
        # do not decode again what is known to be damaged
        rows, why = self._damaged.get(number, (0, ""))
        first = int(self.bounds[number]) + rows
        if why and last >= first:
            error = RecordError(why)
            error.alike = range(first, int(self.bounds[number + 1]))
            raise error

    def _drop(self, chunk: int) -> None:
        # called for each chunk that is dropped
        rows = int(self.bounds[chunk + 1] - self.bounds[chunk])
        for i, n in enumerate((1, rows, self._used.pop(chunk, 0))):
            self._waste[i] += n
        count, decoded, used = self._waste
        if self._warned or not self._decoder.costly:
            return
        if count >= LEAST and decoded >= WASTE * max(1, used):
            self._warned = True
            LOGGER.warning(self._advice(count, decoded, used))

    def _advice(self, count: int, decoded: int, used: int) -> str:
        return (
            f"{decoded:,} rows in {count} chunks of {self._files.paths[0]} and its like were "
            f"decoded for {used:,} rows used and then dropped: these files are read in chunks of "
            f"about {decoded // count:,} rows. Shuffle with .shuffle(chunks=16), which reads whole "
            f"chunks, or raise cache_bytes= (now {self._limit:,}), or write smaller chunks."
        )


def _weight(chunk: Chunk) -> int:
    kept = memory(chunk.columns)
    return _OBJECTS + sum(size for address, size in kept if address not in chunk.mapped)


class Cores:
    """Cores that one source may use besides the calling threads. Their number is bounded."""

    def __init__(self) -> None:
        self._pid = -1

    def map(self, f: Callable[[A], B], items: Sequence[A]) -> list[B]:
        """`[f(item) for item in items]`, in additional threads if cores are free."""
        import pyarrow as pa

        if self._pid != os.getpid():
            # pyarrow respects OMP_NUM_THREADS: one of many worker processes gets no more threads
            self._pid, self._spare = os.getpid(), threading.Semaphore(max(0, pa.cpu_count() - 1))
        more = 0
        while more < len(items) - 1 and self._spare.acquire(blocking=False):
            more += 1
        if not more:
            return [f(item) for item in items]
        try:
            from concurrent.futures import ThreadPoolExecutor  # slow to import

            with ThreadPoolExecutor(more + 1, "lockstep-decode") as pool:
                return list(pool.map(f, items))
        finally:
            self._spare.release(more)
