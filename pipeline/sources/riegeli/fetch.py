"""Fetching records of many files at once: which chunks hold them, and the chunks' contents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.block import Int64s
from pipeline.sources.riegeli.chunks import Records, cut, decode
from pipeline.sources.riegeli.index import Index
from pipeline.sources.storage.spans import merge
from pipeline.sources.storage.storage import Stat, Storage

_AT_ONCE = 64 << 20  # compressed bytes that are decoded together


class ChunkSpans(NamedTuple):
    """Chunks of several files: int64[n] each.

    Attributes:
        file: number of the file, among those given.
        chunk: number of the chunk in its file.
        starts, stops: where it lies in the file.
        counts: how many records it holds.
    """

    file: Int64s
    chunk: Int64s
    starts: Int64s
    stops: Int64s
    counts: Int64s

    def take(self, which: Any) -> ChunkSpans:
        return ChunkSpans(*(a[which] for a in self))


class Places(NamedTuple):
    """Where wanted records are: int64[n] each.

    Attributes:
        chunk: number of the chunk, among those wanted.
        within: number of the record in the chunk.
    """

    chunk: Int64s
    within: Int64s


def plan(indexes: Sequence[Index], local: Sequence[Int64s]) -> tuple[ChunkSpans, Places]:
    """Which chunks hold the given records, and where in them.

    Args:
        indexes: of each file.
        local: for each file, the wanted records' numbers, ascending.
    """
    wanted: list[ChunkSpans] = []
    places: list[Places] = []
    base = 0
    for file, (index, records) in enumerate(zip(indexes, local, strict=True)):
        of = records // index.group
        first = np.concatenate([[True], of[1:] != of[:-1]])
        chunk = of[first]
        counts = np.minimum(index.group, index.records - chunk * index.group)
        where = np.full(len(chunk), file), chunk, index.offsets[chunk], index.offsets[chunk + 1]
        wanted.append(ChunkSpans(*where, counts))
        places.append(Places(base + np.cumsum(first) - 1, records - of * index.group))
        base += len(chunk)
    if len(wanted) == 1:
        return wanted[0], places[0]
    return ChunkSpans(*map(np.concatenate, zip(*wanted, strict=True))), Places(
        *map(np.concatenate, zip(*places, strict=True))
    )


def windows(wanted: ChunkSpans) -> Iterator[slice]:
    """Slices of the wanted chunks that fit into memory together; at least one chunk each."""
    ends = np.cumsum(wanted.stops - wanted.starts)
    start = 0
    while start < len(ends):
        most = ends[start] - (wanted.stops[start] - wanted.starts[start]) + _AT_ONCE
        stop = max(start + 1, int(np.searchsorted(ends, most, side="right")))
        yield slice(start, stop)
        start = stop


def fetch(stats: Sequence[Stat], wanted: ChunkSpans, storage: Storage, limit: int) -> Records:
    """The records of chunks, requested concurrently.

    Args:
        stats: the files.
        wanted: the chunks.
        storage: how files are read.
        limit: decoded bytes of one chunk at most.

    Raises:
        DamagedError, UnfamiliarError: about a chunk, by its number among those wanted.
        OSError: a file cannot be read, or is shorter than it was.
    """
    runs = merge(wanted.file, wanted.starts, wanted.stops, gap=0)
    spans = zip(runs.file.tolist(), runs.start.tolist(), runs.stop.tolist(), strict=True)
    data = storage.read([stats[file].range(start, stop) for file, start, stop in spans])
    chunks = cut(data, runs.start, runs.run, wanted.starts, wanted.stops)
    return decode(chunks, wanted.counts, limit)
