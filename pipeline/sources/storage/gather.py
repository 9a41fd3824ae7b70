"""Reading many byte spans of many files in few requests, or one file from start to end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from pipeline.block import Int64s
from pipeline.errors import SourceError
from pipeline.sources.storage.files import Files
from pipeline.sources.storage.local import pread
from pipeline.sources.storage.spans import Runs, merge
from pipeline.sources.storage.storage import Range, Stat, Storage, is_url

_GAP = 4096  # up to so many unwanted bytes between two spans are read along
_PIECE = 4 << 20
_FLIGHT = 4  # pieces of a remote file that are requested at the same time
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


def read_spans(files: Files, file: Int64s, start: Int64s, stop: Int64s) -> list[bytes]:
    """Bytes `[start[i], stop[i])` of file number `file[i]`, as n bytes objects in the order given.

    Spans near each other are read in one request.

    Args:
        files: the files that the numbers refer to.
        file, start, stop: int64[n] each. A span may not extend beyond the end of its file.

    Raises:
        SourceError: a file was removed, truncated or replaced.
        OSError: a read failed.
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
    # opened for each call (4 µs): no handle stays open, and a truncated or replaced file is
    # noticed; no memory map, since truncating a mapped file kills the process
    path = files.paths[number]
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        files.check_unchanged(number)
        raise
    try:
        files.check_local(number, os.fstat(handle))
        return [_exactly(handle, path, start, stop) for start, stop in runs]
    finally:
        os.close(handle)


def _exactly(handle: int, path: str, start: int, stop: int) -> bytes:
    data = pread(handle, start, stop)
    if len(data) < stop - start:
        raise OSError(f"{path}: bytes {start} to {stop} gave {len(data)} bytes only")
    return data


def pieces(stat: Stat, storage: Storage) -> Iterator[bytes]:
    """The contents of a whole file, in pieces of 4 MiB."""
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
    """Reads of a file at ascending offsets. Each request fetches some way ahead."""

    def __init__(self, stat: Stat, storage: Storage) -> None:
        self._stat, self._storage = stat, storage
        # bytes per request: a seek costs a round trip if remote, next to nothing if local
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
    """Raise SourceError if `head` begins like a compressed file, which has no random access."""
    for magic, how in _PACKED.items():
        if head.startswith(magic):
            raise SourceError(
                f"{path} is compressed as a whole ({how}), so no record in it can be read alone. "
                "Decompress it, or convert it to ArrayRecord or .bagz, which compress by record."
            )
