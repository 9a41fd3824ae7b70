"""Which files are open: the index of each, and how its bytes are reached."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence

from pipeline.errors import SourceError
from pipeline.sources.riegeli.index import (
    Found,
    Index,
    NoIndexError,
    UnknownIndexError,
    read_indexes,
)
from pipeline.sources.riegeli.native import Native, native_count
from pipeline.sources.storage.files import Files, Paths, changed, unreadable
from pipeline.sources.storage.local import pread
from pipeline.sources.storage.lru import OpenFiles
from pipeline.sources.storage.manifest import Facts
from pipeline.sources.storage.storage import Stat, Storage, is_url

_KEPT = 64 << 20  # bytes of indexes kept for files that are not open yet
_AT_ONCE = 256  # files whose ends are read together: 64 MiB


class Shard:
    """One file: its index, and a descriptor if it is local; or the native reader of it."""

    def __init__(self, stat: Stat, index: Index | None, native: Native | None) -> None:
        self.stat, self.index, self.native = stat, index, native
        self.local = False
        if native is None and not is_url(stat.path):
            self.local = True
            self._fd = os.open(stat.path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._fd)

    def read(self, start: int, stop: int) -> bytes:
        """Bytes of a local file; fewer if it was cut."""
        return pread(self._fd, start, stop)


def read_spans(
    shards: Sequence[Shard], starts: Sequence[int], stops: Sequence[int], storage: Storage
) -> list[bytes]:
    """Bytes `[starts[i], stops[i])` of `shards[i]`; all remote ones are in flight together."""
    spans = list(zip(shards, starts, stops, strict=True))
    remote = [shard.stat.range(a, b) for shard, a, b in spans if not shard.local]
    fetched = iter(storage.read(remote) if remote else ())
    return [shard.read(a, b) if shard.local else next(fetched) for shard, a, b in spans]


class Shards:
    """The files of a source, opened when first read; right in threads and forks."""

    def __init__(self, files: Files, verify: bool, known: dict[int, Found]) -> None:
        self._files, self._verify = files, verify
        self._handles = OpenFiles[int, Shard]()
        self._known: dict[int, Found] = known
        self._native: set[int] = set()

    def get(self, numbers: Sequence[int]) -> list[Shard]:
        """Open files by number.

        Raises:
            SourceError: one was removed or replaced.
        """
        urls = [f for f in numbers if is_url(self._files.paths[f]) and f not in self._handles]
        self._learn([f for f in urls if f not in self._known])
        return [self._handles.get(f, self._open) for f in numbers]

    def use_native(self, number: int) -> None:
        """From now on the native reader reads this file."""
        self._native.add(number)
        self._handles.drop(number)

    def close(self) -> None:
        self._handles.clear()

    def _learn(self, numbers: Sequence[int]) -> None:
        """Read the indexes of remote files, all at once; a range with a tag checks that itself."""
        for number in numbers:
            if not self._files.tags[number]:
                self._files.check_unchanged(number)
        if numbers:
            self._known.update(zip(numbers, self._indexes(numbers), strict=True))

    def _indexes(self, numbers: Sequence[int]) -> list[Found]:
        stats = [self._files.stat(f) for f in numbers]
        return list(indexes_of(stats, self._files.storage, self._verify))

    def _open(self, number: int) -> Shard:
        stat = self._files.stat(number)
        index = self._known.pop(number, None)
        if index is None:
            self._files.check_unchanged(number)
            index = self._indexes([number])[0]
        expected = int(self._files.counts[number])
        if isinstance(index, NoIndexError):
            raise unreadable(stat.path, index)
        if isinstance(index, Index) and index.records != expected:
            raise changed(stat.path, f"{expected} records", f"{index.records}")
        if isinstance(index, Index) and number not in self._native and not index.transposed:
            return Shard(stat, index, None)
        return Shard(stat, None, Native(stat, self._files.storage, expected))


def opened(paths: Paths, storage: Storage | None, verify: bool) -> tuple[Files, Shards]:
    """Files, counted all at once where no manifest knows them, and what opens them.

    Raises:
        SourceError: a file is missing, empty, truncated or no ArrayRecord file.
    """
    storage = storage or Storage()
    read: dict[Stat, Found] = {}
    room = _KEPT

    def count(stat: Stat) -> tuple[int, int]:
        nonlocal room
        found = next(indexes_of([stat], storage, verify))
        if isinstance(found, NoIndexError):
            raise unreadable(stat.path, found)
        if isinstance(found, UnknownIndexError):
            return native_count(stat, storage), 1
        # a local file may be replaced before it is read: its index is read again
        if stat.tag and is_url(stat.path) and room > 0:
            read[stat] = found
            room -= found.offsets.nbytes
        return found.records, found.run

    files = Files.counted(paths, count, storage, kind="array_record", sane=_is_sane)
    stats = [files.stat(i) for i in range(len(files.paths))]
    known = {i: read[stat] for i, stat in enumerate(stats) if stat in read}
    return files, Shards(files, verify, known)


def _is_sane(facts: Facts) -> bool:
    """Whether facts from a manifest are those of an ArrayRecord file: records, and a whole run."""
    return type(facts.more) is int and 0 < facts.more < 1 << 48


def indexes_of(stats: Sequence[Stat], storage: Storage, verify: bool) -> Iterator[Found]:
    """The index of each file, from the cache or from its end; many ends in flight together."""
    for start in range(0, len(stats), _AT_ONCE):
        some = stats[start : start + _AT_ONCE]
        kept = [_kept(stat, storage) for stat in some]
        missing = [stat for stat, index in zip(some, kept, strict=True) if index is None]
        try:
            read = iter(read_indexes(missing, storage, verify=verify))
        except OSError as e:
            if isinstance(e, SourceError):
                raise
            raise unreadable(e.filename or missing[0].path, e) from e
        for stat, index in zip(some, kept, strict=True):
            found = index or next(read)
            if index is None and isinstance(found, Index):
                _keep(stat, storage, found)
            yield found


def _kept(stat: Stat, storage: Storage) -> Index | None:
    note = storage.note(_key(stat)) if stat.tag else None
    return None if note is None else Index.from_bytes(note)


def _keep(stat: Stat, storage: Storage, index: Index) -> None:
    if stat.tag:
        storage.keep_note(_key(stat), index.to_bytes())


def _key(stat: Stat) -> str:
    return f"array_record index 1\n{stat.path}\n{stat.tag}\n{stat.size}"
