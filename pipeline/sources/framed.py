"""Which bytes of which file are record i, for formats whose records are spans of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import RecordError
from pipeline.sources.indices import inside
from pipeline.sources.storage.arrays import Arrays, memory_of
from pipeline.sources.storage.files import Files, Paths, changed
from pipeline.sources.storage.gather import read_spans
from pipeline.sources.storage.lru import LRU
from pipeline.sources.storage.storage import Stat, Storage

_SCANNED = (
    "has no index: each file is read through once, and where records begin kept in the cache "
    "folder. For files far away or many machines, convert to .array_record or .bagz"
)
_MOST = 256 << 20  # bytes of indexes kept in memory


class Located(NamedTuple):
    """Where n records are: int64[n] each. A record that is cut stops past its file's end."""

    file: Int64s
    local: Int64s
    start: Int64s
    stop: Int64s


class FramedSource:
    """Files of records that are spans of bytes, and an index of each: what such sources share.

    A format adds `read`, `fingerprint` and `layout`.

    Args:
        paths: a path, a glob, or a list of these.
        kind: the format, with all that the number of a file's records depends on besides the file,
            under which manifests keep it; "" if that is more than the file.
        load: gives a file's index: int64 arrays "start" and "stop", one element a record, and
            whatever else the format wants; a function that pickles.
        storage: how URLs are reached.
    """

    def __init__(
        self,
        paths: Paths,
        kind: str,
        load: Callable[[Stat, Storage], Arrays],
        storage: Storage | None,
    ) -> None:
        self._load, storage = load, storage or Storage()

        def count(stat: Stat) -> int:
            return len(load(stat, storage)["start"])

        self._files = Files.counted(paths, count, storage, kind=kind, empty=True)
        self._indexes = LRU[int, Arrays](_MOST, weigh=memory_of)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        files, name = self._files.paths, type(self).__name__
        return f"{name}({len(files)} files from {files[0]!r}, {len(self)} records)"

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_indexes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._indexes = LRU[int, Arrays](_MOST, weigh=memory_of)

    @property
    def files(self) -> Files:
        """Which files these are, as they were counted."""
        return self._files

    @property
    def chunk_bounds(self) -> Int64s:
        """int64[files + 1]: the first record of each file, and the end."""
        return self._files.bounds

    def where(self, indices: Int64s) -> list[tuple[str, int]]:
        """Each record's file, and its index in that file."""
        return self._files.where(indices)

    def _open(self, file: int) -> Arrays:
        self._files.check_unchanged(file)
        arrays = self._load(self._files.stat(file), self._files.storage)
        was, now = int(self._files.counts[file]), len(arrays["start"])
        if was != now:
            raise changed(self._files.paths[file], f"{was} records", str(now))
        return arrays

    def _index(self, file: int) -> Arrays:
        """The index of a file."""
        return self._indexes.get(file, self._open)

    def _locate(self, indices: Int64s) -> Located:
        """Where records are, in the order asked.

        Raises:
            PositionError: an index below 0 or past the end.
        """
        wanted = inside(indices, len(self))
        order = np.argsort(wanted, kind="stable")
        found = Located(*np.zeros((4, len(wanted)), np.int64))
        done = 0
        for file, local in self._files.split(wanted[order]):
            index, places = self._index(file), order[done : done + len(local)]
            found.file[places], found.local[places] = file, local
            found.start[places] = index["start"][local]
            found.stop[places] = index["stop"][local]
            done += len(local)
        return found

    def _fetch(self, at: Located) -> list[bytes]:
        """The bytes of located records.

        Raises:
            RecordError: the file ends before a record does.
            SourceError: a file was removed or replaced.
        """
        sizes = np.array(self._files.sizes, np.int64)[at.file]
        for i in np.flatnonzero(at.stop > sizes)[:1].tolist():
            raise self._bad(at, i, f"it is cut: the file ends at byte {int(sizes[i])}")
        return read_spans(self._files, at.file, at.start, at.stop)

    def _bad(self, at: Located, i: int, why: object) -> RecordError:
        """The error for the i-th of located records."""
        path = self._files.paths[int(at.file[i])]
        return RecordError(
            f"cannot read record {int(at.local[i])} of {path}, bytes {int(at.start[i])} to "
            f"{int(at.stop[i])}: {' '.join(str(why).split())}. Rewrite the file, or skip such "
            'records with .on_error("skip").'
        )

    def _layout(self, codec: str, *, scanned: bool = False) -> list[dict[str, Any]]:
        """Facts of each file: path, bytes, records, the smallest and largest in bytes, codec.

        Args:
            codec: of the records.
            scanned: whether a file must be read through to know where its records are.
        """
        advice = [_SCANNED] if scanned else []
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
                    "codec": codec,
                    "advice": advice,
                }
            )
        return facts

    def close(self) -> None:
        """Forget where records begin; reading brings it back. No file is held open."""
        self._indexes.clear()
