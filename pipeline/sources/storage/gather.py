"""Read many spans of many files in few reads, or one file from start to end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import SourceError
from pipeline.sources.storage.files import Files, changed
from pipeline.sources.storage.local import pread
from pipeline.sources.storage.spans import Runs, merge
from pipeline.sources.storage.storage import Range, Stat, Storage, is_url

_GAP = 4096  # bytes between two spans that are cheaper to read than to leave out
_PIECE = 4 << 20
_FLIGHT = 4  # pieces of a remote file under way together
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


def read_spans(files: Files, file: Int64s, start: Int64s, stop: Int64s) -> list[bytes]:
    """Bytes `[start[i], stop[i])` of file `file[i]`, int64[n] each: n bytes objects, as asked.

    Neighbours are read together. A span may not pass the end of its file.

    Raises:
        SourceError: a file was removed, cut or replaced.
        OSError: storage failed.
    """
    runs = merge(file, start, stop, gap=_GAP)
    return runs.parts(start, stop, _read_runs(files, runs))


def _read_runs(files: Files, runs: Runs) -> list[bytes]:
    data: list[bytes] = []
    remote: list[tuple[int, Range]] = []
    cuts = np.flatnonzero(np.diff(runs.file, prepend=-1, append=-1)).tolist()
    for a, b in pairwise(cuts):
        number = int(runs.file[a])
        stat = files.stat(number)
        spans = list(zip(runs.start[a:b].tolist(), runs.stop[a:b].tolist(), strict=True))
        if is_url(stat.path):
            some = ((k, span) for k, span in enumerate(spans, len(data)) if span[0] < span[1])
            remote += [(k, stat.range(*span)) for k, span in some]
            data += [b""] * len(spans)
        else:
            data += _read_local(files, number, spans)
    for (place, _), part in zip(remote, files.storage.read([r for _, r in remote]), strict=True):
        data[place] = part
    return data


def _read_local(files: Files, number: int, runs: list[tuple[int, int]]) -> list[bytes]:
    # opened each time (4 µs), so that no handle is left and a cut or replaced file is noticed; no
    # memory map: a file cut while mapped kills the process
    path, size = files.paths[number], files.sizes[number]
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        files.check_unchanged(number)
        raise
    try:
        now = os.fstat(handle).st_size
        if now != size:
            raise changed(path, f"{size} bytes", str(now))
        return [_exactly(handle, path, start, stop) for start, stop in runs]
    finally:
        os.close(handle)


def _exactly(handle: int, path: str, start: int, stop: int) -> bytes:
    data = pread(handle, start, stop)
    if len(data) < stop - start:
        raise OSError(f"{path}: bytes {start} to {stop} gave {len(data)} bytes only")
    return data


def pieces(stat: Stat, storage: Storage) -> Iterator[bytes]:
    """The whole file, some MiB at a time."""
    if not is_url(stat.path):
        with open(stat.path, "rb") as f:
            while data := f.read(_PIECE):
                yield data
        return
    for start in range(0, stat.size, _PIECE * _FLIGHT):
        stop = min(start + _PIECE * _FLIGHT, stat.size)
        ends = [*range(start, stop, _PIECE), stop]
        yield from storage.read([stat.range(a, b) for a, b in pairwise(ends)])


class Window:
    """A file that is hopped through, never back: what lies near is read at once."""

    def __init__(self, stat: Stat, storage: Storage) -> None:
        self._stat, self._storage = stat, storage
        # a hop costs a remote file a round trip, a local one next to nothing
        self._size = _PIECE if is_url(stat.path) else 256 << 10
        self._start, self._data = 0, b""

    def at(self, start: int, size: int) -> bytes:
        """Bytes `[start, start + size)`, fewer at the end of the file."""
        inner = start - self._start
        if inner + size > len(self._data):
            stop = min(max(start + size, start + self._size), self._stat.size)
            if stop <= start:
                return b""
            (self._data,) = self._storage.read([self._stat.range(start, stop)])
            self._start, inner = start, 0
        return self._data[inner : inner + size]


def refuse_packed(path: str, head: bytes) -> None:
    """Raise SourceError if a file begins as a compressed one does: it has no random access."""
    for magic, how in _PACKED.items():
        if head.startswith(magic):
            raise SourceError(
                f"{path} is compressed as a whole ({how}), so no record in it can be read alone. "
                "Decompress it, or convert it to ArrayRecord or .bagz, which compress by record."
            )
