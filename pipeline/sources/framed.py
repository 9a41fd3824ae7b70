"""Sources for formats whose records are byte spans: an index per file says where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import RecordError
from pipeline.sources.complaints import changed, parsing, unreadable
from pipeline.sources.file_source import FileSource
from pipeline.sources.indices import inside
from pipeline.sources.storage.advice import Advice
from pipeline.sources.storage.arrays import Arrays, memory_of
from pipeline.sources.storage.at_once import THREADS, at_once
from pipeline.sources.storage.files import Files, Paths
from pipeline.sources.storage.gather import read_spans
from pipeline.sources.storage.lru import LRU
from pipeline.sources.storage.storage import Stat, Storage, is_url

_SCANNED = (
    "has no index: each file is read through once, and where records begin kept in the cache "
    "folder. For files far away or many machines, convert to .array_record or .bagz"
)
_MOST = 256 << 20  # bytes of indexes kept in memory


class RecordSpans(NamedTuple):
    """Byte spans of n records: int64[n] each. A truncated record stops beyond its file's end.

    Attributes:
        file, local: number of the file, and the record's index in it.
        start, stop: bytes `[start, stop)` of the file.
    """

    file: Int64s
    local: Int64s
    start: Int64s
    stop: Int64s


class FramedSource(FileSource):
    """A source whose records are byte spans, with an index for each file. A format adds `read`.

    Args:
        paths: a path, a glob, or a list of these.
        kind: the key under which manifests keep the counts: the format, and all that a file's count
            depends on besides the file. "" if it depends on more, so that no manifest can keep it.
        load: returns a file's index: int64 arrays "start" and "stop", one element per record, and
            further arrays that the format needs. It must pickle.
        storage: how URLs are read.
        identity: the format and its options, for the fingerprint.
    """

    _codec: ClassVar[str] = "none"  # of the records, for `layout`
    _scanned: ClassVar[bool] = False  # whether a file must be read through to find its records
    _not_pickled = frozenset({"_indexes", "_advice"})

    def __init__(
        self,
        paths: Paths,
        kind: str,
        load: Callable[[Stat, Storage], Arrays],
        storage: Storage | None,
        identity: tuple[str, ...],
    ) -> None:
        self._load, self._identity, storage = load, identity, storage or Storage()

        def count(stat: Stat) -> int:
            return len(_checked(load, stat, storage)["start"])

        self._files = Files.counted(paths, count, storage, kind=kind, empty=True)
        self._begin()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        self._indexes = LRU[int, Arrays](_MOST, weigh=memory_of)
        self._advice = Advice(self._files, self._where_to_come)

    def _where_to_come(self, indices: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        at = self._locate(indices)
        return at.file, at.start, at.stop

    def _open(self, file: int) -> Arrays:
        self._files.check_opening(file)
        arrays = _checked(self._load, self._files.stat(file), self._files.storage)
        was, now = int(self._files.counts[file]), len(arrays["start"])
        if was != now:
            raise changed(self._files.paths[file], f"{was} records", str(now))
        return arrays

    def _index(self, file: int) -> Arrays:
        """The index of a file, from memory or loaded."""
        return self._indexes.get(file, self._open)

    def _locate(self, indices: Int64s) -> RecordSpans:
        """The byte spans of records, in the order given.

        Raises:
            PositionError: an index is negative or beyond the end.
        """
        wanted = inside(indices, len(self))
        order = np.argsort(wanted, kind="stable")
        found = RecordSpans(*np.zeros((4, len(wanted)), np.int64))
        touched, done = list(self._files.split(wanted[order])), 0
        for first in range(0, len(touched), THREADS):
            some = touched[first : first + THREADS]
            for (file, local), index in zip(some, self._opened([f for f, _ in some]), strict=True):
                places = order[done : done + len(local)]
                found.file[places], found.local[places] = file, local
                found.start[places] = index["start"][local]
                found.stop[places] = index["stop"][local]
                done += len(local)
        return found

    def _opened(self, files: list[int]) -> list[Arrays]:
        paths = (self._files.paths[file] for file in files if file not in self._indexes)
        return at_once(self._index, files, far=any(map(is_url, paths)))

    def _fetch(self, at: RecordSpans) -> list[bytes]:
        """The bytes of located records.

        Raises:
            RecordError: a record extends beyond the end of its file.
            SourceError: a file was removed or replaced.
        """
        sizes = np.array(self._files.sizes, np.int64)[at.file]
        for i in np.flatnonzero(at.stop > sizes)[:1].tolist():
            raise self._bad(at, i, f"it is cut: the file ends at byte {int(sizes[i])}")
        return read_spans(self._files, at.file, at.start, at.stop)

    def _bad(self, at: RecordSpans, i: int, why: object) -> RecordError:
        """The error for record `i` of those located."""
        path = self._files.paths[int(at.file[i])]
        return RecordError(
            f"cannot read record {int(at.local[i])} of {path}, bytes {int(at.start[i])} to "
            f"{int(at.stop[i])}: {' '.join(str(why).split())}. Rewrite the file, or skip such "
            'records with .on_error("skip").'
        )

    def layout(self) -> list[dict[str, Any]]:
        """Facts about each file: path, bytes, records, codec, and sizes of its records.

        Record sizes are those in the file: compressed, and including the format's framing.
        """
        advice = [_SCANNED] if self._scanned else []
        facts: list[dict[str, Any]] = []
        for i, path in enumerate(self._files.paths):
            index = self._index(i)
            sizes = np.asarray(index["stop"]) - np.asarray(index["start"])
            facts.append(
                {
                    "path": path,
                    "bytes": self._files.sizes[i],
                    "records": len(sizes),
                    "smallest": int(sizes.min()) if len(sizes) else 0,
                    "largest": int(sizes.max()) if len(sizes) else 0,
                    "codec": self._codec_of(i),
                    "advice": advice,
                }
            )
        return facts

    def _codec_of(self, file: int) -> str:
        return self._codec

    def close(self) -> None:
        """Drop the indexes; reading loads them again. No file is held open."""
        self._indexes.clear()


def _checked(load: Callable[[Stat, Storage], Arrays], stat: Stat, storage: Storage) -> Arrays:
    """A file's index, checked: each record's stop is not before its start.

    A stop beyond the end of the file is accepted here: that record is truncated.
    """
    with parsing(stat.path):
        arrays = load(stat, storage)
    start, stop = arrays["start"], arrays["stop"]
    for i in np.flatnonzero((start < 0) | (stop < start))[:1].tolist():
        raise unreadable(
            stat.path,
            f"record {i} is said to lie at bytes {start[i]} to {stop[i]} of {stat.size}",
        )
    return arrays
