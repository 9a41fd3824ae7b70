"""The open files of a source: the index of each, or its native reader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import SourceError
from pipeline.sources.riegeli.index import (
    Index,
    IndexAnswer,
    NoIndexError,
    UnknownIndexError,
    read_indexes,
)
from pipeline.sources.riegeli.native import Native, native_count
from pipeline.sources.storage.files import Files, Paths, changed, unreadable
from pipeline.sources.storage.lru import LRU, OpenFiles
from pipeline.sources.storage.manifest import Facts
from pipeline.sources.storage.storage import Stat, Storage, is_url

_KEPT = 64 << 20  # bytes of indexes kept from counting until the files are opened
_AT_ONCE = 256  # files whose ends are read together: 64 MiB in all
_SCRATCH = 4  # temporary copies that exist at once

# whether remote files are checked: no; as copies in the cache; as temporary copies
Verify = Literal["", "cache", "scratch"]


@dataclass(frozen=True, slots=True)
class Shard:
    """One open file, read either by its index or by the native reader."""

    stat: Stat
    index: Index | None
    native: Native | None


class Shards:
    """The files of a source, opened when first read. Safe in threads and after a fork.

    Local files are read by the native reader, which checks every checksum. Remote files are read by
    byte ranges. They are copied and read by the native reader if they are to be verified, or have a
    layout that only it supports.
    """

    def __init__(
        self, files: Files, verify: Verify, limit: int, known: dict[int, IndexAnswer]
    ) -> None:
        self._files, self._verify, self._limit = files, verify, limit
        # scratch copies take disk space as long as they are open
        self._handles = (
            LRU[int, Shard](_SCRATCH) if verify == "scratch" else OpenFiles[int, Shard]()
        )
        self._known: dict[int, IndexAnswer] = known
        self._native: set[int] = set()
        self._places = LRU[int, IndexAnswer](_KEPT, weigh=_weight)

    def get(self, numbers: Sequence[int]) -> list[Shard]:
        """Open files by number.

        Raises:
            SourceError: one was removed or replaced.
        """
        fresh = [f for f in numbers if f not in self._handles and not self._is_native(f)]
        if fresh:
            self._learn([f for f in fresh if f not in self._known])
        return [self._handles.get(f, self._open) for f in numbers]

    def use_native(self, number: int) -> None:
        """Let the native reader read this file from now on."""
        self._native.add(number)
        self._handles.drop(number)

    def local_index(self, number: int) -> Index | None:
        """Where the groups of a local file lie; None where only the native reader knows."""
        if is_url(self._files.paths[number]):
            return None
        found = self._places.get(number, lambda f: self._indexes([f])[0])
        return found if isinstance(found, Index) else None

    def close(self) -> None:
        self._handles.clear()
        self._places.clear()

    def place(self, number: int, record: int) -> str:
        """A description of which bytes hold a record; "" if only the native reader knows."""
        index = self._known.get(number) or self._indexes([number])[0]
        return index.place(record) if isinstance(index, Index) else ""

    def _is_native(self, number: int) -> bool:
        return bool(self._verify or number in self._native or not is_url(self._files.paths[number]))

    def _learn(self, numbers: Sequence[int]) -> None:
        """Read the indexes of remote files, all at once."""
        for number in numbers:
            self._files.check_opening(number)
        if numbers:
            self._known.update(zip(numbers, self._indexes(numbers), strict=True))

    def _indexes(self, numbers: Sequence[int]) -> list[IndexAnswer]:
        stats = [self._files.stat(f) for f in numbers]
        return list(indexes_of(stats, self._files.storage))

    def _open(self, number: int) -> Shard:
        stat = self._files.stat(number)
        expected = int(self._files.counts[number])
        if self._is_native(number):
            self._files.check_unchanged(number)
            return Shard(stat, None, self._reader(stat, expected))
        index = self._known.pop(number, None) or self._indexes([number])[0]
        if isinstance(index, NoIndexError):
            raise unreadable(stat.path, index)
        if isinstance(index, UnknownIndexError) or index.transposed:
            return Shard(stat, None, self._reader(stat, expected))
        check_sizes(stat.path, index, self._limit)
        if index.records != expected:
            raise changed(stat.path, f"{expected} records", f"{index.records}")
        return Shard(stat, index, None)

    def _reader(self, stat: Stat, expected: int) -> Native:
        scratch = self._verify == "scratch"
        return Native(stat, self._files.storage, expected, scratch=scratch)


def _weight(index: IndexAnswer) -> int:
    return index.offsets.nbytes if isinstance(index, Index) else 1


def check_sizes(path: str, index: Index, limit: int) -> None:
    """Check that no group of records is larger than `limit` when decoded.

    Raises:
        SourceError: one is.
    """
    if index.largest > limit:
        raise unreadable(
            path,
            f"a group of its records takes {index.largest} bytes of memory, over "
            f"ArrayRecordSource(record_limit={limit}); raise that if it is right",
        )


def opened(
    paths: Paths, storage: Storage | None, verify: Verify, limit: int
) -> tuple[Files, Shards]:
    """Files with their record counts, and the `Shards` that open them.

    Counts come from a manifest, or else from the files' ends, read together.

    Raises:
        SourceError: a file is missing, empty, truncated or not an ArrayRecord file.
    """
    storage = storage or Storage()
    read: dict[Stat, IndexAnswer] = {}
    room = _KEPT

    def count(stat: Stat) -> tuple[int, int]:
        nonlocal room
        found = next(indexes_of([stat], storage))
        if isinstance(found, NoIndexError):
            raise unreadable(stat.path, found)
        if isinstance(found, UnknownIndexError):
            return native_count(stat, storage), 1
        check_sizes(stat.path, found, limit)
        # a local file may be replaced before it is read, so its index is read again then
        if _is_tagged(stat) and room > 0:
            read[stat] = found
            room -= found.offsets.nbytes
        return found.records, found.run

    files = Files.counted(paths, count, storage, kind="array_record", sane=_is_sane)
    stats = [files.stat(i) for i in range(len(files.paths))]
    known = {i: read[stat] for i, stat in enumerate(stats) if stat in read}
    return files, Shards(files, verify, limit, known)


def _is_sane(facts: Facts) -> bool:
    """Whether facts from a manifest are those of an ArrayRecord file; `more` is `Index.run`."""
    return type(facts.more) is int and 0 < facts.more < 1 << 48


def indexes_of(stats: Sequence[Stat], storage: Storage) -> Iterator[IndexAnswer]:
    """The index of each file, from the cache or from its end; many ends are read together."""
    for start in range(0, len(stats), _AT_ONCE):
        some = stats[start : start + _AT_ONCE]
        kept = [_kept(stat, storage) for stat in some]
        missing = [stat for stat, index in zip(some, kept, strict=True) if index is None]
        try:
            read = iter(read_indexes(missing, storage))
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
    note = storage.note(_key(stat)) if _is_tagged(stat) else None
    return None if note is None else Index.from_bytes(note)


def _keep(stat: Stat, storage: Storage, index: Index) -> None:
    if _is_tagged(stat):
        storage.keep_note(_key(stat), index.to_bytes())


def _is_tagged(stat: Stat) -> bool:
    return bool(stat.tag) and is_url(stat.path)


def _key(stat: Stat) -> str:
    return f"array_record index 2\n{stat.path}\n{stat.tag}\n{stat.size}"
