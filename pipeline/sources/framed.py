"""Which bytes of which file are record i, for formats whose records are spans of bytes."""

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
from pipeline.sources.storage.files import Files, Paths
from pipeline.sources.storage.gather import read_spans
from pipeline.sources.storage.lru import LRU
from pipeline.sources.storage.storage import Stat, Storage

_SCANNED = (
    "has no index: each file is read through once, and where records begin kept in the cache "
    "folder. For files far away or many machines, convert to .array_record or .bagz"
)
_MOST = 256 << 20  # bytes of indexes kept in memory


class RecordSpans(NamedTuple):
    """Where n records are: int64[n] each. A record that is cut stops past its file's end."""

    file: Int64s
    local: Int64s
    start: Int64s
    stop: Int64s


class FramedSource(FileSource):
    """Files of records that are spans of bytes, with an index of each. A format adds `read`.

    Args:
        paths: a path, a glob, or a list of these.
        kind: the format, with all that the number of a file's records depends on besides the file,
            under which manifests keep it; "" if that is more than the file.
        load: gives a file's index: int64 arrays "start" and "stop", one element a record, and
            whatever else the format wants; a function that pickles.
        storage: how URLs are reached.
        identity: the format and its options, for the fingerprint.
    """

    _codec: ClassVar[str] = "none"  # of records, for `layout`
    _scanned: ClassVar[bool] = False  # whether files are read through to find their records
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
        self._files.check_unchanged(file)
        arrays = _checked(self._load, self._files.stat(file), self._files.storage)
        was, now = int(self._files.counts[file]), len(arrays["start"])
        if was != now:
            raise changed(self._files.paths[file], f"{was} records", str(now))
        return arrays

    def _index(self, file: int) -> Arrays:
        """The index of a file."""
        return self._indexes.get(file, self._open)

    def _locate(self, indices: Int64s) -> RecordSpans:
        """Where records are, in the order asked.

        Raises:
            PositionError: an index below 0 or past the end.
        """
        wanted = inside(indices, len(self))
        order = np.argsort(wanted, kind="stable")
        found = RecordSpans(*np.zeros((4, len(wanted)), np.int64))
        done = 0
        for file, local in self._files.split(wanted[order]):
            index, places = self._index(file), order[done : done + len(local)]
            found.file[places], found.local[places] = file, local
            found.start[places] = index["start"][local]
            found.stop[places] = index["stop"][local]
            done += len(local)
        return found

    def _fetch(self, at: RecordSpans) -> list[bytes]:
        """The bytes of located records.

        Raises:
            RecordError: the file ends before a record does.
            SourceError: a file was removed or replaced.
        """
        sizes = np.array(self._files.sizes, np.int64)[at.file]
        for i in np.flatnonzero(at.stop > sizes)[:1].tolist():
            raise self._bad(at, i, f"it is cut: the file ends at byte {int(sizes[i])}")
        return read_spans(self._files, at.file, at.start, at.stop)

    def _bad(self, at: RecordSpans, i: int, why: object) -> RecordError:
        """The error for the i-th of located records."""
        path = self._files.paths[int(at.file[i])]
        return RecordError(
            f"cannot read record {int(at.local[i])} of {path}, bytes {int(at.start[i])} to "
            f"{int(at.stop[i])}: {' '.join(str(why).split())}. Rewrite the file, or skip such "
            'records with .on_error("skip").'
        )

    def layout(self) -> list[dict[str, Any]]:
        """Facts of each file: path, bytes, records, codec, the smallest and largest in bytes.

        Sizes of records are those in the file: compressed, and with what a format puts around them.
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
        """Forget where records begin; reading brings it back. No file is held open."""
        self._indexes.clear()


def _checked(load: Callable[[Stat, Storage], Arrays], stat: Stat, storage: Storage) -> Arrays:
    """A file's index. Every record is a span of bytes; one past the file's end is cut."""
    with parsing(stat.path):
        arrays = load(stat, storage)
    start, stop = arrays["start"], arrays["stop"]
    for i in np.flatnonzero((start < 0) | (stop < start))[:1].tolist():
        raise unreadable(
            stat.path,
            f"record {i} is said to lie at bytes {start[i]} to {stop[i]} of {stat.size}",
        )
    return arrays
