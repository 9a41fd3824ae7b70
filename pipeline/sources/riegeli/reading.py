"""Records by number from many files, and naming the bad record if decoding fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.errors import RecordError
from pipeline.sources.riegeli.chunks import DamagedError, Records, UnfamiliarError
from pipeline.sources.riegeli.fetch import ChunkSpans, Places, fetch, plan, windows
from pipeline.sources.riegeli.index import Index
from pipeline.sources.riegeli.native import BadRecordError, Native
from pipeline.sources.riegeli.recent import Recent
from pipeline.sources.riegeli.shards import Shards, Verify
from pipeline.sources.storage.files import Files
from pipeline.sources.storage.location import is_url
from pipeline.sources.storage.storage import Stat

Objects = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class _Part:
    """Records `local` of one file, to be stored in `found[start:]`."""

    file: int
    stat: Stat
    index: Index
    local: Int64s
    start: int


class Reading:
    """Reads records of files. Safe in threads and after a fork."""

    def __init__(self, files: Files, shards: Shards | None, verify: Verify, limit: int) -> None:
        self._files, self._limit = files, limit
        self._shards = shards or Shards(files, verify, limit, {})
        self._recent = Recent()

    def close(self) -> None:
        self._shards.close()
        self._recent.clear()

    def spans(self, indices: Int64s) -> tuple[Int64s, Int64s, Int64s] | None:
        """File and bytes of the groups that hold records; of no files that lie far away."""
        file = np.searchsorted(self._files.bounds, indices, side="right") - 1
        start, stop = np.zeros((2, len(indices)), np.int64)
        for number in np.unique(file).tolist():
            index = self._shards.local_index(number)
            if index is not None:
                mine = file == number
                chunk = (indices[mine] - self._files.bounds[number]) // index.group
                start[mine], stop[mine] = index.offsets[chunk], index.offsets[chunk + 1]
        some = stop > start
        return (file[some], start[some], stop[some]) if some.any() else None

    def read(self, ascending: Int64s) -> Objects:
        """Records as bytes objects, for indices in ascending order without repeats."""
        while True:
            try:
                return self._read(ascending)
            except UnfamiliarError:  # the native reader takes over its file
                continue

    def _read(self, ascending: Int64s) -> Objects:
        found = np.empty(len(ascending), object)
        touched = list(self._files.split(ascending))
        shards = self._shards.get([file for file, _ in touched])
        by_ranges: list[_Part] = []
        start = 0
        for (file, local), shard in zip(touched, shards, strict=True):
            if shard.index is not None:
                by_ranges.append(_Part(file, shard.stat, shard.index, local, start))
            elif shard.native is not None:
                found[start : start + len(local)] = self._native(file, shard.native, local)
            start += len(local)
        if by_ranges:
            self._fill(found, by_ranges)
        return found

    def _native(self, file: int, native: Native, local: Int64s) -> list[bytes]:
        try:
            found = native.read(local.tolist())
        except BadRecordError as e:
            self._files.check_unchanged(file)
            place = self._shards.place(file, e.record)
            reason = f"{place}: {e}" if place else str(e)
            raise self._bad(file, e.record, reason) from e
        if not is_url(self._files.paths[file]):  # an open file may be written over in its place
            self._files.check_unchanged(file)
        return found

    def _fill(self, found: Objects, parts: list[_Part]) -> None:
        wanted, places = plan([p.index for p in parts], [p.local for p in parts])
        to = np.concatenate([np.arange(p.start, p.start + len(p.local)) for p in parts])
        grouped = any(p.index.group > 1 for p in parts)
        if grouped:
            wanted, places, to = self._remembered(found, parts, wanted, places, to)
        for window in windows(wanted):
            some = wanted.take(window)
            got = self._fetched(parts, some)
            a, b = np.searchsorted(places.chunk, [window.start, window.stop])
            rows = got.first[places.chunk[a:b] - window.start] + places.within[a:b]
            found[to[a:b]] = _picked(got, rows)
            if grouped:
                self._recent.keep(_keys(parts, some), got)

    def _remembered(
        self, found: Objects, parts: list[_Part], wanted: ChunkSpans, places: Places, to: Int64s
    ) -> tuple[ChunkSpans, Places, Int64s]:
        """Fill in records of groups that are still in memory, and return what is left to read.

        Args:
            found: the result, filled in where a group is in memory.
            parts: the files.
            wanted: chunks that hold the records.
            places: int64[n], where in the chunks the records are.
            to: int64[n], where in `found` they go.

        Returns:
            `wanted`, `places` and `to` without what was filled in.
        """
        left = np.ones(len(wanted.file), np.bool_)
        for i, key in enumerate(_keys(parts, wanted)):
            kept = self._recent.get(key) if key is not None else None
            if kept is not None:
                a, b = np.searchsorted(places.chunk, [i, i + 1])
                found[to[a:b]] = _picked(kept, places.within[a:b])
                left[i] = False
        rows = left[places.chunk]
        renumbered = np.cumsum(left) - 1
        rest = Places(renumbered[places.chunk[rows]], places.within[rows])
        return wanted.take(left), rest, to[rows]

    def _fetched(self, parts: list[_Part], wanted: ChunkSpans) -> Records:
        try:
            return self._tried(parts, wanted)
        except DamagedError:
            pass  # the damage may have happened in transit: report only what is bad twice
        try:
            return self._tried(parts, wanted)
        except DamagedError as e:
            part, chunk = parts[int(wanted.file[e.which])], int(wanted.chunk[e.which])
            first = int(part.local[np.searchsorted(part.local, chunk * part.index.group)])
            raise self._bad(part.file, first, f"{part.index.place(first)}: {e}") from e

    def _tried(self, parts: list[_Part], wanted: ChunkSpans) -> Records:
        try:
            return fetch([p.stat for p in parts], wanted, self._files.storage, self._limit)
        except UnfamiliarError as e:
            self._shards.use_native(parts[int(wanted.file[e.which])].file)
            raise

    def _bad(self, file: int, record: int, reason: str) -> RecordError:
        self._files.check_unchanged(file)
        return RecordError(
            f"cannot read record {record} of {self._files.paths[file]}: {reason}. "
            'Rewrite the file, or skip such records with .on_error("skip").'
        )


def _keys(parts: list[_Part], wanted: ChunkSpans) -> list[tuple[int, int] | None]:
    """The key of each chunk in `Recent`; None for a chunk of one record, which is not kept."""
    rows = zip(wanted.file.tolist(), wanted.chunk.tolist(), wanted.counts.tolist(), strict=True)
    return [(parts[f].file, chunk) if n > 1 else None for f, chunk, n in rows]


def _picked(found: Records, rows: Int64s) -> list[Any]:
    data = found.data
    spans = zip(found.starts[rows].tolist(), found.stops[rows].tolist(), strict=True)
    return [data[a:b] for a, b in spans]
