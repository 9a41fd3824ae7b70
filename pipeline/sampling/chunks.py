"""Shuffling in a way that reads storage in runs: first the chunks, then rows within a few chunks.

It computes what tf.data approximates with interleaved shards and a shuffle buffer: the order of the
chunks is permuted, and rows are permuted within a window of so many chunks of that order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from pipeline.block import Int64s
from pipeline.sampling.groups import grouped
from pipeline.sampling.permutation import Permutation
from pipeline.seeds import Name, derive_seed

RUN = 64  # rows in a chunk if the source has no chunks: about what one request brings


class ChunkOrder(Protocol):
    """The chunks in an epoch's order. A slot is a chunk's place in that order.

    Positions count rows in the permuted order of chunks, records count them in storage.
    """

    def slot(self, position: Int64s) -> Int64s:
        """The slot of each position."""
        ...

    def start(self, slot: Int64s) -> Int64s:
        """The first position of each slot; n for the slot after the last one."""
        ...

    def record(self, slot: Int64s) -> Int64s:
        """The first record of each slot's chunk."""
        ...

    def holding(self, record: Int64s) -> Int64s:
        """The slot of the chunk that holds each record."""
        ...


class Runs(Protocol):
    """A division of rows into chunks, which are runs of rows that storage reads together."""

    @property
    def count(self) -> int: ...

    def ordered(self, key: int) -> ChunkOrder:
        """The chunks in the order that a key determines."""
        ...

    def __str__(self) -> str:
        """For the fingerprint; equal if two divisions are equal."""
        ...


@dataclass(frozen=True, slots=True)
class Even:
    """Aligned chunks of `size` rows, the last one shorter. Needs no table, whatever n is.

    >>> runs = Even(10, 4)
    >>> order = runs.ordered(derive_seed(0))
    >>> order.record(order.slot(np.arange(10))).tolist()
    [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
    """

    n: int
    size: int

    @property
    def count(self) -> int:
        return -(-self.n // self.size)

    def ordered(self, key: int) -> ChunkOrder:
        return _EvenOrder(self, key)

    def __str__(self) -> str:
        return f"runs of {self.size}"


class _EvenOrder:
    def __init__(self, runs: Even, key: int) -> None:
        self._size, self._order = runs.size, Permutation(runs.count, key)
        last = runs.count - 1
        self._short = runs.n - last * runs.size
        # only the short chunk displaces those after it
        self._at = int(self._order.inverse(np.array([last]))[0]) if runs.n else 0

    def slot(self, position: Int64s) -> Int64s:
        before = self._at * self._size
        slot = np.where(
            position < before + self._short,
            self._at,
            (position - self._short) // self._size + 1,
        )
        return np.where(position < before, position // self._size, slot)

    def start(self, slot: Int64s) -> Int64s:
        return slot * self._size - np.where(slot > self._at, self._size - self._short, 0)

    def record(self, slot: Int64s) -> Int64s:
        return self._order(slot) * self._size

    def holding(self, record: Int64s) -> Int64s:
        return self._order.inverse(record // self._size)


class Uneven:
    """Chunks of any sizes, as given by a source's `chunk_bounds`. Empty ones are ignored.

    Args:
        bounds: int64[k + 1], ascending from 0 to n.
    """

    __slots__ = ("bounds", "digest")

    def __init__(self, bounds: Int64s) -> None:
        self.bounds = np.unique(np.asarray(bounds, np.int64))
        self.digest = hashlib.blake2b(
            self.bounds.astype("<i8").tobytes(), digest_size=6
        ).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Uneven) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Uneven({self})"

    @property
    def count(self) -> int:
        return len(self.bounds) - 1

    def ordered(self, key: int) -> ChunkOrder:
        return _uneven_order(self, key)

    def __str__(self) -> str:
        return f"{self.count} chunks {self.digest}"


class _UnevenOrder:
    def __init__(self, runs: Uneven, key: int) -> None:
        order = Permutation(runs.count, key)(np.arange(runs.count))
        self._records, self._bounds, self._slots = (
            runs.bounds[order],
            runs.bounds,
            np.argsort(order),
        )
        sizes = np.diff(runs.bounds)[order]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def slot(self, position: Int64s) -> Int64s:
        return np.searchsorted(self._starts, position, side="right").astype(np.int64) - 1

    def start(self, slot: Int64s) -> Int64s:
        return self._starts[slot]

    def record(self, slot: Int64s) -> Int64s:
        return self._records[slot]

    def holding(self, record: Int64s) -> Int64s:
        return self._slots[np.searchsorted(self._bounds, record, side="right") - 1]


# two int64 for each chunk; for the epochs that current batches and restored loaders are in
_uneven_order = lru_cache(maxsize=8)(_UnevenOrder)


@dataclass(frozen=True, slots=True)
class Chunks:
    """Permutes the chunks, and then the rows within each `window` of consecutive chunks.

    Attributes:
        window: number of chunks whose rows are shuffled together; with all chunks it is a full
            shuffle.
        runs: the chunks.
    """

    window: int
    runs: Runs

    def place(self, index: Int64s, n: int, names: tuple[Name, ...]) -> Int64s:
        order = self.runs.ordered(derive_seed(*names, "chunks"))
        within = np.empty_like(index)
        for number, here in grouped(order.slot(index) // self.window):
            start, permutation = self._window(order, number, names)
            within[here] = start + permutation(index[here] - start)
        slot = order.slot(within)
        return order.record(slot) + within - order.start(slot)

    def back(self, rows: Int64s, n: int, names: tuple[Name, ...]) -> Int64s:
        """The positions of `rows`: the inverse of `place`."""
        order = self.runs.ordered(derive_seed(*names, "chunks"))
        slot = order.holding(rows)
        within = order.start(slot) + rows - order.record(slot)
        out = np.empty_like(rows)
        for number, here in grouped(slot // self.window):
            start, permutation = self._window(order, number, names)
            out[here] = start + permutation.inverse(within[here] - start)
        return out

    def _window(
        self, order: ChunkOrder, number: int, names: tuple[Name, ...]
    ) -> tuple[int, Permutation]:
        first = number * self.window
        ends = order.start(np.array([first, min(first + self.window, self.runs.count)]))
        start, stop = ends.tolist()
        return start, Permutation(stop - start, derive_seed(*names, "window", number))

    def __str__(self) -> str:
        return f"chunks={self.window} of {self.runs}"
