"""Records by number, from many files in one go; and which record is to blame when one is bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.block import Int64s
from pipeline.errors import RecordError
from pipeline.sources.riegeli.alone import record_alone
from pipeline.sources.riegeli.chunks import BLOCK, DamagedError, Records, UnfamiliarError
from pipeline.sources.riegeli.fetch import CutError, Places, Wanted, fetch, plan, windows
from pipeline.sources.riegeli.index import Index
from pipeline.sources.riegeli.recent import Recent
from pipeline.sources.riegeli.shards import Shard, Shards
from pipeline.sources.storage.files import Files, unreadable

Objects = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class _Part:
    """Records `local` of one file, which go to `found[start:]`."""

    file: int
    shard: Shard
    index: Index
    local: Int64s
    start: int


class Reading:
    """Reads records of files; right in threads and forks."""

    def __init__(self, files: Files, shards: Shards | None, verify: bool) -> None:
        self._files, self._verify = files, verify
        self._shards = shards or Shards(files, verify, {})
        self._recent = Recent()

    def close(self) -> None:
        self._shards.close()
        self._recent.clear()

    def read(self, ascending: Int64s) -> Objects:
        """Distinct records in rising order: bytes objects."""
        if len(ascending) == 1 and (record := self._alone(int(ascending[0]))) is not None:
            found = np.empty(1, object)
            found[0] = record
            return found
        while True:
            try:
                return self._read(ascending)
            except UnfamiliarError:  # its file is the native reader's from now on
                continue

    def _alone(self, i: int) -> bytes | None:
        # one local record in a group of its own, without arrays; None for all else
        file = int(np.searchsorted(self._files.bounds, i, side="right")) - 1
        (shard,) = self._shards.get([file])
        index = shard.index
        if index is None or index.group > 1 or not shard.local or self._verify:
            return None
        chunk = i - int(self._files.bounds[file])
        start, stop = int(index.offsets[chunk]), int(index.offsets[chunk + 1])
        if -start % BLOCK < stop - start:
            return None
        data = shard.read(start, stop)
        return record_alone(data) if len(data) == stop - start else None

    def _read(self, ascending: Int64s) -> Objects:
        found = np.empty(len(ascending), object)
        touched = list(self._files.split(ascending))
        shards = self._shards.get([file for file, _ in touched])
        ours: list[_Part] = []
        start = 0
        for (file, local), shard in zip(touched, shards, strict=True):
            if shard.index is not None:
                ours.append(_Part(file, shard, shard.index, local, start))
            elif shard.native is not None:

                def bad(i: int, reason: str, file: int = file) -> RecordError:
                    return self._bad(file, i, reason)

                found[start : start + len(local)] = shard.native.read(local.tolist(), bad)
            start += len(local)
        if ours:
            self._fill(found, ours)
        return found

    def _fill(self, found: Objects, parts: list[_Part]) -> None:
        wanted, places = plan([p.index for p in parts], [p.local for p in parts])
        to = np.concatenate([np.arange(p.start, p.start + len(p.local)) for p in parts])
        grouped = any(p.index.group > 1 for p in parts)
        if grouped:
            wanted, places, to = self._remembered(found, parts, wanted, places, to)
        for window in windows(wanted, local=all(p.shard.local for p in parts)):
            some = wanted.take(window)
            got = self._fetched(parts, some)
            a, b = np.searchsorted(places.chunk, [window.start, window.stop])
            rows = got.first[places.chunk[a:b] - window.start] + places.within[a:b]
            found[to[a:b]] = _picked(got, rows)
            if grouped:
                self._recent.keep(_keys(parts, some), got)

    def _remembered(
        self, found: Objects, parts: list[_Part], wanted: Wanted, places: Places, to: Int64s
    ) -> tuple[Wanted, Places, Int64s]:
        """Fill in records of groups taken apart lately; what is left to be read."""
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

    def _fetched(self, parts: list[_Part], wanted: Wanted) -> Records:
        try:
            return self._tried(parts, wanted)
        except DamagedError:
            pass  # perhaps on its way here: only what is bad twice is bad
        try:
            return self._tried(parts, wanted)
        except DamagedError as e:
            part, chunk = parts[int(wanted.file[e.which])], int(wanted.chunk[e.which])
            first = np.searchsorted(part.local, chunk * part.index.group)
            start, stop = int(wanted.starts[e.which]), int(wanted.stops[e.which])
            place = f"bytes {start} to {stop}"
            if part.index.group > 1:
                place = f"its group of {int(wanted.counts[e.which])} records, {place}"
            raise self._bad(part.file, int(part.local[first]), f"{place}: {e}") from e

    def _tried(self, parts: list[_Part], wanted: Wanted) -> Records:
        shards = [p.shard for p in parts]
        try:
            return fetch(shards, wanted, self._files.storage, verify=self._verify)
        except CutError as e:
            file = parts[e.file].file
            self._files.check_unchanged(file)
            raise unreadable(self._files.paths[file], "it ended early") from e
        except UnfamiliarError as e:
            self._shards.use_native(parts[int(wanted.file[e.which])].file)
            raise

    def _bad(self, file: int, record: int, reason: str) -> RecordError:
        self._files.check_unchanged(file)
        return RecordError(
            f"cannot read record {record} of {self._files.paths[file]}: {reason}. "
            'Rewrite the file, or skip such records with .on_error("skip").'
        )


def _keys(parts: list[_Part], wanted: Wanted) -> list[tuple[int, int] | None]:
    """What to remember each chunk by; None for a record alone."""
    rows = zip(wanted.file.tolist(), wanted.chunk.tolist(), wanted.counts.tolist(), strict=True)
    return [(parts[f].file, chunk) if n > 1 else None for f, chunk, n in rows]


def _picked(found: Records, rows: Int64s) -> list[Any]:
    data = found.data
    spans = zip(found.starts[rows].tolist(), found.stops[rows].tolist(), strict=True)
    return [data[a:b] for a, b in spans]
